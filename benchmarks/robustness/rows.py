"""One row of the results: how a network behind a defence does on one set of images, with bootstrap intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.metrics import balanced_accuracy, bootstrap, recalls

MELANOMA = "mel"


def scores(targets: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...], seed: int = 0) -> dict[str, Any]:
    """Figures of one set of images.

    Parameters
    ----------
    targets : (n,) int64
    probabilities : (n, n_labels) float
    labels : tuple of str
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``n``, ``balanced_accuracy`` and ``melanoma_recall`` (NaN without melanomas), each with a 95 % interval
        ``*_ci``, and ``confusion``: counts, a row for each true class.
    """
    predicted, n_classes = probabilities.argmax(1), len(labels)

    def figures(chosen: np.ndarray) -> dict[str, float]:
        found = recalls(targets[chosen], predicted[chosen], n_classes)
        melanoma = float(found[labels.index(MELANOMA)]) if MELANOMA in labels else float("nan")
        return {
            "balanced_accuracy": balanced_accuracy(targets[chosen], predicted[chosen], n_classes),
            "melanoma_recall": melanoma,
        }

    values, intervals = figures(np.arange(len(targets))), bootstrap(figures, targets, seed)
    confusion = np.bincount(targets * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    return {
        "n": len(targets),
        **values,
        **{f"{name}_ci": list(interval) for name, interval in intervals.items()},
        "confusion": confusion.tolist(),
    }
