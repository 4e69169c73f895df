"""A folder in which images appear, and where each goes exactly once.

In the folder lie ``work`` (the image that is being screened), ``done`` and ``failed``, on the same file system, so that
every step is one rename. Each image takes this way; a kill or a power cut may come between any two steps:

1. *Settle.* A file is left alone until its size, time and inode have not changed for a while. Hidden and temporary
   names, links, folders and other things that are no plain files are left alone for good.
2. *Claim.* Rename into ``work``; both folders are synchronised (fsync).
3. *Result.* The JSON is written to ``work/.result`` through a temporary file, fsync and rename: whole or not there.
4. *Place the JSON.* A hard link ``done/NAME.json`` to it, which fails where that name exists; fsync of ``done``.
   (File systems without links get a synchronised copy.)
5. *Place the image.* Rename ``work/NAME`` to ``done/NAME``, refused by the kernel where that name exists; fsync.
6. *Forget.* ``work/.result`` is removed.

An image in ``done`` or ``failed`` therefore has its JSON beside it from the first moment. If a name is taken, both get
a number (``mole-2.jpg``, ``mole-2.jpg.json``): nothing is overwritten.

At the next start, an image still in ``work`` is *finished* from step 4 on if ``.result`` is about the same content
(SHA-256), which finds the JSON that step 4 may have placed and makes no second one; otherwise it is *put back* and
goes the whole way again. One that was in ``work`` at :data:`MAX_ENDS` starts, because the program ended while it was at
work on it (a decoder that crashes, a runtime that hangs until the watchdog acts), goes to ``failed``: it must not block
the others.

One process has the folder at a time (a lock). What this does not withstand: a file that pauses for longer than the
settle time while it is written (write to a hidden name and rename it), and someone who writes into ``work``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.errors import WatchError
from edge_mdda.files import from_os, replace_file
from edge_mdda.watch.atomic_steps import (
    State,
    candidates,
    hash_of,
    link_new,
    read_small,
    rename_new,
    skipped,
    state_of,
    sync_content,
    sync_folder,
)

WORK, DONE, FAILED = "work", "done", "failed"
RESULT, ENDS, LOCK = ".result", ".ends", ".lock"  # in work; hidden names are never claimed
MAX_ENDS = 3
LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.tmp")  # what files.replace_file writes to


@dataclass(frozen=True)
class Claim:
    """An image that lies in ``work``; ``name`` is the one under which it appeared."""

    name: str
    path: str
    state: State


@dataclass(frozen=True)
class Recovered:
    """What became of an image that was in ``work`` at the start: ``place`` is where it lies now, in the folder."""

    name: str
    place: str
    error: str | None = None
    result: dict[str, Any] | None = None


def failure(name: str, digest: str | None, reason: str) -> dict[str, Any]:
    """What the JSON says of an image that could not be screened."""
    return {"image": name, "sha256": digest, "error": reason, "notice": NOTICE}


def to_bytes(result: dict[str, Any]) -> bytes:
    """The file's content: one line, as ``edge-mdda screen --json`` prints it."""
    return json.dumps(result).encode() + b"\n"


