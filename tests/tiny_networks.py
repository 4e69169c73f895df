"""A small real network with every kind of layer that matters, and drawn pictures that it learns to tell apart."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

SIDE = 32
LABELS = ("pale", "dark", "red")
COLOURS = ((225, 190, 170), (90, 60, 50), (200, 60, 60))
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)


def settle(network: nn.Module, images: np.ndarray) -> nn.Module:
    """Give the batch norms the statistics of ``(n, h, w, 3)`` uint8 images, so that activations have natural sizes."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    return network.eval()


class TinyNet(nn.Module):
    """Normalised NCHW pictures to logits: strided stem with even padding, depthwise, residual, pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.head = nn.Linear(16, len(LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.point(self.depthwise(x))
        return self.head(self.down(x).mean((2, 3)))


class NhwcNet(TinyNet):
    """The same behind NHWC pictures, answering with probabilities."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(super().forward(x.permute(0, 3, 1, 2)), 1)


def make() -> nn.Module:
    return TinyNet()


def make_nhwc() -> nn.Module:
    return NhwcNet()


def not_a_network() -> object:
    return [1, 2]


def fails() -> nn.Module:
    raise RuntimeError("no such data\nsecond line")


def picture(label: int, rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """A noisy field of one class's colour with a spot, uint8 RGB."""
    image = rng.normal(COLOURS[label], 12, (side, side, 3)).clip(0, 255).astype(np.uint8)
    cv2.circle(image, (int(rng.integers(8, side - 8)), side // 2), int(rng.integers(3, 8)), (120, 100, 90), -1)
    return image


def write_pictures(folder: Path, n: int, seed: int = 0) -> Path:
    """``images/`` with ``n`` pictures of each class and ``labels.csv``; returns ``folder``."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    with (folder / "truth.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image_id", "dx"))
        for label, name in enumerate(LABELS):
            for k in range(n):
                cv2.imwrite(str(folder / "images" / f"{name}{k}.png"), picture(label, rng)[..., ::-1])
                rows.writerow((f"{name}{k}", name))
    return folder


def trained() -> TinyNet:
    """The network after a second of training; the same on every call."""
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    targets = np.arange(96) % len(LABELS)
    pixels = np.stack([picture(int(t), rng) for t in targets]).astype(np.float32)
    inputs = torch.from_numpy((pixels - np.float32(MEAN)) / np.float32(STD)).permute(0, 3, 1, 2)
    network, truth = TinyNet(), torch.from_numpy(targets)
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(inputs), truth).backward()
        optimiser.step()
    return network.eval()
