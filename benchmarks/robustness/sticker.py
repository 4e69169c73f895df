"""A sticker on the lens: a few translucent coloured spots, out of focus, the same on every picture.

Positions, colours and opacities are found by ascent on ``val`` through the drawing of the spots, which is
differentiable; radius, number and the largest opacity of a spot are the budget (spots that overlap cover more). It is
no small perturbation: ``eps`` in its rows is the largest change that it makes to any value of the judged images.

References
----------
J. Li, F. Schmidt, Z. Kolter, "Adversarial camera stickers", ICML 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.robustness.attacks import GREY_MAX, to_tensor

SPOTS = 6
RADIUS = 0.06  # of the picture's side
MAX_ALPHA = 0.35
EXPONENT = 1.5
"""How fast a spot fades: alpha exp(-(d / radius)^(2 * exponent)), the paper's blurred dot."""
STEPS, QUICK_STEPS = 400, 50
BATCH = 16
LEARNING_RATE = 0.25  # in a comparison on val 0.05 did half as much harm


def parameters(quick: bool) -> dict[str, Any]:
    """All parameters of the attack."""
    return {
        "spots": SPOTS,
        "radius": RADIUS,
        "area": SPOTS * np.pi * RADIUS**2,
        "max_alpha": MAX_ALPHA,
        "exponent": EXPONENT,
        "steps": QUICK_STEPS if quick else STEPS,
        "learning_rate": LEARNING_RATE,
        "batch": BATCH,
        "loss": "cross entropy",
        "trained_on": "val",
    }


def draw(spots: torch.Tensor, pixels: torch.Tensor, parameters: Mapping[str, Any]) -> torch.Tensor:
    """Lay spots over pictures.

    Parameters
    ----------
    spots : (n_spots, 6) float
        Unbounded numbers for x, y, red, green, blue and alpha; a sigmoid brings each into its range.
    pixels : (n, 3, h, w) float in 0..255

    Returns
    -------
    (n, 3, h, w) float in 0..255
    """
    height, width = pixels.shape[2:]
    x, y, *colour, alpha = torch.sigmoid(spots).unbind(1)
    rows = (torch.arange(height, device=pixels.device) + 0.5)[:, None] / height
    columns = (torch.arange(width, device=pixels.device) + 0.5)[None, :] / width
    for n in range(len(spots)):
        distance = ((rows - y[n]) ** 2 + (columns - x[n]) ** 2) / parameters["radius"] ** 2
        mask = parameters["max_alpha"] * alpha[n] * torch.exp(-((distance + 1e-6) ** parameters["exponent"]))
        tint = torch.stack([c[n] for c in colour]).view(1, 3, 1, 1) * GREY_MAX
        pixels = pixels * (1 - mask) + tint * mask
    return pixels


def train(
    network: nn.Module,
    images: np.ndarray,
    targets: np.ndarray,
    parameters: Mapping[str, Any],
    seed: int,
    step: Callable[[], None] | None = None,
) -> np.ndarray:
    """Find the spots ``(n_spots, 6)`` float32, for :func:`draw`, on images that are not judged."""
    rng = np.random.default_rng(seed)
    device = str(next(network.parameters()).device)
    start = torch.from_numpy(rng.normal(0, 1, (parameters["spots"], 6)).astype(np.float32)).to(device)
    spots = start.requires_grad_(True)
    optimiser = torch.optim.Adam([spots], lr=parameters["learning_rate"], maximize=True)
    for _ in range(parameters["steps"]):
        chosen = rng.choice(len(images), min(parameters["batch"], len(images)), replace=False)
        logits = network(draw(spots, to_tensor(images[chosen], device), parameters))
        loss = functional.cross_entropy(logits, torch.from_numpy(targets[chosen]).to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step:
            step()
    return spots.detach().cpu().numpy()


@torch.no_grad()
def apply(images: np.ndarray, spots: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Images behind the sticker, uint8."""
    out = [draw(torch.from_numpy(spots), to_tensor(images[i : i + 1]), parameters) for i in range(len(images))]
    return torch.cat(out).round().clamp(0, GREY_MAX).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
