"""The attacker who knows network and defence: PGD with BPDA and EOT.

The defence is run forwards as it is and passed over with a stand-in backwards (BPDA); the gradient is the mean over
many draws of its noise (EOT). What leaves early is an image that every draw gets wrong by a margin.

Two stand-ins: the identity, and a Gaussian blur. Every defence here smooths, and what it takes away again is a waste
of the attacker's grey levels; behind the blur he moves in the low frequencies that it lets pass.

References
----------
A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients give a false sense of security", ICML 2018 (BPDA, EOT).
F. Croce, M. Hein, "Reliable evaluation of adversarial robustness", ICML 2020 (images leave when they are fooled).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.robustness.attacks import GREY_MAX, STEP_SHARE, to_tensor, whole_pixels
from benchmarks.robustness.attacks import margins as margins_of
from benchmarks.robustness.plan import ADAPTIVE, ADAPTIVE_SMOOTH

STEPS = 50
DRAWS = 20
LEAVE_MARGIN = 0.5
"""Difference of logits by which even the best draw must be wrong before an image leaves."""
SEED_RANGE = 2**53  # of a defence's seeds
SMOOTH_SIGMA = 2.0
"""Pixels, of the blur that stands in for a defence. On 14 images of ``val`` at 2/255 (25 steps, 4 draws) the
accuracy, a mean over 8 seeds, was 0.57 behind ``balanced`` with the identity and 0.31, 0.29, 0.26 at 1, 2 and 3 pixels;
behind a median 11 0.71 and 0.64, 0.21, 0.21; behind a blur of 2.5 pixels 0.64 and 0.36, 0.21, 0.21. 2 was
taken; 3 was a little harder behind ``balanced``, by a third of an image, and no harder elsewhere."""
STAND_INS = {ADAPTIVE: 0.0, ADAPTIVE_SMOOTH: SMOOTH_SIGMA}
"""Sigma of the blur of each attack; 0 is the identity."""

Views = Callable[[Sequence[np.ndarray], Sequence[int]], np.ndarray]
"""Images and seeds to defended images; :meth:`benchmarks.robustness.pipeline.Pipeline.views`."""


def parameters(eps: float, random: bool, steps: int = STEPS, draws: int = DRAWS, smooth: float = 0.0) -> dict[str, Any]:
    """All parameters of the attack; a defence without randomness needs one draw.

    Parameters
    ----------
    eps : float
        Grey levels.
    random : bool
        Whether the defence draws noise.
    steps, draws : int
    smooth : float
        Sigma in pixels of the blur that stands in for the defence; 0 is the identity.
    """
    return {
        "eps": eps,
        "steps": steps,
        "draws": draws if random else 1,
        "step_size": eps * STEP_SHARE,
        "schedule": "halved after 1/2 and 3/4 of the steps",
        "random_start": True,
        "restarts": 1,
        "backward": "Gaussian blur (BPDA)" if smooth else "identity (BPDA)",
        "backward_sigma": smooth,
        "loss": "cross entropy, mean over draws",
        "leave_margin": LEAVE_MARGIN,
    }


def mean_gradient(
    network: nn.Module, views: np.ndarray, targets: np.ndarray, batch: int
) -> tuple[torch.Tensor, np.ndarray]:
    """Gradient of the loss at the defended draws, averaged over them.

    Parameters
    ----------
    network : nn.Module
        Logits of ``(n, 3, h, w)`` in 0..255.
    views : (n, draws, h, w, 3) uint8
    targets : (n,) int64
    batch : int
        Draws in one pass.

    Returns
    -------
    gradient : (n, 3, h, w) float32 tensor
    margins : (n, draws) float
        Logit of the true class less the largest other; negative is wrong.
    """
    n, draws = views.shape[:2]
    device = str(next(network.parameters()).device)
    flat, repeated = views.reshape(-1, *views.shape[2:]), torch.from_numpy(np.repeat(targets, draws)).to(device)
    gradients, margins = [], []
    for start in range(0, len(flat), batch):
        part = slice(start, start + batch)
        pixels = to_tensor(flat[part], device).requires_grad_(True)
        logits = network(pixels)
        loss = functional.cross_entropy(logits, repeated[part], reduction="sum")
        gradients.append(torch.autograd.grad(loss, pixels)[0])
        margins.append(margins_of(logits.detach(), repeated[part]))
    gradient = torch.cat(gradients)
    return gradient.view(n, draws, *gradient.shape[1:]).mean(1), torch.cat(margins).view(n, draws).cpu().numpy()


def blurred(gradient: torch.Tensor, sigma: float) -> torch.Tensor:
    """What passes backwards through a Gaussian blur of ``sigma`` pixels; ``(n, 3, h, w)``."""
    if not sigma:
        return gradient
    planes = gradient.flatten(0, 1).cpu().numpy()
    # The kernel is symmetric: the blur is its own transpose but for the rim.
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in planes])
    return torch.from_numpy(smooth).view(gradient.shape).to(gradient.device)


def attack_through(
    network: nn.Module,
    views: Views,
    images: np.ndarray,
    targets: np.ndarray,
    parameters: Mapping[str, Any],
    seed: int,
    batch: int,
) -> np.ndarray:
    """Attack images through a defence.

    Parameters
    ----------
    network : nn.Module
        Logits of ``(n, 3, h, w)`` in 0..255.
    views : callable
        The defence.
    images : (n, h, w, 3) uint8
    targets : (n,) int64
    parameters : mapping
        Of :func:`parameters`.
    seed : int
        Of start and draws.
    batch : int
        Draws in one pass through the network.

    Returns
    -------
    (n, h, w, 3) uint8
        Of each image the iterate at which the most draws were wrong, the mean margin breaking ties.
    """
    eps, steps, draws = parameters["eps"], parameters["steps"], parameters["draws"]
    rng = np.random.default_rng(seed)
    device = str(next(network.parameters()).device)
    clean = to_tensor(images, device)
    noise = torch.from_numpy(rng.uniform(-eps, eps, images.shape).astype(np.float32)).permute(0, 3, 1, 2)
    point = (clean + noise.to(device)).clamp(0, GREY_MAX)
    best, best_score = images.copy(), np.full((len(images), 2), -np.inf)
    active = np.arange(len(images))
    for step in range(steps + 1):
        current = whole_pixels(point[active], images[active], eps)
        seeds = [int(s) for s in rng.integers(SEED_RANGE, size=len(active) * draws)]
        defended = views([image for image in current for _ in range(draws)], seeds)
        gradient, margins = mean_gradient(
            network, defended.reshape(len(active), draws, *images.shape[1:]), targets[active], batch
        )
        gradient = blurred(gradient, parameters["backward_sigma"])
        score = np.stack([(margins < 0).mean(1), -margins.mean(1)], axis=1)
        better = np.array([tuple(new) > tuple(old) for new, old in zip(score, best_score[active], strict=True)])
        best[active[better]], best_score[active[better]] = current[better], score[better]
        stays = margins.max(1) > -parameters["leave_margin"]
        active, gradient = active[stays], gradient[torch.from_numpy(stays).to(gradient.device)]
        if not len(active) or step == steps:
            break
        size = parameters["step_size"] * 0.5 ** ((step >= steps / 2) + (step >= 3 * steps / 4))
        moved = point[active] + size * gradient.sign()
        moved = torch.minimum(torch.maximum(moved, clean[active] - eps), clean[active] + eps)
        point[active] = moved.clamp(0, GREY_MAX)
    return best
