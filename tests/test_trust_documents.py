"""What SECURITY.md and the update's list of attacks promise is shown by tests that there are."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DEPLOY = TESTS.parent / "deploy"
DOCUMENTS = [DEPLOY / "SECURITY.md", DEPLOY / "README.md"]
FUNCTIONS = {
    name
    for path in TESTS.glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_is_named_is_there(document):
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`(test_[\w*]+(?:\.py)?)`", text)
    assert len(named) > 10
    for name in named:
        if name.endswith(".py"):
            assert (TESTS / name).is_file(), name
        else:
            assert any(fnmatchcase(function, name) for function in FUNCTIONS), name


def test_the_way_to_report_a_fault_names_no_address():
    text = (DEPLOY / "SECURITY.md").read_text(encoding="utf-8")
    assert "Report a vulnerability" in text
    assert not re.search(r"[\w.]+@[\w.]+\.\w+", text)
