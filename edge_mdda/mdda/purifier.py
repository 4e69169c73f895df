"""The purifier: MDDA over an image pyramid in one preallocated workspace.

References
----------
Wang, Li, Shen, Qiao, "Multiscale diffusive and denoising aggregation", Computers in Biology and
Medicine 164, 2023 (arXiv 2208.10373).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from edge_mdda.errors import ParamsError
from edge_mdda.mdda.kernels import load_kernels
from edge_mdda.mdda.params import PRESETS, MddaParams
from edge_mdda.mdda.rof_schedule import schedule, shrink_magic
from edge_mdda.mdda.seeds import MASK_32, seed_keys
from edge_mdda.mdda.task_pool import Task, TaskPool
from edge_mdda.mdda.workspace import Ring, aligned
from edge_mdda.mdda.workspace import ring as ring_rows

__all__ = ["MAX_SIDE", "MIN_SIDE", "PRESETS", "MddaParams", "ParamsError", "Purifier"]

MIN_SIDE, MAX_SIDE = 16, 4096
CHANNELS = 3
ZERO, ONE = np.float32(0), np.float32(1)
ONLY_ITSELF, ONLY_COARSER = (ZERO, ONE, ZERO), (ZERO, ZERO, ONE)
NO_SOLVER = (np.empty(0, np.float32), ONE, np.int32(0), ONE)

Solver = tuple[np.ndarray, np.float32, np.int32, np.float32]
"""Schedule, lam, magic number and 1, as ``dda_plane`` takes them."""

Planes = list[np.ndarray]
"""One channel: float32 (height, width) of each scale."""

Deliver = Callable[[int, np.ndarray], None]
"""Takes a channel's number and its purified plane."""

Record = Callable[[str, int, np.ndarray], None]
"""Takes a stage's name, a channel's number and its plane."""


class _Order(NamedTuple):
    """One call: what all its tasks share."""

    rgb: np.ndarray
    keys: tuple[np.uint32, np.uint32]
    deliver: Deliver
    record: Record | None


