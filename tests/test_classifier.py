"""Both runtimes run real models; manifests are checked; altered files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from edge_mdda.classifier import RUNTIMES, Manifest, ModelError, built_in, open_classifier
from edge_mdda.classifier.manifest import manifest_path


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, tiny_models.SIDE, tiny_models.SIDE, 3), np.uint8)


@pytest.fixture
def tflite(tmp_path: Path) -> Path:
    pytest.importorskip("ai_edge_litert")
    return tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model())


def test_built_in_model_gives_distributions_that_depend_on_the_image():
    classifier = open_classifier()
    manifest = classifier.manifest
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (2, manifest.height, manifest.width, 3), np.uint8)
    rows = classifier.predict(batch)
    assert rows.shape == (2, 7)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-5)
    assert not np.allclose(rows[0], classifier.predict(np.zeros_like(batch))[0])
    np.testing.assert_array_equal(rows[:1], classifier.predict(batch[:1]))
    assert classifier.runtime.startswith("onnxruntime ")
    assert classifier.runtime.endswith("CPUExecutionProvider")


def test_built_in_model_is_int8_and_small():
    assert built_in().stat().st_size < 4_500_000
    pytest.importorskip("onnx")
    n_int8, n_layers = tiny_models.int8_share(built_in().read_bytes())
    assert n_layers > 40
    assert n_int8 >= n_layers - 3


@pytest.mark.parametrize("quantised", [True, False])
def test_litert_gives_the_known_answer(tmp_path, batch, quantised):
    pytest.importorskip("ai_edge_litert")
    classifier = open_classifier(tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model(quantised)))
    # Quantised logits are off by up to half a step of 0.08, which moves a probability by up to 0.02.
    np.testing.assert_allclose(classifier.predict(batch), tiny_models.expected(batch), atol=0.02 if quantised else 1e-5)
    assert classifier.runtime.startswith("ai-edge-litert")


def test_litert_normalises_by_the_manifest(tmp_path, batch):
    pytest.importorskip("ai_edge_litert")
    model = tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model(False), mean=100.0, std=2.0)
    fed = (batch.astype(np.float64) - 100) / 2
    np.testing.assert_allclose(open_classifier(model).predict(batch), tiny_models.expected(fed), atol=1e-5)


def test_a_wrong_batch_is_refused(tflite, batch):
    classifier = open_classifier(tflite)
    for wrong in (batch[0], batch[:, :8], batch.astype(np.float32)):
        with pytest.raises(ValueError, match="batch: expected uint8"):
            classifier.predict(wrong)


def test_an_altered_model_is_refused(tflite):
    content = bytearray(tflite.read_bytes())
    content[-1] ^= 1
    tflite.write_bytes(content)
    with pytest.raises(ModelError, match=r"tiny\.tflite: SHA-256 .* altered or damaged"):
        open_classifier(tflite)


def test_a_damaged_model_with_a_fitting_manifest_is_one_line(tmp_path):
    for suffix in RUNTIMES.values():
        if suffix == ".tflite":
            pytest.importorskip("ai_edge_litert")
        path = tiny_models.save(tmp_path, "broken" + suffix, b"no model at all" * 50)
        with pytest.raises(ModelError, match="cannot open the model") as caught:
            open_classifier(path)
        assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_no_models(tmp_path, tflite):
    with pytest.raises(ModelError, match="no such model file"):
        open_classifier(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="no such model file"):
        (tmp_path / "folder.onnx").mkdir()
        open_classifier(tmp_path / "folder.onnx")
    with pytest.raises(ModelError, match=r"expected a model file ending in \.onnx or \.tflite"):
        open_classifier(tmp_path / "model.pth")
    with pytest.raises(ModelError, match=r"runtime 'onnx' runs \.onnx files"):
        open_classifier(tflite, "onnx")
    with pytest.raises(ModelError, match="unknown runtime 'torch'"):
        open_classifier(tflite, "torch")
    manifest_path(tflite).unlink()
    with pytest.raises(ModelError, match="no such manifest file"):
        open_classifier(tflite)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"labels": {"a": "only one"}}, "labels"),
        ({"malignant": ["z"]}, "malignant"),
        ({"height": 5}, "height"),
        ({"width": "224"}, "width"),
        ({"layout": "HWC"}, "layout"),
        ({"crop": "stretch"}, "crop"),
        ({"std": 0}, "std"),
        ({"mean": "x"}, "mean|number|real"),
        ({"refer_at": 2}, "refer_at"),
        ({"retake_at": -1}, "retake_at"),
        ({"output": "scores"}, "output"),
        ({"format": 99}, "format"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_unusable_manifests_name_the_cause(tflite, change, cause):
    content = json.loads(manifest_path(tflite).read_text())
    manifest_path(tflite).write_text(json.dumps(content | change))
    with pytest.raises(ModelError, match=f"not a usable manifest .*({cause})") as caught:
        open_classifier(tflite)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "[" * 100_000, "{}"])
def test_manifests_that_are_no_json_object(tflite, text):
    manifest_path(tflite).write_text(text)
    with pytest.raises(ModelError, match="not a usable manifest"):
        open_classifier(tflite)


def test_labels_that_do_not_fit_the_output(tmp_path, batch):
    pytest.importorskip("ai_edge_litert")
    labels = {"a": "A", "b": "B"}
    model = tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model(), labels=labels)
    with pytest.raises(ModelError, match="the manifest has 2 labels"):
        open_classifier(model).predict(batch)


def test_a_manifest_survives_json():
    manifest = tiny_models.manifest_for(b"x", "tiny.onnx")
    assert Manifest.from_mapping(json.loads(manifest.to_json())) == manifest


def test_tflite_runtime_with_numpy_2_is_a_clear_error(tmp_path, monkeypatch):
    """The real package exists for one Python only; what is tested is the check in front of it."""
    import sys
    import types

    if int(np.__version__.split(".")[0]) < 2:
        pytest.skip("needs numpy 2")
    package = types.ModuleType("tflite_runtime")
    module = types.ModuleType("tflite_runtime.interpreter")
    module.Interpreter = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", package)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", module)
    model = tiny_models.save(tmp_path, "tiny.tflite", b"anything")
    with pytest.raises(ModelError, match="tflite-runtime needs numpy below 2"):
        open_classifier(model)


def test_no_tflite_runtime_at_all_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(ModelError, match="pip install ai-edge-litert"):
        open_classifier(tiny_models.save(tmp_path, "tiny.tflite", b"anything"))


def test_the_built_in_models_are_one_network(photographs, drawn_image):
    """Each in its own runtime; int8 rounds differently in each, so the probabilities are near and not equal."""
    pictures = np.stack([*photographs, drawn_image])
    onnx, tflite = (open_classifier(runtime=runtime) for runtime in RUNTIMES)
    assert tflite.runtime.startswith("ai-edge-litert")
    assert tflite.manifest.labels == onnx.manifest.labels
    assert built_in("tflite").stat().st_size < 4_500_000
    p, q = onnx.predict(pictures), tflite.predict(pictures)
    assert (p.argmax(1) == q.argmax(1)).all()
    assert np.abs(p - q).max() < 0.1
