"""Resampling by two, a row at a time: 2 x 2 box down, half-pixel-centred bilinear up.

A coarse side is ``(n + 1) // 2`` of the finer side ``n``; for odd ``n`` the last fine row and
column stand in for their missing neighbours.
"""

from __future__ import annotations

from numpy import float32

from edge_mdda.mdda.kernels.registry import distinct, row_helper

NEAR = float32(0.75)
FAR = float32(0.25)
"""Bilinear weights of the nearer and the farther coarse sample."""


@distinct
@row_helper
def add_down_row(g, fine0, fine1, quarter):
    """``g[j] += quarter * (the 2 x 2 fine samples under j)``."""
    n = len(fine0)
    for j in range(n // 2):
        g[j] += quarter * ((fine0[2 * j] + fine0[2 * j + 1]) + (fine1[2 * j] + fine1[2 * j + 1]))
    if n & 1:
        g[n // 2] += quarter * float32(2) * (fine0[n - 1] + fine1[n - 1])


@distinct
@row_helper
def blend_rows(padded, near, far, weight):
    """Vertical half of the bilinear step; ``padded`` has one replicated sample at either end."""
    m = len(near)
    near_weight = weight * NEAR
    far_weight = weight * FAR
    for j in range(m):
        padded[j + 1] = near_weight * near[j] + far_weight * far[j]
    padded[0] = padded[1]
    padded[m + 1] = padded[m]


@distinct
@row_helper
def add_up_row(g, padded):
    """Horizontal half: ``g[j] +=`` the padded coarse row interpolated at ``j``."""
    n = len(g)
    for j in range(n // 2):
        here = NEAR * padded[j + 1]
        g[2 * j] += here + FAR * padded[j]
        g[2 * j + 1] += here + FAR * padded[j + 2]
    if n & 1:
        m = n // 2
        g[n - 1] += NEAR * padded[m + 1] + FAR * padded[m]
