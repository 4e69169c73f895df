"""Single planes for the tests of the kernels, and one fused block run on them."""

from __future__ import annotations

import numpy as np

from edge_mdda.mdda.params import MddaParams
from edge_mdda.mdda.purifier import Purifier
from edge_mdda.mdda.rof_schedule import schedule, shrink_magic

FLOAT_NOISE = 5e-4  # grey levels; ten times the largest float32 rounding measured over all comparisons
STALE = np.float32(1e6)  # what an earlier call may have left in a buffer


def grey(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(0, 255, shape).astype(np.float32)


def run_block(
    kernels, here, fine=None, coarse=None, weights=(0, 1, 0), keys=(0, 0), first=0, sigma=0.0, lam=0.0, iterations=0
):
    """One fused block; the ring comes from a purifier of this width and is filled with stale values."""
    here = np.ascontiguousarray(here, np.float32)
    params = MddaParams(scales=(1,), output_weights=(1,), iterations=max(iterations, 1))
    ring = Purifier(16, max(here.shape[1], 16), params)._rings[0]
    for buffer in (ring.floats, ring.scratch):
        buffer[...] = STALE
    out = np.full_like(here, STALE)
    kernels["dda_plane"](
        here if fine is None else np.ascontiguousarray(fine, np.float32),
        here,
        here if coarse is None else np.ascontiguousarray(coarse, np.float32),
        out,
        *map(np.float32, weights),
        *map(np.uint32, keys),
        np.uint32(first),
        np.float32(sigma),
        schedule(iterations),
        np.float32(lam),
        shrink_magic(lam) if lam else np.int32(0),
        np.float32(1),
        *ring.scales[0],
        ring.scratch,
    )
    return out
