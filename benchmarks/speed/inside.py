"""Two figures from inside our purifier: what leaving the first cache costs a sweep, and what a second thread gains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from benchmarks.speed.peers import PARAMS, SEED
from edge_mdda.mdda.kernels import PAD, load_kernels
from edge_mdda.mdda.kernels.layout import LANES
from edge_mdda.mdda.kernels.registry import FAST_MATH
from edge_mdda.mdda.kernels.rof import sweep
from edge_mdda.mdda.kernels.vectors import two_vectors_at_a_time
from edge_mdda.mdda.params import MddaParams
from edge_mdda.mdda.purifier import Purifier
from edge_mdda.mdda.rof_schedule import schedule, shrink_magic

SIDE = 448  # pixels: scale 2 of the classifier's 224
FEW, MANY = 4, 8  # iterations; both below SHORT_RUN, so that all are of the fast kind
L1_SWEEPS = 2000  # of one row, about as long as a plane takes
ROUNDS, QUICK_ROUNDS = 60, 3
PERCENTILE = 20  # of the rounds: most are disturbed on a shared machine, and the fastest may be luck


def sweep_over_l1(rounds: int) -> float:
    """Time of a ROF sweep in ``dda_plane`` over the time of the same loop on rows that stay in the first cache.

    In the pipeline: the slope between ``FEW`` and ``MANY`` iterations of a plane of ``SIDE`` squared, without noise,
    per pixel and iteration. In the cache: the kernel's own row loop, compiled alike, again and again on the same
    two rows of that width (15 kB). The three are timed in turn.

    Parameters
    ----------
    rounds : int
        Of which a low percentile counts.
    """
    few, many, in_l1 = _plane(FEW), _plane(MANY), _row()
    times = np.array([[_timed(few), _timed(many), _timed(in_l1)] for _ in range(rounds + 1)][1:])
    t_few, t_many, t_l1 = np.percentile(times, PERCENTILE, axis=0)
    pipelined = max(t_many - t_few, 1e-9) / ((MANY - FEW) * SIDE * SIDE)
    return float(pipelined / (t_l1 / (L1_SWEEPS * SIDE)))


def two_threads(image: np.ndarray, rounds: int) -> float:
    """How many times faster two threads purify than one: the median over rounds that time both in turn.

    Parameters
    ----------
    image : (h, w, 3) uint8
    rounds : int
    """
    height, width, _ = image.shape
    one = Purifier(height, width, PARAMS)
    with Purifier(height, width, PARAMS, threads=2) as two:
        for purifier in (one, two):
            purifier.purify(image, SEED)
        ratios = [
            _timed(lambda: one.purify(image, SEED)) / _timed(lambda: two.purify(image, SEED)) for _ in range(rounds)
        ]
    return float(np.median(ratios))


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _plane(iterations: int) -> Callable[[], object]:
    params = MddaParams(scales=(1,), output_weights=(1,), sigma=0.0, iterations=iterations)
    ring = Purifier(SIDE, SIDE, params)._rings[0]
    plane = np.random.default_rng(0).uniform(0, 255, (SIDE, SIDE)).astype(np.float32)
    out, zero, one = np.empty_like(plane), np.float32(0), np.float32(1)
    lam = PARAMS.scale_lam(0)
    arguments: tuple[Any, ...] = (
        *(plane, plane, plane, out, zero, one, zero),
        *(np.uint32(0), np.uint32(0), np.uint32(0), zero),
        *(schedule(iterations), np.float32(lam), shrink_magic(lam), one),
        *ring.scales[0],
        ring.scratch,
    )
    return lambda: load_kernels()["dda_plane"](*arguments)


def _row() -> Callable[[], object]:
    def sweeps(g, px, py, carry, n, step, lam, magic, one, count):
        for k in range(count):
            sweep(g, px, py, carry, 0, 1, k & 1, 1 - (k & 1), n, step, step, False, lam, magic, one)

    options: dict[str, Any] = {"nogil": True, "fastmath": FAST_MATH, "error_model": "numpy", "boundscheck": False}
    signature = "void(f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], i8, f4, f4, i4, f4, i8)"
    with two_vectors_at_a_time():
        compiled = njit(signature, **options)(sweeps)
    buffers = np.zeros((4, 2, PAD + -(-SIDE // LANES) * LANES + PAD), np.float32)
    rng = np.random.default_rng(0)
    lam = PARAMS.scale_lam(0)
    buffers[0] = rng.uniform(0, 255, buffers.shape[1:])
    buffers[1:3] = rng.uniform(-lam, lam, (2, *buffers.shape[1:]))
    # With a step of 0 the numbers stay as they are; others would in the end be too small for normal arithmetic.
    numbers = SIDE, np.float32(0), np.float32(lam), shrink_magic(lam), np.float32(1), L1_SWEEPS
    arguments: tuple[Any, ...] = (*buffers, *numbers)
    return lambda: compiled(*arguments)
