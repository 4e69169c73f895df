"""An object file becomes a shared library, with whatever linker for its architecture is installed."""

from __future__ import annotations

import importlib.util
import io
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from edge_mdda.errors import EdgeMddaError

FLAGS = ("-shared", "-s", "-z", "now", "-z", "relro", "-z", "noexecstack", "--build-id=none")
"""No relocation after the start, no executable stack, nothing that differs from build to build."""

FROM_C = frozenset(("memcpy", "memmove", "memset", "expf", "logf", "powf", "sqrtf"))
"""What code may take from libc and libm, which every Python process has loaded."""

ZIG = "ziglang"


class LinkError(EdgeMddaError):
    """No linker was found, or it failed, or the library would need more than the C library."""


def find_linker(arch: str) -> list[str]:
    """The command that links for ``arch``: the system's cross linker, LLD, or the one in the ``ziglang`` wheel.

    Raises
    ------
    LinkError
        There is none; the message says what to install.
    """
    for name in (f"{arch}-linux-gnu-ld", *(["ld"] if arch == platform.machine() else []), "ld.lld"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec(ZIG):
        return [sys.executable, "-m", ZIG, "ld.lld"]
    package = arch.replace("_", "-")
    raise LinkError(
        f"no linker for {arch}: install Debian's binutils-{package}-linux-gnu, LLD, or run: pip install {ZIG}"
    )


def link(object_code: bytes, arch: str) -> bytes:
    """A shared library that depends on nothing but libc and libm.

    Raises
    ------
    LinkError
        As said there.
    """
    foreign = sorted(undefined_symbols(object_code) - FROM_C)
    if foreign:
        raise LinkError(f"the kernels call what a board does not have: {', '.join(foreign)}")
    command = find_linker(arch)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
        source.write_bytes(object_code)
        done = subprocess.run(
            [*command, *FLAGS, "-o", str(target), str(source)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise LinkError(f"{command[0]} failed: {last}")
        return target.read_bytes()


def undefined_symbols(elf: bytes) -> set[str]:
    """Names that an object file or a shared library expects from elsewhere."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    sections = (s for s in ELFFile(io.BytesIO(elf)).iter_sections() if isinstance(s, SymbolTableSection))
    symbols = (symbol for section in sections for symbol in section.iter_symbols())
    return {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name}
