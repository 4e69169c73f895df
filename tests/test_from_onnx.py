"""A shipped int8 file as a network to train on from: it answers as the file does, and other files are refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from edge_mdda.classifier import built_in, open_classifier  # noqa: E402
from export.train.fake_quant import FakeQuantNet  # noqa: E402
from export.train.from_onnx import network_from_onnx  # noqa: E402
from export.train.network import CheckpointError  # noqa: E402

ARCH, CLASSES = "efficientnet-lite0", 7
ROUNDING = 0.05  # of a probability: what int8 activations change on a drawn picture


def test_it_answers_as_the_file_does(drawn_image):
    network = network_from_onnx(built_in("onnx"), ARCH, CLASSES).eval()
    pictures = np.stack([drawn_image, cv2.flip(drawn_image, 1), cv2.GaussianBlur(drawn_image, (0, 0), 2)])
    classifier = open_classifier(built_in("onnx"))
    with torch.no_grad():
        logits = network(torch.from_numpy(pictures).permute(0, 3, 1, 2).float())
        folded = FakeQuantNet(network, n_float=None)(torch.from_numpy(pictures).permute(0, 3, 1, 2).float())
    found = (logits / classifier.manifest.temperature).softmax(1).numpy()
    np.testing.assert_allclose(found, classifier.predict(pictures), atol=ROUNDING)
    np.testing.assert_allclose(folded.numpy(), logits.numpy(), atol=1e-3)  # batch norms are the identity


def test_a_file_of_another_architecture_is_refused():
    with pytest.raises(CheckpointError, match="layers, efficientnet-lite2 has"):
        network_from_onnx(built_in("onnx"), "efficientnet-lite2", CLASSES)
    with pytest.raises(CheckpointError, match="has shape"):
        network_from_onnx(built_in("onnx"), ARCH, 3)


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_what_is_no_model_is_refused(tmp_path: Path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        network_from_onnx(path, ARCH, CLASSES)
    with pytest.raises(CheckpointError, match="not a readable ONNX file"):
        network_from_onnx(tmp_path / "none.onnx", ARCH, CLASSES)
