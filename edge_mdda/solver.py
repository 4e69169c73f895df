"""What the ROF kernel is told: a step for each sweep and the constant of its square root."""

from __future__ import annotations

import math

import numpy as np

SHORT_RUN = 12  # sweeps
LANES = 16
"""Floats of two 256-bit vectors, the most that a sweep takes at a time."""

FIRST_STEP, ODD_STEP, EVEN_STEP, LAST_STEP = 0.19, 0.43, 0.62, 0.25
STABLE_STEP = 0.38


def steps(iterations: int) -> np.ndarray:
    """Dual step of every sweep, float32."""
    table = np.empty(iterations, np.float32)
    for t in range(iterations):
        if t == 0:
            table[t] = FIRST_STEP
        elif t >= SHORT_RUN:
            table[t] = STABLE_STEP
        elif t == iterations - 1:
            table[t] = LAST_STEP
        else:
            table[t] = ODD_STEP if t & 1 else EVEN_STEP
    return table


def shrink_magic(lam: float) -> np.int32:
    """The constant whose difference with half the bits of ``x`` has the bits of about ``lam / sqrt(x)``."""
    x = np.exp2(np.linspace(0, 2, 4096, endpoint=False)).astype(np.float32)
    exact = math.log2(lam) - np.log2(x.astype(float)) / 2
    half = x.view(np.int32) >> 1
    magic = 0x5F375A86 + round(math.log2(lam) * 2**23)
    for _ in range(8):  # the error's two ends move a little with the constant
        error = np.log2((magic - half).astype(np.int32).view(np.float32).astype(float)) - exact
        magic -= round((error.max() + error.min()) / 2 * 2**23)
    return np.int32(magic)