class Spool:
    """The folder and its three subfolders; a context manager that holds the lock.

    Parameters
    ----------
    folder : str
        Where images appear.
    settle : float
        Seconds for which a file must not change before it is claimed.

    Raises
    ------
    WatchError
        On entering: not a folder, not writable, or another process has it.
    """

    def __init__(self, folder: str, settle: float) -> None:
        self.folder, self.settle = folder, settle
        self._seen: dict[str, tuple[State, float]] = {}
        self._lock = -1
        self._identity = (0, 0)

    def __enter__(self) -> Spool:
        try:
            status = os.stat(self.folder)
            if not stat.S_ISDIR(status.st_mode):
                raise WatchError(f"{self.folder}: this is no folder: name one")
            self._identity = status.st_dev, status.st_ino
            for name in (WORK, DONE, FAILED):
                self._ensure(name)
            self._take_lock()
        except OSError as error:
            raise WatchError(f"{self.folder}: cannot be used: {from_os(error)}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._lock = os.open(self._in(WORK, LOCK), flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = -1
            raise WatchError(f"{self.folder}: another edge-mdda watches it: stop that one first") from None

    def _in(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def _ensure(self, name: str) -> None:
        """A subfolder is there and on this file system; whoever archives results may take the whole folder away."""
        path = self._in(name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700 if name == WORK else 0o777)  # less the umask
            sync_folder(self.folder)
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            raise WatchError(f"{path}: must be a folder and no link: move it away")
        if status.st_dev != self._identity[0]:
            raise WatchError(f"{path}: is another file system than {self.folder}: an image could not be moved at once")

    def check(self) -> None:
        """Make sure that the folder is still the one that was opened.

        Raises
        ------
        WatchError
            It has vanished, or another one has its name (a card was taken out, a share unmounted).
        """
        try:
            status = os.stat(self.folder)
        except OSError as error:
            raise WatchError(f"{self.folder}: the folder has vanished: {from_os(error)}") from error
        if (status.st_dev, status.st_ino) != self._identity:
            raise WatchError(f"{self.folder}: another folder has taken its place: was something unmounted?")

    # -- what is there ------------------------------------------------------------------------------------

    def settled(self, now: float) -> list[str]:
        """Names of files that have not changed for the settle time, oldest first; ``now`` is a monotonic clock."""
        seen: dict[str, tuple[State, float]] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if skipped(entry.name):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(status.st_mode):
                    continue
                state = state_of(status)
                before = self._seen.get(entry.name)
                seen[entry.name] = before if before and before[0] == state else (state, now)
        self._seen = seen
        ready = [(state[2], name) for name, (state, since) in seen.items() if now - since >= self.settle]
        return [name for _, name in sorted(ready)]

    @property
    def seen(self) -> set[str]:
        """Names of all files that the last look saw, settled or not."""
        return set(self._seen)

    def postpone(self, name: str, until: float, state: State | None = None) -> None:
        """Leave a file alone until then; ``state`` of one that was put back, and that no look has seen since."""
        if state is not None:
            self._seen[name] = state, until - self.settle
        elif name in self._seen:
            self._seen[name] = self._seen[name][0], until - self.settle

    # -- the way of one image -----------------------------------------------------------------------------

    def claim(self, name: str) -> Claim | None:
        """Take one image into ``work``; None if it has gone or is no plain file any more."""
        self._ensure(WORK)
        try:
            path = self._move_to(self._in(name), WORK, name)
        except FileNotFoundError:
            return None
        status = os.lstat(path)
        claim = Claim(name, path, state_of(status))
        try:
            sync_folder(self._in(WORK))
            sync_folder(self.folder)
        except OSError:
            self.put_back(claim)
            raise
        if not stat.S_ISREG(status.st_mode):  # exchanged between the look and the claim
            self.put_back(claim)
            return None
        return claim

    def _move_to(self, source: str, folder: str, name: str) -> str:
        for candidate in candidates(name):
            target = self._in(folder, candidate)
            try:
                rename_new(source, target)
                return target
            except FileExistsError:
                continue
        raise AssertionError("the candidates have no end")

    def changed(self, claim: Claim) -> bool:
        """Whether someone still writes to a claimed image."""
        return state_of(os.lstat(claim.path)) != claim.state

    def put_back(self, claim: Claim) -> str:
        """Return an image to the folder, as if it had never been claimed; its name there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._in(WORK, RESULT))
        name = self._move_to(claim.path, "", os.path.basename(claim.path))
        sync_folder(self.folder)
        sync_folder(self._in(WORK))
        return os.path.basename(name)

    def finish(self, claim: Claim, result: dict[str, Any]) -> str:
        """Place the result and the image; where the image lies then, relative to the folder."""
        content = to_bytes(result)
        replace_file(self._in(WORK, RESULT), content)
        sync_folder(self._in(WORK))
        return self._place(claim.path, content, FAILED if "error" in result else DONE)

    def _place(self, path: str, content: bytes, folder: str) -> str:
        self._ensure(folder)
        sync_content(path)
        state = state_of(os.lstat(path))
        for name in candidates(os.path.basename(path)):
            image, result = self._in(folder, name), self._in(folder, f"{name}.json")
            if os.path.lexists(image):
                continue
            try:
                link_new(self._in(WORK, RESULT), result, content)
            except FileExistsError:
                if read_small(result) != content:  # the same: placed before the program was killed
                    continue
            try:
                sync_folder(self._in(folder))
                rename_new(path, image)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(result)  # no JSON without its image
                if isinstance(error, FileExistsError):
                    continue
                raise
            sync_folder(self._in(folder))
            sync_folder(self._in(WORK))
            os.unlink(self._in(WORK, RESULT))
            self._count(state, forget=True)
            return os.path.join(folder, name)
        raise AssertionError("the candidates have no end")

    # -- after a kill -------------------------------------------------------------------------------------

    def recover(self, on_step: Callable[[], None] = lambda: None) -> Iterator[Recovered]:
        """Bring every image that is in ``work`` to a proper place; see the module's text."""
        for folder in (WORK, DONE, FAILED):
            for name in os.listdir(self._in(folder)):
                if LEFTOVER.fullmatch(name):
                    os.unlink(self._in(folder, name))
        content = read_small(self._in(WORK, RESULT))
        result = _parsed(content)
        for name in sorted(os.listdir(self._in(WORK))):
            path = self._in(WORK, name)
            status = os.lstat(path)
            if name.startswith(".") or not stat.S_ISREG(status.st_mode):
                continue
            on_step()
            if content and result and self._belongs(name, path, result):
                place = self._place(path, content, FAILED if "error" in result else DONE)
                yield Recovered(name, place, result.get("error"), result)
                continue
            claim = Claim(name, path, state_of(status))
            ends = self._count(claim.state)
            if ends < MAX_ENDS:
                yield Recovered(name, self.put_back(claim))
                continue
            reason = (
                f"the program ended {ends} times while this image was screened (crash, watchdog or memory limit):"
                " look at it elsewhere, with care"
            )
            given_up = failure(name, None, reason)
            yield Recovered(name, self.finish(claim, given_up), reason, given_up)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._in(WORK, RESULT))

    @staticmethod
    def _belongs(name: str, path: str, result: dict[str, Any]) -> bool:
        """Whether a result is about the image in ``work``. Without SHA-256 (unreadable, too large) the name decides."""
        first = next(candidates(str(result.get("image"))))
        digest = result.get("sha256")
        return digest == hash_of(path) if digest else first == name

    def _count(self, state: State, forget: bool = False) -> int:
        """How often the program ended at work on a file, this time included; or forget that."""
        path, key = self._in(WORK, ENDS), "-".join(map(str, state))
        known = _parsed(read_small(path)) or {}
        if forget:
            if known.pop(key, None) is not None:
                replace_file(path, to_bytes(known))
            return 0
        known[key] = int(known.get(key, 0)) + 1
        replace_file(path, to_bytes(known))
        return int(known[key])


def _parsed(content: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(content) if content else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
