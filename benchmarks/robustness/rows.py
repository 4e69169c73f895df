"""One row of the results: how a network behind a defence does on one set of images, with 95 % intervals.

The sets are small, down to one image of each class, so the intervals are analytic: see :mod:`export.intervals`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.intervals import mean_interval, wilson
from export.metrics import balanced_accuracy, recalls

MELANOMA = "mel"


def scores(targets: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]) -> dict[str, Any]:
    """Figures of one set of images.

    Parameters
    ----------
    targets : (n,) int64
    probabilities : (n, n_labels) float
    labels : tuple of str

    Returns
    -------
    dict
        ``n``, ``balanced_accuracy`` and ``melanoma_recall`` (NaN without melanomas), each with a 95 % interval
        ``*_ci``, and ``confusion``: counts, a row for each true class.
    """
    predicted, n_classes = probabilities.argmax(1), len(labels)
    confusion = np.bincount(targets * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    hits, counts = confusion.diagonal(), confusion.sum(1)
    melanoma, melanoma_ci = float("nan"), [float("nan")] * 2
    if MELANOMA in labels:
        place = labels.index(MELANOMA)
        melanoma = float(recalls(targets, predicted, n_classes)[place])
        melanoma_ci = [float(limit[place]) for limit in wilson(hits, counts)]
    return {
        "n": len(targets),
        "balanced_accuracy": balanced_accuracy(targets, predicted, n_classes),
        "melanoma_recall": melanoma,
        "balanced_accuracy_ci": list(mean_interval(hits, counts)),
        "melanoma_recall_ci": melanoma_ci,
        "confusion": confusion.tolist(),
    }
