"""The purifier's inner loops over planes of float32: from a native library, or compiled by Numba on first use.

``load_kernels()`` is the only door: importing this package loads no library and does not import Numba.
The environment variable ``EDGE_MDDA_KERNELS`` forces a back end: ``native`` or ``numba``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from edge_mdda.errors import KernelError
from edge_mdda.mdda.kernels.layout import PAD, ROW_BLOCK

__all__ = ["PAD", "ROW_BLOCK", "Backend", "backend", "load_kernels"]

SETTING = "EDGE_MDDA_KERNELS"
NATIVE, NUMBA = "native", "numba"
HOW_TO_GET = "install Numba (pip install 'edge-mdda[jit]') or make a library (python -m export kernels)"


@dataclass(frozen=True)
class Backend:
    """Where the machine code comes from."""

    name: str
    """``native`` or ``numba``."""
    cpu: str
    """LLVM's name of the CPU that it is tuned for."""
    library: str | None
    """The shared library, if native."""
    kernels: Mapping[str, Callable[..., Any]]

    def to_dict(self) -> dict[str, str]:
        """What ``--json`` says of it."""
        return {"backend": self.name, "cpu": self.cpu}


def load_kernels() -> Mapping[str, Callable[..., Any]]:
    """Machine code of every kernel by name: ``aggregate``, ``blend``, ``dda_plane``, ``pack``, ``smooth``, ``unpack``.

    Raises
    ------
    KernelError
        There is none, or not what ``EDGE_MDDA_KERNELS`` asks for.
    """
    return backend().kernels


@cache
def backend() -> Backend:
    """The back end in use: native where a library fits, else Numba. A library that does not is named in the log.

    Raises
    ------
    KernelError
        As :func:`load_kernels`.
    """
    choice = os.environ.get(SETTING, "")
    if choice not in ("", NATIVE, NUMBA):
        raise KernelError(f"{SETTING} must be {NATIVE} or {NUMBA}, not {choice!r}")
    refusals: list[str] = []
    if choice != NUMBA:
        found = _native(refusals)
        if found:
            return found
        if choice == NATIVE:
            raise KernelError("; ".join(refusals) or f"no native kernels found in {_places()}: {HOW_TO_GET}")
    try:
        from edge_mdda.mdda.kernels import jit
    except ImportError as error:
        # Without a name it is Numba's own complaint, for example about the version of NumPy.
        if error.name and error.name.split(".")[0] not in ("numba", "llvmlite"):
            raise
        cause = "no kernels for this CPU" if error.name else " ".join(str(error).split())
        raise KernelError("; ".join([*refusals, f"{cause}: {HOW_TO_GET}"])) from error
    except PermissionError as error:  # llvmlite tries as soon as it is imported
        cause = "Numba may not make machine code here (MemoryDenyWriteExecute, SELinux)"
        raise KernelError("; ".join([*refusals, f"{cause}: make a library (python -m export kernels)"])) from error
    if refusals:
        import logging
    for refusal in refusals:
        logging.getLogger("edge_mdda").warning("native kernels refused, using Numba: %s", refusal)
    return Backend(NUMBA, jit.cpu_name(), None, jit.load())


def _native(refusals: list[str]) -> Backend | None:
    """The first library that fits; why the others do not is added to ``refusals``."""
    from edge_mdda.mdda.kernels import native

    try:
        for descriptor in native.candidates():
            try:
                library = native.read_descriptor(descriptor)
                return Backend(NATIVE, library.cpu, library.file, native.load(library))
            except KernelError as error:
                refusals.append(str(error))
    except KernelError as error:  # the folder itself
        refusals.append(str(error))
    return None


def _places() -> str:
    from edge_mdda.mdda.kernels.native import folders

    return " or ".join(folders())
