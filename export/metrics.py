"""Figures of merit of a classifier, with bootstrap intervals.

References
----------
B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile intervals).
C. Guo et al., "On calibration of modern neural networks", ICML 2017 (expected calibration error).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CALIBRATION_BINS = 15
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)  # per cent


def recalls(targets: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Recall of each class, NaN for a class without images."""
    hits = np.bincount(targets[targets == predicted], minlength=n_classes).astype(float)
    counts = np.bincount(targets, minlength=n_classes)
    return np.divide(hits, counts, out=np.full(n_classes, np.nan), where=counts > 0)


def balanced_accuracy(targets: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Mean recall of the classes that occur."""
    return float(np.nanmean(recalls(targets, predicted, n_classes)))


def auroc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve (Mann-Whitney, ties count half); NaN without both kinds."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def calibration_error(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error of the top class over equal-width bins."""
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.bincount(bins, confidence - (predicted == targets), minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(targets))


def threshold_for_sensitivity(positive: np.ndarray, score: np.ndarray, sensitivity: float) -> float:
    """Largest threshold at which at least this share of the positives scores as high or higher."""
    scores = np.sort(score[positive])[::-1]
    return float(scores[int(np.ceil(sensitivity * len(scores))) - 1])


def figures(
    targets: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...], malignant: tuple[str, ...]
) -> dict[str, float]:
    """All single-number figures of one evaluation, by name.

    ``melanoma_recall`` and ``melanoma_specificity`` take the top class as the decision;
    ``malignant_auroc`` ranks by the malignant share.
    """
    n_classes, predicted = len(labels), probabilities.argmax(axis=1)
    melanoma = labels.index("mel") if "mel" in labels else -1
    is_melanoma = targets == melanoma
    columns = [labels.index(label) for label in malignant]
    areas = [auroc(targets == c, probabilities[:, c]) for c in range(n_classes)]
    by_class = recalls(targets, predicted, n_classes)
    others = max(int((~is_melanoma).sum()), 1)
    return {
        "balanced_accuracy": float(np.nanmean(by_class)),
        "accuracy": float((predicted == targets).mean()),
        "melanoma_recall": float(by_class[melanoma]) if melanoma >= 0 else float("nan"),
        "melanoma_specificity": (
            float((predicted[~is_melanoma] != melanoma).sum() / others) if melanoma >= 0 else float("nan")
        ),
        "macro_auroc": float(np.nanmean(areas)) if not np.isnan(areas).all() else float("nan"),
        "malignant_auroc": auroc(np.isin(targets, columns), probabilities[:, columns].sum(axis=1)),
        "calibration_error": calibration_error(targets, probabilities),
        **{f"recall_{label}": float(value) for label, value in zip(labels, by_class, strict=True)},
    }


def bootstrap(
    figure: Callable[[np.ndarray], dict[str, float]], targets: np.ndarray, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of every figure; resampled within each class, so that none gets lost.

    ``figure`` gets the indices of one resample.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(targets == c) for c in np.unique(targets)]
    draws: dict[str, list[float]] = {}
    for _ in range(RESAMPLES):
        chosen = np.concatenate([rng.choice(m, len(m)) for m in members])
        for name, value in figure(chosen).items():
            draws.setdefault(name, []).append(value)
    intervals = {}
    for name, values in draws.items():
        known = np.array(values)[~np.isnan(values)]
        low, high = np.percentile(known, INTERVAL) if len(known) else (float("nan"),) * 2
        intervals[name] = float(low), float(high)
    return intervals
