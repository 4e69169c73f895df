"""The first iteration of the ROF solver: a dual that the next sweeps would take several times as long to reach.

Where an image is flat the dual solves a Poisson equation, and sweeps, which look one pixel around them, spread slowly.
The dual is still zero and hardly anything is projected, so this iteration is linear and may look further:
it takes the gradient of ``f = plain * g + near * S g + wide * W S g`` instead of ``g``. ``S`` is the 3 x 3 binomial
filter and ``W`` the same with gaps of one pixel (a trous); edges are replicated.
"""

from __future__ import annotations

from numpy import float32

from edge_mdda.mdda.kernels.layout import PAD
from edge_mdda.mdda.kernels.registry import distinct, row_helper
from edge_mdda.mdda.kernels.rof import shrink

SIDE, CENTRE = float32(0.25), float32(0.5)  # of the binomial filter
LEFT = PAD - 1


@distinct
@row_helper
def _down(down, above, here, below, n, weight):
    """Vertical half of a filter, times ``weight``."""
    side, centre = weight * SIDE, weight * CENTRE
    for j in range(n):
        down[j] = side * (above[j] + below[j]) + centre * here[j]


@distinct
@row_helper
def _across(row, left, here, right, n):
    """Horizontal half of ``S``."""
    for j in range(n):
        row[j] = SIDE * (left[j] + right[j]) + CENTRE * here[j]


@distinct
@row_helper
def _mix_across(f, left, here, right, s, g, n, plain, near):
    """Horizontal half of ``W``, and the sum."""
    for j in range(n):
        f[j] = (SIDE * (left[j] + right[j]) + CENTRE * here[j]) + (near * s[j] + plain * g[j])


@row_helper
def smooth_row(ring_g, carry, above, here, below, target, spare, n, w):
    """``S g`` of a row into ``carry[target]`` from three rows of ``ring_g``; ``carry[spare]`` is overwritten."""
    _down(carry[spare, PAD:], ring_g[above, PAD:], ring_g[here, PAD:], ring_g[below, PAD:], n, float32(1))
    carry[spare, LEFT] = carry[spare, PAD]
    carry[spare, PAD + w] = carry[spare, PAD + w - 1]
    _across(carry[target, PAD:], carry[spare, LEFT:], carry[spare, PAD:], carry[spare, PAD + 1 :], n)


@row_helper
def mix_row(ring_g, carry, slot, above, here, below, target, spare, n, w, plain, near, wide):
    """``f`` of a row into ``carry[target]`` from three rows ``S g`` in ``carry`` and the row ``slot`` of ``ring_g``."""
    _down(carry[spare, PAD:], carry[above, PAD:], carry[here, PAD:], carry[below, PAD:], n, wide)
    for k in range(2):
        carry[spare, PAD - 1 - k] = carry[spare, PAD]
        carry[spare, PAD + w + k] = carry[spare, PAD + w - 1]
    left, right = carry[spare, PAD - 2 :], carry[spare, PAD + 2 :]
    _mix_across(
        carry[target, PAD:], left, carry[spare, PAD:], right, carry[here, PAD:], ring_g[slot, PAD:], n, plain, near
    )
    carry[target, PAD + w] = carry[target, PAD + w - 1]


@distinct
@row_helper
def _first_sweep_row(f, f_right, f_next, px, py, n, step_x, step_y, lam, magic, one):
    """``p = f``'s gradient, projected."""
    for j in range(n):
        here = f[j]
        qx = step_x * (f_right[j] - here)
        qy = step_y * (f_next[j] - here)
        r = shrink(qy * qy + qx * qx, False, lam, magic, one)
        px[j] = qx * r
        py[j] = qy * r


@row_helper
def first_sweep(ring_px, ring_py, carry, slot, now, then, n, step_x, step_y, lam, magic, one):
    """The dual of a row between ``carry[now]`` and ``carry[then]``; the steps are 1 or, beyond the image, 0."""
    f, f_right, f_next = carry[now, PAD:], carry[now, PAD + 1 :], carry[then, PAD:]
    _first_sweep_row(f, f_right, f_next, ring_px[slot, PAD:], ring_py[slot, PAD:], n, step_x, step_y, lam, magic, one)
    ring_px[slot, LEFT] = float32(0)