class Purifier:
    """Reverse small perturbations of one size of image with MDDA.

    It removes structure weaker than about ``sigma`` grey levels that an attacker, who does not know of it,
    added. It does **not** withstand an attacker who knows it and optimises through it (BPDA with
    expectation over the noise), large visible patches, or a replaced picture.

    Parameters
    ----------
    height, width : int
        Size of the images, 16 to 4096 pixels each.
    params : MddaParams
        Default: the preset ``balanced``.
    threads : int
        Threads that share the (scale, channel) planes. The result does not depend on it.
    kernels : mapping of str to callable
        Default: :func:`edge_mdda.mdda.kernels.load_kernels`.

    Notes
    -----
    All memory is allocated here: two pyramids of one channel with one thread (of three channels with
    more) and a ring of rows for each thread. A call allocates only its result. Calls on one
    instance take turns; use one instance per thread to run images side by side.

    Examples
    --------
    >>> import numpy as np
    >>> from edge_mdda.mdda.purifier import Purifier
    >>> image = np.full((32, 48, 3), 128, np.uint8)
    >>> with Purifier(32, 48) as purifier:
    ...     purifier.purify(image, seed=1).shape
    (32, 48, 3)
    """

    def __init__(
        self,
        height: int,
        width: int,
        params: MddaParams | None = None,
        threads: int = 1,
        kernels: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        for name, side in (("height", height), ("width", width)):
            if isinstance(side, bool) or not isinstance(side, int) or not MIN_SIDE <= side <= MAX_SIDE:
                raise ParamsError(f"{name}: must be a whole number from {MIN_SIDE} to {MAX_SIDE} pixels, got {side!r}")
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ParamsError(f"threads: must be a whole number >= 1, got {threads!r}")
        self.height, self.width = height, width
        self.params = PRESETS["balanced"] if params is None else params
        self.threads = threads
        self._kernels = load_kernels() if kernels is None else kernels
        self._base = self.params.scales.index(1.0)
        self._sizes = self._pyramid_sizes()
        self._first_sample = self._sample_offsets()
        self._weights = [tuple(map(np.float32, self.params.neighbour_weights(s))) for s in range(len(self._sizes))]
        self._blend_weights = self._weights_of_blend()
        self._sigmas = [np.float32(self.params.block_sigma(block)) for block in range(self.params.n_blocks)]
        self._solvers = [self._solver(s) for s in range(len(self._sizes))]
        resident = 1 if threads == 1 else CHANNELS
        self._front = self._planes(resident)
        self._back = self._planes(resident)
        widths = [w for _, w in self._sizes]
        iterations = [max(len(table) - 2, 0) for table, *_ in self._solvers]
        self._rings = [ring_rows(widths, iterations) for _ in range(threads)]
        self._pool = TaskPool(self._rings)
        self._plan = [self._tasks(range(start, start + resident)) for start in range(0, CHANNELS, resident)]
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stop the worker threads. A closed purifier with one thread still works."""
        self._pool.close()

    def __enter__(self) -> Purifier:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def workspace_bytes(self) -> int:
        """Bytes of all preallocated buffers."""
        arrays = [p for planes in (*self._front, *self._back) for p in planes]
        return sum(a.nbytes for a in arrays) + sum(ring.nbytes for ring in self._rings)

    def purify(self, rgb: np.ndarray, seed: int) -> np.ndarray:
        """Purify one image.

        Parameters
        ----------
        rgb : (height, width, 3) uint8
            Any strides; pixels 0..255.
        seed : int
            0 to 2**64 - 1. The same seed gives the same bytes; an unpredictable one denies the attacker the noise.

        Returns
        -------
        (height, width, 3) uint8, C-contiguous

        Raises
        ------
        ParamsError
            Wrong shape, type or seed.
        """
        rgb = self._checked(rgb)
        out = np.empty_like(rgb)
        pack = self._kernels["pack"]
        self._run(rgb, seed, lambda channel, plane: pack(plane, out, channel), None)
        return out

    def purify_stages(self, rgb: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Purify and keep every intermediate image, for inspection; slower and not frugal.

        Returns
        -------
        dict of str to (h, w, 3) float32 in grey levels
            ``pyramid/<scale>``; ``block<k>/diffused/<scale>``, ``.../denoised/...`` and ``.../aggregated/...``
            with k from 1; ``blended``; and ``purified``, which rounds to what :meth:`purify` returns.
        """
        rgb = self._checked(rgb)
        stages: dict[str, np.ndarray] = {}

        def record(name: str, channel: int, plane: np.ndarray) -> None:
            image = stages.setdefault(name, np.empty((*plane.shape, CHANNELS), np.float32))  # atomic: threads share it
            image[:, :, channel] = plane

        self._run(rgb, seed, lambda channel, plane: record("purified", channel, plane), record)
        return stages

    # -- one call ---------------------------------------------------------------------------------

    def _run(self, rgb: np.ndarray, seed: int, deliver: Deliver, record: Record | None) -> None:
        low, high = seed_keys(seed)
        order = _Order(rgb, (np.uint32(low), np.uint32(high)), deliver, record)
        with self._lock:
            for tasks in self._plan:
                self._pool.run(tasks, order)

    def _tasks(self, channels: range) -> list[Task]:
        """All stages for the channels that are resident together; ``channels[i]`` lives in slot ``i``.

        A plane of a block waits for its neighbours in the block before. Fine scales come first: they take longest.
        """
        front, back = self._front, self._back
        scales = range(len(self._sizes))
        tasks = [Task(partial(self._build_pyramid, channel, front[slot]), ()) for slot, channel in enumerate(channels)]
        ready = {(slot, scale): slot for slot, _ in enumerate(channels) for scale in scales}
        for block in range(self.params.n_blocks):
            before, ready = ready, {}
            for scale in scales:
                near = range(max(scale - 1, 0), min(scale + 2, len(scales)))
                for slot, channel in enumerate(channels):
                    ready[slot, scale] = len(tasks)
                    work = partial(self._dda, block, scale, channel, front[slot], back[slot])
                    tasks.append(Task(work, tuple({before[slot, s] for s in near})))
            front, back = back, front
        for slot, channel in enumerate(channels):
            work = partial(self._finish, channel, front[slot], back[slot])
            tasks.append(Task(work, tuple(ready[slot, scale] for scale in scales)))
        return tasks

    def _build_pyramid(self, channel: int, planes: Planes, order: _Order, ring: Ring) -> None:
        aggregate, base, scratch = self._kernels["aggregate"], self._base, ring.scratch
        self._kernels["unpack"](order.rgb, channel, planes[base])
        for scale in range(base + 1, len(planes)):
            aggregate(planes[scale - 1], planes[scale], planes[scale], planes[scale], ONE, ZERO, ZERO, scratch)
        if order.record:
            if base:  # otherwise the first block interpolates scale 2 row by row
                aggregate(planes[0], planes[0], planes[1], planes[0], ZERO, ZERO, ONE, scratch)
            for factor, plane in zip(self.params.scales, planes, strict=True):
                order.record(f"pyramid/{factor:g}", channel, plane)

    def _dda(
        self, block: int, scale: int, channel: int, source: Planes, target: Planes, order: _Order, ring: Ring
    ) -> None:
        """Aggregate the block before (if any), diffuse and denoise one plane of ``source`` into ``target``."""

        def run(solver: Solver) -> None:
            self._kernels["dda_plane"](
                *self._neighbours(source, scale),
                target[scale],
                *(self._weights[scale] if block else ONLY_COARSER if scale < self._base else ONLY_ITSELF),
                *order.keys,
                self._first_sample[block, scale, channel],
                self._sigmas[block],
                *solver,
                *ring.scales[scale],
                ring.scratch,
            )

        record = order.record
        if record:
            if block:
                self._record_aggregated(block, scale, channel, source, target[scale], record, ring)
            run(NO_SOLVER)
            record(f"block{block + 1}/diffused/{self.params.scales[scale]:g}", channel, target[scale])
        run(self._solvers[scale])
        if record:
            record(f"block{block + 1}/denoised/{self.params.scales[scale]:g}", channel, target[scale])

    def _record_aggregated(
        self, block: int, scale: int, channel: int, planes: Planes, spare: np.ndarray, record: Record, ring: Ring
    ) -> None:
        """What the next block (from 1) or the blend makes of ``planes`` on its way."""
        self._kernels["aggregate"](*self._neighbours(planes, scale), spare, *self._weights[scale], ring.scratch)
        record(f"block{block}/aggregated/{self.params.scales[scale]:g}", channel, spare)

    def _finish(self, channel: int, planes: Planes, spare: Planes, order: _Order, ring: Ring) -> None:
        """Blend the scales, smooth and hand over."""
        record = order.record
        if record:
            for scale in range(len(planes)):
                self._record_aggregated(self.params.n_blocks, scale, channel, planes, spare[scale], record, ring)
        blended = self._blend(planes, spare, ring)
        if record:
            record("blended", channel, blended)
        smoothed = planes[self._base]
        self._kernels["smooth"](blended, smoothed, np.float32(self.params.smoothing / 4), ring.scratch)
        order.deliver(channel, smoothed)

    def _blend(self, planes: Planes, spare: Planes, ring: Ring) -> np.ndarray:
        """Weighted mean of all scales at scale 1, of the denoised ``planes``: the last aggregation is part of it.

        Both are linear, so the coarser scales are summed up from the coarsest to the finest and scale 2 counts
        by its 2 x 2 means alone.
        """
        base, scratch = self._base, ring.scratch
        coarser = planes[-1]
        for scale in range(len(planes) - 1, base, -1):
            finer, here = planes[scale - 1], planes[scale]
            w_fine, w_here, w_coarse = self._blend_weights[scale]
            self._kernels["aggregate"](finer, here, coarser, spare[scale], w_fine, w_here, w_coarse, scratch)
            coarser = spare[scale]
        weights = self._blend_weights[base]
        self._kernels["blend"](planes[0], planes[base], coarser, spare[base], *weights, scratch)
        return spare[base]

    def _weights_of_blend(self) -> list[tuple[np.float32, ...]]:
        """Arguments of ``aggregate`` for each scale coarser than 1 and of ``blend`` for scale 1; see :meth:`_blend`."""
        base, last = self._base, len(self._sizes) - 1
        total = sum(self.params.output_weights)
        share = [w / total for w in self.params.output_weights]
        fine, itself, coarse = zip(*(self.params.neighbour_weights(s) for s in range(last + 1)), strict=True)
        weights = []
        for s in range(last + 1):
            to_finer = share[s - 1] * coarse[s - 1] if s > base else 0.0  # up in the finer scale's aggregation
            w_coarse = float(s < last)
            if s == base:
                from_finest = share[0] * itself[0] if base else 0.0
                wide = share[0] * coarse[0] if base else 0.0
                row: tuple[float, ...] = (share[s] * fine[s] + from_finest, share[s] * itself[s], wide, w_coarse)
            else:
                row = (share[s] * fine[s], share[s] * itself[s] + to_finer, w_coarse)
            weights.append(tuple(map(np.float32, row)))
        return weights

    @staticmethod
    def _neighbours(planes: Planes, scale: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(finer, itself, coarser)``; where there is no neighbour its place is filled, with weight zero."""
        return planes[max(scale - 1, 0)], planes[scale], planes[min(scale + 1, len(planes) - 1)]

    # -- layout -----------------------------------------------------------------------------------

    def _checked(self, rgb: np.ndarray) -> np.ndarray:
        expected = (self.height, self.width, CHANNELS)
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.shape != expected:
            got = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            raise ParamsError(f"rgb: expected uint8 {expected}, got {got}")
        # The kernels are compiled for writable arrays; np.frombuffer and others give read-only ones.
        return np.require(rgb, requirements=("C", "W"))

    def _pyramid_sizes(self) -> list[tuple[int, int]]:
        sizes = {self._base: (self.height, self.width)}
        for scale in range(self._base + 1, len(self.params.scales)):
            h, w = sizes[scale - 1]
            sizes[scale] = (h + 1) // 2, (w + 1) // 2
        for scale in range(self._base):  # only scale 2 can stand before 1
            sizes[scale] = 2 * self.height, 2 * self.width
        return [sizes[scale] for scale in range(len(self.params.scales))]

    def _sample_offsets(self) -> dict[tuple[int, int, int], np.uint32]:
        """First noise sample of every (block, scale, channel): one numbering, so streams cannot overlap.

        The count wraps after 2**32 samples, which only an image of 4096 x 4096 with 16 blocks reaches.
        """
        offsets, count = {}, 0
        for block in range(self.params.n_blocks):
            for scale, (h, w) in enumerate(self._sizes):
                for channel in range(CHANNELS):
                    offsets[block, scale, channel] = np.uint32(count & MASK_32)
                    count += h * w
        return offsets

    def _planes(self, channels: int) -> list[Planes]:
        return [[aligned((h, w)) for h, w in self._sizes] for _ in range(channels)]

    def _solver(self, scale: int) -> Solver:
        """Schedule, lam, magic number and 1 of a scale, in the order of ``dda_plane``'s arguments."""
        lam = self.params.scale_lam(scale)
        if not lam:
            return NO_SOLVER
        return schedule(self.params.scale_iterations(scale)), np.float32(lam), shrink_magic(lam), ONE
