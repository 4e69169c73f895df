"""The wheels of a bundle: those of the lock file, checked and cached, and our own."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path

from deploy.errors import DeployError
from deploy.lock import Pin, run_pip, target_options
from deploy.profiles import Board, System

ROOT = Path(__file__).parents[1]
SOURCES = ("edge_mdda", "pyproject.toml", "README.md", "LICENSE")
MODEL_FILES = ("*.onnx", "*.onnx.*", "*.tflite", "*.tflite.*", "golden*")
"""Left out of our own wheel: a bundle carries the models once, signed, in a folder of their own."""

MAX_LICENCE = 80  # characters; some packages put a licence's whole text into the field


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/edge-mdda``, in the home directory by default."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "edge-mdda"


def fetch(pins: Sequence[Pin], board: Board, system: System, cache: Path) -> list[Path]:
    """Every wheel of a lock, from the cache or with pip, each with the locked SHA-256.

    Raises
    ------
    DeployError
        One cannot be had; the line names it and the board.
    """
    folder = cache / "wheels" / f"{system.name}-{system.python}-{board.arch}"
    folder.mkdir(parents=True, exist_ok=True)
    by_hash = {_sha256(path): path for path in folder.glob("*.whl")}
    missing = [pin for pin in pins if pin.sha256 not in by_hash]
    if missing:
        for pin in missing:
            (folder / pin.file).unlink(missing_ok=True)  # of another hash: pip would take it for the one wanted
            with tempfile.TemporaryDirectory() as scratch:
                requirement = Path(scratch) / "requirement.txt"
                requirement.write_text(pin.to_line() + "\n")
                arguments = ["download", "--quiet", "--no-deps", "--require-hashes", "--dest", str(folder)]
                arguments += [*target_options(system, board.arch), "-r", str(requirement)]
                subject = f"board {board.name}, {system.name}: the wheel {pin.name} {pin.version} cannot be had"
                run_pip(arguments, subject)
        by_hash = {_sha256(path): path for path in folder.glob("*.whl")}
    for pin in pins:
        if pin.sha256 not in by_hash:
            raise DeployError(f"board {board.name}, {system.name}: the wheel {pin.file or pin.name} is missing")
    return [by_hash[pin.sha256] for pin in pins]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build_own(target: Path, epoch: int, root: Path = ROOT) -> Path:
    """Our own wheel without models, the same bytes for the same sources and setuptools.

    Parameters
    ----------
    target : Path
        Folder for the wheel.
    epoch : int
        Seconds since 1970 that stand as the files' time.
    root : Path
        The repository.

    Raises
    ------
    DeployError
        The build failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        stage = Path(scratch) / "edge-mdda"
        stage.mkdir()
        ignore = shutil.ignore_patterns("__pycache__", *MODEL_FILES)
        for name in SOURCES:
            if (root / name).is_dir():
                shutil.copytree(root / name, stage / name, ignore=ignore)
            else:
                shutil.copy(root / name, stage / name)
        for path in stage.rglob("*"):  # the checkout's umask must not show
            path.chmod(0o755 if path.is_dir() else 0o644)
        before = os.environ.get("SOURCE_DATE_EPOCH")
        os.environ["SOURCE_DATE_EPOCH"] = str(max(epoch, 315532800))  # a zip file knows no time before 1980
        try:
            made = Path(scratch) / "made"
            arguments = [
                "wheel",
                "--quiet",
                "--no-deps",
                "--no-index",
                "--no-build-isolation",
                "--wheel-dir",
                str(made),
            ]
            run_pip([*arguments, str(stage)], "our own wheel (extra 'deploy' brings what builds it)")
        finally:
            if before is None:
                del os.environ["SOURCE_DATE_EPOCH"]
            else:
                os.environ["SOURCE_DATE_EPOCH"] = before
        wheel = next(made.glob("edge_mdda-*.whl"))
        return Path(shutil.copy(wheel, target / wheel.name))


def unpacked_bytes(wheel: Path, trim: Sequence[str] = ()) -> int:
    """How large it is on the board, without what the patterns of ``trim.txt`` remove."""
    patterns = [re.compile(_to_regex(pattern)) for pattern in trim]
    with zipfile.ZipFile(wheel) as archive:
        return sum(
            info.file_size
            for info in archive.infolist()
            if not any(pattern.fullmatch(info.filename) for pattern in patterns)
        )


def _to_regex(pattern: str) -> str:
    """A glob pattern of a file or folder, as the board's Python takes it, for names in an archive."""
    text = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return text + "(?:/.*)?"


def describe(wheel: Path) -> dict[str, str]:
    """Name, version and licence, as a wheel's metadata tell; the licence is empty where they do not."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        meta = HeaderParser().parsestr(archive.read(name).decode(errors="replace"))
    licence = (meta.get("License-Expression") or "").strip()
    plain = " ".join((meta.get("License") or "").split())
    classifiers = [c.rsplit(" :: ", 1)[-1] for c in meta.get_all("Classifier", []) if c.startswith("License ::")]
    named = plain if plain and len(plain) <= MAX_LICENCE else ", ".join(classifiers)
    return {"name": meta["Name"], "version": meta["Version"], "expression": licence, "licence": named}
