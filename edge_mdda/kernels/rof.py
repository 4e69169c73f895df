"""Rudin-Osher-Fatemi denoising in its dual form, a row at a time.

``argmin_u TV(u) + |u - g|^2 / (2 lam)`` with isotropic TV of forward differences is
``u = g + lam div p`` for the dual field with ``|p| <= 1``. One iteration takes
``q = p + (step / lam) grad u`` and ``p <- q min(1, 1 / |q|)``, Gauss-Seidel down the rows (each row sees the new
row above) and Jacobi within a row, which keeps the inner loop free of dependences.

Two things make a sweep cheap. The reciprocal square root is the bare bit trick (3.4 % off), far below what a
few sweeps leave anyway. And the steps vary: a short one first and last, long ones between, which reaches in 6
sweeps what the largest constant step takes 7 for. Both are for short runs: from sweep ``SHORT_RUN`` on the
root is fine and the step a stable constant, so that a long run converges.

Arrays named ``px`` and ``py`` start one sample left of column 0 (index ``j + 1`` is column ``j``), where
the dual is zero. ``u`` rows carry one replicated sample at their end, so the last difference is zero.

References
----------
L. Rudin, S. Osher, E. Fatemi, Physica D 60, 1992; A. Chambolle, J. Math. Imaging Vis. 20, 2004.
C. Lomont, "Fast inverse square root", 2003 (magic number); J. Kadlec, "Improving the fast inverse
square root", 2010 (magic number and Newton constants).
"""

from __future__ import annotations

from numpy import float32, int32

from edge_mdda.kernels.registry import row_helper

FIRST_STEP = float32(0.19)
ODD_STEP = float32(0.43)
EVEN_STEP = float32(0.62)
LAST_STEP = float32(0.25)
"""Least RMSE from the optimum over 6 to 16 iterations at sigma = lam = 5 and 10 (Powell search on noisy
skin). The short last step settles what the long ones stir up."""

STABLE_STEP = float32(0.38)
"""Below 2 / (3 + sqrt(5)) = 0.382, the largest constant step at which the row Gauss-Seidel scheme is stable."""

SHORT_RUN = 12  # sweeps

FINE_MAGIC = int32(0x5F1FFFF9)  # Kadlec
FINE_A = float32(0.703952253)
FINE_B = float32(2.38924456)
"""1/sqrt(x) = A * y * (B - x * y * y) with y the bit trick: relative error 6.5e-4, no divide, no sqrt."""

ONE = int32(1)


@row_helper
def step_of(t, iterations):
    """Dual step of iteration ``t`` (from 0)."""
    if t == 0:
        return FIRST_STEP
    if t >= SHORT_RUN:
        return STABLE_STEP
    if t == iterations - 1:
        return LAST_STEP
    return ODD_STEP if t & 1 else EVEN_STEP


@row_helper
def shrink(norm2, fine, magic, one):
    """``min(1, 1 / sqrt(norm2))``; ``fine`` is a literal, so one branch is left after inlining.

    ``magic`` (0x5F375A86, Lomont) and ``one`` come from outside the kernel, so the compiler cannot see their values:
    constants it would load anew for every vector (5 % of a sweep).
    """
    half = int32(float32(norm2).view(int32) >> ONE)
    if fine:
        y = int32(FINE_MAGIC - half).view(float32)
        return min(FINE_A * y * (FINE_B - norm2 * y * y), one)
    return min(int32(magic - half).view(float32), one)


@row_helper
def first_sweep_row(u, u_next, g_next, px, py, lam, step, magic, one):
    """Iteration 1 of a row, where the dual is zero everywhere: writes ``px``, ``py`` and ``u`` of the next row."""
    scaled = step / lam
    n = len(g_next)
    for j in range(n):
        below = g_next[j]
        here = u[j]
        qx = scaled * (u[j + 1] - here)
        qy = scaled * (below - here)
        r = shrink(qx * qx + qy * qy, False, magic, one)
        qy *= r
        px[j + 1] = qx * r
        py[j + 1] = qy
        u_next[j] = below - lam * qy
    u_next[n] = u_next[n - 1]
    px[0] = float32(0)
    py[0] = float32(0)


@row_helper
def sweep_row(u, u_next, g_next, px_next, py_next, px, py, lam, step, fine, magic, one):
    """A later iteration of a row: ``u`` is this row's, updated; ``u_next`` becomes the row below's."""
    scaled = step / lam
    kept = float32(1) - step  # the row below holds py once: q = py + scaled * (below - lam * py - here)
    n = len(g_next)
    for j in range(n):
        below = g_next[j] + lam * ((px_next[j + 1] - px_next[j]) + py_next[j + 1])
        here = u[j]
        qx = px[j + 1] + scaled * (u[j + 1] - here)
        qy = kept * py[j + 1] + scaled * (below - here)
        r = shrink(qx * qx + qy * qy, fine, magic, one)
        qy *= r
        px[j + 1] = qx * r
        py[j + 1] = qy
        u_next[j] = below - lam * qy
    u_next[n] = u_next[n - 1]


@row_helper
def top_row(u, g, px, py, lam):
    """``u`` of image row 0, which has no dual above it."""
    n = len(g)
    for j in range(n):
        u[j] = g[j] + lam * ((px[j + 1] - px[j]) + py[j + 1])
    u[n] = u[n - 1]


@row_helper
def bottom_sweep_row(u, px, lam, step):
    """The last image row: only horizontal differences are left."""
    scaled = step / lam
    for j in range(len(u) - 1):
        px[j + 1] = min(max(px[j + 1] + scaled * (u[j + 1] - u[j]), float32(-1)), float32(1))


@row_helper
def primal_row(out, g, px, py, py_above, lam):
    """``out = g + lam div p`` of one row below the first."""
    for j in range(len(out)):
        out[j] = g[j] + lam * ((px[j + 1] - px[j]) + (py[j + 1] - py_above[j + 1]))
