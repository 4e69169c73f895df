"""The station's folder: its database, its picture files, and the one transaction that writes to both.

``journal_mode=DELETE`` with ``synchronous=EXTRA``: a commit returns when the database and its folder are on the disk.
Write-ahead logging would be faster, but SQLite 3.7.0 to 3.51.2 can lose a commit there with several connections, and
boards link such versions. One connection, one process (a lock file holds others off), one writer at a time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_mdda.errors import StationError
from edge_mdda.station import audit
from edge_mdda.station.blobs import Blobs, media_type, sync_folder
from edge_mdda.station.schema import MIGRATIONS

DATABASE, PICTURES, BACKUPS, LOCK = "station.sqlite", "pictures", "backups", "lock"
MIN_SQLITE = (3, 37, 0)  # STRICT tables
BUSY_MS = 5000  # milliseconds to wait where a backup reads
BUILT = "2026-01-01T00:00:00Z"
"""No visit took place before; a clock that says so has lost its time."""


def says(error: sqlite3.Error | OSError) -> str:
    """One line for a failed write: what is wrong and what to do."""
    text = str(error)
    if "full" in text or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: free some space, then try again; nothing of this was kept"
    if "readonly" in text or getattr(error, "errno", None) in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "the data folder cannot be written: check its permissions and that the disk is not read-only"
    if "locked" in text:
        return "the records are in use by another program: close it, then try again"
    if "malformed" in text or "not a database" in text:
        return "the database is damaged: stop the station and restore the last backup"
    return f"the records cannot be read or written ({text}): check the disk"


class Store:
    """The records of one station, open for reading and writing.

    Parameters
    ----------
    folder : Path
        Its data; made, for the owner alone, where there is none.

    Raises
    ------
    StationError
        The folder or the database cannot be used; one line.
    """

    def __init__(self, folder: Path) -> None:
        if sqlite3.sqlite_version_info < MIN_SQLITE:
            raise StationError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or later is needed")
        self.folder = folder
        self._lock = threading.RLock()
        self._held: int | None = None
        self._connection: sqlite3.Connection = None  # type: ignore[assignment]  # stays so where opening fails
        self.swept: list[str] = []
        """What a crash had left behind and was removed at this start."""
        self.missing: list[str] = []
        """SHA-256 of picture files that have a row and are not there: a damaged disk, or someone removed them."""
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True)
                sync_folder(folder.parent)
            self._hold()
            self.blobs = Blobs(folder / PICTURES)
            self._connection = self._connect()
            self._migrate()
            self._sweep()
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise StationError(f"{folder}: {says(error)}") from error
            raise

    def _hold(self) -> None:
        self._held = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StationError(f"{self.folder}: a station already runs on this folder: stop it first") from None

    def _connect(self) -> sqlite3.Connection:
        path = self.folder / DATABASE
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        try:
            self._set_up(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _set_up(connection: sqlite3.Connection, path: Path) -> None:
        for setting in (
            "journal_mode=DELETE",
            "synchronous=EXTRA",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_MS}",
        ):
            connection.execute(f"PRAGMA {setting}")
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise StationError(f"{path}: the database is damaged ({found}): restore the last backup")

    def _migrate(self) -> None:
        here = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if here > len(MIGRATIONS):
            raise StationError(f"{self.folder}: a newer edge-mdda wrote these records: install that version or later")
        for number in range(here, len(MIGRATIONS)):
            if number:
                self.backup(self.folder / BACKUPS / f"before-version-{number + 1}.sqlite")
            # executescript() commits first, so BEGIN and COMMIT stand in the script itself.
            self._connection.executescript(
                f"BEGIN IMMEDIATE;{MIGRATIONS[number]};PRAGMA user_version={number + 1};COMMIT;"
            )

    def _sweep(self) -> None:
        for path in self.blobs.unfinished():
            path.unlink()
            self.swept.append(path.name)
        rows = {row[0] for row in self._connection.execute("SELECT sha256 FROM files")}
        there = set(self.blobs.names())
        for digest in there - rows:
            self.blobs.remove(digest)
            self.swept.append(digest)
        self.missing = sorted(rows - there)

    def backup(self, target: Path) -> None:
        """Copy the database, whole and checked, to a file that is not there yet or is replaced."""
        target.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        temporary.unlink(missing_ok=True)
        copy = sqlite3.connect(temporary)
        try:
            with self._lock:
                self._connection.backup(copy)
            if copy.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                raise StationError(f"{target}: the backup is not whole: check the disk")
        finally:
            copy.close()
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target)
        sync_folder(target.parent)

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[sqlite3.Row]:
        """Rows of a query that only reads."""
        with self._lock:
            return self._connection.execute(query, tuple(values)).fetchall()

    def row(self, query: str, values: Iterable[Any] = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        found = self.rows(query, values)
        return found[0] if found else None

    def now(self) -> tuple[str, bool]:
        """The time, and whether the clock is sure of it; see :func:`now`."""
        with self._lock:
            return now(self._connection)

    def audit(self) -> audit.Check:
        """The state of the audit log."""
        with self._lock:
            return audit.verify(self._connection)

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """One transaction: durable when the block has ended, undone with its files when it raises."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            writing = Writing(self._connection, self.blobs)
            try:
                yield writing
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                writing.take_back()
                raise

    def close(self) -> None:
        """Close the database and let go of the folder."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            if self._held is not None:
                os.close(self._held)
                self._held = None


def clock() -> str:
    """What the board's clock says, UTC, as RFC 3339 writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now(connection: sqlite3.Connection) -> tuple[str, bool]:
    """The time, and whether the clock is sure of it.

    A board without a clock chip wakes up in the past: time then stands still at what was last written, so that no visit
    goes back in time, and the clock is not sure.
    """
    last = connection.execute("SELECT at FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    earliest = max(BUILT, last[0]) if last else BUILT
    here = clock()
    return max(here, earliest), here >= earliest


def day_of(at: str) -> str:
    """The day, where the board is, of a time as :func:`clock` writes it."""
    return local(at).date().isoformat()


def local(at: str) -> datetime:
    """A time as :func:`clock` writes it, where the board is."""
    return datetime.fromisoformat(at.replace("Z", "+00:00")).astimezone()


def new_id() -> str:
    """An ID that says nothing: 64 random bits as 16 hexadecimal digits."""
    return os.urandom(8).hex()


class Writing:
    """What may be done inside one transaction."""

    def __init__(self, connection: sqlite3.Connection, blobs: Blobs) -> None:
        self.connection, self._blobs = connection, blobs
        self._new: list[str] = []
        self.at, self.clock_sure = now(connection)

    def insert(self, table: str, **values: Any) -> None:
        """Add a row; ``table`` and the names come from the program, never from a user."""
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))

    def keep(self, content: bytes) -> str:
        """Keep a file and its row; returns its SHA-256."""
        digest, is_new = self._blobs.put(content)
        if is_new:
            self._new.append(digest)
        self.connection.execute(
            "INSERT OR IGNORE INTO files (sha256, bytes, media_type) VALUES (?, ?, ?)",
            (digest, len(content), media_type(content)),
        )
        return digest

    def log(self, who: str, what: str, about: str = "", detail: str = "") -> None:
        """Write to the audit log."""
        audit.append(self.connection, self.at, who, what, about, detail)

    def take_back(self) -> None:
        """Remove the files of a transaction that was undone; one with a row stays (a commit can fail half-way)."""
        for digest in self._new:
            try:
                known = self.connection.execute("SELECT 1 FROM files WHERE sha256 = ?", (digest,)).fetchone()
            except sqlite3.Error:
                return  # the sweep at the next start will tell
            if not known:
                self._blobs.remove(digest)
