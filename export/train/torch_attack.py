"""Projected gradient descent on tensors, through the purifier in three ways, for training and for judging.

``raw`` sees the network alone. ``identity`` and ``blur`` go through the purifier forwards and put the identity, or a
Gaussian blur of sigma 2 pixels, in its place backwards (BPDA). ``true`` takes the gradient of the unrolled solver.

References
----------
A. Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.
A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients give a false sense of security", ICML 2018 (BPDA, EOT).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from export.train.torch_mdda import Schedule, purify, rounded

WAYS = ("raw", "identity", "blur", "true")
BLUR_SIGMA = 2.0  # pixels
BLUR_REACH = 4  # standard deviations
ATTACK_ITERATIONS = 6  # of the solver; the attacker needs its gradient, not its last digit


@dataclass(frozen=True)
class Attack:
    """How an attacker works."""

    way: str
    """One of ``WAYS``."""
    steps: int
    step_share: float
    """Length of a step as a share of eps."""
    draws: int = 1
    """Draws of the purifier's noise that a step averages over (EOT)."""
    keep_best: bool = False
    """Keep each picture's best candidate, in 8 bit, and shorten the steps in the last half and quarter."""
    momentum: float = 0.0


def blurred(x: torch.Tensor, sigma: float = BLUR_SIGMA) -> torch.Tensor:
    """Gaussian blur of ``(n, c, h, w)``, mirrored at the border."""
    reach = int(BLUR_REACH * sigma + 0.5)
    t = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-t * t / (2 * sigma * sigma))
    kernel, c = kernel / kernel.sum(), x.shape[1]
    x = functional.pad(x, (reach, reach, reach, reach), mode="reflect")
    x = functional.conv2d(x, kernel.view(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)
    return functional.conv2d(x, kernel.view(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)


Loss = Callable[[torch.Tensor], torch.Tensor]
"""Of logits, one value a picture; the attacker wants it large."""


def margin(targets: torch.Tensor) -> Loss:
    """How far the best wrong class lies above the right one."""

    def loss(logits: torch.Tensor) -> torch.Tensor:
        right = logits.gather(1, targets[:, None])[:, 0]
        return logits.scatter(1, targets[:, None], float("-inf")).amax(1) - right

    return loss


def attacked(
    network: torch.nn.Module, x: torch.Tensor, loss: Loss, eps: torch.Tensor, how: Attack, schedule: Schedule
) -> torch.Tensor:
    """Pictures within ``eps`` of ``x`` that the network gets wrong as far as the attacker can bring it.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    x : torch.Tensor
        (n, 3, h, w) float grey levels 0..255.
    loss : callable
        Of the logits, one value a picture.
    eps : torch.Tensor
        (n, 1, 1, 1) largest change in grey levels.
    how : Attack
        The attacker.
    schedule : Schedule
        The purifier.
    """
    a = (x + (2 * torch.rand_like(x) - 1) * eps).clamp(0, 255)
    best, best_loss = x.clone(), torch.full((len(x),), float("-inf"), device=x.device)
    pace = torch.zeros_like(x)
    for k in range(how.steps + how.keep_best):
        asked = _within(a.round(), x, eps) if how.keep_best else a
        gradient, value = _gradient(network, asked, loss, how, schedule)
        if how.keep_best:
            better = value > best_loss
            best[better], best_loss[better] = asked[better], value[better]
            if k == how.steps:
                break
        if how.momentum:
            pace = how.momentum * pace + gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
            gradient = pace
        shorter = 0.5 ** ((k >= how.steps / 2) + (k >= 3 * how.steps / 4)) if how.keep_best else 1.0
        a = _within(a + how.step_share * shorter * eps * gradient.sign(), x, eps)
    return best if how.keep_best else a.detach()


def _within(a: torch.Tensor, x: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    return torch.minimum(torch.maximum(a, x - eps), x + eps).clamp(0, 255)


def _gradient(
    network: torch.nn.Module, x: torch.Tensor, loss: Loss, how: Attack, schedule: Schedule
) -> tuple[torch.Tensor, torch.Tensor]:
    gradient, value = torch.zeros_like(x), torch.zeros(len(x), device=x.device)
    for _ in range(how.draws):
        leaf = x.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            seen = leaf
            if how.way == "true":
                seen = rounded(purify(leaf, schedule, ATTACK_ITERATIONS))
            elif how.way != "raw":
                with torch.no_grad():
                    seen = purify(leaf, schedule, ATTACK_ITERATIONS).round()
                leaf = seen.requires_grad_(True)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
                logits = network(seen)
            values = loss(logits.float())
            (step,) = torch.autograd.grad(values.sum(), leaf)
        gradient += blurred(step) if how.way == "blur" else step
        value += values.detach() / how.draws
    return gradient, value
