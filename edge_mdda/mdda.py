"""The purifier: MDDA over an image pyramid in one preallocated workspace.

References
----------
Wang, Li, Shen, Qiao, "Multiscale diffusive and denoising aggregation", Computers in Biology and
Medicine 164, 2023 (arXiv 2208.10373).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mdda.errors import ParamsError
from edge_mdda.kernels import load_kernels
from edge_mdda.params import PRESETS, MddaParams
from edge_mdda.seeds import MASK_32, seed_keys
from edge_mdda.solver import schedule, shrink_magic
from edge_mdda.workspace import Ring, aligned
from edge_mdda.workspace import ring as ring_rows

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["MAX_SIDE", "MIN_SIDE", "PRESETS", "MddaParams", "ParamsError", "Purifier"]

MIN_SIDE, MAX_SIDE = 16, 4096
CHANNELS = 3
ZERO, ONE = np.float32(0), np.float32(1)
ONLY_ITSELF, ONLY_COARSER = (ZERO, ONE, ZERO), (ZERO, ZERO, ONE)
NO_SOLVER = (np.empty(0, np.float32), ONE, np.int32(0), ONE)

Solver = tuple[np.ndarray, np.float32, np.int32, np.float32]
"""Schedule, lam, magic number and 1, as ``dda_plane`` takes them."""

Planes = list[list[np.ndarray]]
"""``planes[channel][scale]``: float32 (height, width)."""


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
        Default: :func:`edge_mdda.kernels.load_kernels`.

    Notes
    -----
    All memory is allocated here: two pyramids of one channel with one thread (of three channels with
    more) and a ring of rows for each thread. A call allocates only its result. Calls on one
    instance take turns; use one instance per thread to run images side by side.

    Examples
    --------
    >>> import numpy as np
    >>> from edge_mdda.mdda import Purifier
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
        self._solvers = [self._solver(s) for s in range(len(self._sizes))]
        resident = 1 if threads == 1 else CHANNELS
        self._front = self._planes(resident)
        self._back = self._planes(resident)
        widths = [w for _, w in self._sizes]
        iterations = [max(len(table) - 2, 0) for table, *_ in self._solvers]
        self._rings = [ring_rows(widths, iterations) for _ in range(threads)]
        self._pool = _thread_pool(threads - 1) if threads > 1 else None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stop the worker threads. A closed purifier with one thread still works."""
        if self._pool:
            self._pool.shutdown()

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
        ValueError
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

    def _run(
        self,
        rgb: np.ndarray,
        seed: int,
        deliver: Callable[[int, np.ndarray], None],
        record: Callable[[str, int, np.ndarray], None] | None,
    ) -> None:
        low, high = seed_keys(seed)
        keys = np.uint32(low), np.uint32(high)
        with self._lock:
            resident = len(self._front)
            for start in range(0, CHANNELS, resident):
                self._run_channels(rgb, range(start, start + resident), keys, deliver, record)

    def _run_channels(
        self,
        rgb: np.ndarray,
        channels: range,
        keys: tuple[np.uint32, np.uint32],
        deliver: Callable[[int, np.ndarray], None],
        record: Callable[[str, int, np.ndarray], None] | None,
    ) -> None:
        """All stages for the channels that are resident; ``channels[i]`` lives in slot ``i``."""
        params, scales = self.params, range(len(self.params.scales))
        slots = range(len(channels))
        tasks = [(slot, scale) for scale in scales for slot in slots]  # fine scales first: longest first

        def note(stage: str, planes: Planes) -> None:
            if record:
                for slot, scale in tasks:
                    record(f"{stage}/{params.scales[scale]:g}", channels[slot], planes[slot][scale])

        front, back = self._front, self._back
        self._each(slots, lambda slot, ring: self._build_pyramid(rgb, channels[slot], front[slot], ring))
        if record:
            for slot in slots:
                self._materialise_finest(front[slot])
        note("pyramid", front)
        for block in range(params.n_blocks):
            if record:
                self._dda_block(tasks, channels, block, keys, front, back, denoise=False)
                note(f"block{block + 1}/diffused", back)
            self._dda_block(tasks, channels, block, keys, front, back)
            note(f"block{block + 1}/denoised", back)
            front, back = back, front
            if record:
                self._aggregate_all(tasks, front, back)
                note(f"block{block + 1}/aggregated", back)

        def finish(slot: int, ring: Ring) -> None:
            blended = self._blend(front[slot], back[slot], ring)
            if record:
                record("blended", channels[slot], blended)
            smoothed = front[slot][self._base]
            self._kernels["smooth"](blended, smoothed, np.float32(params.smoothing / 4), ring.scratch)
            deliver(channels[slot], smoothed)

        self._each(slots, finish)

    def _build_pyramid(self, rgb: np.ndarray, channel: int, planes: list[np.ndarray], ring: Ring) -> None:
        aggregate, base, scratch = self._kernels["aggregate"], self._base, ring.scratch
        self._kernels["unpack"](rgb, channel, planes[base])
        for scale in range(base + 1, len(planes)):
            aggregate(planes[scale - 1], planes[scale], planes[scale], planes[scale], ONE, ZERO, ZERO, scratch)

    def _materialise_finest(self, planes: list[np.ndarray]) -> None:
        """Scale 2 of the pyramid, which the first block otherwise interpolates row by row."""
        if self._base:
            finest, scratch = planes[0], self._rings[0].scratch
            self._kernels["aggregate"](finest, finest, planes[1], finest, ZERO, ZERO, ONE, scratch)

    def _dda_block(
        self,
        tasks: list[tuple[int, int]],
        channels: range,
        block: int,
        keys: tuple[np.uint32, np.uint32],
        source: Planes,
        target: Planes,
        denoise: bool = True,
    ) -> None:
        """Aggregate the block before (if any), diffuse and denoise every plane of ``source`` into ``target``."""
        dda_plane, sigma = self._kernels["dda_plane"], np.float32(self.params.block_sigma(block))

        def one_plane(task: tuple[int, int], ring: Ring) -> None:
            slot, scale = task
            dda_plane(
                *self._neighbours(source[slot], scale),
                target[slot][scale],
                *(self._weights[scale] if block else ONLY_COARSER if scale < self._base else ONLY_ITSELF),
                *keys,
                self._first_sample[block, scale, channels[slot]],
                sigma,
                *(self._solvers[scale] if denoise else NO_SOLVER),
                *ring.scales[scale],
                ring.scratch,
            )

        self._each(tasks, one_plane)

    def _aggregate_all(self, tasks: list[tuple[int, int]], source: Planes, target: Planes) -> None:
        def one_plane(task: tuple[int, int], ring: Ring) -> None:
            slot, scale = task
            neighbours = self._neighbours(source[slot], scale)
            self._kernels["aggregate"](*neighbours, target[slot][scale], *self._weights[scale], ring.scratch)

        self._each(tasks, one_plane)

    def _blend(self, planes: list[np.ndarray], spare: list[np.ndarray], ring: Ring) -> np.ndarray:
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
    def _neighbours(planes: list[np.ndarray], scale: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(finer, itself, coarser)``; where there is no neighbour its place is filled, with weight zero."""
        return planes[max(scale - 1, 0)], planes[scale], planes[min(scale + 1, len(planes) - 1)]

    def _each(self, tasks: Iterable[Any], work: Callable[[Any, Ring], None]) -> None:
        """Run every task; idle threads take the next one in order."""
        waiting = deque(tasks)

        def drain(ring: Ring) -> None:
            while True:
                try:
                    task = waiting.popleft()
                except IndexError:
                    return
                work(task, ring)

        if not self._pool:
            drain(self._rings[0])
            return
        helpers = [self._pool.submit(drain, ring) for ring in self._rings[1:]]
        try:
            drain(self._rings[0])
        finally:
            for helper in helpers:
                helper.result()

    # -- layout -----------------------------------------------------------------------------------

    def _checked(self, rgb: np.ndarray) -> np.ndarray:
        expected = (self.height, self.width, CHANNELS)
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.shape != expected:
            got = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            raise ValueError(f"rgb: expected uint8 {expected}, got {got}")
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

    def _planes(self, channels: int) -> Planes:
        return [[aligned((h, w)) for h, w in self._sizes] for _ in range(channels)]

    def _solver(self, scale: int) -> Solver:
        """Schedule, lam, magic number and 1 of a scale, in the order of ``dda_plane``'s arguments."""
        lam = self.params.scale_lam(scale)
        if not lam:
            return NO_SOLVER
        return schedule(self.params.scale_iterations(scale)), np.float32(lam), shrink_magic(lam), ONE


def _thread_pool(workers: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # here: a process with one thread saves its 1 MB

    return ThreadPoolExecutor(workers, "edge-mdda")
