"""Rudin-Osher-Fatemi denoising in its dual form, a row at a time.

``argmin_u TV(u) + |u - g|^2 / (2 lam)`` with isotropic TV of forward differences is ``u = g + div p`` for the
dual field with ``|p| <= lam``. One iteration takes ``q = p + step grad u`` and ``p <- q min(1, lam / |q|)``,
Gauss-Seidel down the rows (each row sees the new row above) and Jacobi within a row, which keeps the inner
loop free of dependences.

Two things make a sweep cheap. ``lam / |q|`` is one bare bit trick (4 % off), far below what a few sweeps leave
anyway. And the steps vary (:mod:`edge_mdda.mdda.rof_schedule`). Both are for short runs: from sweep ``SHORT_RUN`` on
the root is fine and the step a stable constant, so that a long run converges. The first iteration is another,
:mod:`edge_mdda.mdda.kernels.first_iteration`.

Column 0 of a ring row is at index ``PAD``; column -1 of ``px`` is zero. ``n`` is the width rounded up to whole
vectors: what happens beyond the width stays there, because ``u`` carries one replicated sample at its end. A row and
the same row shifted by one are two arguments: as one, LLVM would load once and shuffle, which is slower.
Slices are made where they are passed: ones that wait in variables cost an atomic reference count each.

References
----------
L. Rudin, S. Osher, E. Fatemi, Physica D 60, 1992; A. Chambolle, J. Math. Imaging Vis. 20, 2004.
C. Lomont, "Fast inverse square root", 2003 (magic number); J. Kadlec, "Improving the fast inverse
square root", 2010 (magic number and Newton constants).
"""

from __future__ import annotations

from numpy import float32, int32

from edge_mdda.mdda.kernels.layout import PAD
from edge_mdda.mdda.kernels.registry import distinct, row_helper

FINE_MAGIC = int32(0x5F1FFFF9)  # Kadlec
FINE_A = float32(0.703952253)
FINE_B = float32(2.38924456)
"""1/sqrt(x) = A * y * (B - x * y * y) with y the bit trick: relative error 6.5e-4, no divide, no sqrt."""

HALVE = int32(1)
LEFT = PAD - 1


@row_helper
def shrink(norm2, fine, lam, magic, one):
    """``min(1, lam / sqrt(norm2))``; ``fine`` is a literal, so one branch is left after inlining.

    ``magic`` (which holds lam) and ``one`` come from outside the kernel, so the compiler cannot see their values:
    constants it would load anew for every vector (5 % of a sweep).
    """
    half = int32(float32(norm2).view(int32) >> HALVE)
    if fine:
        y = int32(FINE_MAGIC - half).view(float32)
        return min((lam * FINE_A) * y * (FINE_B - norm2 * y * y), one)
    return min(int32(magic - half).view(float32), one)


@distinct
@row_helper
def sweep_row(g_next, px_next, px_left, py_next, u, u_right, px, py, u_next, n, step_x, step_y, fine, lam, magic, one):
    """A later iteration of a row: ``u`` is this row's and becomes the row below's.

    ``step_y`` is 0 in the last row, which has nothing below it, and both are above the first.
    """
    kept = one - step_y  # the row below holds py once: q = py + step * (beneath - py - here)
    for j in range(n):
        beneath = (g_next[j] + py_next[j]) + (px_next[j] - px_left[j])
        here = u[j]
        qx = px[j] + step_x * (u_right[j] - here)
        qy = kept * py[j] + step_y * (beneath - here)
        r = shrink(qy * qy + qx * qx, fine, lam, magic, one)
        px[j] = qx * r
        py[j] = qy * r
        u_next[j] = beneath - qy * r


@row_helper
def sweep(ring_g, ring_px, ring_py, carry, slot, below, now, then, n, step_x, step_y, fine, lam, magic, one):
    sweep_row(
        ring_g[below, PAD:],
        ring_px[below, PAD:],
        ring_px[below, LEFT:],
        ring_py[below, PAD:],
        carry[now, PAD:],
        carry[now, PAD + 1 :],
        ring_px[slot, PAD:],
        ring_py[slot, PAD:],
        carry[then, PAD:],
        n,
        step_x,
        step_y,
        fine,
        lam,
        magic,
        one,
    )


@distinct
@row_helper
def primal_row(out, g, px, px_left, py, py_above):
    """``out = g + div p`` of one row."""
    for j in range(len(out)):
        out[j] = (g[j] + (px[j] - px_left[j])) + (py[j] - py_above[j])
