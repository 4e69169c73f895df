"""Where a kernel is declared once: its Python source, its signature and its compiler flags.

A kernel is a plain function over C-contiguous arrays and scalars that allocates nothing. This
module only records it; a back end (:mod:`edge_mdda.mdda.kernels.jit`) turns the record into machine code.
A *row helper* is a piece of a kernel: it is always inlined and never called from Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

FAST_MATH = {"contract", "nsz", "nnan", "ninf"}
"""Fused multiply-add, and no NaN, infinity or signed zero to care for: min and max become one instruction."""


INLINED = True
"""Whether row helpers are inlined by all means; :mod:`export.native.kernel_ir` keeps them apart and inlines later."""


@dataclass(frozen=True)
class KernelSpec:
    """One kernel as its source declares it."""

    name: str
    signature: str
    """Numba notation, for example ``void(f4[:, ::1], f4)``."""
    function: Callable[..., Any]


REGISTRY: dict[str, KernelSpec] = {}


def kernel(signature: str) -> Callable[[Function], Function]:
    """Register a kernel under its own name; the function itself stays plain Python."""

    def register(function: Function) -> Function:
        REGISTRY[function.__name__] = KernelSpec(function.__name__, signature, function)
        return function

    return register


def row_helper(function: Function) -> Function:
    """Mark a function that kernels inline.

    ``forceinline`` works in LLVM, after the caller's arrays are known to be distinct;
    Numba's own ``inline="always"`` left alias checks that kept these loops scalar.
    """
    compiled: Function = njit(  # type: ignore[call-overload]  # Numba's stubs lack the two wrapper options
        forceinline=INLINED,
        fastmath=FAST_MATH,
        error_model="numpy",
        boundscheck=False,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )(function)
    return compiled


def distinct(helper: Function) -> Function:
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
