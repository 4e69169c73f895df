"""One MDDA block of one plane in a single pass: aggregate the last block, diffuse, denoise.

All iterations of the ROF solver run down the image together: iteration ``t`` works ``AHEAD + t`` rows
behind the loader, ``ROW_BLOCK`` rows at a time. Rings of ``ROW_BLOCK + iterations + AHEAD + 1`` rows hold the noisy
image and the dual field, so neither ever goes to main memory.
"""

from __future__ import annotations

from numpy import float32, uint32

from edge_mdda.mdda.kernels.aggregate import add_neighbours_row, weigh_row
from edge_mdda.mdda.kernels.first_iteration import first_sweep, mix_row, smooth_row
from edge_mdda.mdda.kernels.layout import AHEAD, LANES, PAD, ROW_BLOCK, SHORT_RUN, SMOOTH_ROWS
from edge_mdda.mdda.kernels.noise import weigh_and_diffuse_row
from edge_mdda.mdda.kernels.registry import kernel
from edge_mdda.mdda.kernels.rof import primal_row, sweep

LEFT = PAD - 1


@kernel(
    "void(f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4, f4, f4, u4, u4, u4, f4,"
    " f4[::1], f4, i4, f4, f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[::1])"
)
def dda_plane(
    fine,
    here,
    coarse,
    out,
    w_fine,
    w_here,
    w_coarse,
    key_low,
    key_high,
    first_sample,
    sigma,
    schedule,
    lam,
    magic,
    one,
    ring_g,
    ring_px,
    ring_py,
    carry,
    scratch,
):
    """``out = ROF(aggregate(fine, here, coarse) + sigma * noise, lam)`` by the iterations of ``schedule``.

    All ring rows are ``PAD`` floats, the width rounded up to ``LANES`` and ``PAD`` floats more, all finite.
    ``carry`` has two for each iteration (``u`` of an even and an odd row, ``f`` in the first), one to spare and
    ``SMOOTH_ROWS``. An empty schedule makes ``out`` the diffused image; otherwise ``lam`` must be positive.
    ``schedule`` and ``magic`` come from :mod:`edge_mdda.mdda.rof_schedule`; ``one`` is 1, see :func:`shrink`.
    """
    h, w = here.shape
    iterations = max(len(schedule) - 2, 0)
    end = PAD + w
    n = (w + LANES - 1) // LANES * LANES
    n_ring = ROW_BLOCK + iterations + AHEAD + 1
    spare, smooth = 2 * iterations, 2 * iterations + 1  # rows of carry
    # Image row i lives in ring row (i + 1) % n_ring; row -1 is a dual of zeros above the image.
    for start in range(0, h + iterations + AHEAD, ROW_BLOCK):
        for i in range(start, min(start + ROW_BLOCK, h)):
            g = ring_g[(i + 1) % n_ring, PAD:end] if iterations else out[i]
            if sigma > float32(0):
                sample = uint32(first_sample + uint32(i * w))
                weigh_and_diffuse_row(g, here[i], w_here, sample, key_low, key_high, sigma)
            else:
                weigh_row(g, here[i], w_here)
            add_neighbours_row(g, i, fine, coarse, w_fine, w_coarse, scratch)
        if iterations == 0:
            continue
        for i in range(max(start - AHEAD, -3), min(start - AHEAD + ROW_BLOCK, h)):
            k = i + 3
            if k < h:
                a, b, c = max(k, 1) % n_ring, (k + 1) % n_ring, min(k + 2, h) % n_ring
                smooth_row(ring_g, carry, a, b, c, smooth + k % SMOOTH_ROWS, spare, n, w)
            k = i + 1
            if 0 <= k < h:
                a, b, c = max(k - 2, 0) % SMOOTH_ROWS, k % SMOOTH_ROWS, min(k + 2, h - 1) % SMOOTH_ROWS
                slot, target = (k + 1) % n_ring, k & 1
                plain, near, wide = schedule[0], schedule[1], schedule[2]
                mix_row(ring_g, carry, slot, smooth + a, smooth + b, smooth + c, target, spare, n, w, plain, near, wide)
            if i >= -1:
                step_x = one if i >= 0 else float32(0)
                step_y = step_x if i < h - 1 else float32(0)
                slot = (i + 1) % n_ring
                first_sweep(ring_px, ring_py, carry, slot, i & 1, 1 - (i & 1), n, step_x, step_y, lam, magic, one)
        for t in range(1, iterations):
            first = max(start - AHEAD - t, -1)
            slot = (first + 1) % n_ring
            for i in range(first, min(start - AHEAD - t + ROW_BLOCK, h)):
                below = slot + 1 if slot + 1 < n_ring else 0
                step_x = schedule[t + 2] if i >= 0 else float32(0)
                step_y = step_x if i < h - 1 else float32(0)
                now, then = 2 * t + (i & 1), 2 * t + 1 - (i & 1)
                rings = ring_g, ring_px, ring_py, carry
                if t < SHORT_RUN:
                    sweep(*rings, slot, below, now, then, n, step_x, step_y, False, lam, magic, one)
                else:
                    sweep(*rings, slot, below, now, then, n, step_x, step_y, True, lam, magic, one)
                carry[then, end] = carry[then, end - 1]
                slot = below
        for i in range(max(start - AHEAD + 1 - iterations, 0), min(start - AHEAD + 1 - iterations + ROW_BLOCK, h)):
            slot = (i + 1) % n_ring
            px, px_left = ring_px[slot, PAD:], ring_px[slot, LEFT:]
            primal_row(out[i], ring_g[slot, PAD:], px, px_left, ring_py[slot, PAD:], ring_py[i % n_ring, PAD:])
