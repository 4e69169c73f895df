"""Where a network's answers become advice: temperature and thresholds, chosen on ``val``, judged elsewhere.

References
----------
C. Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature scaling).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_mdda.classifier.tensors import with_temperature
from export import metrics
from export.errors import ExportError
from export.metrics import calibration_error, threshold_for_sensitivity

SENSITIVITY = 0.95  # of the referral threshold, on malignant images of val
FALSE_ALARMS = 0.05  # of the retake threshold, on clean images of val
TEMPERATURES = (0.25, 4.0)  # where one is looked for; outside, a network is broken rather than over-confident
GOLDEN = (math.sqrt(5) - 1) / 2
SEARCH_STEPS = 40  # of the golden section: far below the three decimals that are kept


def disagreements(raw: np.ndarray, purified: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of each pair of rows, bits; as the screener computes it."""
    from edge_mdda.triage import jensen_shannon

    return np.array([jensen_shannon(p, q) for p, q in zip(raw, purified, strict=True)])


@dataclass(frozen=True)
class Views:
    """Answers ``(n, n_labels)`` to the raw and the purified view of the same labelled images."""

    raw: np.ndarray
    purified: np.ndarray
    targets: np.ndarray
    malignant: tuple[int, ...]
    """Columns that count towards the malignant share."""

    def at(self, temperature: float) -> Views:
        """The same answers at another temperature."""
        raw, purified = (with_temperature(view, temperature) for view in (self.raw, self.purified))
        return Views(raw, purified, self.targets, self.malignant)

    @property
    def share(self) -> np.ndarray:
        """The larger malignant share of the two views, as the screener takes it."""
        columns = list(self.malignant)
        return np.maximum(self.raw[:, columns].sum(axis=1), self.purified[:, columns].sum(axis=1))

    @property
    def positive(self) -> np.ndarray:
        """Which images show something malignant."""
        return np.isin(self.targets, self.malignant)

    @property
    def disagreement(self) -> np.ndarray:
        """Jensen-Shannon divergence of the two views in bits."""
        return disagreements(self.raw, self.purified)


def negative_log_likelihood(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean surprise at the true classes, nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(targets)), targets], 1e-12)).mean())


def fit_temperature(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The temperature at which the true classes surprise least; three decimals.

    The likelihood has one optimum in the inverse temperature, so a golden section finds it.
    """

    def cost(logarithm: float) -> float:
        return negative_log_likelihood(with_temperature(probabilities, math.exp(logarithm)), targets)

    low, high = map(math.log, TEMPERATURES)
    for _ in range(SEARCH_STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, right) if cost(left) < cost(right) else (left, high)
    return round(math.exp((low + high) / 2), 3)


@dataclass(frozen=True)
class Elsewhere:
    """Answers to the pictures of another source, by split; their targets tell malignant from not, and no more."""

    name: str
    splits: dict[str, Views]


def choose_thresholds(val: Views, others: Sequence[Views] = ()) -> tuple[float, float]:
    """``(refer_at, retake_at)`` from the two views of ``val``: 95 % sensitivity, 5 % false alarms.

    The first reaches its sensitivity on each of ``others`` as well, so the worst of them decides.
    """
    if not all(views.positive.any() for views in (val, *others)):
        raise ExportError("val holds no malignant image: no referral threshold can be chosen")
    refer_at = min(threshold_for_sensitivity(views.positive, views.share, SENSITIVITY) for views in (val, *others))
    # Rounded down: rounded up, the borderline positive that the threshold is made of would fall below it.
    return math.floor(refer_at * 1e4) / 1e4, round(float(np.quantile(val.disagreement, 1 - FALSE_ALARMS)), 4)


def performance(views: Views, refer_at: float, retake_at: float) -> dict[str, float]:
    """What the two thresholds do on labelled, untampered images; NaN for a kind that does not occur."""
    refer, positive = views.share >= refer_at, views.positive
    retake = views.disagreement >= retake_at

    def mean(values: np.ndarray) -> float:
        return float(values.mean()) if len(values) else float("nan")

    return {
        "images": len(views.targets),
        "sensitivity": mean(refer[positive]),
        "specificity": mean(~refer[~positive]),
        "false_alarms": mean(retake),
        "calibration_error": calibration_error(views.targets, views.purified),
    }


def operating_point(
    val: Views, judged: Views | None, judged_name: str, others: Sequence[Elsewhere] = ()
) -> tuple[float, float, float, dict[str, Any]]:
    """Choose on ``val``, and on the ``val`` of other sources where there is one, and judge elsewhere.

    Returns
    -------
    temperature, refer_at, retake_at : float
        Of the manifest.
    record : dict
        The rule in words and what it does on ``val`` and on the images that chose nothing.
    """
    temperature = fit_temperature(np.concatenate([val.raw, val.purified]), np.tile(val.targets, 2))
    choosing = [other.splits["val"] for other in others if "val" in other.splits]
    refer_at, retake_at = choose_thresholds(val.at(temperature), [views.at(temperature) for views in choosing])
    record: dict[str, Any] = {
        "rule": f"refer at {SENSITIVITY:.0%} sensitivity for malignant lesions, retake at {FALSE_ALARMS:.0%} false"
        " alarms, both on val; the larger malignant share of the two views counts",
    }
    for name, views in (("val", val), (judged_name, judged)):
        if views is None:
            continue
        before = calibration_error(views.targets, views.purified)
        now = performance(views.at(temperature), refer_at, retake_at) | {"calibration_error_before": before}
        record[name] = {key: round(value, 4) for key, value in now.items() if not math.isnan(value)}
    if choosing:
        record["rule"] += "; the sensitivity holds on val of each source"
    for other in others:
        record[other.name] = {
            split: _elsewhere(views.at(temperature), refer_at) for split, views in other.splits.items()
        }
    return temperature, refer_at, retake_at, record


def _elsewhere(views: Views, refer_at: float) -> dict[str, float]:
    refer, positive = views.share >= refer_at, views.positive
    columns = list(views.malignant)
    rates = {
        "sensitivity": refer[positive],
        "specificity": ~refer[~positive],
    }
    auroc = {
        f"auroc_{name}": metrics.auroc(positive, answers[:, columns].sum(axis=1))
        for name, answers in (("raw", views.raw), ("purified", views.purified))
        if positive.any() and not positive.all()
    }
    figures = {name: float(values.mean()) for name, values in rates.items() if len(values)} | auroc
    return {"images": len(positive), "malignant": int(positive.sum())} | {k: round(v, 4) for k, v in figures.items()}
