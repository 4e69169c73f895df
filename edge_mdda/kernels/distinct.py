"""Row helpers that may assume that their arrays do not overlap."""

from __future__ import annotations

from typing import Any, TypeVar

Helper = TypeVar("Helper")


def distinct(helper: Helper) -> Helper:
    """Mark a row helper: no array that it writes overlaps another of its arguments (C's ``restrict``).

    Otherwise LLVM compares all pairs of rows before each vector loop, a hundred instructions a row, and
    arrays that it cannot tell apart it reads again. The promise is not checked anywhere.
    """
    # The flag is Numba's own, but no option of njit sets it.
    helper._compiler._customize_flags = _without_overlap  # type: ignore[attr-defined]
    return helper


def _without_overlap(flags: Any) -> Any:
    flags.noalias = True
    return flags
