"""A setting of LLVM's that both back ends compile the kernels with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import llvmlite.binding as llvm

INTERLEAVE, AUTOMATIC = 2, 0  # vectors at a time


@contextmanager
def two_vectors_at_a_time() -> Iterator[None]:
    """Let LLVM unroll vectorised loops by two: a block is 8 % faster (benchmarks/speed/NOTES.md).

    Its own cost model says no. The option belongs to the process, so it goes back to automatic at once.
    """
    llvm.set_option("edge_mdda", f"-force-vector-interleave={INTERLEAVE}")
    try:
        yield
    finally:
        llvm.set_option("edge_mdda", f"-force-vector-interleave={AUTOMATIC}")
