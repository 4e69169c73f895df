"""Prints portable LLVM IR of every registered kernel; a child process of :mod:`export.native.codegen`.

Numba decides at its import whether it optimises, and optimised IR belongs to this machine's CPU. So this
runs alone, with ``NUMBA_OPT=0``: ``python -m export.native.kernel_ir MODULE...`` writes one JSON object to standard
output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from edge_mdda.mdda.kernels.native import argument_types


def c_function(name: str, signature: str, function: Callable[..., Any]) -> str:
    """IR of one kernel behind a C interface: each array is a pointer and its shape, each scalar itself.

    Parameters
    ----------
    name : str
        Kernel name; the C function is Numba's mangled form of it.
    signature : str
        Numba notation.
    function : callable
        Plain Python.
    """
    from numba import carray, cfunc, njit, types

    from edge_mdda.mdda.kernels.registry import FAST_MATH

    options: dict[str, Any] = {"fastmath": FAST_MATH, "error_model": "numpy", "boundscheck": False}
    scope: dict[str, Any] = {"carray": carray, "inner": njit(signature, **options)(function)}
    c_types, names, arguments = [], [], []
    for index, (scalar, ndim) in enumerate(argument_types(signature)):
        numba_type = getattr(
            types, {"f4": "float32", "u1": "uint8", "u4": "uint32", "i4": "int32", "i8": "int64"}[scalar]
        )
        shape = [f"a{index}_{axis}" for axis in range(ndim)]
        names += [f"a{index}", *shape]
        c_types += [types.CPointer(numba_type) if ndim else numba_type, *[types.int64] * ndim]
        arguments.append(f"carray(a{index}, ({', '.join(shape)},))" if ndim else f"a{index}")
    exec(f"def {name}({', '.join(names)}):\n    inner({', '.join(arguments)})", scope)  # the argument list varies
    ir: str = cfunc(types.void(*c_types), **options)(scope[name]).inspect_llvm()
    return ir


def main(modules: Sequence[str]) -> int:
    """Write ``{kernel: {signature, ir}}`` of every kernel that ``modules`` register."""
    if os.environ.get("NUMBA_OPT") != "0":
        print("kernel_ir: set NUMBA_OPT=0, or the code belongs to this CPU alone", file=sys.stderr)
        return 2
    from edge_mdda.mdda.kernels import registry

    registry.INLINED = False
    for module in modules:
        import_module(module)
    json.dump(
        {
            name: {"signature": spec.signature, "ir": c_function(name, spec.signature, spec.function)}
            for name, spec in registry.REGISTRY.items()
            if spec.function.__module__ in modules
        },
        sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
