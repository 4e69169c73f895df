"""What is to be sent to the hospital's archive, kept until it has arrived there. Only the standard library is used.

One folder an item: its DICOM files, written first, and ``item.json``; the folder gets its name last. The name follows
from what is in the files, so that the same visit is one item however often it is added. An item that
has arrived leaves a line of JSON in ``sent``; it is not taken in again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edge_mdda.digest import sha256
from edge_mdda.errors import StationError
from edge_mdda.files import from_os, replace_file

FIRST_WAIT = 30.0  # seconds after a first failure; each further one doubles it
LONGEST_WAIT = 3600.0  # seconds
MAX_ERROR = 300  # characters of an error that are kept
ITEM, SENT, SCRATCH, LOCK = "item.json", "sent", ".new-", ".lock"


class NotReachedError(StationError):
    """Nobody answers at the other end: what else waits need not be tried now."""


@dataclass(frozen=True)
class Item:
    """One visit that waits.

    Attributes
    ----------
    name : str
        Of its folder.
    files : tuple of str
        Names of its DICOM files.
    added, next_try : float
        Seconds since 1970.
    failures : int
        How often sending failed.
    error : str
        What the last failure said; empty before one.
    """

    name: str
    files: tuple[str, ...]
    added: float
    next_try: float
    failures: int = 0
    error: str = ""


class Outbox:
    """A folder of items.

    Parameters
    ----------
    folder : Path
        Made where it is missing.

    Raises
    ------
    StationError
        The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            (folder / SENT).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StationError(f"{folder}: {from_os(error)}") from None

    def add(self, files: Sequence[Path], now: float) -> str:
        """Take in the files of one visit and return the item's name; on return they are on the disk.

        Raises
        ------
        StationError
            A file cannot be read, or the disk is full: nothing was taken in.
        """
        scratch, name = self.folder / f"{SCRATCH}{os.urandom(8).hex()}", ""
        try:
            contents = {path.name: path.read_bytes() for path in files}
            if not contents or len(contents) != len(files):
                raise StationError("nothing to send: name the DICOM files of one visit, each with a name of its own")
            digests = sorted(sha256(content).hexdigest() for content in contents.values())
            name = sha256("".join(digests).encode()).hexdigest()[:32]
            if (self.folder / name).exists() or (self.folder / SENT / f"{name}.json").exists():
                return name
            scratch.mkdir()
            for file, content in contents.items():
                replace_file(str(scratch / file), content)
            self._keep(scratch, Item(name, tuple(sorted(contents)), now, now))
            os.rename(scratch, self.folder / name)
            _sync(self.folder)
        except OSError as error:
            if name and (self.folder / name).exists():  # somebody else took in the same files meanwhile
                return name
            raise StationError(f"{error.filename or self.folder}: {from_os(error)}") from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return name

    def items(self) -> list[Item]:
        """All that wait, the oldest first; one whose ``item.json`` is damaged is still there, with all its files."""
        found = []
        for path in self.folder.iterdir():
            if path.name == SENT or path.name.startswith(".") or not path.is_dir():
                continue
            try:
                values = json.loads((path / ITEM).read_text(encoding="utf-8"))
                found.append(Item(**{**values, "name": path.name, "files": tuple(values["files"])}))
            except (OSError, ValueError, TypeError, KeyError):
                files = tuple(sorted(file.name for file in path.glob("*.dcm")))
                found.append(Item(path.name, files, 0.0, 0.0, error=f"{ITEM} is damaged: all .dcm files are sent"))
        return sorted(found, key=lambda item: (item.added, item.name))

    def sent(self) -> int:
        """How many have arrived."""
        return sum(1 for _ in (self.folder / SENT).glob("*.json"))

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else is sending; while this is held, nobody will."""
        with open(self.folder / LOCK, "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    def send(self, sender: Callable[[list[Path]], None], now: float, urgent: bool = False) -> tuple[int, int]:
        """Send what is due, and return how many arrived and how many wait.

        Parameters
        ----------
        sender : callable
            Gets an item's files; raises :class:`StationError` unless all of them are there for good.
        now : float
            Seconds since 1970.
        urgent : bool
            Try those, too, that failed a short while ago.
        """
        arrived = 0
        with self.alone() as may:
            self._tidy(now)
            for item in self.items() if may else ():
                # A clock that was set back must not hold an item for years.
                if not urgent and now < item.next_try <= now + LONGEST_WAIT:
                    continue
                try:
                    sender([self.folder / item.name / file for file in item.files])
                except StationError as error:
                    away = isinstance(error, NotReachedError)
                    wait = min(FIRST_WAIT * 2 ** min(item.failures, 16), LONGEST_WAIT)
                    failed = replace(
                        item, failures=item.failures + 1, next_try=now + wait, error=str(error)[:MAX_ERROR]
                    )
                    self._keep(self.folder / item.name, failed)
                    if away:
                        break
                else:
                    self._close(item, now)
                    arrived += 1
        return arrived, len(self.items())

    def _keep(self, folder: Path, item: Item) -> None:
        replace_file(str(folder / ITEM), json.dumps(asdict(item)).encode())

    def _close(self, item: Item, now: float) -> None:
        """The line first, then the pictures go: killed in between, they are sent once more and found there."""
        line = {"name": item.name, "files": item.files, "added": item.added, "arrived": now, "failures": item.failures}
        replace_file(str(self.folder / SENT / f"{item.name}.json"), json.dumps(line).encode())
        _sync(self.folder / SENT)
        gone = self.folder / f"{SCRATCH}{item.name}"
        os.rename(self.folder / item.name, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _tidy(self, now: float) -> None:
        """Remove what a kill left half-written; what is younger may be written just now."""
        for path in self.folder.glob(f"{SCRATCH}*"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > LONGEST_WAIT:
                    shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
