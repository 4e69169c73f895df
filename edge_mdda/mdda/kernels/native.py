"""The native back end: kernels from a shared library that ``python -m export kernels`` made; no Numba, no LLVM.

A library lies beside the descriptor ``kernels-<cpu>.json`` that names it. It is loaded only if the descriptor fits
this package (ABI, hash of the kernels' source), this machine (architecture, CPU features) and the file
itself (SHA-256): code of a wrong shape would not raise an error but corrupt memory.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import stat
import struct
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from edge_mdda.digest import sha256
from edge_mdda.errors import KernelError

if TYPE_CHECKING:
    from pathlib import Path

ABI = 1
"""Version of the calling convention: a kernel is told where slots of 8 bytes lie, one for a scalar; one for an array's
address and one for each of its sides. (One pointer: ctypes takes longer over 40 arguments than a small plane needs.)"""

SYMBOL_PREFIX = "edge_mdda_"
SOURCES = ("aggregate", "block", "first_iteration", "layout", "noise", "pack_and_blend", "registry", "resample", "rof")
"""Modules of this package that the machine code comes from."""

FOLDER_SETTING = "EDGE_MDDA_KERNELS_DIR"
MAX_DESCRIPTOR = 2**16  # bytes
MAX_LIBRARY = 2**24  # bytes; the real ones have 50,000

ARM_PARTS = {"0xd03": "cortex-a53", "0xd08": "cortex-a72", "0xd0b": "cortex-a76", "0xd42": "cortex-a78ae"}
"""LLVM's names of ``CPU part`` in /proc/cpuinfo (Arm, Main ID Register)."""

AT_HWCAP, AT_HWCAP2 = 16, 26  # getauxval(3)
ARM_HWCAP_BITS = {
    "crc32": 7,
    "atomics": 8,
    "asimdhp": 10,
    "asimdrdm": 12,
    "lrcpc": 15,
    "asimddp": 20,
    "sve": 22,
}
ARM_HWCAP2_BITS = {"sve2": 1, "i8mm": 13, "bf16": 14}
"""Linux, arch/arm64/include/uapi/asm/hwcap.h."""

_SCALARS = {"f4": ("f", "f4x"), "u1": ("B", ""), "i4": ("i", "i4x"), "u4": ("I", "I4x"), "i8": ("l", "q")}
"""NumPy's type character of an array, and a scalar's slot in the notation of ``struct``."""

SIGNATURES = {
    "aggregate": "void(f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4, f4, f4, f4[::1])",
    "dda_plane": (
        "void(f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4, f4, f4, u4, u4, u4, f4, f4[::1], f4, "
        "i4, f4, f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[::1])"
    ),
    "unpack": "void(u1[:, :, ::1], i8, f4[:, ::1])",
    "smooth": "void(f4[:, ::1], f4[:, ::1], f4, f4[::1])",
    "blend": "void(f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4, f4, f4, f4, f4[::1])",
    "pack": "void(f4[:, ::1], u1[:, :, ::1], i8)",
}
"""Every kernel's signature, as its source registers it: a descriptor that says otherwise would corrupt memory."""

_ARGUMENT = re.compile(r"(f4|u1|i4|u4|i8)(?:\[((?::, )*)::1\])?")


@dataclass(frozen=True)
class Library:
    """A descriptor that was read and checked for its form."""

    file: str
    """Path of the shared library."""
    cpu: str
    """LLVM's name of the CPU that it was tuned for."""
    arch: str
    features: tuple[str, ...]
    """What the code needs beyond the architecture's baseline, as Linux names it."""
    abi: int
    source_sha256: str
    sha256: str
    kernels: dict[str, str]
    """Signature of every kernel in Numba's notation."""

    @property
    def path(self) -> Path:
        """The shared library; for tools, a screening does without the module and its 0.8 MB."""
        from pathlib import Path

        return Path(self.file)


def argument_types(signature: str) -> list[tuple[str, int]]:
    """``(scalar type, number of dimensions)`` of each argument of ``void(...)``; 0 dimensions are a scalar.

    Raises
    ------
    KernelError
        An argument is neither a C-contiguous array nor a scalar of a known type.
    """
    inside = signature.removeprefix("void(").removesuffix(")")
    arguments = re.sub(r"(?<=[:1]), (?=:)", "\0", inside).split(", ")  # commas between dimensions stay
    found = []
    for argument in arguments:
        match = _ARGUMENT.fullmatch(argument.replace("\0", ", "))
        if not match:
            raise KernelError(f"{argument!r} is no argument of a kernel")
        found.append((match[1], 0 if match[2] is None else match[2].count(":") + 1))
    return found


