"""Records survive: kills, orphans, migrations, clocks, a second station, and a broken audit chain."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mdda.errors import StationError
from edge_mdda.station import audit, schema, store
from edge_mdda.station.store import DATABASE, Store

ROOT = Path(__file__).resolve().parent.parent
PATIENT = {"name": "", "birth_year": None, "sex": "unknown", "made_by": "test"}
WRITER = """
import os, sys
from pathlib import Path
from edge_mdda.station import charts, findings
from edge_mdda.station.store import Store
store = Store(Path(sys.argv[1]))
number = store.row("SELECT count(*) FROM patients")[0]
while True:
    number += 1
    patient = charts.add_patient(store, "w", {"own_id": f"{number}-{os.getpid()}"}, 2026)
    lesion = charts.lesion_of(store, charts.add_lesion(store, "w", patient, {"site": "face-front"}))
    content = os.urandom(3000)
    picture = findings.add_picture(store, "w", lesion, content, "file")
    print(picture, flush=True)
"""


@pytest.fixture()
def opened(tmp_path):
    records = Store(tmp_path / "data")
    yield records
    records.close()


def test_settings_of_the_database(opened):
    wanted = {"journal_mode": "delete", "synchronous": 3, "foreign_keys": 1, "user_version": len(schema.MIGRATIONS)}
    assert {name: opened.row(f"PRAGMA {name}")[0] for name in wanted} == wanted
    assert all(
        row["strict"]
        for row in opened.rows("PRAGMA table_list")
        if row["schema"] == "main" and "sqlite" not in row["name"]
    )
    assert (opened.folder.stat().st_mode & 0o77, (opened.folder / DATABASE).stat().st_mode & 0o77) == (0, 0)


def test_killed_while_writing_it_loses_nothing_acknowledged(tmp_path):
    acknowledged: list[str] = []
    folder = tmp_path / "data"
    for patience in (0.05, 0.11, 0.02, 0.17, 0.08, 0.03):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        acknowledged.append(child.stdout.readline().strip())
        try:
            child.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            child.kill()
        acknowledged += child.communicate()[0].split()
    assert len(acknowledged) > 6 and "" not in acknowledged
    records = Store(folder)
    rows = {row["id"]: row["file"] for row in records.rows("SELECT id, file FROM pictures")}
    assert set(acknowledged) <= set(rows)
    assert sorted(records.blobs.names()) == sorted(rows.values()) and not records.missing
    assert records.row("PRAGMA integrity_check")[0] == "ok" and audit.verify(records._connection).broken is None
    records.close()


def test_what_a_crash_left_is_swept_and_what_has_a_row_stays(tmp_path):
    folder = tmp_path / "data"
    first = Store(folder)
    with first.writing() as w:
        kept = w.keep(b"kept")
    orphan, _ = first.blobs.put(b"no row")
    (first.blobs.path(orphan).parent / ".0123.tmp").write_bytes(b"half")
    first.close()
    again = Store(folder)
    assert sorted(again.swept) == sorted([".0123.tmp", orphan]) and list(again.blobs.names()) == [kept]
    again.blobs.path(kept).unlink()
    again.close()
    third = Store(folder)
    assert third.missing == [kept]
    third.close()


def test_a_failed_transaction_leaves_neither_row_nor_file(opened):
    with pytest.raises(sqlite3.IntegrityError), opened.writing() as w:
        w.keep(b"picture")
        w.insert("lesions", id="0" * 16, patient="nobody", number=1, site="x", made_at=w.at, made_by="t")
        w.log("t", "x")
        w.connection.execute("INSERT INTO patients (id) VALUES ('short')")
    assert list(opened.blobs.names()) == [] and opened.row("SELECT count(*) FROM files")[0] == 0
    with opened.writing() as w:
        kept = w.keep(b"picture")
    with pytest.raises(RuntimeError), opened.writing() as w:
        w.keep(b"picture")
        raise RuntimeError
    assert list(opened.blobs.names()) == [kept]  # an older row still speaks of it


def test_foreign_keys_hold(opened):
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"), opened.writing() as w:
        w.insert("lesions", id="0" * 16, patient="0" * 16, number=1, site="x", made_at=w.at, made_by="t")


def test_a_second_station_is_refused(opened):
    with pytest.raises(StationError, match="already runs on this folder"):
        Store(opened.folder)


@pytest.mark.parametrize("damage", [b"not a database at all" * 300, b""])
def test_a_damaged_database_is_named(tmp_path, damage):
    folder = tmp_path / "data"
    Store(folder).close()
    path = folder / DATABASE
    content = bytearray(path.read_bytes())
    content[5000:9000] = os.urandom(4000)
    path.write_bytes(damage or bytes(content))
    with pytest.raises(StationError, match="damaged"):
        Store(folder)


def test_a_migration_keeps_a_backup_first(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    old = Store(folder)
    with old.writing() as w:
        w.insert("patients", id="a" * 16, own_id="1", **PATIENT, made_at=w.at)
    old.close()
    more = "ALTER TABLE patients ADD COLUMN phototype TEXT NOT NULL DEFAULT ''"
    monkeypatch.setattr(store, "MIGRATIONS", (*schema.MIGRATIONS, more))
    new = Store(folder)
    assert new.row("SELECT phototype FROM patients")[0] == "" and new.row("PRAGMA user_version")[0] == 2
    new.close()
    copy = sqlite3.connect(folder / "backups" / "before-version-2.sqlite")
    assert copy.execute("PRAGMA user_version").fetchone()[0] == 1
    assert copy.execute("SELECT own_id FROM patients").fetchall() == [("1",)]
    copy.close()
    monkeypatch.setattr(store, "MIGRATIONS", schema.MIGRATIONS)
    with pytest.raises(StationError, match="newer edge-mdda"):
        Store(folder)


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    Store(folder).close()
    monkeypatch.setattr(store, "MIGRATIONS", (*schema.MIGRATIONS, "ALTER TABLE patients ADD COLUMN a TEXT; NONSENSE"))
    with pytest.raises(StationError):
        Store(folder)
    monkeypatch.setattr(store, "MIGRATIONS", schema.MIGRATIONS)
    whole = Store(folder)
    assert "a" not in [row["name"] for row in whole.rows("PRAGMA table_info(patients)")]
    whole.close()


def test_time_never_goes_back(opened, monkeypatch):
    monkeypatch.setattr(store, "clock", lambda: "2030-05-05T10:00:00.000Z")
    with opened.writing() as w:
        w.log("t", "first")
        assert w.clock_sure
    monkeypatch.setattr(store, "clock", lambda: "1970-01-01T00:00:09.000Z")
    with opened.writing() as w:
        w.log("t", "second")
        assert (w.at, w.clock_sure) == ("2030-05-05T10:00:00.000Z", False)
    assert opened.now() == ("2030-05-05T10:00:00.000Z", False)


def test_the_audit_log_only_grows(opened):
    with opened.writing() as w:
        w.log("t", "a")
    for words in ("UPDATE audit SET who = 'x'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            opened._connection.execute(words)


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE audit SET detail = 'no' WHERE number = 3", 3),
        ("DELETE FROM audit WHERE number = 2", 2),
        ("UPDATE audit SET before = '" + "1" * 64 + "' WHERE number = 4", 4),
        ("DELETE FROM audit WHERE number = 1", 1),
    ],
)
def test_a_changed_audit_entry_is_named(opened, change, broken):
    for number in range(5):
        with opened.writing() as w:
            head = audit.append(w.connection, w.at, "t", "act", str(number))
    whole = audit.verify(opened._connection)
    assert (whole.entries, whole.head, whole.broken) == (5, head, None)
    opened._connection.executescript(f"DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_cut; {change}")
    found = audit.verify(opened._connection)
    assert found.broken == broken and str(broken) in found.why


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StationError, match="file") as caught:
        Store(tmp_path / "file" / "data")
    assert "\n" not in str(caught.value)
