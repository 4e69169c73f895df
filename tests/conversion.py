"""Helpers of the conversion tests: calls of the command line, and what the tiny network itself answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_networks
import torch

from export.__main__ import main
from export.convert.formats import FORMATS

ONNX_FORMATS = [name for name, f in FORMATS.items() if not f.is_tflite]
NORMALISE = ["--mean", ",".join(map(str, tiny_networks.MEAN)), "--std", ",".join(map(str, tiny_networks.STD))]
LABELS = ["--labels", ",".join(tiny_networks.LABELS), "--malignant", "dark"]
EASY = ["--min-agreement", "0.9", "--max-kl", "0.2", "--max-balanced-loss", "0.1", "--min-images", "12"]


def call(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def factory_call(weights: Path, pictures: Path, out: Path, formats: str, *more: object) -> int:
    return call("convert", "tiny_networks:make", "--weights", weights, "--input-size", 32, *LABELS, *NORMALISE,
                "--calibration", pictures / "images", "--verify-labels", pictures / "truth.csv",
                "--format", formats, "--out", out, *EASY, *more)  # fmt: skip


def model_in(folder: Path, suffix: str = ".onnx") -> Path:
    (found,) = folder.glob("*" + suffix)
    return found


def answers(network, images: np.ndarray) -> np.ndarray:
    """Probabilities of the PyTorch network, by its own preprocessing."""
    x = torch.from_numpy((images.astype(np.float32) - np.float32(tiny_networks.MEAN)) / np.float32(tiny_networks.STD))
    with torch.inference_mode():
        return torch.softmax(network(x.permute(0, 3, 1, 2)), 1).numpy()


def one_line(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("export:")]
    assert len(lines) == 1
    return lines[0]
