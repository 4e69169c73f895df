"""Times of the purifier's parts, by block and scale, taken around its kernels in a pass of its own.

The purifier is not changed for it: it takes its kernels as a mapping, and here they come wrapped. A clock around every
kernel costs a little, so the plain timings are never taken this way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_mdda.mdda.params import MddaParams
from edge_mdda.mdda.purifier import Purifier
from edge_mdda.profiling.percentiles import percentile

DENOISE = "dda_plane"
"""Kernel that does one scale of one block of one channel."""

TARGET, FIRST_SAMPLE = 3, 9
"""Its arguments that tell which: the plane to write has the scale's shape, and noise is numbered by block first."""

CHANNELS = 3


class KernelClock:
    """Wraps kernels and sorts their times by block and scale.

    A plane's shape tells its scale, the number of its first noise sample its block: they rise from block to block. The
    order of the calls does not matter. Calls that do not come out are reported as None instead of a wrong table.
    """

    def __init__(self, kernels: Mapping[str, Callable[..., Any]], params: MddaParams) -> None:
        self._params = params
        self.kernels = {name: self._timed(name, kernel) for name, kernel in kernels.items()}
        self.start()

    def start(self) -> None:
        """Forget everything, before an image."""
        self.others: dict[str, float] = {}
        self._planes: dict[tuple[int, ...], list[tuple[int, float]]] = {}

    def _timed(self, name: str, kernel: Callable[..., Any]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            started = time.perf_counter_ns()
            kernel(*arguments)
            elapsed = (time.perf_counter_ns() - started) / 1e6
            if name == DENOISE:
                shape = tuple(arguments[TARGET].shape)
                self._planes.setdefault(shape, []).append((int(arguments[FIRST_SAMPLE]), elapsed))
            else:
                self.others[name] = self.others.get(name, 0.0) + elapsed

        return call

    def table(self) -> list[list[float]] | None:
        """Milliseconds ``[block][scale]`` of one image, all channels together, or None if the count is not right."""
        shapes = sorted(self._planes, key=lambda s: -s[0] * s[1])  # fine scales first
        n_blocks = self._params.n_blocks
        if len(shapes) != len(self._params.scales):
            return None
        if any(len({sample for sample, _ in self._planes[shape]}) != CHANNELS * n_blocks for shape in shapes):
            return None
        times = {shape: [elapsed for _, elapsed in sorted(self._planes[shape])] for shape in shapes}
        if any(len(column) != CHANNELS * n_blocks for column in times.values()):
            return None
        return [
            [sum(times[shape][CHANNELS * block : CHANNELS * (block + 1)]) for shape in shapes]
            for block in range(n_blocks)
        ]


def purifier_detail(
    picture: np.ndarray, preset: str, params: MddaParams, kernels: Mapping[str, Callable[..., Any]], calls: int
) -> dict[str, Any]:
    """Median times of the purifier's parts on one thread.

    Parameters
    ----------
    picture : (height, width, 3) uint8
    preset : str
        Name of ``params``.
    kernels : mapping
        As :func:`edge_mdda.mdda.kernels.load_kernels` gives them.
    calls : int
        Images to purify.

    Returns
    -------
    dict
        ``blocks_ms[block][scale]`` (None where the kernels' calls were not recognised), ``kernels_ms`` of all other
        kernels by name, ``between_ms`` (Python between the kernels), ``total_ms``, ``scales``, ``calls``.
    """
    clock = KernelClock(kernels, params)
    tables, others, totals = [], [], []
    height, width = picture.shape[:2]
    with Purifier(height, width, params, kernels=clock.kernels) as purifier:
        for seed in range(calls + 1):  # the first one warms up
            clock.start()
            started = time.perf_counter_ns()
            purifier.purify(picture, seed)
            total = (time.perf_counter_ns() - started) / 1e6
            if seed:
                tables.append(clock.table())
                others.append(dict(clock.others))
                totals.append(total)
    known = [table for table in tables if table is not None]
    blocks = None
    if len(known) == len(tables):
        scales = range(len(params.scales))
        blocks = [[_median([t[block][scale] for t in known]) for scale in scales] for block in range(params.n_blocks)]
    rest = {name: _median([row.get(name, 0.0) for row in others]) for name in others[0]}
    total = _median(totals)
    inside = sum(map(sum, blocks)) + sum(rest.values()) if blocks else None
    return {
        "preset": preset,
        "scales": list(params.scales),
        "blocks_ms": blocks,
        "kernels_ms": rest,
        "between_ms": None if inside is None else round(max(total - inside, 0.0), 3),
        "total_ms": total,
        "calls": calls,
    }


def _median(values: list[float]) -> float:
    return round(percentile(sorted(values), 0.5), 3)
