"""How kernels lay rows out in memory."""

from __future__ import annotations

PAD = 16
"""Floats before column 0 of a ring row: one cache line, so that rows are aligned and column -1 exists."""

ROW_BLOCK = 8
"""Rows that one solver iteration takes before the next follows; 8 keeps the ring in the L2 cache."""
