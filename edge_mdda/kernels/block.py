"""One MDDA block of one plane in a single pass: aggregate the last block, diffuse, denoise.

All iterations of the ROF solver run down the image together: iteration ``t`` works ``t + 1`` rows
behind the loader, ``ROW_BLOCK`` rows at a time. A ring of ``ROW_BLOCK + iterations + 2`` rows holds the noisy
image and the dual field, so neither ever goes to main memory.
"""

from __future__ import annotations

from numpy import float32, uint32

from edge_mdda.kernels import PAD, ROW_BLOCK
from edge_mdda.kernels.aggregate import add_neighbours_row, weigh_row
from edge_mdda.kernels.noise import weigh_and_diffuse_row
from edge_mdda.kernels.registry import kernel
from edge_mdda.kernels.rof import SHORT_RUN, bottom_sweep_row, first_sweep_row, primal_row, step_of, sweep_row, top_row

LEFT = PAD - 1  # a dual row is handed over from column -1 on


@kernel(
    "void(f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4, f4, f4,"
    " u4, u4, u4, f4, f4, i8, f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[::1], i4, f4)"
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
    lam,
    iterations,
    ring_g,
    ring_px,
    ring_py,
    carry,
    scratch,
    magic,
    one,
):
    """``out = ROF(aggregate(fine, here, coarse) + sigma * noise, lam)``.

    Ring rows are ``PAD + width + 1`` floats or more, ``ROW_BLOCK + iterations + 2`` of them; ``carry`` has two such
    rows an iteration (``u`` between two row blocks) and one more. With 0 iterations ``out`` is the diffused image;
    otherwise ``lam`` must be positive. ``magic`` and ``one`` are 0x5F375A86 and 1; see :func:`shrink`.
    """
    h, w = here.shape
    end = PAD + w
    n_ring = ROW_BLOCK + iterations + 2
    for start in range(0, h + iterations + 1, ROW_BLOCK):
        for i in range(start, min(start + ROW_BLOCK, h)):
            g = ring_g[i % n_ring, PAD:end]
            if sigma > float32(0):
                sample = uint32(first_sample + uint32(i * w))
                weigh_and_diffuse_row(g, here[i], w_here, sample, key_low, key_high, sigma)
            else:
                weigh_row(g, here[i], w_here)
            add_neighbours_row(g, i, fine, coarse, w_fine, w_coarse, scratch)
            if iterations == 0:
                target = out[i]
                for j in range(w):
                    target[j] = g[j]
        for t in range(iterations):
            first = max(start - 1 - t, 0)
            last = min(start - 1 - t + ROW_BLOCK, h)
            if last <= first:
                continue
            step = step_of(t, iterations)
            u = carry[2 * t, PAD : end + 1]
            u_next = carry[2 * t + 1, PAD : end + 1]
            if first == 0 and start - 1 - t <= 0:
                g = ring_g[0, PAD:end]
                if t == 0:
                    for j in range(w):
                        u[j] = g[j]
                    u[w] = u[w - 1]
                else:
                    top_row(u, g, ring_px[0, LEFT:end], ring_py[0, LEFT:end], lam)
            sweeps = min(last, h - 1)
            slot = first % n_ring
            for _ in range(first, sweeps):
                below = slot + 1 if slot + 1 < n_ring else 0
                g_next = ring_g[below, PAD:end]
                px = ring_px[slot, LEFT:end]
                py = ring_py[slot, LEFT:end]
                if t == 0:
                    first_sweep_row(u, u_next, g_next, px, py, lam, step, magic, one)
                else:
                    px_next = ring_px[below, LEFT:end]
                    py_next = ring_py[below, LEFT:end]
                    if t < SHORT_RUN:
                        sweep_row(u, u_next, g_next, px_next, py_next, px, py, lam, step, False, magic, one)
                    else:
                        sweep_row(u, u_next, g_next, px_next, py_next, px, py, lam, step, True, magic, one)
                u, u_next = u_next, u
                slot = below
            if last == h and first < h:
                px = ring_px[slot, LEFT:end]
                if t == 0:
                    py = ring_py[slot, LEFT:end]
                    for j in range(w + 1):
                        px[j] = float32(0)
                        py[j] = float32(0)
                bottom_sweep_row(u, px, lam, step)
            elif (sweeps - first) & 1:
                for j in range(w + 1):
                    u_next[j] = u[j]
        if iterations == 0:
            continue
        for i in range(max(start - 1 - iterations, 0), min(start - 1 - iterations + ROW_BLOCK, h)):
            slot = i % n_ring
            g = ring_g[slot, PAD:end]
            px = ring_px[slot, LEFT:end]
            py = ring_py[slot, LEFT:end]
            if i > 0:
                primal_row(out[i], g, px, py, ring_py[(i - 1) % n_ring, LEFT:end], lam)
            else:
                u = carry[2 * iterations, PAD : end + 1]
                top_row(u, g, px, py, lam)
                target = out[0]
                for j in range(w):
                    target[j] = u[j]
