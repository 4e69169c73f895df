"""The attacker who sees only scores: Square through the whole pipeline, defence and int8 file.

References
----------
M. Andriushchenko et al., "Square attack: a query-efficient black-box adversarial attack via random search", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
CONFIRMATIONS = 2
"""How often a picture that would be the best yet is asked for again behind a random defence; see :class:`Best`."""
P_INIT = 0.8  # share of pixels changed at first, as the paper has it
TINY = 1e-12  # below every probability that float32 keeps beside others


def parameters(eps: float, random: bool, quick: bool) -> dict[str, Any]:
    """All parameters of the attack."""
    return {
        "eps": eps,
        "queries": QUICK_QUERIES if quick else QUERIES,
        "draws": RANDOM_DRAWS if random else 1,
        "confirmations": CONFIRMATIONS if random else 0,
        "stops": "never" if random else "at the first wrong answer",
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


class Best:
    """The best picture that a search has asked for, of each image: the one with the lowest margin.

    The library itself returns the clean picture unless the answer to one more query is wrong, which throws the search's
    result away where a defence is random. There one lucky answer would also hold the place of the best for good: so a
    picture that would be the best is asked for again, the best one at every step, and the mean of all answers counts.

    Parameters
    ----------
    clean : Tensor
        ``(n, 3, h, w)`` in 0..1; what is wrong already without an attack stays as it is, unless answers are random.
    labels : Tensor
        ``(n,)`` int64.
    ask : callable
        Pictures ``(m, 3, h, w)`` and their labels to margins ``(m,)``.
    confirmations : int
        How often a picture that would be the best is asked for again; 0 where the same picture has the same answer.
    """

    def __init__(
        self,
        clean: torch.Tensor,
        labels: torch.Tensor,
        ask: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        confirmations: int,
    ) -> None:
        self.images, self.labels, self.ask, self.confirmations = clean.clone(), labels, ask, confirmations
        self.margins = ask(clean, labels)
        self.answers = torch.zeros(len(clean))
        self.clean, self.clean_margins = clean, self.margins.clone()
        self.margins[self.open] = torch.inf  # the search starts from its own first pictures, not from the clean ones

    @property
    def open(self) -> torch.Tensor:
        """Indices of the images to search on for: those not wrong yet; all of them where the next answer may differ."""
        return torch.arange(len(self.margins)) if self.confirmations else (self.margins > 0).nonzero().flatten()

    def offer(self, pictures: torch.Tensor) -> torch.Tensor:
        """Ask for one picture of each open image; returns for which images, ``(n,)`` bool, it is now the best."""
        margins, asked = torch.full_like(self.margins, torch.inf), self.open
        margins[asked] = self.ask(pictures[asked], self.labels[asked])
        known = (self.answers > 0).nonzero().flatten()
        if self.confirmations and len(known):
            new = self.ask(self.images[known], self.labels[known])
            self.answers[known] += 1
            self.margins[known] += (new - self.margins[known]) / self.answers[known]
        for n in range(self.confirmations):
            again = (margins < self.margins).nonzero().flatten()
            if len(again):
                margins[again] += (self.ask(pictures[again], self.labels[again]) - margins[again]) / (n + 2)
        better = margins < self.margins
        self.images[better], self.margins[better] = pictures[better], margins[better]
        self.answers[better] = 1.0 + self.confirmations
        return better

    def result(self) -> torch.Tensor:
        """The best pictures ``(n, 3, h, w)``; the clean one where nothing was better."""
        return torch.where((self.clean_margins < self.margins).view(-1, 1, 1, 1), self.clean, self.images)


def square(
    pipeline: Pipeline, images: np.ndarray, targets: np.ndarray, parameters: Mapping[str, Any], seed: int
) -> np.ndarray:
    """Attack ``(n, h, w, 3)`` uint8 images through a pipeline; returns the same shape and type.

    Each image comes back as the best of all that were asked for; see :class:`Best`.
    """
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
    ask = attack.margin_and_loss
    clean, labels = to_tensor(images) / GREY_MAX, torch.from_numpy(targets)
    with torch.no_grad():
        best = Best(clean, labels, lambda pictures, of: ask(pictures, of)[0], parameters["confirmations"])
        offers = 0.0

        def margin_and_loss(pictures: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """A loss by which the library goes on from the best, and a margin by which it stops once none is open."""
            nonlocal offers
            offers += 1
            loss = torch.where(best.offer(pictures), -offers, 1.0)
            return torch.full_like(loss, float(len(best.open) > 0)), loss

        attack.margin_and_loss = margin_and_loss
        attack.init_hyperparam(clean)
        if len(best.open):
            attack.attack_single_run(clean, labels)
    return whole_pixels(best.result() * GREY_MAX, images, parameters["eps"])
