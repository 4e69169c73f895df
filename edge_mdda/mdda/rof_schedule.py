"""What the ROF kernel is told: how to open, a step for each sweep and the constant of its square root."""

from __future__ import annotations

import math

import numpy as np

from edge_mdda.mdda.kernels.layout import SHORT_RUN

STABLE_STEP = 0.38
"""Below 2 / (3 + sqrt(5)) = 0.382, the largest constant step at which the row Gauss-Seidel scheme is stable."""

SCHEDULES: dict[int, tuple[float, ...]] = {
    1: (0.162, 0.354, 0.140),
    2: (0.164, 0.584, 0.694, 0.321),
    3: (0.160, 0.697, 1.408, 0.500, 0.257),
    4: (0.159, 0.781, 2.318, 0.334, 0.628, 0.254),
    5: (0.157, 0.661, 3.371, 0.313, 0.737, 0.449, 0.247),
    6: (0.157, 0.661, 3.371, 0.313, 0.737, 0.449, 0.6, 0.25),
    7: (0.17, 0.469, 5.0, 0.315, 0.76, 0.376, 0.84, 0.249, 0.262),
    8: (0.170, 0.469, 6.097, 0.315, 0.760, 0.376, 0.840, 0.249, 0.598, 0.262),
}
"""``(plain, near, wide, *steps)`` of the least RMSE from the optimum (mean of its sixth power, so that the worst
counts) over four scales of the drawn picture and four photographs of the training split: Powell search with
sigma = lam = 2, 3, 5, 5, 7 and 10 for 1 to 5 and 8 iterations; 6 and 7 lie between by eye. That of 3 was refined on
eleven photographs with the sixteenth power: 0.49 grey levels at the worst scale of the worst one. The short
last step settles what the long ones stir up."""


def schedule(iterations: int) -> np.ndarray:
    """What ``dda_plane`` is told of its iterations, float32.

    Returns
    -------
    (iterations + 2,) float32
        ``plain``, ``near`` and ``wide`` of :mod:`edge_mdda.mdda.kernels.first_iteration` and the step of every later
        iteration; empty without iterations. After those of :data:`SCHEDULES` come stable steps.
    """
    if iterations == 0:
        return np.empty(0, np.float32)
    longest = max(SCHEDULES)
    table = SCHEDULES[min(iterations, longest)]
    more = (STABLE_STEP,) * (iterations - longest)
    last = STABLE_STEP if iterations > SHORT_RUN else table[-1]
    return np.array((*table[:-1], *more, last) if more else table, np.float32)


def shrink_magic(lam: float) -> np.int32:
    """The constant whose difference with half the bits of a float32 ``x`` has the bits of about ``lam / sqrt(x)``.

    Lomont's constant moved by log2(lam) exponents, then centred: the largest relative error is least, 2.9 to 4.2 %
    depending on lam.
    """
    x = np.exp2(np.linspace(0, 2, 4096, endpoint=False)).astype(np.float32)
    half = x.view(np.int32) >> 1
    exact = math.log2(lam) - np.log2(x.astype(float)) / 2
    magic = LOMONT + round(math.log2(lam) * MANTISSA)
    for _ in range(CENTRINGS):
        error = np.log2((magic - half).astype(np.int32).view(np.float32).astype(float)) - exact
        magic -= round((error.max() + error.min()) / 2 * MANTISSA)
    return np.int32(magic)


LOMONT = 0x5F375A86  # C. Lomont, "Fast inverse square root", 2003
MANTISSA = 2**23  # of float32
CENTRINGS = 8  # the two ends of the error move a little with the constant
