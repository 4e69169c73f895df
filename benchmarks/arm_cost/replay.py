"""A purification replayed on an emulated board: no Python there, only the library under test and a C driver.

The kernel calls of one real purification are recorded with the memory that they start from. A generated C
program repeats them against an aarch64 library under QEMU's user-mode emulation and gives the memory back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_mdda.errors import EdgeMddaError
from edge_mdda.mdda.kernels import load_kernels
from edge_mdda.mdda.kernels.native import SYMBOL_PREFIX, Library, argument_types
from edge_mdda.mdda.params import PRESETS
from edge_mdda.mdda.purifier import Purifier

CROSS_COMPILER = "aarch64-linux-gnu-gcc"
SYSROOT = Path("/usr/aarch64-linux-gnu")
"""Where Debian puts the C library of its cross compiler."""

EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
ALIGNMENT = 64  # bytes; arrays keep their place in a cache line


class ReplayError(EdgeMddaError):
    """No emulator or no cross compiler, or the replay failed."""


@dataclass(frozen=True)
class Recording:
    """One purification as a C program and the memory that it starts from."""

    source: str
    image: bytes
    result: tuple[int, tuple[int, ...]]
    """Offset and shape of the purified picture in the memory."""


class _Recorder:
    """Stands in for the kernels, calls the real ones and writes down how."""

    def __init__(self, kernels: Mapping[str, Callable[..., Any]], signatures: Mapping[str, str]) -> None:
        self.statements: list[str] = []
        self.kernels = {name: self._recording(name, kernels[name], text) for name, text in signatures.items()}
        self._memory = bytearray()
        self._places: dict[int, tuple[int, np.ndarray]] = {}

    @property
    def memory(self) -> bytes:
        return bytes(self._memory)

    def offset(self, array: np.ndarray) -> int:
        """Where an array begins in the recorded memory; its buffer is copied there when it is first seen."""
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        address = root.ctypes.data
        if address not in self._places:
            place = len(self._memory) + (address - len(self._memory)) % ALIGNMENT
            self._memory.extend(bytes(place - len(self._memory)) + root.tobytes())
            self._places[address] = place, root  # kept, so that no other array gets this address
        return self._places[address][0] + array.ctypes.data - address

    def _recording(self, name: str, kernel: Callable[..., Any], signature: str) -> Callable[..., Any]:
        kinds = argument_types(signature)

        def call(*arguments: Any) -> None:
            texts = []
            for argument, (scalar, ndim) in zip(arguments, kinds, strict=True):
                if ndim:
                    texts += [f"P({self.offset(argument)})", *(f"I({side})" for side in argument.shape)]
                else:
                    texts.append(f"F({float(argument).hex()}f)" if scalar == "f4" else f"I({int(argument)})")
            self.statements.append(f"{SYMBOL_PREFIX}{name}((union slot[]){{{', '.join(texts)}}});")
            kernel(*arguments)

        return call


def record(picture: np.ndarray, preset: str, seed: int, signatures: Mapping[str, str]) -> tuple[Recording, np.ndarray]:
    """Purify ``picture`` here and write down every kernel call.

    Parameters
    ----------
    picture : (height, width, 3) uint8
    preset : str
        Of :data:`edge_mdda.mdda.params.PRESETS`.
    seed : int
    signatures : mapping of str to str
        Of the library that will replay.

    Returns
    -------
    Recording, (height, width, 3) uint8
        The second is what this machine makes of the picture.
    """
    recorder = _Recorder(load_kernels(), signatures)
    height, width, _ = picture.shape
    purified = Purifier(height, width, PRESETS[preset], kernels=recorder.kernels).purify(picture, seed)
    calls = "\n        ".join(recorder.statements)
    declarations = "\n".join(f"void {SYMBOL_PREFIX}{name}(const union slot *);" for name in signatures)
    result = recorder.offset(purified), purified.shape
    source = _DRIVER.format(declarations=declarations, size=len(recorder.memory), calls=calls)
    return Recording(source, recorder.memory, result), purified


_DRIVER = """\
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
union slot {{ void *pointer; int64_t integer; float real; }};
#define P(offset) {{ .pointer = m + (offset) }}
#define I(value) {{ .integer = (value) }}
#define F(value) {{ .real = (value) }}
{declarations}
int main(int argc, char **argv) {{
    const size_t size = {size};
    uint8_t *m = aligned_alloc(64, (size + 63) / 64 * 64);
    FILE *in = fopen(argv[1], "rb");
    if (argc != 4 || !m || !in || fread(m, 1, size, in) != size) return 2;
    for (int n = atoi(argv[3]); n > 0; n--) {{
        {calls}
    }}
    FILE *out = fopen(argv[2], "wb");
    return out && fwrite(m, 1, size, out) == size && !fclose(out) ? 0 : 3;
}}
"""


def find_tools() -> tuple[str, str]:
    """``(emulator, cross compiler)``.

    Raises
    ------
    ReplayError
        One is not installed.
    """
    emulator = next(filter(None, map(shutil.which, EMULATORS)), None)
    compiler = shutil.which(CROSS_COMPILER)
    if not emulator or not compiler or not SYSROOT.is_dir():
        raise ReplayError(
            "no ARM emulation here: install Debian's qemu-user-static, qemu-user and gcc-aarch64-linux-gnu"
        )
    return emulator, compiler


def replay(
    recording: Recording, library: Library, cpu: str, *, repeats: int = 1, emulator: tuple[str, ...] = ()
) -> tuple[np.ndarray, str]:
    """Run a recording on an emulated CPU.

    Parameters
    ----------
    recording : Recording
    library : Library
        For aarch64.
    cpu : str
        What QEMU emulates: an instruction that this CPU lacks stops the run.
    repeats : int
        How often the whole purification runs.
    emulator : tuple of str
        Default: the first that is installed.

    Returns
    -------
    (height, width, 3) uint8, str
        The purified picture and what the emulator wrote to standard error.

    Raises
    ------
    ReplayError
        A tool is missing, or the program failed.
    """
    found, compiler = find_tools()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "driver.c").write_text(recording.source)
        (folder / "before").write_bytes(recording.image)
        shutil.copy(library.path, folder)
        link = ["-L.", f"-l:{library.path.name}", "-Wl,-rpath,$ORIGIN"]
        _run([compiler, "-O1", "driver.c", *link, "-o", "driver"], folder, dict(os.environ))
        command = [*(emulator or (found,)), "-L", str(SYSROOT), "./driver", "before", "after", str(repeats)]
        messages = _run(command, folder, {"QEMU_CPU": cpu, "PATH": os.environ.get("PATH", "")})
        offset, shape = recording.result
        after = np.frombuffer((folder / "after").read_bytes(), np.uint8)
        return after[offset : offset + int(np.prod(shape))].reshape(shape).copy(), messages


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ReplayError(f"{Path(command[0]).name} failed: {last}")
    return done.stderr
