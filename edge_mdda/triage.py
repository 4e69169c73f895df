"""The rule that turns shares into an advice, and what it needs to know of two views. Nothing else decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Advice:
    """What to do next and the rule that said so."""

    action: str
    """``refer``, ``retake`` or ``routine``."""
    rule: str


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence of two distributions in bits: 0 equal, 1 disjoint.

    References
    ----------
    J. Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37, 1991.
    """
    import numpy as np

    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    middle = (p + q) / 2

    def entropy(values: np.ndarray) -> float:
        positive = values[values > 0]
        return float(-(positive * np.log2(positive)).sum())

    return min(max(entropy(middle) - (entropy(p) + entropy(q)) / 2, 0.0), 1.0)


def advise(
    malignant: float, disagreement: float | None, refer_at: float, retake_at: float, problem: str | None = None
) -> Advice:
    """The advice and its rule.

    ``malignant`` is the larger share of the views: when a tampered and a clean view differ, the one that
    asks for a clinician wins, so that a flipped answer errs to the safe side. A suspicious image is never
    ``routine``: it is retaken, and referred if it stays suspicious.
    """
    if malignant >= refer_at:
        return Advice("refer", f"a view has a malignant share of {malignant:.3f}, at least {refer_at:.3f}")
    if problem:
        return Advice("retake", f"{problem}; refer if that does not help")
    if disagreement is not None and disagreement >= retake_at:
        return Advice(
            "retake",
            f"raw and purified view disagree by {disagreement:.3f} bit, at least {retake_at:.3f}: the image may"
            " have been altered; take it again, and refer if they still disagree",
        )
    seen = "" if disagreement is None else f", and they disagree by less than {retake_at:.3f} bit"
    return Advice("routine", f"no view has a malignant share of {refer_at:.3f} (largest {malignant:.3f}){seen}")