@cache
def source_hash() -> str:
    """SHA-256 over the kernels' source files as installed."""
    digest = sha256()
    for name in SOURCES:
        with open(os.path.join(os.path.dirname(__file__), f"{name}.py"), "rb") as file:
            content = file.read()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@cache
def cpu_features() -> frozenset[str]:
    """What this CPU offers beyond its architecture's baseline, as Linux names it."""
    if os.uname().machine == "aarch64":
        getauxval = ctypes.CDLL(None).getauxval
        getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
        words = (getauxval(AT_HWCAP), ARM_HWCAP_BITS), (getauxval(AT_HWCAP2), ARM_HWCAP2_BITS)
        return frozenset(name for bits, table in words for name, bit in table.items() if bits >> bit & 1)
    return frozenset(_cpuinfo("flags").split())


def _cpuinfo(key: str) -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return ""
    match = re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1] if match else ""


def folders() -> list[str]:
    """Where libraries are looked for: ``EDGE_MDDA_KERNELS_DIR`` alone if set, else the user's data and the package."""
    chosen = os.environ.get(FOLDER_SETTING)
    return [chosen] if chosen else [user_folder(), os.path.join(os.path.dirname(__file__), "native")]


def user_folder() -> str:
    """``$XDG_DATA_HOME/edge-mdda/kernels``, in the home directory by default."""
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(home, "edge-mdda", "kernels")


def read_descriptor(path: str | os.PathLike[str]) -> Library:
    """Read a descriptor.

    Raises
    ------
    KernelError
        It cannot be read, or something in it is missing or of a wrong type.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise KernelError(f"{path} is no file")
        with open(path, "rb") as file:
            content = file.read(MAX_DESCRIPTOR + 1)
    except OSError as error:
        raise KernelError(f"{path}: {error.strerror}") from error
    try:
        if len(content) > MAX_DESCRIPTOR:
            raise ValueError("too large")
        fields = json.loads(content)
        texts = [fields[key] for key in ("library", "cpu", "arch", "source_sha256", "sha256")]
        texts += [*fields["features"], *fields["kernels"], *fields["kernels"].values()]
        if not all(isinstance(text, str) for text in texts) or not isinstance(fields["abi"], int):
            raise ValueError("a value of a wrong type")
        if fields["library"] != os.path.basename(fields["library"]):
            raise ValueError("a library elsewhere")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise KernelError(f"{path} does not describe a kernel library: make it anew") from error
    return Library(
        os.path.join(os.path.dirname(path), fields["library"]),
        fields["cpu"],
        fields["arch"],
        tuple(fields["features"]),
        fields["abi"],
        fields["source_sha256"],
        fields["sha256"],
        fields["kernels"],
    )


def check(library: Library) -> bytes:
    """Make sure that a library fits package, machine and its own descriptor.

    Returns
    -------
    bytes
        Its content: what was checked, and all that may be loaded. The file may be another one a moment later.

    Raises
    ------
    KernelError
        It does not; the message says why and what to do.
    """
    name = library.file
    again = "make it anew with: python -m export kernels"
    if library.abi != ABI:
        raise KernelError(f"{name} has ABI {library.abi}, this version needs {ABI}: {again}")
    if library.arch != os.uname().machine or sys.platform != "linux":
        raise KernelError(f"{name} is for Linux on {library.arch}, this machine is {sys.platform} {os.uname().machine}")
    if library.source_sha256 != source_hash():
        raise KernelError(f"{name} was made from other kernel sources than this version's: {again}")
    if library.kernels != SIGNATURES:
        raise KernelError(f"{name} is described with other kernels than this version's: {again}")
    missing = sorted(set(library.features) - cpu_features())
    if missing:
        raise KernelError(f"{name} needs {', '.join(missing)}, which this CPU lacks: {again} --cpu for this board")
    try:
        with open(name, "rb") as file:
            content = file.read(MAX_LIBRARY + 1)
    except (OSError, ValueError) as error:  # the latter: a zero in the name
        raise KernelError(f"{name}: {getattr(error, 'strerror', None) or error}: {again}") from error
    if sha256(content).hexdigest() != library.sha256:
        raise KernelError(f"{name} is damaged (its SHA-256 is not the descriptor's): {again}")
    return content


def candidates() -> Iterator[str]:
    """Descriptors in the folders, of each the one for this very CPU first.

    Raises
    ------
    KernelError
        The folder that ``EDGE_MDDA_KERNELS_DIR`` names cannot be read or holds none.
    """
    own = f"kernels-{ARM_PARTS.get(_cpuinfo('CPU part'), '?')}.json"
    for folder in folders():
        names: list[str] = []
        cause = "holds no kernels-*.json"
        try:
            names = [name for name in os.listdir(folder) if name.startswith("kernels-") and name.endswith(".json")]
        except OSError as error:
            cause = error.strerror or str(error)
        if not names and os.environ.get(FOLDER_SETTING):
            raise KernelError(f"no native kernels found in {folder}: {cause}")
        yield from (os.path.join(folder, name) for name in sorted(names, key=lambda name: (name != own, name)))


def load(library: Library) -> dict[str, Callable[..., Any]]:
    """Kernels by name, called like the Numba back end's.

    Raises
    ------
    KernelError
        The library does not fit, or the system cannot load it.
    """
    content = check(library)
    try:
        shared = _loaded(content)
        return {name: _callable(shared[SYMBOL_PREFIX + name], name, text) for name, text in library.kernels.items()}
    except (OSError, AttributeError) as error:
        raise KernelError(f"{library.file} cannot be loaded ({error})") from error


_shared: dict[str, tuple[ctypes.CDLL, int]] = {}
"""Loaded libraries by their SHA-256, each with the descriptor of its file in memory. That stays open: the linker knows
a library by its path, and a number that is used again would bring the first one back."""


def _loaded(content: bytes) -> ctypes.CDLL:
    """Load these bytes, not a file that somebody may exchange; OSError where the system cannot."""
    key = sha256(content).hexdigest()
    if key not in _shared:
        try:
            _shared[key] = _from_memory(content)
        except OSError:  # a system that runs nothing from memory (vm.memfd_noexec)
            _shared[key] = _from_private_file(content), -1
    return _shared[key][0]


def _from_memory(content: bytes) -> tuple[ctypes.CDLL, int]:
    import fcntl

    descriptor = os.memfd_create("edge-mdda-kernels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return ctypes.CDLL(f"/proc/self/fd/{descriptor}"), descriptor
    except OSError:
        os.close(descriptor)
        raise


def _from_private_file(content: bytes) -> ctypes.CDLL:
    """Through a file in a folder that this user alone may enter; it is gone afterwards."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="edge-mdda-") as folder:
        path = os.path.join(folder, "kernels.so")
        with open(path, "xb") as file:
            file.write(content)
        return ctypes.CDLL(path)


