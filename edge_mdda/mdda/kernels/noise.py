"""Keyed Gaussian noise: sample ``n`` of a seed is a pure function of both.

A Weyl sequence over the sample number goes through a keyed 32-bit mixer (the multipliers and shifts
of Wellons' lowbias32; one half of the 64-bit seed shifts the counter, the other enters between the
multiplications). Four overlapping 16-bit halves of the hash and of its product with an odd constant
are summed, and an odd polynomial bends that Irwin-Hall sum into a Gaussian.

The polynomial makes variance 1 and kurtosis 3 exact; its largest distance from the normal CDF is
4.2e-4, a third of what a Kolmogorov-Smirnov test at n = 1e6 calls significant (1.36e-3 at 5 %; 13 % of
seeds exceed it instead of 5 %). |z| <= 4.33.
It is noise for image processing, not cryptography: whoever sees the seed knows the noise.

References
----------
C. Wellons, "Prospecting for hash functions", 2018 (lowbias32).
"""

from __future__ import annotations

import math

from numpy import float32, int32, uint32

from edge_mdda.mdda.kernels.registry import distinct, row_helper

WEYL = uint32(0x9E3779B9)  # 2**32 / golden ratio, odd
MIX_1 = uint32(0x7FEB352D)  # lowbias32
MIX_2 = uint32(0x846CA68B)  # lowbias32
SPREAD = uint32(0x9E3779B1)  # a prime near the golden ratio: makes two more halves from one hash
SHIFT_15 = uint32(15)
SHIFT_16 = uint32(16)
LOW_HALF = uint32(0xFFFF)
_DEVIATION = math.sqrt(4 * (65536.0**2 - 1) / 12)  # of the sum of four uniform 16-bit values
SUM_SCALE = float32(1 / _DEVIATION)
SUM_SHIFT = float32(-131070 / _DEVIATION)
# Irwin-Hall (n = 4) to normal: unit variance and kurtosis 3, the free coefficient by least CDF distance.
BEND_1 = float32(0.96097677)
BEND_3 = float32(0.009163997)
BEND_5 = float32(0.00125)


@distinct
@row_helper
def weigh_and_diffuse_row(g, source, weight, first, key_low, key_high, sigma):
    """``g[j] = weight * source[j] + sigma * z(first + j)``; ``first`` and the keys are uint32."""
    bend_1, bend_3, bend_5 = sigma * BEND_1, sigma * BEND_3, sigma * BEND_5
    x = uint32(uint32(first + key_low) * WEYL)
    for j in range(len(g)):
        h = uint32(x ^ (x >> SHIFT_16))
        h = uint32(h * MIX_1)
        h = uint32(h ^ uint32(key_high ^ uint32(h >> SHIFT_15)))
        h = uint32(h * MIX_2)
        h = uint32(h ^ (h >> SHIFT_16))
        p = uint32(h * SPREAD)
        total = uint32(uint32(h & LOW_HALF) + uint32(h >> SHIFT_16))
        total = uint32(total + uint32(uint32(p & LOW_HALF) + uint32(p >> SHIFT_16)))
        z = float32(int32(total)) * SUM_SCALE + SUM_SHIFT
        z2 = z * z
        g[j] = weight * source[j] + z * (bend_1 + z2 * (bend_3 + z2 * bend_5))
        x = uint32(x + WEYL)
