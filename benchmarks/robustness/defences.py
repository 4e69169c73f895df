"""Defences side by side: each maps an image and a seed to an image of the same size, before the network sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from edge_mdda.mdda import PRESETS, Purifier
from export.dataset import SIDE

Apply = Callable[[np.ndarray, int], np.ndarray]
"""(224, 224, 3) uint8 RGB, C-contiguous, and a seed from 0 to 2**53 - 1, to the same shape and type."""


@dataclass(frozen=True)
class Defence:
    """One defence, not yet opened."""

    name: str
    label: str
    source: str
    open: Callable[[], Apply]


def none() -> Apply:
    """The image as it is."""
    return lambda image, seed: image


def mdda(preset: str) -> Apply:
    """This project's purifier with a shipped preset."""
    return Purifier(SIDE, SIDE, PRESETS[preset]).purify


DEFENCES: dict[str, Defence] = {
    "none": Defence("none", "none", "-", none),
    **{f"mdda_{name}": Defence(f"mdda_{name}", f"MDDA {name}", "", partial(mdda, name)) for name in PRESETS},
}