def _callable(function: Any, name: str, signature: str) -> Callable[..., Any]:
    """A Python function that checks array types, then passes pointers; ctypes releases the GIL."""
    kinds = [(*_SCALARS[scalar], ndim) for scalar, ndim in argument_types(signature)]
    function.restype, function.argtypes = None, [ctypes.c_char_p]
    pack = struct.Struct("=" + "".join("Q" + "q" * ndim if ndim else slot for _, slot, ndim in kinds)).pack
    checks = [(char, ndim) if ndim else None for char, _, ndim in kinds]

    def call(*arguments: Any) -> None:
        flat: list[Any] = []
        for argument, kind in zip(arguments, checks, strict=True):
            if kind is None:
                flat.append(argument)
                continue
            known = _known_arrays.get(id(argument))
            if known is None or known[:2] != (kind, argument.shape) or known[2]() is not argument:
                known = _examine(argument, kind, name)
            flat.append(known[3])
            flat += known[1]
        function(pack(*flat))

    call.__name__ = name
    return call


Known = tuple[tuple[str, int], tuple[int, ...], weakref.ref[Any], int]

_known_arrays: dict[int, Known] = {}
"""Arrays that were examined: type character and dimensions, shape, the array, its address. A purification passes the
same buffers hundreds of times, and NumPy takes a microsecond to tell where one lies."""


def _examine(array: Any, kind: tuple[str, int], name: str) -> Known:
    char, ndim = kind
    if array.dtype.char != char or array.ndim != ndim:
        got = f"{array.dtype} with {array.ndim}"
        raise TypeError(f"{name}: expected an array {char!r} with {ndim} dimensions, got {got}")
    # TypeError unless C-contiguous and writable; an empty array (no solver) has no first byte to point to.
    address = ctypes.addressof(ctypes.c_char.from_buffer(array)) if array.size else 0
    key = id(array)
    known = kind, array.shape, weakref.ref(array, lambda _: _known_arrays.pop(key, None)), address
    _known_arrays[key] = known
    return known
