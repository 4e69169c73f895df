"""A second copy of the records: made while the station runs, whole or not at all, and the way back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nacl")
from station_site import ROOT, Browser, application, station_in

from edge_mdda.errors import StationError
from edge_mdda.station import audit, backups
from edge_mdda.station.drawn import variation
from edge_mdda.station.store import DATABASE, Store


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "edge_mdda", "serve", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "pictures").glob("??/*")}


def test_there_and_back_again(tmp_path):
    data, stick, again = tmp_path / "data", tmp_path / "stick", tmp_path / "again"
    with station_in(data) as station:
        browser = Browser(application(station))
        browser.new_picture(variation(1), own_id="B-1")
        done = serve("backup", str(stick), "--data", str(data))  # while the station holds its folder
        assert done.returncode == 0 and "3 picture files, 3 of them new" in done.stdout
        browser.new_picture(variation(2), own_id="B-2")
        done = serve("--data", str(data), "backup", str(stick))
        assert done.returncode == 0 and "6 picture files, 3 of them new" in done.stdout
        head = audit.verify(station.store._connection).head
        assert head in done.stdout
    assert files_in(stick) == files_in(data) and (stick.stat().st_mode & 0o77) == 0
    done = serve("restore", str(stick), "--data", str(again))
    assert done.returncode == 0 and head in done.stdout and files_in(again) == files_in(data)
    store = Store(again)
    assert [row["own_id"] for row in store.rows("SELECT own_id FROM patients ORDER BY own_id")] == ["B-1", "B-2"]
    assert not store.missing and not store.swept
    store.close()
    done = serve("restore", str(stick), "--data", str(again))
    assert done.returncode == 1 and "there are records already" in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture()
def data(tmp_path):
    store = Store(tmp_path / "data")
    with store.writing() as w:
        for number in range(3):
            w.keep(bytes([number]) * 1000)
        w.log("t", "first")
    store.close()
    return tmp_path / "data"


def test_a_damaged_picture_is_named_and_the_rest_is_copied(tmp_path, data):
    victim = sorted((data / "pictures").glob("??/*"))[0]
    victim.write_bytes(b"rotten" + victim.read_bytes()[6:])
    done = serve("backup", str(tmp_path / "stick"), "--data", str(data))
    assert (
        done.returncode == 1
        and "1 picture files are missing or damaged" in done.stderr
        and victim.name[:12] in done.stderr
    )
    assert len(files_in(tmp_path / "stick")) == 2


def test_a_broken_off_backup_is_the_one_before(tmp_path, data, monkeypatch):
    stick = tmp_path / "stick"
    backups.back_up(data, stick)
    before = (stick / DATABASE).read_bytes()
    store = Store(data)
    with store.writing() as w:
        w.keep(b"new")
        w.log("t", "second")
    store.close()
    with monkeypatch.context() as patch:
        patch.setattr(backups.Blobs, "put", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StationError, match="the disk is full"):
            backups.back_up(data, stick)
    assert (stick / DATABASE).read_bytes() == before
    backups.restore(stick, tmp_path / "old")
    assert backups.back_up(data, stick).new == 1


def test_what_cannot_be_backed_up_is_one_line(tmp_path, data):
    for place in (data, data / "inside"):
        with pytest.raises(StationError, match="lies in the records themselves"):
            backups.back_up(data, place)
    with pytest.raises(StationError, match="no such records"):
        backups.back_up(tmp_path / "nothing", tmp_path / "stick")
    (data / DATABASE).write_bytes(b"nonsense" * 1000)
    with pytest.raises(StationError, match="damaged"):
        backups.back_up(data, tmp_path / "stick")
    assert not (tmp_path / "stick" / DATABASE).exists()


def test_a_failed_restore_leaves_no_folder(tmp_path, data):
    (data / DATABASE).write_bytes(b"nonsense" * 1000)
    with pytest.raises(StationError):
        backups.restore(data, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
