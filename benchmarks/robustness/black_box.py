"""The attacker who sees only scores: Square through the whole pipeline, defence and int8 file.

References
----------
M. Andriushchenko et al., "Square attack: a query-efficient black-box adversarial attack via random search", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.robustness.adaptive import SEED_RANGE
from benchmarks.robustness.attacks import GREY_MAX, library, to_tensor, whole_pixels
from benchmarks.robustness.pipeline import Pipeline

QUERIES, QUICK_QUERIES = 1000, 60
RANDOM_DRAWS = 2
"""Answers averaged in one query of a random defence; an attacker who takes single answers believes lucky ones."""
P_INIT = 0.8  # share of pixels changed at first, as the paper has it
TINY = 1e-12  # below every probability that float32 keeps beside others


def parameters(eps: float, random: bool, quick: bool) -> dict[str, Any]:
    """All parameters of the attack."""
    return {
        "eps": eps,
        "queries": QUICK_QUERIES if quick else QUERIES,
        "draws": RANDOM_DRAWS if random else 1,
        "p_init": P_INIT,
        "loss": "margin",
        "restarts": 1,
        "scores": "log-probabilities of the int8 file behind the defence, mean over draws",
    }


class Scores(nn.Module):
    """A pipeline as the library wants it: pixels in 0..1 to log-probabilities, without a gradient."""

    def __init__(self, pipeline: Pipeline, draws: int, seed: int) -> None:
        super().__init__()
        self.pipeline, self.draws = pipeline, draws
        self.rng = np.random.default_rng(seed)
        self.device_of = nn.Parameter(torch.zeros(()), requires_grad=False)  # the library asks for a parameter

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Log-probabilities ``(n, n_labels)`` float32."""
        images = (pixels * GREY_MAX).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        repeated = [image for image in images for _ in range(self.draws)]
        seeds = [int(s) for s in self.rng.integers(SEED_RANGE, size=len(repeated))]
        logs = np.log(np.maximum(self.pipeline.predict(repeated, seeds), TINY))
        return torch.from_numpy(logs.reshape(len(images), self.draws, -1).mean(1).astype(np.float32))


def square(
    pipeline: Pipeline, images: np.ndarray, targets: np.ndarray, parameters: Mapping[str, Any], seed: int
) -> np.ndarray:
    """Attack ``(n, h, w, 3)`` uint8 images through a pipeline; returns the same shape and type."""
    torch.manual_seed(seed)
    attack = library().Square(
        Scores(pipeline, parameters["draws"], seed),
        eps=parameters["eps"] / GREY_MAX,
        n_queries=parameters["queries"],
        p_init=parameters["p_init"],
        loss=parameters["loss"],
        n_restarts=parameters["restarts"],
        seed=seed & 0x7FFFFFFF,
    )
    attacked = attack(to_tensor(images) / GREY_MAX, torch.from_numpy(targets))
    return whole_pixels(attacked * GREY_MAX, images, parameters["eps"])
