"""SqueezeNet 1.1 for the lesion classes, a surrogate of another family than the EfficientNets.

References
----------
F. Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv 1602.07360; version 1.1 pools
earlier and needs 2.4 times less arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Of RGB in 0..255: what the ImageNet weights expect."""

STEM, LAST = 64, 512  # channels
FIRES = ((64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128))
DEEP_FIRES = ((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256))
"""Channels of the Fire modules: what comes in, squeezed, and each of the two expanded halves."""


class Fire(nn.Module):
    """Squeeze by a 1 x 1 convolution, then expand by 1 x 1 and 3 x 3 ones side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, channels, h, w)`` to ``(n, 2 expanded, h, w)``."""
        x = functional.relu(self.squeeze(x))
        return functional.relu(torch.cat((self.expand1x1(x), self.expand3x3(x)), 1))


class SqueezeNet(nn.Module):
    """Logits of the lesion classes from ``(n, 3, h, w)`` float RGB in 0..255."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, n_classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        layers: list[nn.Module] = [nn.Conv2d(3, STEM, 3, 2), nn.ReLU()]
        for n, fire in enumerate((*FIRES, *DEEP_FIRES)):
            if n in (0, 2, 4):  # a pooling before every second Fire module, until the picture is small
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            layers.append(Fire(*fire))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(LAST, n_classes, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_classes)``; the normalisation is part of the network."""
        x = self.features((pixels - self.mean) / self.std)
        return self.classifier(x).mean(
            (2, 3)
        )  # no ReLU on the logits, which ImageNet's version has: it kills gradients

    def load_imagenet(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take the features of an ImageNet network (``features.N.squeeze.weight`` ...); the head stays as it is.

        Raises
        ------
        RuntimeError
            The features do not fit.
        """
        prefix = "features."
        self.features.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
