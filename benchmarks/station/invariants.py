"""What must hold of a station's folder after any kill or power cut, once the station has started again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_mdda.digest import sha256
from edge_mdda.errors import StationError
from edge_mdda.station import audit
from edge_mdda.station.store import Store

TABLES = ("patients", "lesions", "pictures", "screenings", "decisions")
FIGURES = ("lost", "half", "orphans", "unsound")
"""Acknowledged records that are gone; files or rows without the other, or changed; files without a row after the
start; databases or audit logs that are not whole."""


def problems(folder: Path, acknowledged: Iterable[str], checked: set[str] | None = None) -> dict[str, int]:
    """Start a station on the folder, stop it, and count what does not hold.

    Parameters
    ----------
    acknowledged : iterable of str
        Lines of :func:`benchmarks.station.writer.write_visits`.
    checked : set of str, optional
        Files whose content was already hashed; grows.
    """
    found = dict.fromkeys(FIGURES, 0)
    try:
        store = Store(folder)
    except StationError:
        return {**found, "unsound": 1}
    try:
        there = {f"{table} {row[0]}" for table in TABLES for row in store.rows(f"SELECT id FROM {table}")}
        found["lost"] = len(set(acknowledged) - there)
        files = {row["sha256"]: row["bytes"] for row in store.rows("SELECT sha256, bytes FROM files")}
        names = set(store.blobs.names())
        found["half"] += len(files.keys() - names) + len(store.rows("PRAGMA foreign_key_check"))
        for digest in files.keys() & names - (checked or set()):
            content = store.blobs.get(digest)
            found["half"] += sha256(content).hexdigest() != digest or len(content) != files[digest]
        if checked is not None:
            checked |= files.keys()
        used = {
            row[0]
            for column in ("file FROM pictures", "raw_view FROM screenings", "purified_view FROM screenings")
            for row in store.rows(f"SELECT {column}")
        }
        found["half"] += len(files.keys() - used)
        found["orphans"] = len(names - files.keys()) + len(store.blobs.unfinished())
        whole = store.row("PRAGMA integrity_check")
        found["unsound"] = int(whole is None or whole[0] != "ok")
        found["unsound"] += audit.verify(store._connection).broken is not None
    finally:
        store.close()
    return found
