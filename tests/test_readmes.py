"""The READMEs: short enough, every link leads somewhere, and what is marked as runnable runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mdda.models import DEMO_IMAGE

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {".git", ".venv", ".venv-tflite-runtime", "node_modules"}
PAGES = sorted(p for p in ROOT.rglob("*.md") if not SKIPPED & set(p.relative_to(ROOT).parts))
MAX_LINES = 150  # of the first page
BLOCK = re.compile(r"<!-- runnable -->\n```(sh|python)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The names by which headings can be linked to, as the forges make them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def blocks() -> list[tuple[str, str, str]]:
    return [
        (str(page.relative_to(ROOT)), kind, text)
        for page in PAGES
        for kind, text in BLOCK.findall(page.read_text(encoding="utf-8"))
    ]


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page}: {target}"


def test_there_is_something_to_run():
    assert len(blocks()) >= 4
    assert {name for name, _, _ in blocks()} >= {"README.md", "edge_mdda/README.md"}


@pytest.mark.parametrize(("page", "kind", "text"), blocks())
def test_what_is_marked_as_runnable_runs(page, kind, text, tmp_path):
    shutil.copy(DEMO_IMAGE, tmp_path / "lesion.jpg")
    for folder in ("visit", "inbox"):
        (tmp_path / folder).mkdir()
        shutil.copy(DEMO_IMAGE, tmp_path / folder / "one.jpg")
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "edge-mdda"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edge_mdda "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": path}
    # doctor's exit status tells of this machine, not of the page.
    lines = [line for line in text.splitlines() if "doctor" not in line]
    command = [sys.executable, "-c", text] if kind == "python" else ["sh", "-e", "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout
