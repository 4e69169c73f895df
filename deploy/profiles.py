"""Board profiles: ``boards/<name>.toml``, checked when read. Adding a board is adding a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from deploy.errors import DeployError
from edge_mdda.classifier import RUNTIMES
from edge_mdda.mdda.params import PRESETS

BOARDS = Path(__file__).parent / "boards"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
OLDEST_GLIBC_MINOR = 17  # of manylinux2014, the oldest tag that wheels for ARM have
ARCHES = ("aarch64", "x86_64")
MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class System:
    """An operating system that a board runs.

    Attributes
    ----------
    name : str
        ``bookworm``; part of the bundle's name and of the lock file's.
    title : str
        For people.
    python : str
        ``3.11``: the version of its ``python3``.
    glibc : str
        ``2.36``: the newest C library that a wheel may ask for.
    """

    name: str
    title: str
    python: str
    glibc: str

    def __post_init__(self) -> None:
        _require(self, "title", bool(self.title) and self.title.isprintable())
        _require(self, "python", bool(re.fullmatch(r"3\.1[0-9]", self.python)))
        match = re.fullmatch(r"2\.([0-9]{2})", self.glibc)
        _require(self, "glibc", bool(match and int(match[1]) >= OLDEST_GLIBC_MINOR))


@dataclass(frozen=True)
class Board:
    """One kind of board.

    Attributes
    ----------
    name, title : str
        The file's name, and what people call it.
    arch : {'aarch64', 'x86_64'}
        As ``uname -m`` says.
    cpu : str
        LLVM's name, or ``host`` (tests).
    cpu_parts : tuple of str
        ``CPU part`` values that the installer accepts; empty: any.
    memory_mb, cores : int
        Of the smallest board of this kind.
    runtimes : tuple of str
        What the bundle carries; the first is the default.
    threads : int
        Default number of threads.
    preset : str
        Default preset of the purifier.
    sensors : dict of str to str
        Name to path below the root.
    systems : dict of str to System
        By name.
    """

    name: str
    title: str
    arch: str
    cpu: str
    memory_mb: int
    cores: int
    threads: int
    cpu_parts: tuple[str, ...]
    runtimes: tuple[str, ...]
    systems: dict[str, System]
    preset: str = "balanced"
    sensors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self, "name", bool(NAME.fullmatch(self.name)))
        _require(self, "title", bool(self.title) and self.title.isprintable())
        _require(self, "arch", self.arch in ARCHES)
        _require(self, "cpu", bool(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.cpu)))
        _require(self, "cpu_parts", all(re.fullmatch(r"0x[0-9a-f]{3}", part) for part in self.cpu_parts))
        _require(self, "memory_mb", self.memory_mb >= 64)
        _require(self, "cores", 1 <= self.cores <= 256)
        _require(self, "threads", 1 <= self.threads <= self.cores)
        _require(self, "runtimes", bool(self.runtimes) and set(self.runtimes) <= set(RUNTIMES))
        _require(self, "preset", self.preset in PRESETS)
        relative = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_:@.,+/-]*")
        _require(self, "sensors", all(relative.fullmatch(p) and ".." not in p for p in self.sensors.values()))
        _require(self, "os", bool(self.systems))

    def system(self, name: str) -> System:
        """The operating system of this name; DeployError names those that there are."""
        if name not in self.systems:
            raise DeployError(f"board {self.name} has no operating system '{name}': choose {_any_of(self.systems)}")
        return self.systems[name]


def _any_of(names: Any) -> str:
    return ", ".join(sorted(names))


def _require(record: Any, name: str, good: bool) -> None:
    if not good:
        raise ValueError(f"'{name}' has the unusable value {getattr(record, name, None)!r}")


def board_names(folder: Path = BOARDS) -> list[str]:
    """Every board with a profile."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def find_board(name: str) -> Board:
    """The board of this name, or of a file ``*.toml`` elsewhere.

    Raises
    ------
    DeployError
        There is no such profile, or it cannot be used.
    """
    if name.endswith(".toml"):
        return read_board(Path(name))
    if name not in board_names():
        raise DeployError(f"no board '{name}': choose one of {_any_of(board_names())}, or name a .toml file")
    return read_board(BOARDS / f"{name}.toml")


def read_board(path: Path) -> Board:
    """Read and check one profile; DeployError with one line that names the file and the field."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeployError(f"{path}: cannot read the board's profile ({error.strerror})") from error
    try:
        if len(content) > MAX_BYTES:
            raise ValueError("too large for a profile")
        return _to_board(path.stem, _parse(content.decode()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DeployError(f"{path}: {' '.join(str(error).split())}") from error


def _parse(text: str) -> dict[str, Any]:
    import importlib

    try:
        tomllib = importlib.import_module("tomllib")  # Python 3.11
    except ImportError:
        try:
            tomllib = importlib.import_module("tomli")
        except ImportError as error:
            raise DeployError("profiles need tomli on Python 3.10; run: pip install 'edge-mdda[deploy]'") from error
    parsed: dict[str, Any] = tomllib.loads(text)
    return parsed


def _to_board(name: str, content: dict[str, Any]) -> Board:
    systems = content.pop("os", {})
    if not isinstance(systems, Mapping):
        raise ValueError("'os' must be a table: [os.NAME]")
    values: dict[str, Any] = {"name": name, **content}
    values["systems"] = {
        key: System(**_checked({"name": key, **entry}, System, f"os.{key}.")) for key, entry in systems.items()
    }
    checked = _checked(values, Board, "")
    ready: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in checked.items()}
    return Board(**ready)


_TYPES = {"str": str, "int": int, "tuple[str, ...]": list, "dict[str, str]": dict, "dict[str, System]": dict}


def _checked(values: dict[str, Any], record: type, where: str) -> dict[str, Any]:
    """The values, none missing, none unknown, each of its type."""
    known = {f.name: f for f in fields(record)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown field '{where}{unknown[0]}'")
    for name, f in known.items():
        optional = name in ("preset", "sensors")
        if name not in values and not optional:
            raise ValueError(f"the field '{where}{name}' is missing")
        value, wanted = values.get(name), _TYPES[str(f.type)]
        if name in values and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise ValueError(f"'{where}{name}' must be a {wanted.__name__}, not {value!r}")
        inside = (
            value
            if isinstance(value, list)
            else list(value.values())
            if str(f.type) == "dict[str, str]" and value
            else []
        )
        if not all(isinstance(part, str) for part in inside):
            raise ValueError(f"'{where}{name}' must hold texts")
    return values


def platform_tags(system: System, arch: str) -> list[str]:
    """Platform tags of the wheels that run there, best first, as pip's ``--platform`` takes them."""
    newest = int(system.glibc.split(".")[1])
    tags = [f"manylinux_2_{minor}_{arch}" for minor in range(newest, OLDEST_GLIBC_MINOR - 1, -1)]
    return [*tags, f"manylinux2014_{arch}"]
