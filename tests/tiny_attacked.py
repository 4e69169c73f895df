"""The tiny network and drawn pictures as the robustness benchmark takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_networks
import torch
from torch import nn

from benchmarks.robustness.attacks import to_tensor
from benchmarks.robustness.images import Photographs
from export.dataset import LabelledImages
from export.metrics import balanced_accuracy

EPS = 40.0  # grey levels; the tiny network tells colours apart, which takes more than noise of that size to undo
N = 24


class TinyPixels(nn.Module):
    """The tiny network for pixels in 0..255, with seven answers as the real one: four of them never win."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels):
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (tiny_networks.MEAN, tiny_networks.STD))
        logits = self.network((pixels - mean) / std)
        return torch.cat((logits, logits.new_tensor((-30.0, -31.0, -32.0, -33.0)).expand(len(logits), 4)), 1)


class TinyClassifier:
    """The tiny network behind the protocol of the board's runtimes."""

    runtime = "torch"

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def predict(self, batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torch.softmax(self.network(to_tensor(batch)), 1).numpy()


def drawn_photographs() -> Photographs:
    """Pictures of each class that the network has not seen."""
    rng = np.random.default_rng(5)
    targets = np.arange(N) % 3
    pictures = np.stack([tiny_networks.picture(int(t), rng) for t in targets])
    paths = tuple(Path(f"{k}.png") for k in range(N))
    return Photographs(LabelledImages(paths, targets, tiny_networks.LABELS, "drawn"), pictures)


def accuracy(network: nn.Module, pictures: np.ndarray, photos: Photographs) -> float:
    """Balanced accuracy on pictures with the classes of ``photos``."""
    with torch.no_grad():
        return balanced_accuracy(photos.data.targets, network(to_tensor(pictures)).argmax(1).numpy(), 3)


def with_noise(photos: Photographs, eps: float) -> np.ndarray:
    """Every value moved by eps, up or down at random: the noise of the largest size that the attacks may use."""
    noise = np.random.default_rng(0).choice([-eps, eps], photos.images.shape)
    return np.clip(photos.images + noise, 0, 255).astype(np.uint8)
