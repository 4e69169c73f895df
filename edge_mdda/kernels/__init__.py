"""The purifier's inner loops over planes of float32, compiled on first use.

``load_kernels()`` is the only door: importing this package compiles nothing and does not import Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

PAD = 16
"""Floats before column 0 of a ring row: one cache line, so that rows are aligned and column -1 exists."""

ROW_BLOCK = 8
"""Rows that one solver iteration takes before the next follows; 8 keeps the ring in the L2 cache."""


@cache
def load_kernels() -> Mapping[str, Callable[..., Any]]:
    """Machine code of every kernel by name: ``aggregate``, ``dda_plane``, ``pack``, ``smooth``, ``unpack``."""
    from edge_mdda.kernels import jit

    return jit.load()
