"""``edge-mdda watch``: which file ends where and with which JSON, when a file is whole, and wrong usage.

Processes that are killed are in test_watch_crash.py, the service and what fails around it in test_watch_service.py.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from watch_folder import drop, ended, files_in, once, options, results, started, until

from edge_mdda import NOTICE
from edge_mdda.cli.main import main
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.watch.atomic_steps import candidates
from edge_mdda.watch.spool import Spool

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.usefixtures("no_child_is_left")


# -- the plain way ------------------------------------------------------------------------------------


def test_images_end_in_done_or_failed_with_their_json(inbox, model):
    content = drop(inbox, "mole.jpg")
    drop(inbox, "cut.jpg", content[: len(content) // 2])
    drop(inbox, "notes.txt", b"no picture")
    drop(inbox, "empty.png", b"")
    for name in (".hidden.jpg", "copy.jpg.part", "a.TMP", "b.jpg~"):
        (inbox / name).write_bytes(content)
    (inbox / "visit").mkdir()
    (inbox / "visit" / "deep.jpg").write_bytes(content)
    (inbox / "link.jpg").symlink_to(DEMO_IMAGE)
    os.mkfifo(inbox / "pipe.jpg")
    left = files_in(inbox) - {"mole.jpg", "cut.jpg", "notes.txt", "empty.png"}
    status, out, said = once(inbox, model)
    assert status == 1
    assert files_in(inbox) == left | {"work/.lock", "done/mole.jpg", "done/mole.jpg.json"} | {
        f"failed/{name}{end}" for name in ("cut.jpg", "notes.txt", "empty.png") for end in ("", ".json")
    }
    assert (inbox / "link.jpg").is_symlink()
    found = results(inbox)
    assert (inbox / "done/mole.jpg").read_bytes() == content
    screened = subprocess.run(
        [sys.executable, "-m", "edge_mdda", "screen", "--json", "--model", model, "--purify", "off", DEMO_IMAGE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    changing = {"image": "mole.jpg", **{key: found["done/mole.jpg.json"][key] for key in ("time", "timings_ms")}}
    assert found["done/mole.jpg.json"] == json.loads(screened.stdout) | changing
    for name in ("cut.jpg", "notes.txt", "empty.png"):
        failed = found[f"failed/{name}.json"]
        assert (failed["image"], failed["notice"]) == (name, NOTICE)
        assert any(failed["error"] in line for line in said)
    assert len(said) == 3
    assert sorted(json.loads(line)["image"] for line in out.splitlines()) == [
        "cut.jpg",
        "empty.png",
        "mole.jpg",
        "notes.txt",
    ]


def test_nothing_there_is_fine_and_opens_no_model(inbox, tmp_path):
    assert once(inbox, tmp_path / "none.tflite") == (0, "", [])


def test_text_for_people_has_advice_and_notice(inbox, capfd):
    drop(inbox, "mole.jpg")
    assert main(["watch", "--once", "--settle", "0", "--purify", "off", str(inbox)]) == 0
    out, said = capfd.readouterr()
    assert out.startswith("mole.jpg: ROUTINE, because ")
    assert out.endswith("(done/mole.jpg)\n")
    assert NOTICE in said


def test_a_taken_name_gets_a_number_and_nothing_is_overwritten(inbox, model):
    for folder in ("done", "failed"):
        (inbox / folder).mkdir()
    (inbox / "done/mole.jpg").write_text("an earlier one")
    (inbox / "done/mole-2.jpg.json").write_text("{}")
    os.mkfifo(inbox / "done/mole-3.jpg.json")
    (inbox / "done/mole-4.jpg").symlink_to("nowhere")
    drop(inbox, "mole.jpg")
    assert once(inbox, model)[0] == 0
    assert (inbox / "done/mole.jpg").read_text() == "an earlier one"
    assert (inbox / "done/mole-2.jpg.json").read_text() == "{}"
    assert (inbox / "done/mole-4.jpg").is_symlink()
    assert json.loads((inbox / "done/mole-5.jpg.json").read_text())["image"] == "mole.jpg"
    assert (inbox / "done/mole-5.jpg").read_bytes() == DEMO_IMAGE.read_bytes()


def test_odd_names_go_their_way(inbox, model):
    names = [
        "a" * 251 + ".jpg",
        "ü" * 120 + ".jpg",
        "x." + "y" * 250,
        "new\nline\033[31m.jpg",
        "-rf.jpg",
        "two  blanks.jpg",
    ]
    for name in names:
        drop(inbox, name)
    strange = os.fsdecode(b"caf\xe9.jpg")
    drop(inbox, strange)
    drop(inbox, "result.json", b"{}")
    drop(inbox, "work.jpg")
    status, out, _ = once(inbox, model)
    assert status == 1  # result.json is no image
    assert sorted(json.loads(line)["image"] for line in out.splitlines()) == sorted(
        [*names, strange, "result.json", "work.jpg"]
    )
    for path, result in results(inbox).items():
        assert (inbox / path.removesuffix(".json")).is_file(), path
        assert path.startswith("failed/") == ("error" in result)
    assert {path.name for path in inbox.iterdir()} == {"work", "done", "failed"}
    assert "\033" not in out


def test_candidates_fit_into_a_name_and_stay_readable():
    assert list(itertools.islice(candidates("mole.jpg"), 3)) == ["mole.jpg", "mole-2.jpg", "mole-3.jpg"]
    for name in ("a" * 300, "ü" * 200 + ".jpg", "x." + "y" * 253):
        for candidate in itertools.islice(candidates(name), 3):
            assert len(os.fsencode(candidate + ".json")) <= 255
            assert "\ufffd" not in candidate


# -- when a file is whole -----------------------------------------------------------------------------


def test_a_file_is_left_alone_until_it_rests(inbox):
    with Spool(str(inbox), settle=2.0) as spool:
        path = inbox / "growing.jpg"
        path.write_bytes(b"1")
        assert spool.settled(10.0) == []
        path.write_bytes(b"12")
        assert spool.settled(12.0) == []  # it grew: the wait begins anew
        os.utime(path, (1, 1))
        assert spool.settled(14.0) == []  # its time changed
        assert spool.settled(15.9) == []
        assert spool.settled(16.0) == ["growing.jpg"]
        other = inbox / "new"
        other.write_bytes(b"12")
        os.utime(other, (1, 1))
        other.rename(path)  # the same size and time, another file
        assert spool.settled(16.1) == []
        assert spool.settled(18.1) == ["growing.jpg"]
        path.unlink()
        assert spool.settled(30.0) == []


def test_the_oldest_comes_first(inbox):
    for name, when in (("b.jpg", 3), ("a.jpg", 3), ("z.jpg", 1)):
        (inbox / name).write_bytes(b"1")
        os.utime(inbox / name, (when, when))
    with Spool(str(inbox), settle=0.0) as spool:
        assert spool.settled(0.0) == ["z.jpg", "a.jpg", "b.jpg"]


def test_an_image_that_is_written_while_it_is_screened_is_put_back(inbox, model):
    drop(inbox, "mole.jpg")
    child = started("slow", 1.5, options(inbox, model, "--once"))
    until((inbox / "work/mole.jpg").exists, child)
    with (inbox / "work/mole.jpg").open("ab") as file:  # its writer has it open, wherever it lies
        file.write(b"more")
    status, _, said = ended(child)
    assert (status, len(said), "someone still writes" in said[0]) == (1, 1, True)
    assert (inbox / "mole.jpg").read_bytes() == DEMO_IMAGE.read_bytes() + b"more"
    assert results(inbox) == {}


# -- what cannot be watched, and usage -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "file", "done is a link", "work is a file"])
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, model, kind, capsys):
    folder = tmp_path / "inbox"
    if kind == "file":
        folder.write_bytes(b"")
    elif kind != "missing":
        folder.mkdir()
    if kind == "done is a link":
        (folder / "done").symlink_to(tmp_path)
    if kind == "work is a file":
        (folder / "work").write_bytes(b"")
    assert main(options(folder, model)) == 1
    out, said = capsys.readouterr()
    lines = [line for line in said.splitlines() if line.startswith("edge-mdda: ") and "watched," not in line]
    assert (out, len(lines), str(folder) in lines[0]) == ("", 1, True)


@pytest.mark.parametrize(
    "arguments",
    [[], ["a", "b"], ["--settle", "-1", "a"], ["--poll", "0", "a"], ["--poll", "nan", "a"], ["--seed", "1", "a"]],
)
def test_wrong_usage_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(["watch", *arguments])
    assert error.value.code == 2
    assert capsys.readouterr().out == ""


def test_help_shows_examples_and_says_what_it_is_not(capsys):
    with pytest.raises(SystemExit) as error:
        main(["watch", "--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert "edge-mdda watch --once inbox/" in text
    assert "never a diagnosis" in " ".join(text.split())
