"""Rudin-Osher-Fatemi denoising in its dual form, a row at a time.

``argmin_u TV(u) + |u - g|^2 / (2 lam)`` with isotropic TV of forward differences is ``u = g + div p``
for the dual field with ``|p| <= lam``. One iteration takes ``q = p + STEP * grad u`` and
``p <- q * min(1, lam / |q|)``, Gauss-Seidel down the rows (each row sees the new row above) and Jacobi
within a row, which keeps the inner loop free of dependences.

Arrays named ``px`` and ``py`` start one sample left of column 0 (index ``j + 1`` is column ``j``), where
the dual is zero. ``u`` rows carry one replicated sample at their end, so the last difference is zero.

References
----------
L. Rudin, S. Osher, E. Fatemi, Physica D 60, 1992; A. Chambolle, J. Math. Imaging Vis. 20, 2004.
J. Kadlec, "Improving the fast inverse square root", 2010 (magic number and Newton constants).
"""

from __future__ import annotations

from numpy import float32, int32

from edge_mdda.kernels.registry import row_helper

STEP = float32(0.38)
"""Dual step; row Gauss-Seidel is stable below 2 / (3 + sqrt(5)) = 0.382, full Jacobi only below 0.25."""

RSQRT_MAGIC = int32(0x5F1FFFF9)
RSQRT_A = float32(0.703952253)
RSQRT_B = float32(2.38924456)
"""1/sqrt(x) = A * y * (B - x * y * y) with y the bit trick: relative error 6.5e-4, no divide, no sqrt."""

ONE = int32(1)


@row_helper
def first_sweep_row(u, u_next, g_next, px, py, lam):
    """Iteration 1 of a row, where the dual is zero everywhere: writes ``px``, ``py`` and ``u`` of the next row."""
    bound = RSQRT_A * lam
    n = len(g_next)
    for j in range(n):
        below = g_next[j]
        here = u[j]
        qx = STEP * (u[j + 1] - here)
        qy = STEP * (below - here)
        norm2 = float32(qx * qx + qy * qy)
        y = int32(RSQRT_MAGIC - int32(norm2.view(int32) >> ONE)).view(float32)
        shrink = min(bound * y * (RSQRT_B - norm2 * y * y), float32(1))
        qy *= shrink
        px[j + 1] = qx * shrink
        py[j + 1] = qy
        u_next[j] = below - qy
    u_next[n] = u_next[n - 1]
    px[0] = float32(0)
    py[0] = float32(0)


@row_helper
def sweep_row(u, u_next, g_next, px_next, py_next, px, py, lam):
    """A later iteration of a row: ``u`` is this row's, updated; ``u_next`` becomes the row below's."""
    bound = RSQRT_A * lam
    n = len(g_next)
    for j in range(n):
        py_here = py[j + 1]
        below = g_next[j] + (px_next[j + 1] - px_next[j]) + py_next[j + 1]
        here = u[j]
        qx = px[j + 1] + STEP * (u[j + 1] - here)
        qy = py_here + STEP * (below - py_here - here)
        norm2 = float32(qx * qx + qy * qy)
        y = int32(RSQRT_MAGIC - int32(norm2.view(int32) >> ONE)).view(float32)
        shrink = min(bound * y * (RSQRT_B - norm2 * y * y), float32(1))
        qy *= shrink
        px[j + 1] = qx * shrink
        py[j + 1] = qy
        u_next[j] = below - qy
    u_next[n] = u_next[n - 1]


@row_helper
def top_row(u, g, px, py):
    """``u`` of image row 0, which has no dual above it."""
    n = len(g)
    for j in range(n):
        u[j] = g[j] + (px[j + 1] - px[j]) + py[j + 1]
    u[n] = u[n - 1]


@row_helper
def bottom_sweep_row(u, px, lam):
    """The last image row: only horizontal differences are left."""
    for j in range(len(u) - 1):
        px[j + 1] = min(max(px[j + 1] + STEP * (u[j + 1] - u[j]), -lam), lam)


@row_helper
def primal_row(out, g, px, py, py_above):
    """``out = g + div p`` of one row below the first."""
    for j in range(len(out)):
        out[j] = g[j] + (px[j + 1] - px[j]) + (py[j + 1] - py_above[j + 1])
