"""The answer for one image: probabilities, disagreement, advice."""

from __future__ import annotations

import hashlib
import json
import math

import cv2
import numpy as np
import pytest
import tiny_models

from edge_mdda import Screener
from edge_mdda.errors import ImageError, ModelError, ParamsError
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.triage import advise, jensen_shannon


@pytest.fixture(scope="module")
def screener():
    with Screener() as opened:
        yield opened


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def test_draws_are_averaged_and_their_spread_is_told():
    """Each draw is the screening with the next seed; the answer is their mean."""
    with Screener(purify="on") as one, Screener(purify="on", draws=3) as three:
        singles = [one.screen(DEMO_IMAGE, seed=seed) for seed in (11, 12, 13)]
        mean = three.screen(DEMO_IMAGE, seed=11)
    assert singles[0].spread is None
    for label, value in mean.probabilities.items():
        assert value == pytest.approx(np.mean([s.probabilities[label] for s in singles]), abs=1e-6)
    assert mean.spread is not None
    assert mean.spread["malignant"] == pytest.approx(np.std([s.malignant for s in singles]), abs=1e-6)
    assert mean.spread["agreement"] == np.mean([s.label == mean.label for s in singles])
    assert mean.to_dict()["purify"]["draws"] == 3
    np.testing.assert_array_equal(mean.purified, singles[0].purified)
    for draws, purify in ((0, "on"), (65, "on"), (2, "off")):
        with pytest.raises(ParamsError, match=r"^draws: "):
            Screener(purify=purify, draws=draws)


def test_the_json_tells_its_operating_point(screener):
    manifest, point = screener.classifier.manifest, screener.screen(DEMO_IMAGE, seed=1).to_dict()["operating_point"]
    assert (point["refer_at"], point["retake_at"]) == (manifest.refer_at, manifest.retake_at)
    assert point["temperature"] == manifest.temperature


def test_the_demo_is_screened_with_both_views(screener):
    result = screener.screen(DEMO_IMAGE, seed=7)
    labels = list(screener.classifier.manifest.labels)
    assert list(result.probabilities) == labels
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert sum(result.raw_probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert result.probabilities != result.raw_probabilities
    assert result.label == max(result.probabilities, key=result.probabilities.get)
    share = sum(result.probabilities[label] for label in ("mel", "bcc", "akiec"))
    assert result.malignant == pytest.approx(share, abs=1e-6)
    p, q = (np.array(list(v.values())) for v in (result.probabilities, result.raw_probabilities))
    assert result.disagreement == pytest.approx(jensen_shannon(p, q))
    assert result.top_changed == (p.argmax() != q.argmax())
    assert result.sha256 == hashlib.sha256(DEMO_IMAGE.read_bytes()).hexdigest()
    assert result.purify == {"preset": "balanced", "seed": 7, "draws": 1}
    timings = result.timings_ms
    assert timings["total"] == pytest.approx(timings["decode"] + timings["purify"] + timings["classify"])
    assert json.loads(json.dumps(result.to_dict()))["advice"] in ("refer", "retake", "routine")


def test_a_stored_seed_replays_the_result_and_fresh_seeds_differ(screener):
    first = screener.screen(DEMO_IMAGE)
    again = screener.screen(DEMO_IMAGE, seed=first.purify["seed"])
    np.testing.assert_array_equal(first.purified, again.purified)
    assert first.probabilities == again.probabilities
    assert screener.screen(DEMO_IMAGE).purify["seed"] != first.purify["seed"]


def test_bytes_and_path_give_the_same_answer(screener):
    by_path = screener.screen(str(DEMO_IMAGE), seed=1)
    by_bytes = screener.screen(DEMO_IMAGE.read_bytes(), seed=1, name="camera")
    assert by_bytes.image == "camera"
    assert by_path.probabilities == by_bytes.probabilities


def test_modes_are_views_of_the_same_thing(screener):
    both = screener.screen(DEMO_IMAGE, seed=3)
    with Screener(purify="on") as only:
        on = only.screen(DEMO_IMAGE, seed=3)
    with Screener(purify="off") as only:
        off = only.screen(DEMO_IMAGE, seed=3)
    assert on.probabilities == both.probabilities
    assert on.raw_probabilities is None
    assert off.probabilities == off.raw_probabilities == both.raw_probabilities
    assert (off.purify, off.purified, off.disagreement, off.top_changed) == (None, None, None, None)
    assert on.disagreement is None


def test_threads_do_not_change_the_answer(screener):
    with Screener(threads=2) as two:
        assert two.screen(DEMO_IMAGE, seed=5).probabilities == screener.screen(DEMO_IMAGE, seed=5).probabilities


def test_a_blank_or_tiny_picture_is_never_routine(screener):
    for picture in (
        np.full((300, 400, 3), 200, np.uint8),
        np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8),
    ):
        assert screener.screen(png(picture), seed=1).advice.action in ("retake", "refer")


def test_bad_images_and_parameters_are_refused(screener, tmp_path):
    with pytest.raises(ImageError):
        screener.screen(b"not an image")
    with pytest.raises(ImageError):
        screener.screen(tmp_path / "missing.jpg")
    with pytest.raises(ParamsError, match=r"^purify: "):
        Screener(purify="maybe")
    with pytest.raises(ParamsError, match=r"^preset: "):
        Screener(preset="heroic")
    with pytest.raises(ModelError):
        Screener(model=tmp_path / "none.onnx")


def test_a_model_of_another_size_and_runtime(tmp_path):
    pytest.importorskip("ai_edge_litert")
    model = tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model(False))
    with Screener(model=model, preset="mild") as tiny:
        result = tiny.screen(DEMO_IMAGE, seed=1)
    assert result.purified.shape == (tiny_models.SIDE, tiny_models.SIDE, 3)
    expected = tiny_models.expected(result.purified[None])[0]
    np.testing.assert_allclose(list(result.probabilities.values()), expected, atol=1e-5)
    assert result.malignant == pytest.approx(result.probabilities["a"])


def test_jensen_shannon_in_bits():
    assert jensen_shannon([0.3, 0.7], [0.3, 0.7]) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon([1, 0], [0, 1]) == pytest.approx(1)
    p, q = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    middle = (p + q) / 2
    kl = [sum(a * math.log2(a / m) for a, m in zip(v, middle, strict=True) if a) for v in (p, q)]
    assert jensen_shannon(p, q) == pytest.approx(sum(kl) / 2)
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))


@pytest.mark.parametrize(
    ("malignant", "disagreement", "problem", "action"),
    [
        (0.1, 0.0, None, "routine"),
        (0.1, None, None, "routine"),
        (0.3, 0.0, None, "refer"),
        (0.1, 0.2, None, "retake"),
        (0.3, 0.9, None, "refer"),  # a high share in either view wins: the safe side
        (0.1, 0.0, "blank", "retake"),
        (0.3, 0.0, "blank", "refer"),
    ],
)
def test_advice_follows_its_rules(malignant, disagreement, problem, action):
    advice = advise(malignant, disagreement, refer_at=0.3, retake_at=0.2, problem=problem)
    assert advice.action == action
    assert advice.rule
