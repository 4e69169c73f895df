"""A second copy of the records, made while the station runs, and the way back.

A backup is a folder like the station's own: a whole database, and every picture file that it speaks of. It can be made
again and again to the same folder (a stick): only new pictures are copied. It is as secret as the records themselves.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from edge_mdda.digest import sha256
from edge_mdda.errors import StationError
from edge_mdda.station import audit
from edge_mdda.station.blobs import Blobs, sync_folder
from edge_mdda.station.store import BUSY_MS, DATABASE, PICTURES, says

WAIT_S = BUSY_MS / 1000  # for a station that writes


@dataclass
class Copied:
    """What a copy holds."""

    pictures: int = 0
    """Files that the database speaks of."""
    new: int = 0
    """Of them, copied now."""
    damaged: list[str] = field(default_factory=list)
    """SHA-256 of files that are missing or are not what they were: they are left out."""
    log: audit.Check = field(default_factory=lambda: audit.Check(0, audit.START, None))


def _copy_database(source: Path, target: Path) -> audit.Check:
    """A whole, checked copy of a database at ``target``; the state of its audit log."""
    if not source.is_file():
        raise StationError(f"{source}: no such records: name their folder")
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    here = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_S)
    there = sqlite3.connect(target)
    try:
        here.backup(there)
        found = there.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise StationError(f"{source}: the database is damaged ({found}): use an older backup")
        log = audit.verify(there)
        # A copy carries no half-finished settings of the connection that wrote it.
        there.execute("PRAGMA journal_mode=DELETE")
    finally:
        here.close()
        there.close()
    return log


def _copy_files(database: Path, source: Blobs, target: Blobs, copied: Copied) -> None:
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT sha256, bytes FROM files").fetchall()
    finally:
        connection.close()
    for digest, size in rows:
        copied.pictures += 1
        place = target.path(digest)
        if place.is_file() and place.stat().st_size == size:
            continue
        try:
            content = source.get(digest)
        except FileNotFoundError:
            content = b""
        if sha256(content).hexdigest() != digest:
            copied.damaged.append(digest)
            continue
        target.put(content)
        copied.new += 1


def back_up(folder: Path, target: Path) -> Copied:
    """Copy a station's records to ``target``, whether it runs or not.

    The database comes last, under a temporary name: a backup that was broken off is still the one before.

    Raises
    ------
    StationError
        A folder cannot be used, or the database is damaged; one line.
    """
    if target.resolve() == folder.resolve() or folder.resolve() in target.resolve().parents:
        raise StationError(f"{target}: this lies in the records themselves: choose a folder on another disk")
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = target / f".{DATABASE}.tmp"
        copied = Copied(log=_copy_database(folder / DATABASE, temporary))
        _copy_files(temporary, Blobs(folder / PICTURES), Blobs(target / PICTURES), copied)
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target / DATABASE)
        sync_folder(target)
    except (sqlite3.Error, OSError) as error:
        raise StationError(f"{target}: {says(error)}") from None
    return copied


def restore(source: Path, folder: Path) -> Copied:
    """Make a station's folder from a backup; every file is hashed again before the folder gets its name.

    Raises
    ------
    StationError
        The folder is there already, or the backup cannot be read; one line.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StationError(f"{folder}: there are records already: move them away first")
    partial = folder.with_name(f".{folder.name}.restoring")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        copied = Copied(log=_copy_database(source / DATABASE, partial / DATABASE))
        _copy_files(partial / DATABASE, Blobs(source / PICTURES), Blobs(partial / PICTURES), copied)
        sync_folder(partial)
        if folder.is_dir():
            folder.rmdir()
        partial.replace(folder)
        sync_folder(folder.parent)
    except (sqlite3.Error, OSError) as error:
        raise StationError(f"{folder}: {says(error)}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copied
