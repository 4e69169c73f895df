"""The Numba back end: compiles every registered kernel, or takes it from the on-disk cache."""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from numba import njit

from edge_mdda.mdda.kernels import aggregate, block, pack_and_blend  # noqa: F401  (their import registers the kernels)
from edge_mdda.mdda.kernels.native import source_hash
from edge_mdda.mdda.kernels.registry import FAST_MATH, REGISTRY, KernelSpec
from edge_mdda.mdda.kernels.vectors import two_vectors_at_a_time

CACHE_PREFIX = "kernels-"
CACHE_FAULTS = (
    OSError,
    EOFError,
    pickle.UnpicklingError,
    ValueError,
    LookupError,
    AttributeError,
    ImportError,
    TypeError,
)
"""What Numba lets through from a cache on a full disk, and from files that a power cut or a full disk cut off."""


def _compile(spec: KernelSpec, faults: list[str]) -> Callable[..., Any]:
    """One kernel; a cache that cannot be used costs time, never the kernel, and is told in ``faults``.

    What this does not withstand: a cache whose files have their lengths but other bytes. Numba has no check sums.
    """
    options: dict[str, Any] = {
        "nogil": True,
        "fastmath": FAST_MATH,
        "error_model": "numpy",
        "boundscheck": False,
    }
    try:
        return njit(spec.signature, cache=True, **options)(spec.function)
    except OSError as error:
        faults.append(error.strerror or str(error))
    except CACHE_FAULTS as error:
        faults.append(f"it is damaged ({type(error).__name__}) and made anew at the next start")
        _drop_cache()
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        # A read-only installation with no writable home: compile anew in each process.
    return njit(spec.signature, **options)(spec.function)


_one_at_a_time = threading.Lock()


def _drop_cache() -> None:
    """Remove the folder that :func:`_cache_of_these_sources` has set."""
    import shutil

    from numba.core import config

    folder = str(config.CACHE_DIR)  # type: ignore[attr-defined]
    if os.path.basename(folder).startswith(CACHE_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _cache_of_these_sources() -> Iterator[None]:
    """Keep compiled code apart by the hash of all kernel sources.

    Numba looks only at the file that holds a kernel: after a change in a row helper it would take the old code.
    """
    from numba.core import config as numba_config

    config: Any = numba_config  # Numba's stubs do not know its settings
    before = config.CACHE_DIR
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    config.CACHE_DIR = os.path.join(before or os.path.join(home, "edge-mdda"), f"{CACHE_PREFIX}{source_hash()[:12]}")
    try:
        yield
    finally:
        config.CACHE_DIR = before


def cpu_name() -> str:
    """LLVM's name of the CPU that Numba compiles for."""
    return os.environ.get("NUMBA_CPU_NAME") or str(llvm.get_host_cpu_name())


def load() -> dict[str, Callable[..., Any]]:
    """Compiled kernels by name."""
    faults: list[str] = []
    # One thread at a time: Numba's cache folder is a setting of the whole process.
    with _one_at_a_time, two_vectors_at_a_time(), _cache_of_these_sources():
        compiled = {name: _compile(spec, faults) for name, spec in REGISTRY.items()}
    if faults:
        logging.getLogger("edge_mdda").warning("compiled kernels cannot be kept or read: %s", faults[0])
    return compiled
