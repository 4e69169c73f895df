"""How the networks of SR and NRP learn: batches, losses, and the figures that tell how far they got.

References
----------
See :mod:`benchmarks.robustness.learned`.
A. Jolicoeur-Martineau, "The relativistic discriminator", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from export.train.fine_tune import GRADIENT_CLIP

if TYPE_CHECKING:
    import torch
    from torch import nn

GREY_MAX = 255.0

SSP_MAX_EPS = 8.0  # grey levels of 255
SSP_STEPS = 4
SSP_STEP_SHARE = 0.5  # of eps
FEATURE_BLOCKS = 5  # of EfficientNet-Lite0: 40 channels at an eighth of the side
FEATURE_WEIGHT, PIXEL_WEIGHT, CRITIC_WEIGHT = 1.0, 50.0, 5e-3
"""Of the losses on features, on pixels in 0..1 and of the critic. With a pixel weight of 1 the purifier changed the
colours of clean photographs, which these features hardly see, to a PSNR of 22 dB."""
CRITIC_LR = 1e-4
CRITIC_WIDTHS = (16, 32, 64)


@dataclass(frozen=True)
class Recipe:
    """What decides the weights besides code and data; ``crop`` is in pixels."""

    steps: int
    batch: int
    crop: int
    lr: float
    seed: int = 0


def crops(images: np.ndarray, recipe: Recipe, step: int) -> np.ndarray:
    """Batch ``step``: random crops, turned and mirrored, ``(batch, crop, crop, 3)`` uint8."""
    rng = np.random.default_rng((recipe.seed, step))
    out = np.empty((recipe.batch, recipe.crop, recipe.crop, 3), np.uint8)
    for row in out:
        image = images[rng.integers(len(images))]
        top, left = rng.integers(0, np.array(image.shape[:2]) - recipe.crop + 1)
        part = np.rot90(image[top : top + recipe.crop, left : left + recipe.crop], int(rng.integers(4)))
        row[:] = part[:, ::-1] if rng.random() < 0.5 else part
    return out


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images, over the mean squared error of all of them."""
    error = np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2, dtype=np.float64)
    return float(10 * np.log10(GREY_MAX**2 / error)) if error else float("inf")


class SrTrainer:
    """Super-resolution: L1 between a crop and what the network makes of it at half the size."""

    def __init__(self, recipe: Recipe) -> None:
        import torch

        from benchmarks.robustness.learned import SrNet

        self.network: nn.Module = SrNet()
        self.modules = {"network": self.network}
        self.optimisers = {"network": torch.optim.Adam(self.network.parameters(), lr=recipe.lr)}

    def step(self, batch: np.ndarray, generator: torch.Generator) -> float:
        """One step; the loss in grey levels."""
        import torch

        from benchmarks.robustness.learned import to_tensor

        loss = (self.network(to_tensor(halved(batch))) - to_tensor(batch)).abs().mean()
        self.optimisers["network"].zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_CLIP)
        self.optimisers["network"].step()
        return loss.item() * GREY_MAX

    def judge(self, images: np.ndarray) -> dict[str, float]:
        """PSNR in dB at twice the size of halved images, of the network and of bicubic interpolation."""
        import cv2

        from benchmarks.robustness.learned import run

        small = halved(images)
        size = images.shape[2], images.shape[1]
        bicubic = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in small])
        return {
            "psnr_bicubic_db": psnr(images, bicubic),
            "psnr_network_db": psnr(images, np.stack([run(self.network, image) for image in small])),
        }


def halved(images: np.ndarray) -> np.ndarray:
    """Images at half the side, each pixel the mean of four."""
    import cv2

    size = images.shape[2] // 2, images.shape[1] // 2
    return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])


class NrpTrainer:
    """Purifier and critic on self-supervised perturbations."""

    def __init__(self, recipe: Recipe) -> None:
        import torch

        from benchmarks.robustness.learned import NrpNet

        self.network: nn.Module = NrpNet()
        self.critic = make_critic()
        self.features = image_features()
        self.modules = {"network": self.network, "critic": self.critic}
        self.optimisers = {
            "network": torch.optim.Adam(self.network.parameters(), lr=recipe.lr),
            "critic": torch.optim.Adam(self.critic.parameters(), lr=CRITIC_LR),
        }

    def perturb(self, clean: torch.Tensor, eps: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Self-supervised perturbation (SSP): within ``eps`` of 1, far from ``clean`` in features."""
        import torch

        with torch.no_grad():
            wanted = self.features(clean)
        noise = torch.rand(clean.shape, generator=generator) * 2 - 1
        moved = (clean + eps * noise).clamp(0, 1)
        for _ in range(SSP_STEPS):
            moved = moved.detach().requires_grad_(True)
            distance = (self.features(moved) - wanted).square().sum()
            uphill = torch.autograd.grad(distance, moved)[0].sign()
            moved = moved.detach() + SSP_STEP_SHARE * eps * uphill
            moved = torch.minimum(torch.maximum(moved, clean - eps), clean + eps).clamp(0, 1)
        return moved.detach()

    def step(self, batch: np.ndarray, generator: torch.Generator) -> float:
        """One step of the purifier and one of the critic; the purifier's loss."""
        import torch
        from torch.nn.functional import softplus

        from benchmarks.robustness.learned import to_tensor

        clean = to_tensor(batch)
        eps = torch.rand((len(batch), 1, 1, 1), generator=generator) * SSP_MAX_EPS / GREY_MAX
        attacked = self.perturb(clean, eps, generator)
        purified = self.network(attacked)
        with torch.no_grad():
            wanted = self.features(clean)
        pixel = (purified - clean).square().mean((1, 2, 3)).add(1e-12).sqrt().mean()
        feature = (self.features(purified) - wanted).abs().mean()
        for parameter in self.critic.parameters():
            parameter.requires_grad_(False)
        fooled = softplus(self.critic(clean) - self.critic(purified)).mean()
        loss = FEATURE_WEIGHT * feature + PIXEL_WEIGHT * pixel + CRITIC_WEIGHT * fooled
        self.optimisers["network"].zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_CLIP)
        self.optimisers["network"].step()
        for parameter in self.critic.parameters():
            parameter.requires_grad_(True)
        told = softplus(self.critic(purified.detach()) - self.critic(clean)).mean()
        self.optimisers["critic"].zero_grad(set_to_none=True)
        told.backward()
        self.optimisers["critic"].step()
        return loss.item()

    def judge(self, images: np.ndarray) -> dict[str, float]:
        """PSNR in dB of clean images through the purifier, and of perturbed ones before and behind it."""
        import torch

        from benchmarks.robustness.learned import run, to_images, to_tensor

        generator = torch.Generator().manual_seed(0)
        eps = torch.tensor(SSP_MAX_EPS / 2 / GREY_MAX)
        parts = [to_tensor(images[n : n + 8]) for n in range(0, len(images), 8)]
        attacked = np.concatenate([to_images(self.perturb(part, eps, generator)) for part in parts])
        before = (self.features(to_tensor(attacked)) - self.features(to_tensor(images))).abs().mean()
        behind = np.stack([run(self.network, image) for image in attacked])
        after = (self.features(to_tensor(behind)) - self.features(to_tensor(images))).abs().mean()
        return {
            "psnr_clean_purified_db": psnr(images, np.stack([run(self.network, image) for image in images])),
            f"psnr_ssp_{SSP_MAX_EPS / 2:g}_db": psnr(images, attacked),
            f"psnr_ssp_{SSP_MAX_EPS / 2:g}_purified_db": psnr(images, behind),
            "feature_distance_left": float(after / before),
        }


def make_critic() -> nn.Module:
    """A few strided convolutions to one number a crop."""
    from torch import nn

    layers: list[nn.Module] = []
    for before, after in zip((3, *CRITIC_WIDTHS[:-1]), CRITIC_WIDTHS, strict=True):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CRITIC_WIDTHS[-1], 1))


def image_features() -> Callable[[torch.Tensor], torch.Tensor]:
    """Features of ImageNet's EfficientNet-Lite0 of ``(n, 3, h, w)`` float RGB in 0..1: ``(n, 40, h / 8, w / 8)``."""
    import torch

    from export.train.network import INPUT_MEAN, INPUT_STD, LesionNet

    body = LesionNet(1, pretrained=True).body.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def features(pixels: torch.Tensor) -> torch.Tensor:
        found = body._swish(body._bn0(body._conv_stem((pixels * GREY_MAX - INPUT_MEAN) / INPUT_STD)))
        for block in body._blocks[:FEATURE_BLOCKS]:
            found = block(found)
        return found

    return features


CONSTANTS: dict[str, dict[str, float]] = {
    "sr": {},
    "nrp": {
        "feature_weight": FEATURE_WEIGHT,
        "pixel_weight": PIXEL_WEIGHT,
        "critic_weight": CRITIC_WEIGHT,
        "critic_lr": CRITIC_LR,
        "ssp_max_eps": SSP_MAX_EPS,
        "ssp_steps": SSP_STEPS,
        "feature_blocks": FEATURE_BLOCKS,
    },
}
"""What else decides the weights; a checkpoint made with other ones is refused."""

TRAINERS: dict[str, Callable[[Recipe], SrTrainer | NrpTrainer]] = {"sr": SrTrainer, "nrp": NrpTrainer}
