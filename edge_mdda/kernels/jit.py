"""The Numba back end: compiles every registered kernel, or takes it from the on-disk cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from edge_mdda.kernels import aggregate, block, finish  # noqa: F401  (their import registers the kernels)
from edge_mdda.kernels.registry import FAST_MATH, REGISTRY, KernelSpec


def _compile(spec: KernelSpec) -> Callable[..., Any]:
    options: dict[str, Any] = {
        "nogil": True,
        "fastmath": FAST_MATH,
        "error_model": "numpy",
        "boundscheck": False,
    }
    try:
        return njit(spec.signature, cache=True, **options)(spec.function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        # A read-only installation with no writable home: compile anew in each process.
        return njit(spec.signature, **options)(spec.function)


def load() -> dict[str, Callable[..., Any]]:
    """Compiled kernels by name."""
    return {name: _compile(spec) for name, spec in REGISTRY.items()}
