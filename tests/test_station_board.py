"""What the station and doctor say of the board that the records lie on."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_mdda.diagnostics.finding import FAILED, OK, UNKNOWN, WARNING
from edge_mdda.diagnostics.records import records
from edge_mdda.hardware import storage


def system(root: Path, mount: str, uuids: dict[str, str], slaves: dict[str, str] | None = None) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc/mounts").write_text(f"{mount} ext4 rw 0 0\n")
    for name, uuid in uuids.items():
        (root / "sys/class/block" / name / "dm").mkdir(parents=True)
        (root / "sys/class/block" / name / "dm/uuid").write_text(uuid + "\n")
    for name, below in (slaves or {}).items():
        (root / "sys/class/block" / name / "slaves" / below).mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("mount", "uuids", "slaves", "encrypted"),
    [
        ("/dev/dm-0 /", {"dm-0": "CRYPT-LUKS2-0123-data"}, {}, True),
        ("/dev/dm-1 /", {"dm-1": "LVM-abc", "dm-0": "CRYPT-LUKS2-0"}, {"dm-1": "dm-0"}, True),
        ("/dev/dm-1 /", {"dm-1": "LVM-abc"}, {"dm-1": "sda2"}, False),
        ("/dev/mmcblk0p2 /", {}, {}, False),
        ("overlay /", {}, {}, None),
    ],
)
def test_encryption_is_seen(tmp_path, mount, uuids, slaves, encrypted):
    root = system(tmp_path / "root", mount, uuids, slaves)
    assert storage.is_encrypted(tmp_path, root) is encrypted
    found = records(root, tmp_path)[1]
    assert found.status == {True: OK, False: WARNING, None: UNKNOWN}[encrypted]


@pytest.mark.parametrize(("visits", "status"), [(10_000, OK), (499, WARNING), (49, FAILED)])
def test_room_is_told_in_visits(tmp_path, monkeypatch, visits, status):
    class Status:
        f_frsize = 4096
        f_bavail = visits * storage.VISIT_BYTES // 4096 + 1

    monkeypatch.setattr(storage.os, "statvfs", lambda _: Status)
    found = records(folder=tmp_path)[0]
    assert found.status == status and f"about {visits} visits" in found.value and bool(found.advice) == (status != OK)


def test_without_records_doctor_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv(storage.DATA_SETTING, str(tmp_path / "none"))
    assert records() == []
    (tmp_path / "none").mkdir()
    assert [finding.name for finding in records()] == ["records", "records' disk"]


def test_the_page_says_it_all(tmp_path, monkeypatch):
    pytest.importorskip("starlette")
    pytest.importorskip("nacl")
    from station_site import Browser, application, station_in

    with station_in(tmp_path / "data") as station:
        browser = Browser(application(station))
        browser.new_patient()
        page = browser.get("/board").text
        head = station.store.audit().head
        for words in ("room for about", "entries, unbroken", head, "model lesion", "0 pictures", "clock chip"):
            assert words in page
        assert "back the records up and make room" not in browser.get("/").text
        monkeypatch.setattr("edge_mdda.station.pages.room_for_visits", lambda _: 7)
        assert "room for about 7 more visits" in browser.get("/").text
        monkeypatch.setattr("edge_mdda.station.store.clock", lambda: "1970-01-01T00:00:00.000Z")
        assert "clock of this board is not sure" in browser.get("/").text
        assert "look at this" in browser.get("/board").text
