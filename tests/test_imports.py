"""Imports go one way: no circles, and every room imports only what lies below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = ("edge_mdda", "export", "deploy", "benchmarks")
"""Each may import those before it."""

LEVELS = (
    ("errors", "silence", "digest", "packages", "models", "console"),
    ("files",),
    ("hardware", "picture"),
    ("mdda",),
    ("classifier",),
    ("triage",),
    ("screening",),
    ("watch", "station", "diagnostics", "profiling"),
    ("cli",),
    ("__main__",),
)
"""Rooms of ``edge_mdda``, from the ground up. A room imports from the levels below it, not from its neighbours."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for project in PROJECTS for path in (ROOT / project).rglob("*.py")}


def imports(name: str) -> Iterator[str]:
    """Our own modules that a module imports, anywhere in it, but for types alone."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (found for found in within if found in MODULES)
            if any(found not in MODULES for found in within):
                yield node.module


IMPORTS = {name: sorted(set(imports(name)) - {name}) for name in MODULES}


def circle(start: str) -> list[str]:
    """A way from a module back to itself, or nothing."""
    ways = [[start, first] for first in IMPORTS[start]]
    seen = set()
    while ways:
        way = ways.pop()
        if way[-1] == start:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, following] for following in IMPORTS[way[-1]]]
    return []


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_there_is_something_to_look_at():
    assert len(MODULES) > 150
    assert "edge_mdda.screening" in IMPORTS["edge_mdda.cli.options"]  # inside a function
    assert "edge_mdda.mdda.kernels.rof" in IMPORTS["edge_mdda.mdda.kernels.block"]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_circle(name):
    assert not circle(name)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_projects_import_only_those_below(name):
    allowed = PROJECTS[: PROJECTS.index(name.split(".")[0]) + 1]
    assert {found.split(".")[0] for found in IMPORTS[name]} <= set(allowed)


@pytest.mark.parametrize("name", [name for name in sorted(MODULES) if name.startswith("edge_mdda.")])
def test_rooms_import_only_those_below(name):
    level = {room: index for index, rooms in enumerate(LEVELS) for room in rooms}
    here = room_of(name)
    assert here in level, f"{name}: say in LEVELS where it belongs"
    for found in IMPORTS[name]:
        if room_of(found) not in ("", here):
            assert level[room_of(found)] < level[here], f"{name} imports {found}"
