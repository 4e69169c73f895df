"""``edge-mdda watch`` killed at every step: each image ends exactly once, whatever kills it and on any file system."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from watch_folder import PATIENCE_S, drop, files_in, once, options, results, started

from edge_mdda.cli.main import main
from edge_mdda.errors import WatchError
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.watch.atomic_steps import link_new, rename_new
from edge_mdda.watch.spool import MAX_ENDS, Spool

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.usefixtures("no_child_is_left")


def two_images(folder: Path) -> None:
    """A good one whose name is taken, and a bad one."""
    (folder / "done").mkdir(parents=True)
    (folder / "done/mole.jpg").write_text("an earlier one")
    drop(folder, "mole.jpg")
    drop(folder, "note.txt", b"no picture")


def check_meanwhile(folder: Path) -> None:
    """Holds at every moment: no image is lost or doubled, and those in done and failed have a whole JSON."""
    contents = {"mole": DEMO_IMAGE.read_bytes(), "note": b"no picture"}
    for content in contents.values():
        places = [path for path in files_in(folder) if (folder / path).read_bytes() == content]
        assert len(places) == 1, places
        if places[0].startswith(("done/", "failed/")):
            assert (folder / f"{places[0]}.json").is_file()
    for path, result in results(folder).items():
        assert result["image"] == ("mole.jpg" if path.startswith("done/") else "note.txt")


def check_end(folder: Path) -> None:
    """Everything is where it belongs, and nothing else is there."""
    check_meanwhile(folder)
    expected = {"done/mole.jpg", "work/.lock"}
    expected |= {f"{place}{end}" for place in ("done/mole-2.jpg", "failed/note.txt") for end in ("", ".json")}
    assert files_in(folder) - {"work/.ends"} == expected
    ends = folder / "work/.ends"
    assert not ends.exists() or json.loads(ends.read_text()) == {}
    assert (folder / "done/mole.jpg").read_text() == "an earlier one"


def test_killed_at_every_step_each_image_ends_once(tmp_path, model):
    half_done: Path | None = None
    for step in itertools.count():
        folder = tmp_path / f"step-{step}"
        two_images(folder)
        child = started("kill", step, options(folder, model, "--once"))
        _, said = child.communicate(timeout=PATIENCE_S)
        if child.returncode == 1:
            assert step >= int(said.splitlines()[-1])  # nothing was left to kill it at
            check_end(folder)
            break
        assert child.returncode == -signal.SIGKILL, said
        check_meanwhile(folder)
        if half_done is None and (folder / "done/mole-2.jpg.json").exists():
            half_done = shutil.copytree(folder, tmp_path / "half-done")
            assert (half_done / "work/mole.jpg").exists()
        main(options(folder, model, "--once"))
        check_end(folder)
    assert step > 30
    assert half_done is not None
    before = (half_done / "done/mole-2.jpg.json").read_bytes()
    for step in itertools.count():  # and now the recovery is killed, too
        folder = shutil.copytree(half_done, tmp_path / f"again-{step}")
        child = started("kill", step, options(folder, model, "--once"))
        child.communicate(timeout=PATIENCE_S)
        check_meanwhile(folder)
        main(options(folder, model, "--once"))
        check_end(folder)
        assert (folder / "done/mole-2.jpg.json").read_bytes() == before  # finished, not screened again
        if child.returncode != -signal.SIGKILL or step > 8:
            break


def test_a_result_for_another_content_is_thrown_away(inbox, model):
    two_images(inbox)
    (inbox / "work").mkdir()
    (inbox / "mole.jpg").rename(inbox / "work/mole.jpg")
    (inbox / "work/.result").write_text('{"image": "mole.jpg", "sha256": "00"}\n')
    (inbox / "work/.0123456789abcdef.tmp").write_text('{"image": "mo')
    status, _, said = once(inbox, model)
    assert (status, "screened again" in said[0]) == (1, True)
    check_end(inbox)
    assert results(inbox)["done/mole-2.jpg.json"]["sha256"] != "00"


def test_an_image_that_always_ends_the_program_is_given_up(inbox, model, manager):
    drop(inbox, "poison.jpg")
    os.utime(inbox / "poison.jpg", (1, 1))  # the oldest: its turn comes first
    drop(inbox, "mole.jpg")
    for _ in range(MAX_ENDS):
        child = started("hang", "poison", options(inbox, model, "--once"), env=manager.environment)
        manager.wait_for("STATUS=screening")
        child.kill()
        child.communicate()
    status, _, said = once(inbox, model, "hang", "poison")
    assert (status, len(said)) == (1, 1)
    assert f"ended {MAX_ENDS} times" in results(inbox)["failed/poison.jpg.json"]["error"]
    assert "done/mole.jpg" in files_in(inbox)
    assert json.loads((inbox / "work/.ends").read_text()) == {}


def test_only_one_process_has_a_folder(inbox):
    with Spool(str(inbox), 0.0), pytest.raises(WatchError, match="another edge-mdda watches it"):
        Spool(str(inbox), 0.0).__enter__()
    with Spool(str(inbox), 0.0):
        pass  # released


def test_file_systems_without_links_or_renameat2(tmp_path, monkeypatch):
    """What vfat answers."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "a").write_bytes(b"content")
    monkeypatch.setattr("edge_mdda.watch.atomic_steps._renameat2", lambda: None)
    monkeypatch.setattr(os, "link", refuse)
    link_new(str(tmp_path / "a"), str(tmp_path / "b"), b"content")
    assert (tmp_path / "b").read_bytes() == b"content"
    with pytest.raises(FileExistsError):
        link_new(str(tmp_path / "a"), str(tmp_path / "b"), b"other")
    with pytest.raises(FileExistsError):
        rename_new(str(tmp_path / "a"), str(tmp_path / "b"))
    rename_new(str(tmp_path / "a"), str(tmp_path / "c"))
    assert files_in(tmp_path) == {"b", "c"}
