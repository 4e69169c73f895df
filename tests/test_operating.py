"""Temperature and thresholds against their definitions, on answers made up so that the truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mdda.classifier.tensors import to_probabilities, with_temperature
from export.calibration import (
    FALSE_ALARMS,
    SENSITIVITY,
    Elsewhere,
    Views,
    choose_thresholds,
    fit_temperature,
    operating_point,
    performance,
)
from export.errors import ExportError
from tests.tiny_models import manifest_for

N, CLASSES = 4000, 5


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, (N, CLASSES))


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def drawn(probabilities: np.ndarray) -> np.ndarray:
    """Classes drawn with these probabilities: the answers are calibrated by construction."""
    rng = np.random.default_rng(1)
    return np.array([rng.choice(CLASSES, p=row) for row in probabilities])


def test_temperature_divides_the_logits(logits):
    np.testing.assert_allclose(with_temperature(softmax(logits), 2.5), softmax(logits / 2.5), atol=1e-6)
    manifest = manifest_for(b"", "m.onnx", labels=dict.fromkeys("abcde", ""), malignant=("a",), temperature=2.5)
    np.testing.assert_allclose(to_probabilities(logits, manifest), softmax(logits / 2.5), atol=1e-6)


@pytest.mark.parametrize("wrong", [0.5, 1.0, 2.0])
def test_the_temperature_that_was_put_in_is_found(logits, wrong):
    targets = drawn(softmax(logits))
    assert fit_temperature(softmax(logits * wrong), targets) == pytest.approx(wrong, rel=0.06)


def test_thresholds_do_on_val_what_they_promise(logits):
    rng = np.random.default_rng(2)
    purified = softmax(logits)
    views = Views(softmax(logits + rng.normal(0, 0.5, logits.shape)), purified, drawn(purified), (0, 3))
    refer_at, retake_at = choose_thresholds(views)
    found = performance(views, refer_at, retake_at)
    assert SENSITIVITY <= found["sensitivity"] < SENSITIVITY + 0.01
    assert found["false_alarms"] == pytest.approx(FALSE_ALARMS, abs=0.002)
    # A little higher, and too many malignant ones would be missed.
    assert performance(views, refer_at + 0.01, retake_at)["sensitivity"] < SENSITIVITY


def test_the_record_judges_other_images_than_those_that_chose(logits):
    targets = drawn(softmax(logits))
    sharp = softmax(2 * logits)
    val = Views(sharp[::2], sharp[::2], targets[::2], (0,))
    other = Views(sharp[1::2], sharp[1::2], targets[1::2], (0,))
    temperature, refer_at, retake_at, record = operating_point(val, other, "test")
    assert temperature == pytest.approx(2, rel=0.1)
    assert retake_at == 0  # equal views never disagree
    assert 0 < refer_at < 1
    assert record["test"]["images"] == N // 2
    assert record["test"]["calibration_error"] < record["test"]["calibration_error_before"]
    assert record["val"]["sensitivity"] >= SENSITIVITY
    assert set(operating_point(val, None, "test")[3]) == {"rule", "val"}


def test_val_without_malignant_images_is_refused(logits):
    answers = softmax(logits)
    with pytest.raises(ExportError, match="no malignant image"):
        choose_thresholds(Views(answers, answers, np.ones(N, int), (0,)))


def test_the_rule_of_the_built_in_models_stands_in_their_manifests():
    from edge_mdda.classifier import BUILT_IN_MODELS, RUNTIMES, built_in, open_classifier

    for name in BUILT_IN_MODELS:
        for runtime in RUNTIMES:
            assert Path(built_in(runtime, name)).is_file()
            manifest = open_classifier(name, runtime).manifest
            assert manifest.operating_point["val"]["sensitivity"] >= SENSITIVITY
            assert {"sensitivity", "specificity", "calibration_error_before"} <= set(manifest.operating_point["test"])


def test_the_threshold_holds_on_the_worst_source(logits):
    """A source on which malignant lesions look harmless lowers the threshold until it, too, is found."""
    purified = softmax(logits)
    own = Views(purified, purified, drawn(purified), (0, 3))
    dim = logits - np.array([2.0, 0, 0, 2.0, 0])  # the same lesions, with less to see of the malignant classes
    other = Views(softmax(dim), softmax(dim), np.where(own.positive, 0, -1), (0, 3))
    alone, _ = choose_thresholds(own)
    _, refer_at, _, record = operating_point(own, None, "test", [Elsewhere("clinic", {"val": other, "test": other})])
    temperature = operating_point(own, None, "test")[0]
    assert refer_at < alone
    assert (other.at(temperature).share[other.positive] >= refer_at).mean() >= SENSITIVITY
    assert record["clinic"]["val"]["sensitivity"] >= SENSITIVITY
    assert record["val"]["sensitivity"] > record["clinic"]["val"]["sensitivity"]
    assert record["clinic"]["test"]["auroc_raw"] == pytest.approx(record["clinic"]["test"]["auroc_purified"])
    assert record["clinic"]["test"]["malignant"] == int(own.positive.sum())
    assert "each source" in record["rule"]


def test_a_source_that_only_judges_chooses_nothing(logits):
    purified = softmax(logits)
    own = Views(purified, purified, drawn(purified), (0, 3))
    other = Elsewhere("clinic", {"test": Views(purified, purified, np.full(N, -1), (0, 3))})
    assert operating_point(own, None, "test", [other])[:3] == operating_point(own, None, "test")[:3]
    assert "sensitivity" not in operating_point(own, None, "test", [other])[3]["clinic"]["test"]
