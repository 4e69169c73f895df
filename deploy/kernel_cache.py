"""Native kernels for a board, compiled once for the same sources, tools and CPU: they take some seconds each time."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from deploy.errors import DeployError
from deploy.profiles import Board
from edge_mdda.errors import KernelError
from edge_mdda.mdda.kernels.native import read_descriptor, source_hash

MAKERS = ("build", "codegen", "kernel_ir", "linker")
"""Modules of ``export`` that decide about the library's bytes, beside the kernels' own sources."""


def add_kernels(target: Path, board: Board, cache: Path) -> Path:
    """Put library and descriptor into ``target``, a new folder; returns the library.

    Raises
    ------
    EdgeMddaError
        The CPU is unknown, or a tool that compiles is missing; the line names the board.
    """
    try:
        kept = cache / _key(board)
        if not _whole(kept):
            _compile(board, kept)
    except ImportError as error:
        text = f"board {board.name}: {error.name} is not installed; run: pip install -e '.[deploy]'"
        raise DeployError(text) from error
    target.mkdir()
    for path in sorted(kept.iterdir()):
        shutil.copy(path, target)
    return next(target.glob("*.so"))


def _key(board: Board) -> str:
    """A hash of all that decides about the bytes."""
    from importlib.metadata import version

    import export.native
    from export.native.build import TOOLS
    from export.native.codegen import target_of
    from export.native.linker import find_linker

    target = target_of(board.cpu)
    linker = find_linker(target.arch)
    program = Path(shutil.which(linker[0]) or linker[0]).resolve()
    parts = [repr(target), source_hash(), *linker, *(version(tool) for tool in TOOLS)]
    parts.append(hashlib.sha256(program.read_bytes()).hexdigest())
    for name in MAKERS:
        parts.append(hashlib.sha256((Path(export.native.__path__[0]) / f"{name}.py").read_bytes()).hexdigest())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _whole(folder: Path) -> bool:
    """Whether a pair lies there and the library is the one that its descriptor describes."""
    try:
        library = read_descriptor(next(folder.glob("kernels-*.json")))
        return hashlib.sha256(library.path.read_bytes()).hexdigest() == library.sha256
    except (StopIteration, KernelError, OSError):
        return False


def _compile(board: Board, kept: Path) -> None:
    from export.native.build import build

    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        made = Path(scratch) / "made"
        build(board.cpu, made)
        try:
            os.rename(made, kept)
        except OSError:
            if not _whole(kept):  # else another process was faster
                raise
