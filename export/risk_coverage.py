"""Risk against coverage: what is missed when a share of the cases is left to the clinician.

The cases with the largest malignant share go to the clinician, the others are answered ``routine``. So a row tells
what a referral threshold costs and what it misses, whatever threshold the manifest holds.

References
----------
R. El-Yaniv, Y. Wiener, "On the foundations of noise-free selective classification", JMLR 11, 2010.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.intervals import share_of

LEFT_TO_CLINICIAN = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # shares of the cases


def risk_coverage(positive: np.ndarray, score: np.ndarray) -> list[dict[str, Any]]:
    """Rows of the curve.

    Parameters
    ----------
    positive : (n,) bool
        Malignant.
    score : (n,) float
        Malignant share.

    Returns
    -------
    list of dict
        ``left`` (share that the clinician sees, at least that of ``LEFT_TO_CLINICIAN``: ties stay together),
        ``refer_at`` (None where nothing is left), ``missed`` (malignant cases answered routine, of all malignant ones)
        and ``error`` (malignant cases among those answered routine), both with Wilson intervals.
    """
    ordered = np.sort(score)[::-1]
    rows = []
    for wanted in LEFT_TO_CLINICIAN:
        count = int(np.ceil(wanted * len(ordered)))
        threshold = float(ordered[count - 1]) if count else None
        seen = score >= threshold if threshold is not None else np.zeros(len(score), bool)
        rows.append(
            {
                "left": float(seen.mean()),
                "refer_at": threshold,
                "missed": share_of(~seen[positive]),
                "error": share_of(positive[~seen]),
            }
        )
    return rows


def cell(part: dict[str, Any]) -> str:
    """A share with its interval in per cent, or a dash where there is nothing to count."""
    if not part["n"]:
        return "-"
    low, high = part["ci"]
    return f"{part['share']:.1%} ({low:.1%} to {high:.1%})"


def curve_table(rows: list[dict[str, Any]]) -> str:
    """The rows as a markdown table."""
    lines = [
        "| left to the clinician | malignant share from | malignant missed | malignant among the rest |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        threshold = "-" if row["refer_at"] is None else f"{row['refer_at']:.4f}"
        lines.append(f"| {row['left']:.0%} | {threshold} | {cell(row['missed'])} | {cell(row['error'])} |")
    return "\n".join(lines)
