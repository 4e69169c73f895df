"""Percentiles and histograms of times, in plain Python: the reporting side loads no NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
MIN_BEYOND = 1  # values that a quantile needs beyond itself; with fewer it only repeats the maximum
BINS = 24


def needed_for(quantile: float) -> int:
    """Values from which on a quantile is given: 2 for the median, 1000 for the 99.9th percentile."""
    return math.ceil(MIN_BEYOND / (1 - quantile) - 1e-9)


def percentile(ordered: Sequence[float], quantile: float) -> float:
    """Quantile of sorted values, linear between neighbours (Hyndman and Fan's type 7, as NumPy's default)."""
    place = quantile * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """``n``, ``mean``, ``min``, the quantiles (None with too few values) and ``max``; rounded to a microsecond of ms.

    Raises
    ------
    ValueError
        No values.
    """
    if not values:
        raise ValueError("no values to summarise")
    ordered = sorted(values)
    row: dict[str, float | None] = {
        "n": len(ordered),
        "mean": round(math.fsum(ordered) / len(ordered), 3),
        "min": round(ordered[0], 3),
    }
    for name, quantile in QUANTILES.items():
        enough = len(ordered) >= needed_for(quantile)
        row[name] = round(percentile(ordered, quantile), 3) if enough else None
    row["max"] = round(ordered[-1], 3)
    return row


def histogram(values: Sequence[float]) -> dict[str, list[float] | list[int] | int]:
    """Equal bins from the smallest value to the 99th percentile, and how many lie above.

    The tail would otherwise squeeze all that is common into one bin.

    Returns
    -------
    dict
        ``edges`` (BINS + 1), ``counts`` (BINS), ``above``.
    """
    ordered = sorted(values)
    low, high = ordered[0], percentile(ordered, QUANTILES["p99"]) if len(ordered) >= 20 else ordered[-1]
    width = (high - low) / BINS or 1e-3
    counts, above = [0] * BINS, 0
    for value in ordered:
        place = int((value - low) / width)
        if place < BINS:
            counts[place] += 1
        elif value <= high:
            counts[-1] += 1
        else:
            above += 1
    return {"edges": [round(low + i * width, 4) for i in range(BINS + 1)], "counts": counts, "above": above}
