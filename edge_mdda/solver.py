"""What the ROF kernel is told: a step for each sweep and the constant of its square root."""

from __future__ import annotations

import math

import numpy as np

SHORT_RUN = 12  # sweeps
LANES = 16
"""Floats of two 256-bit vectors, the most that a sweep takes at a time."""

AHEAD = 4  # rows that the first iteration looks ahead
SMOOTH_ROWS = 8  # smoothed rows that are kept, of which 5 are needed

STABLE_STEP = 0.38
"""Below 2 / (3 + sqrt(5)) = 0.382, the largest constant step at which the row Gauss-Seidel scheme is stable."""

SCHEDULES = {3: (0.157, 0.671, 1.741, 0.488, 0.256)}


def schedule(iterations: int) -> np.ndarray:
    """What ``dda_plane`` is told of its iterations, float32.

    The first iteration takes the gradient of ``plain * g + smoothed * (3 x 3 binomial of g)``.

    Returns
    -------
    (iterations + 1,) float32
        ``plain``, ``smoothed`` and the step of every later iteration; empty without iterations.
    """
    if iterations == 0:
        return np.empty(0, np.float32)
    if iterations in SCHEDULES:
        return np.array(SCHEDULES[iterations], np.float32)
    table = np.full(iterations + 2, STABLE_STEP, np.float32)
    table[:3] = 0.16, 0.67, 1.74
    for t in range(1, min(iterations, SHORT_RUN)):
        table[t + 2] = 0.62 if t % 2 else 0.43
    if 1 < iterations <= SHORT_RUN:
        table[-1] = 0.25
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
