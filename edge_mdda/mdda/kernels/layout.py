"""How kernels lay rows out in memory, and how long a run counts as short."""

from __future__ import annotations

PAD = 16
"""Floats before column 0 of a ring row: one cache line, so that rows are aligned and column -1 exists."""

ROW_BLOCK = 8
"""Rows that one solver iteration takes before the next follows; 8 keeps the ring in the L2 cache."""

LANES = 16
"""Floats of two 256-bit vectors, the most that a sweep takes at a time: rows are worked up to a multiple."""

AHEAD = 4
"""Rows that the first iteration of the solver looks ahead."""

SMOOTH_ROWS = 8
"""Smoothed rows that the first iteration keeps; it needs 5."""

SHORT_RUN = 12
"""Sweeps; later ones take the fine root and the stable step, so that a long run converges."""
