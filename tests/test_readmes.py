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
MADE = ("build", "dist", "runs", "node_modules", ".git", ".venv", ".pytest_cache")
"""How names of folders begin that are made here and not kept; `pip install .` leaves a copy of our pages in build."""


def is_ours(page: Path) -> bool:
    """Whether a page is one of the project, not something that was made or installed in its folder."""
    folders = page.relative_to(ROOT).parts[:-1]
    return ".github" in folders or not any(folder.startswith(MADE) for folder in folders)


PAGES = sorted(page for page in ROOT.rglob("*.md") if is_ours(page))
MAX_LINES = 150  # of the first page
MAX_TERMS = 25  # lines of the glossary
BLOCK = re.compile(r"<!-- runnable -->\n```(sh|python)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
OWN_FOLDERS = re.compile(r"(?<![\w.~$])/(?:work|root|home|Users|tmp)/[\w.{-]")
"""A folder of the machine where somebody wrote the page; a reader has none, but may have a stick in /media."""
SETTING = re.compile(r"EDGE_MDDA_[A-Z]+(?:_[A-Z]+)*")
NOT_FIT = 1  # exit status of doctor: it tells of this machine, not of the page


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_path_of_the_machine_it_was_written_on(page):
    assert OWN_FOLDERS.findall(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "is_own"),
    [
        ("see /home/ada/notes", True),
        ("`/tmp/out.json`", True),
        ("/work/ada/notes", True),
        ("/var/lib/edge-mdda/inbox", False),
        ("~/.config/labwc/autostart", False),
        ("edge-mdda serve backup /media/stick", False),
        ("the network/home/page", False),
    ],
)
def test_what_counts_as_a_path_of_ones_own_machine(text, is_own):
    assert bool(OWN_FOLDERS.search(text)) == is_own


def test_the_test_command_is_found_as_the_pipeline_finds_it():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (finder,) = re.findall(r"^test_command=\$\((.*)\)$", script, re.MULTILINE)
    found = subprocess.run(["sh", "-c", finder], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(found.splitlines()) == 1
    assert "-m pytest" in found


def test_the_glossary_is_short_and_has_the_words_of_the_field():
    text = (
        (ROOT / "edge_mdda" / "README.md")
        .read_text(encoding="utf-8")
        .partition("## Glossary\n")[2]
        .partition("\n## ")[0]
    )
    assert len(text.strip().splitlines()) <= MAX_TERMS
    for term in ("black-box", "transfer", "gray-box", "white-box adaptive", "source model", "adversarial training"):
        assert term in text
    for term in ("post-training", "quantisation-aware", "sensitivity", "specificity", "operating point", "calibration"):
        assert term in text
    assert "thread pool" in text


def test_every_setting_of_the_program_is_explained():
    sources = sorted((ROOT / "edge_mdda").rglob("*.py"))
    used = {name for path in sources for name in SETTING.findall(path.read_text(encoding="utf-8"))}
    assert len(used) >= 5
    assert used <= set(SETTING.findall((ROOT / "edge_mdda" / "README.md").read_text(encoding="utf-8")))


def test_every_command_and_every_public_name_is_listed():
    import edge_mdda

    text = (ROOT / "edge_mdda" / "README.md").read_text(encoding="utf-8")
    usage = subprocess.run(
        [sys.executable, "-m", "edge_mdda", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    commands = re.findall(r"^    ([a-z]+) ", usage.partition("COMMAND\n")[2], re.MULTILINE)
    assert {"screen", "doctor", "verify"} <= set(commands)
    assert [name for name in commands if f"| `{name}` |" not in text] == []
    assert [name for name in edge_mdda.__all__ if f"`{name}`" not in text] == []


def test_the_model_card_has_the_usual_headings():
    """Those of M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019."""
    heads = re.findall(
        r"^## (.*)$", (ROOT / "edge_mdda/models/MODEL_CARD.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    wanted = ["Intended use", "Out of scope", "Data", "Metrics", "Ethical considerations", "Caveats"]
    assert [head for head in heads if head in wanted] == wanted


def test_figures_of_the_first_page_stand_on_the_page_behind_them():
    """A network that is exchanged changes both; shares stand there as 0.948 or as 94.8 %."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What it reaches\n")[2].partition("\n## ")[0]
    home, checked = "", 0
    for row in [line for line in table.splitlines() if re.search(r"\d", line) and line.startswith("|")]:
        _, what, figures, command, _ = row.split("|")
        if LINK.search(command):
            home = (ROOT / LINK.findall(command)[0].partition("#")[0]).read_text(encoding="utf-8")
        else:
            assert command.strip() == "the same", row
        for figure in re.findall(r"\b0\.\d{3}\b", figures):
            percent = f"{float(figure) * 100:.1f} %"
            assert figure in home or percent in home, f"{what}: {figure}"
            checked += 1
    assert checked >= 15


def test_files_that_contributors_are_sent_to_are_there():
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = re.findall(r"`([\w./-]+/[\w.-]*\.(?:py|md|json|toml))`", text)
    assert len(names) >= 15
    placeholders = ("NAME", "THING")
    real = [name for name in names if not any(word in name for word in placeholders)]
    assert [name for name in real if not (ROOT / name).exists()] == []


def test_there_is_something_to_run():
    assert len(blocks()) >= 4
    assert {name for name, _, _ in blocks()} >= {"README.md", "edge_mdda/README.md"}
    together = "\n".join(text for _, _, text in blocks())
    for command in ("screen --demo", "--json", "verify", "doctor", "purify", "watch --once", "Screener("):
        assert command in together


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
    lines = [
        f"{line.partition('#')[0]} || test $? -eq {NOT_FIT}" if line.startswith("edge-mdda doctor") else line
        for line in text.splitlines()
    ]
    command = [sys.executable, "-c", text] if kind == "python" else ["sh", "-e", "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout
