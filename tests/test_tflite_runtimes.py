"""Converted TFLite files in both runtimes: ai-edge-litert here, tflite-runtime in an interpreter of its own.

``EDGE_MDDA_TFLITE_RUNTIME_PYTHON`` names a Python with ``tflite-runtime`` 2.14 and NumPy below 2, and
``EDGE_MDDA_NUMPY2`` a folder with NumPy 2 for the same Python; ``.ci/run`` makes both.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edge_mdda.classifier import open_classifier
from export.convert.audit import audit

REPOSITORY = Path(__file__).parent.parent
TINY = Path(__file__).parent / "data" / "tiny-tflite-int8" / "tiny-tflite-int8.tflite"
MODELS = [TINY, *sorted((REPOSITORY / "edge_mdda" / "models").glob("*.tflite"))]
OLD_PYTHON = os.environ.get("EDGE_MDDA_TFLITE_RUNTIME_PYTHON", "")
NUMPY2 = os.environ.get("EDGE_MDDA_NUMPY2", "")

needs_old_runtime = pytest.mark.skipif(
    not OLD_PYTHON,
    reason="EDGE_MDDA_TFLITE_RUNTIME_PYTHON names no Python 3.11 with tflite-runtime (.ci/run makes one)",
)


def pictures(model: Path) -> np.ndarray:
    """Six drawn pictures of the model's size."""
    manifest = open_classifier(model).manifest
    rng = np.random.default_rng(5)
    rows = []
    for colour in ((225, 190, 170), (90, 60, 50), (200, 60, 60)) * 2:
        image = rng.normal(colour, 12, (manifest.height, manifest.width, 3)).clip(0, 255).astype(np.uint8)
        centre = manifest.width // 2, manifest.height // 2
        cv2.circle(image, centre, int(rng.integers(2, manifest.height // 4)), (120, 100, 90), -1)
        rows.append(image)
    return np.stack(rows)


@pytest.fixture(params=MODELS, ids=lambda p: p.stem)
def model(request) -> Path:
    return request.param


FLOAT_LAYERS = dict.fromkeys(("lesion-lite0-int8", "lesion-lite0-hardened-int8", "lesion-lite0-broad-int8"), 3)
"""Their first two convolutions and their last layer, as the model card says; every other int8 file has none."""


def test_no_transpose_and_no_float(model):
    found = audit(model.read_bytes(), ".tflite")
    assert "TRANSPOSE" not in found["operators"]
    if "int8" in model.name:
        in_float = FLOAT_LAYERS.get(model.stem, 0)
        assert found["int8_layers"] == found["layers"] - in_float > 0
        assert found["float_ops"] == (in_float + 1 if in_float else 0)  # and the normalisation before them


def test_litert_answers(model):
    classifier = open_classifier(model)
    rows = classifier.predict(pictures(model))
    assert classifier.runtime.startswith("ai-edge-litert")
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-5)
    assert not np.allclose(rows[0], rows[1])


def test_litert_knows_the_tiny_networks_classes():
    """Pale, dark, red: what the network was trained to tell apart."""
    assert open_classifier(TINY).predict(pictures(TINY)).argmax(1).tolist() == [0, 1, 2] * 2


def in_old_runtime(model: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    np.save(folder / "pictures.npy", pictures(model))
    command = [OLD_PYTHON, str(REPOSITORY / "tests" / "run_tflite.py"), str(model), str(folder / "pictures.npy")]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=clean | environment)


@needs_old_runtime
def test_tflite_runtime_gives_the_same_answers(model, tmp_path):
    done = in_old_runtime(model, tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["runtime"] == "tflite-runtime 2.14.0"
    assert answer["numpy"].startswith("1.")
    # Other kernels round otherwise: a step or two of the int8 logits.
    np.testing.assert_allclose(answer["rows"], open_classifier(model).predict(pictures(model)), atol=0.06)


@needs_old_runtime
@pytest.mark.skipif(not NUMPY2, reason="EDGE_MDDA_NUMPY2 names no folder with NumPy 2 (.ci/run makes one)")
def test_tflite_runtime_with_numpy_2_says_what_to_do(tmp_path):
    done = in_old_runtime(TINY, tmp_path, PYTHONPATH=NUMPY2)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("tflite-runtime needs numpy below 2, found 2.")
    assert "Traceback" not in done.stderr
