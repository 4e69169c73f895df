"""Results keyed by everything that they were made from, so that no run makes them twice or takes a stale one.

A key is the SHA-256 of a canonical JSON text: hashes of the network's file and of the images, the attack's
parameters, a hash of the code, and the versions of the packages that it calls. A file is written under a temporary
name and renamed, so that a killed run leaves none half-written; one that cannot be read counts as absent.
"""

from __future__ import annotations

import ast
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edge_mdda.digest import sha256
from edge_mdda.files import replace_file

FORMAT = 1
"""Of the files; a change makes all older ones misses."""


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/edge-mdda/robustness``; without the variable in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "edge-mdda" / "robustness"


def hash_array(values: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and content."""
    digest = sha256(f"{values.dtype.str}{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def hash_text(*parts: str) -> str:
    """SHA-256 of some texts, none of which can run into the next."""
    return sha256(json.dumps(parts).encode()).hexdigest()


@cache
def versions_of(*packages: str) -> dict[str, str | None]:
    """Versions of installed packages by name; None for one that is not here."""

    def number(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {package: number(package) for package in packages}


@cache
def hash_code(paths: tuple[Path, ...]) -> str:
    """SHA-256 of Python files' syntax trees without docstrings, so that a comment makes no cached result stale."""
    return hash_text(*(_syntax(path) for path in paths))


def _syntax(path: Path) -> str:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
    return f"{path.name}: {ast.dump(tree)}"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def key_of(**parts: Any) -> str:
    """SHA-256 of named values; arrays go in with their hash."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return hash_array(value)
        if isinstance(value, Mapping):
            return {str(name): plain(part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(part) for part in value]
        return value

    text = json.dumps({"format": FORMAT, **plain(parts)}, sort_keys=True, allow_nan=False)
    return sha256(text.encode()).hexdigest()


def seed_of(key: str) -> int:
    """A seed below 2**48 that only depends on a key: the order in which a run meets its work does not matter."""
    return int(key[:12], 16)


class Cache:
    """A folder of ``<key>.npz`` files.

    Parameters
    ----------
    folder : Path
        Made when the first result is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hits = self.misses = 0

    def path(self, key: str) -> Path:
        """Where the result of a key lies, or will lie."""
        return self.folder / key[:2] / f"{key}.npz"

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of a key, or None."""
        try:
            with np.load(io.BytesIO(self.path(key).read_bytes()), allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store arrays; all of them or nothing."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(str(path), buffer.getvalue())

    def arrays(self, key: str, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays of a key; made and stored where they are not there yet."""
        found = self.get(key)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        made = dict(make())
        self.put(key, made)
        return made

    def images(self, key: str, clean: np.ndarray, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Attacked images ``(n, h, w, 3)`` uint8 of a key.

        Stored is their difference from ``clean`` modulo 256, which takes a third of the space.
        """
        found = self.arrays(key, lambda: {"difference": make() - clean})
        return clean + found["difference"]


def load_images(folder: Path, keys: Iterable[str], clean: np.ndarray) -> np.ndarray | None:
    """The attacked images of a whole set by its keys, in the order of ``clean``; None if a part is not there."""
    store, done, parts = Cache(folder), 0, []
    for key in keys:
        found = store.get(key)
        if found is None:
            return None
        difference = found["difference"]
        parts.append(clean[done : done + len(difference)] + difference)
        done += len(difference)
    return np.concatenate(parts) if parts and done == len(clean) else None
