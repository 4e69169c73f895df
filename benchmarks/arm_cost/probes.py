"""The purifier's row loops, each as a kernel of its own, so that its machine code can be found and priced.

Never called: :mod:`benchmarks.arm_cost.measure` compiles them and reads the assembly.
"""

from __future__ import annotations

from edge_mdda.mdda.kernels import aggregate, first_iteration, noise, pack_and_blend, resample, rof
from edge_mdda.mdda.kernels.registry import kernel

SWEEP = "void(f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], i8, f4, f4, f4, i4, f4)"


@kernel(SWEEP)
def rof_sweep(g_next, px_next, px_left, py_next, u, u_right, px, py, u_next, n, step_x, step_y, lam, magic, one):
    """An iteration of a short run."""
    rof.sweep_row(
        g_next, px_next, px_left, py_next, u, u_right, px, py, u_next, n, step_x, step_y, False, lam, magic, one
    )


@kernel(SWEEP)
def rof_fine_sweep(g_next, px_next, px_left, py_next, u, u_right, px, py, u_next, n, step_x, step_y, lam, magic, one):
    """An iteration late in a long run."""
    rof.sweep_row(
        g_next, px_next, px_left, py_next, u, u_right, px, py, u_next, n, step_x, step_y, True, lam, magic, one
    )


@kernel("void(f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], i8, f4, f4, f4, i4, f4)")
def rof_first_sweep(f, f_right, f_next, px, py, n, step_x, step_y, lam, magic, one):
    """The first iteration, without its filters."""
    first_iteration._first_sweep_row(f, f_right, f_next, px, py, n, step_x, step_y, lam, magic, one)


@kernel("void(f4[::1], f4[::1], f4[::1], f4[::1], i8, f4)")
def filter_down(down, above, here, below, n, weight):
    """Vertical half of a filter of the first iteration."""
    first_iteration._down(down, above, here, below, n, weight)


@kernel("void(f4[::1], f4[::1], f4[::1], f4[::1], i8)")
def filter_across(row, left, here, right, n):
    """Horizontal half."""
    first_iteration._across(row, left, here, right, n)


@kernel("void(f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], i8, f4, f4)")
def filter_mix(f, left, here, right, s, g, n, plain, near):
    """Horizontal half of the wider filter, and the sum."""
    first_iteration._mix_across(f, left, here, right, s, g, n, plain, near)


@kernel("void(f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], f4[::1])")
def rof_primal(out, g, px, px_left, py, py_above):
    """The image from the dual."""
    rof.primal_row(out, g, px, px_left, py, py_above)


@kernel("void(f4[::1], f4[::1], f4, u4, u4, u4, f4)")
def noise_sample(g, source, weight, first, key_low, key_high, sigma):
    """Weighting and Gaussian noise in one pass."""
    noise.weigh_and_diffuse_row(g, source, weight, first, key_low, key_high, sigma)


@kernel("void(f4[::1], f4[::1], f4)")
def weigh(g, source, weight):
    """Weighting alone."""
    aggregate.weigh_row(g, source, weight)


@kernel("void(f4[::1], f4[::1], f4[::1], f4)")
def down(g, fine0, fine1, quarter):
    """The finer scale's 2 x 2 means."""
    resample.add_down_row(g, fine0, fine1, quarter)


@kernel("void(f4[::1], f4[::1], f4[::1], f4)")
def blend_rows(padded, near, far, weight):
    """The coarser scale, vertical half; a pixel is a coarse one."""
    resample.blend_rows(padded, near, far, weight)


@kernel("void(f4[::1], f4[::1])")
def up(g, padded):
    """The coarser scale, horizontal half."""
    resample.add_up_row(g, padded)


@kernel("void(f4[::1], f4[::1], f4[::1], f4[::1], f4, f4)")
def smooth_down(padded, above, here, below, side, centre):
    """Final smoothing, vertical half."""
    pack_and_blend.smooth_down(padded, above, here, below, side, centre)


@kernel("void(f4[::1], f4[::1], f4, f4)")
def smooth_across(row, padded, side, centre):
    """Final smoothing, horizontal half."""
    pack_and_blend.smooth_across(row, padded, side, centre)
