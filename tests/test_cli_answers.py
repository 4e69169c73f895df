"""What ``edge-mdda screen`` prints of several pictures, as a table, on a terminal, and what it says of slips."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from test_cli import run

from edge_mdda import NOTICE, Screener, Screening
from edge_mdda.cli import hints
from edge_mdda.cli.answers import COLOURS, MOST_COLUMNS, Told, print_screening, print_urgent_first
from edge_mdda.cli.csv_table import COLUMNS, CsvTable, harmless
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.picture.decode import write_png


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def screened() -> tuple[Screening, dict[str, str], tuple[str, ...]]:
    with Screener() as screener:
        manifest = screener.classifier.manifest
        return screener.screen(DEMO_IMAGE, 1), dict(manifest.labels), manifest.malignant


@pytest.fixture
def visit(tmp_path):
    """A good picture, one that is too dark, one that is no picture."""
    shutil.copy(DEMO_IMAGE, tmp_path / "a mole.jpg")
    write_png(tmp_path / "dark.png", np.full((224, 224, 3), (30, 20, 18), np.uint8))
    (tmp_path / "torn.png").write_text("not a picture")
    return tmp_path


def test_a_folder_ends_with_the_most_urgent_first(visit):
    result = run("screen", visit, "--seed", 1)
    assert result.returncode == 1
    *_, head, first, second, last = result.stdout.splitlines()
    assert head == "3 pictures, most urgent first"
    assert first.split()[0] == "RETAKE" and first.endswith(str(visit / "dark.png"))
    assert second.startswith("  not judged") and second.endswith(str(visit / "torn.png"))
    assert last == "  no sign that asks for referral: 1"


def test_one_picture_has_no_such_list():
    assert "most urgent" not in run("screen", DEMO_IMAGE).stdout


def test_refer_stands_before_retake_and_the_larger_share_before_the_smaller():
    told = [
        Told("routine", 0.01, "fine"),
        Told("refer", 0.4, "b"),
        Told("retake", 0.2, "c"),
        Told("not judged", 0.0, "d"),
        Told("refer", 0.9, "a\033"),
    ]
    stream = io.StringIO()
    print_urgent_first(told, stream)
    lines = stream.getvalue().split("\n")
    assert [line.split()[-1] for line in lines[2:6]] == ["a\\x1b", "b", "c", "d"]
    assert "fine" not in stream.getvalue()


def test_json_stays_in_the_order_of_the_pictures_and_carries_the_remarks(visit):
    marks = ("--patient", " P 17 ", "--lesion", "back-3", "--note", "grew, itches")
    result = run("screen", "--json", *marks, visit / "dark.png", visit / "a mole.jpg")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["advice"] for line in lines] == ["retake", "routine"]
    assert {(line["patient"], line["lesion"], line["note"]) for line in lines} == {("P 17", "back-3", "grew, itches")}
    assert json.loads(run("screen", "--json", DEMO_IMAGE).stdout)["patient"] is None
    assert "patient: P 17, lesion: back-3" in run("screen", *marks, DEMO_IMAGE).stdout


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "\033[31m", "x" * 501])
def test_a_remark_is_one_printable_line(text):
    result = run("screen", "--note", text, DEMO_IMAGE)
    assert (result.returncode, result.stdout) == (2, "")


def test_csv_has_a_line_for_each_picture_those_that_failed_among_them(visit):
    result = run("screen", "--csv", visit, "--patient", "=cmd()", "--seed", 5)
    assert result.returncode == 1
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert tuple(rows[0]) == COLUMNS
    assert [row["advice"] for row in rows] == ["routine", "retake", "not judged"]
    assert [row["image"].rpartition("/")[2] for row in rows] == ["a mole.jpg", "dark.png", "torn.png"]
    assert "light" in rows[1]["failed_checks"].split()
    assert "text" in rows[2]["rule"]
    assert {row["patient"] for row in rows} == {"'=cmd()"}  # no formula for a spreadsheet to run
    assert {row["notice"] for row in rows} == {NOTICE}
    told = json.loads(run("screen", "--json", visit / "a mole.jpg", "--seed", 5).stdout)
    for name in ("malignant", "disagreement"):
        assert float(rows[0][name]) == told[name]
    assert rows[0]["seed"] == "5"
    assert run("screen", "--csv", "--json", DEMO_IMAGE).returncode == 2


def test_csv_holds_any_text(screened):
    odd = dataclasses.replace(screened[0], image="-", note='say "ah", then\ttab', patient="+49")
    stream = io.StringIO()
    table = CsvTable(stream)
    table.add(odd)
    table.add_failure("=x.png", "a, b", None, "back", None)
    first, second = csv.DictReader(io.StringIO(stream.getvalue()))
    assert (first["image"], first["note"], first["patient"]) == ("standard input", 'say "ah", then\ttab', "'+49")
    assert (second["image"], second["rule"], second["lesion"], second["malignant"]) == ("'=x.png", "a, b", "back", "")
    assert harmless(-0.5) == -0.5


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_no_line_on_a_terminal_is_wider_than_it_or_than_100(screened, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    result, names, malignant = screened
    result = dataclasses.replace(result, image="x", note="a remark of some length " * 8)
    stream = Terminal()
    print_screening(result, {label: label for label in names}, malignant, stream)
    widths = [len(line) for line in stream.getvalue().splitlines()]
    assert max(widths) <= min(columns, MOST_COLUMNS)
    assert " ".join(result.advice.rule.split()) in " ".join(stream.getvalue().split())
    plain = io.StringIO()
    print_screening(result, names, malignant, plain)
    assert f"because {result.advice.rule}\n" in plain.getvalue()  # one line where a program may read it


def test_the_advice_has_its_colour_on_a_terminal_and_nothing_else_changes(screened, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    print_screening(*screened, coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    print_screening(*screened, plain)
    colour = COLOURS[screened[0].advice.action]
    assert colour in coloured.getvalue()
    assert coloured.getvalue().replace(colour, "").replace("\033[0m", "") == plain.getvalue()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["scren", "a.jpg"], "did you mean 'screen'?"),
        (["Screen", "a.jpg"], "did you mean 'screen'?"),
        (["diagnose"], "choose from screen, purify"),
        ([], "choose from screen, purify"),
        ([str(DEMO_IMAGE)], f"type edge-mdda screen {DEMO_IMAGE}"),
        (["screen", "--jsn", "--demo"], "did you mean '--json'?"),
        (["screen", "--thraeds=4", "--demo"], "did you mean '--threads'?"),
        (["verify", "--qqq"], "edge-mdda verify --help"),
        (["--jsn", "doctor"], "did you mean '--json'?"),
        (["screen"], "name files or folders"),
    ],
)
def test_a_slip_of_the_command_line_is_one_line_with_a_hint(arguments, hint):
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert hint in result.stderr


def test_misspelt_presets_and_models_have_a_hint():
    result = run("screen", "--preset", "ballanced", "--demo")
    assert result.returncode == 2 and "did you mean 'balanced'?" in result.stderr
    result = run("screen", "--model", "hardend", "--demo")
    assert result.returncode == 1 and "did you mean 'hardened'?" in result.stderr


def test_a_misspelt_file_has_a_hint_and_a_strange_one_has_none(tmp_path):
    (tmp_path / "lesion-left.jpg").write_bytes(b"x")
    (tmp_path / ".lesion-lefd.jpg").write_bytes(b"x")
    assert hints.file_hint(str(tmp_path / "lesion-lefd.jpg")) == f"; did you mean '{tmp_path / 'lesion-left.jpg'}'?"
    assert hints.file_hint(str(tmp_path / "LESION-LEFT.JPG")) == f"; did you mean '{tmp_path / 'lesion-left.jpg'}'?"
    for name in ("lesion-left.jpg", "zzz", "", "no/lesion-left.jpg", "a\0b", "x" * 5000):
        assert hints.file_hint(str(tmp_path / name)) == ""
    result = run("screen", tmp_path / "lesion-lft.jpg")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert "lesion-left.jpg" in result.stderr
