"""One perturbation for all images, trained on ``val`` and then added to ``test``.

The ascent on the mean loss of Shafahi et al., which is stronger and far cheaper than the first algorithm
(Moosavi-Dezfooli et al., CVPR 2017; the one that ART has).

References
----------
A. Shafahi et al., "Universal adversarial training", AAAI 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.robustness.attacks import GREY_MAX, to_tensor

STEPS, QUICK_STEPS = 400, 60
BATCH = 16
LOSS_LIMIT = 9.0
"""Of one image's cross entropy, natural logarithm: beyond it an image is fooled and must not rule the mean (the paper's
clipped loss, with its published code's limit)."""
STEP_SHARE = 0.1  # of eps
DECAY = 0.9  # of the momentum: batches are small, and without it their gradients cancel
TINY = 1e-12


def parameters(eps: float, quick: bool) -> dict[str, Any]:
    """All parameters of the attack."""
    return {
        "eps": eps,
        "steps": QUICK_STEPS if quick else STEPS,
        "step_size": eps * STEP_SHARE,
        "decay": DECAY,
        "batch": BATCH,
        "loss": "cross entropy, clipped",
        "loss_limit": LOSS_LIMIT,
        "trained_on": "val",
    }


def train(
    network: nn.Module,
    images: np.ndarray,
    targets: np.ndarray,
    parameters: Mapping[str, Any],
    seed: int,
    step: Callable[[], None] | None = None,
) -> np.ndarray:
    """Find the perturbation ``(h, w, 3)`` int16 in whole grey levels on images that are not judged."""
    rng = np.random.default_rng(seed)
    device, eps = str(next(network.parameters()).device), parameters["eps"]
    change = torch.zeros((1, 3, *images.shape[1:3]), device=device)
    direction = torch.zeros_like(change)
    for _ in range(parameters["steps"]):
        chosen = rng.choice(len(images), min(parameters["batch"], len(images)), replace=False)
        change.requires_grad_(True)
        logits = network((to_tensor(images[chosen], device) + change).clamp(0, GREY_MAX))
        losses = functional.cross_entropy(logits, torch.from_numpy(targets[chosen]).to(device), reduction="none")
        gradient = torch.autograd.grad(losses.clamp(max=parameters["loss_limit"]).sum(), change)[0]
        direction = parameters["decay"] * direction + gradient / gradient.abs().mean().clamp_min(TINY)
        change = (change.detach() + parameters["step_size"] * direction.sign()).clamp(-eps, eps)
        if step:
            step()
    return change[0].round().permute(1, 2, 0).cpu().numpy().astype(np.int16)


def apply(images: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Images with the perturbation, uint8."""
    return np.clip(images.astype(np.int16) + change, 0, GREY_MAX).astype(np.uint8)
