"""Cross-scale aggregation: a weighted sum of a plane and its finer and coarser neighbours.

With the right weights the same kernel builds the pyramid (only the finer or only the coarser
neighbour counts) and blends the scales at the end.
"""

from __future__ import annotations

from numpy import float32

from edge_mdda.mdda.kernels.registry import distinct, kernel, row_helper
from edge_mdda.mdda.kernels.resample import add_down_row, add_up_row, blend_rows


@distinct
@row_helper
def weigh_row(g, source, weight):
    """``g = weight * source``."""
    for j in range(len(g)):
        g[j] = weight * source[j]


@distinct
@row_helper
def clear_row(g):
    """``g = 0``."""
    for j in range(len(g)):
        g[j] = float32(0)


@row_helper
def add_neighbours_row(g, i, fine, coarse, w_fine, w_coarse, scratch):
    """Add what the neighbouring scales give to row ``i``; a neighbour of weight zero is not read."""
    if w_fine > float32(0):
        add_down_row(g, fine[2 * i], fine[min(2 * i + 1, fine.shape[0] - 1)], w_fine * float32(0.25))
    if w_coarse > float32(0):
        near = i >> 1
        far = max(near - 1, 0) if (i & 1) == 0 else min(near + 1, coarse.shape[0] - 1)
        padded = scratch[: coarse.shape[1] + 2]
        blend_rows(padded, coarse[near], coarse[far], w_coarse)
        add_up_row(g, padded)


@kernel("void(f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4, f4, f4, f4[::1])")
def aggregate(fine, here, coarse, out, w_fine, w_here, w_coarse, scratch):
    """``out = w_fine * down(fine) + w_here * here + w_coarse * up(coarse)``.

    ``out`` must be none of the inputs that count; ``scratch`` holds the coarse width plus 2.
    """
    for i in range(out.shape[0]):
        g = out[i]
        if w_here > float32(0):
            weigh_row(g, here[i], w_here)
        else:  # ``here`` may be ``out``
            clear_row(g)
        add_neighbours_row(g, i, fine, coarse, w_fine, w_coarse, scratch)
