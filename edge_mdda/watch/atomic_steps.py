"""Single steps on files that a kill or a power cut cannot leave half done, for :mod:`edge_mdda.watch.spool`."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from functools import cache

from edge_mdda.digest import sha256
from edge_mdda.errors import ImageError
from edge_mdda.files import MIB, Limits, read_bytes, replace_file

SKIPPED_PREFIXES = (".", "~")
SKIPPED_SUFFIXES = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".download", ".swp", "~")
"""Names that browsers, copying programs and editors give to a file before it is whole; lower case."""

MAX_NAME = 240  # bytes: of 255, less a number and ".json"
HASH_STEP = MIB  # bytes read at a time
RESULT_LIMITS = Limits(max_bytes=MIB)  # a result has about 1 KB
AT_FDCWD, RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h
NO_SUCH_CALL = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

State = tuple[int, int, int]
"""Inode, size and time of the last change in nanoseconds: while these stay, so does the file."""


def skipped(name: str) -> bool:
    """Whether a name says that the file is hidden or not whole yet."""
    return name.startswith(SKIPPED_PREFIXES) or name.lower().endswith(SKIPPED_SUFFIXES)


def candidates(name: str) -> Iterator[str]:
    """``mole.jpg``, ``mole-2.jpg``, ``mole-3.jpg``, ...; too long a name is cut."""
    stem, suffix = os.path.splitext(name)
    room = MAX_NAME - len(os.fsencode(suffix))
    if room < 1:
        stem, suffix, room = name, "", MAX_NAME
    encoded = os.fsencode(stem)
    if len(encoded) > room:
        stem = encoded[:room].decode(errors="ignore")
    yield stem + suffix
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1


@cache
def _renameat2() -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc has it from 2.28 on


def rename_new(source: str, target: str) -> None:
    """Rename, but never over something; FileExistsError says so. Atomic wherever the file system can be."""
    call = _renameat2()
    code = errno.ENOSYS
    if call is not None:
        if call(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
    if code not in NO_SUCH_CALL:
        raise OSError(code, os.strerror(code), source, None, target)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)
    os.rename(source, target)


def link_new(source: str, target: str, content: bytes) -> None:
    """A second name for a file of ours with this content, at once and never over something (FileExistsError)."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        replace_file(target, content)


def sync_folder(path: str) -> None:
    """Make the folder's names durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SUCH_CALL:  # some file systems have no such thing for folders
            raise
    finally:
        os.close(descriptor)


def sync_content(path: str) -> None:
    """Make the image durable; who may not read it cannot, and need not."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def state_of(status: os.stat_result) -> State:
    """What tells one version of a file from another."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def hash_of(path: str) -> str | None:
    """SHA-256 of a file, or None where it cannot be read."""
    found = sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while part := file.read(HASH_STEP):
                found.update(part)
    except OSError:
        return None
    return found.hexdigest()


def read_small(path: str) -> bytes | None:
    """A small file of ours, or None; somebody may have put a pipe in its place."""
    try:
        return read_bytes(path, RESULT_LIMITS)
    except ImageError:
        return None
