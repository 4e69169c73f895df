"""The purifier's memory: planes, and the rows in which ``dda_plane`` works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_mdda.mdda.kernels import PAD, ROW_BLOCK
from edge_mdda.mdda.kernels.layout import AHEAD, LANES, SMOOTH_ROWS

CACHE_LINE = 64  # bytes


@dataclass(frozen=True)
class Ring:
    """One thread's rows.

    Parameters
    ----------
    scales : list of tuple of (rows, stride) float32
        For every scale the ``ring_g``, ``ring_px``, ``ring_py`` and ``carry`` of ``dda_plane``. All scales use the same
        floats.
    scratch : (width + 2,) float32
        Of the widest scale.
    floats : (n,) float32
        What ``scales`` are views of.
    """

    scales: list[tuple[np.ndarray, ...]]
    scratch: np.ndarray
    floats: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return self.floats.nbytes + self.scratch.nbytes


def ring(widths: Sequence[int], iterations: Sequence[int]) -> Ring:
    """Rows for planes of these widths, with so many solver iterations each.

    The rows of a scale lie close together: rows far apart would contend for the same sets of the first cache.
    """
    layouts = []
    for width, n in zip(widths, iterations, strict=True):
        stride = PAD + -(-width // LANES) * LANES + PAD
        rows = ROW_BLOCK + n + AHEAD + 1
        layouts.append([(rows, stride), (rows, stride), (rows, stride), (2 * n + 1 + SMOOTH_ROWS, stride)])
    floats = aligned((max(sum(h * w for h, w in layout) for layout in layouts),))
    scales = []
    for layout in layouts:
        ends = np.cumsum([h * w for h, w in layout])
        scales.append(tuple(floats[end - h * w : end].reshape(h, w) for end, (h, w) in zip(ends, layout, strict=True)))
    return Ring(scales, aligned((max(widths) + 2,)), floats)


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Zeroed float32 array that begins on a cache line."""
    n_bytes = 4 * int(np.prod(shape))
    block = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    start = -block.ctypes.data % CACHE_LINE
    return block[start : start + n_bytes].view(np.float32).reshape(shape)
