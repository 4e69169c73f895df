"""What ``import edge_mdda`` offers: light, complete, and typed."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import edge_mdda
from edge_mdda import Advice, Limits, Manifest, Purifier, Screener
from edge_mdda.errors import ParamsError
from edge_mdda.models import DEMO_IMAGE

SOURCE = Path(edge_mdda.__file__)


def typed_names() -> dict[str, str]:
    """Name to module, of what stands under ``if TYPE_CHECKING``."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    assert all(isinstance(node, ast.ImportFrom) for node in block.body)
    return {alias.asname: node.module for node in block.body for alias in node.names}


def test_type_checkers_and_the_interpreter_see_the_same_names():
    assert typed_names() == edge_mdda._HOMES
    for name, home in edge_mdda._HOMES.items():
        assert getattr(edge_mdda, name) is getattr(importlib.import_module(home), name)
    assert set(edge_mdda.__all__) <= set(dir(edge_mdda))
    with pytest.raises(AttributeError, match="no attribute 'Screner'"):
        edge_mdda.Screner  # noqa: B018


def test_a_type_checker_knows_the_types(tmp_path):
    pytest.importorskip("mypy")
    program = tmp_path / "uses.py"
    program.write_text("import edge_mdda as e\nreveal_type(e.Screener().screen('a').advice.action)\ne.nope\n")
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--cache-dir", str(tmp_path), str(program)]
    done = subprocess.run(
        [*command, "--ignore-missing-imports"], capture_output=True, text=True, timeout=300, cwd=SOURCE.parent.parent
    )
    assert 'Revealed type is "builtins.str"' in done.stdout or 'Revealed type is "str"' in done.stdout, done.stdout
    assert 'has no attribute "nope"' in done.stdout


def test_importing_loads_nothing_heavy():
    heavy = "{'numpy', 'numba', 'cv2', 'onnxruntime', 'json'} & set(sys.modules)"
    code = f"import sys, edge_mdda; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_new_public_types_are_what_the_screener_uses():
    with Screener(purify="off", limits=Limits(max_pixels=10**6)) as screener:
        assert isinstance(screener.classifier.manifest, Manifest)
        answer = screener.screen(DEMO_IMAGE)
        assert isinstance(answer.advice, Advice)
        content = DEMO_IMAGE.read_bytes()
        for kind in (bytes, bytearray, memoryview):
            assert screener.screen(kind(content)).probabilities == answer.probabilities


@pytest.mark.parametrize("wrong", [5, 0, True, None, 2.5, ["a.jpg"]])
def test_what_is_neither_path_nor_bytes_is_a_type_error(wrong):
    """A number names an open file to the operating system; 0 would wait for the keyboard."""
    with Screener(purify="off") as screener, pytest.raises(TypeError, match="expected a path or the bytes"):
        screener.screen(wrong)


def test_wrong_arguments_of_the_purifier_are_params_errors():
    with Purifier(20, 30) as purifier:
        for picture, seed in (("x", 1), (None, 1), (__import__("numpy").zeros((20, 30, 3), "uint8"), -1)):
            with pytest.raises(ParamsError, match=r"^(rgb|seed): expected"):
                purifier.purify(picture, seed)


def modules_with_examples() -> list[str]:
    folder = SOURCE.parent
    names = [found.name for found in pkgutil.walk_packages([str(folder)], "edge_mdda.")]
    return [
        name
        for name in names
        if ">>>" in (importlib.util.find_spec(name).loader.get_source(name) or "") and "__main__" not in name  # type: ignore[union-attr]
    ]


def test_the_examples_in_the_docstrings_run():
    names = modules_with_examples()
    assert "edge_mdda.mdda.purifier" in names
    for name in names:
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0 and result.attempted > 0, name
