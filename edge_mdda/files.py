"""Bytes from a file or a stream, and bytes into a file: bounded, never waiting, never half-written.

Only the standard library is used. Every failure is an :class:`~edge_mdda.errors.ImageError` of one line
that says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import BinaryIO

from edge_mdda.errors import ImageError, ImageTooLargeError, UnreadableImageError

MIB = 2**20  # bytes
IMAGE_SUFFIXES = (".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What is taken for an image in a folder, lower case."""
OTHER_PICTURES = (
    ".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf", ".raf",
    ".raw", ".rw2",
)  # fmt: skip
"""Pictures that are not read, lower case; in a folder each is named, so that no lesion is passed over in silence."""

Content = bytes | bytearray | memoryview
"""A file's content in memory."""

READ_STEP = 1 * MIB  # bytes asked for at a time


@dataclass(frozen=True)
class Limits:
    """How much is accepted.

    Attributes
    ----------
    max_pixels : int
        Width times height, at least 1.  Decoding needs 3 to 9 bytes of memory a pixel.
    max_bytes : int
        Size of the file in bytes, at least 1.

    Raises
    ------
    ValueError
        A limit is not a positive whole number.
    """

    max_pixels: int = 40_000_000
    max_bytes: int = 32 * MIB

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field.name} must be a whole number of at least 1, not {value!r}")


DEFAULT_LIMITS = Limits()

_ADVICE = {  # what to do about a failed system call
    errno.ENOENT: "there is no such file: check the name",
    errno.ENOTDIR: "a part of the path is not a folder: check the name",
    errno.EACCES: "permission denied: change the file's or folder's permissions, or run as its owner",
    errno.EPERM: "permission denied: change the file's or folder's permissions, or run as its owner",
    errno.EISDIR: "this is a folder: name a file",
    errno.ELOOP: "the symbolic links go round in a circle: name the file itself",
    errno.ENAMETOOLONG: "the name is too long: shorten it",
    errno.EIO: "the device reported an error (EIO): check the card or disk, or copy the file again",
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EMFILE: "too many files are open: close some, or raise the limit (ulimit -n)",
    errno.ENOMEM: "not enough memory: close other programs",
}
_NOT_A_FILE = (
    (stat.S_ISDIR, "this is a folder"),
    (stat.S_ISCHR, "this is a device"),
    (stat.S_ISBLK, "this is a device"),
    (stat.S_ISFIFO, "this is a named pipe"),
    (stat.S_ISSOCK, "this is a socket"),
)


def from_os(error: OSError | ValueError) -> UnreadableImageError:
    """One line for a failed system call; ``ValueError`` is a path with a zero byte in it."""
    if not isinstance(error, OSError):
        return UnreadableImageError("the name contains an impossible character: check the name")
    text = _ADVICE.get(error.errno or 0)
    return UnreadableImageError(text or f"the system reported «{error.strerror or error}»: check the file and its disk")


def _require_file(mode: int) -> None:
    for test, what in _NOT_A_FILE:
        if test(mode):
            raise UnreadableImageError(f"{what}, not a file: name an image file")


def too_many_bytes(limits: Limits, size: int | None = None) -> ImageTooLargeError:
    what = f"has {size / MIB:.1f} MiB, more than" if size is not None else "is larger than"
    return ImageTooLargeError(
        f"the file {what} the limit of {limits.max_bytes / MIB:.4g} MiB: shrink the image, or raise the byte limit"
    )


def read_bytes(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read a whole file, but only a regular one and only up to a size.

    Parameters
    ----------
    path : str or os.PathLike
        The file.  Symbolic links are followed.
    limits : Limits
        ``max_bytes`` applies; a larger file is refused unread.

    Returns
    -------
    bytes
        1 to ``limits.max_bytes`` bytes.

    Raises
    ------
    UnreadableImageError
        Missing, empty, no permission, not a regular file (never waits for a pipe), or the disk failed.
    ImageTooLargeError
        More than ``limits.max_bytes`` bytes.
    """
    try:
        _require_file(os.stat(path).st_mode)  # first, because opening some devices has effects (a tape rewinds)
        # The file can be exchanged for a pipe before it is opened: O_NONBLOCK keeps that from waiting for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            _require_file(status.st_mode)
            if status.st_size > limits.max_bytes:
                raise too_many_bytes(limits, status.st_size)
            return _read_all(file.read, limits)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise from_os(error) from None


def read_stream(stream: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read a picture from an open binary stream such as ``sys.stdin.buffer``.

    Parameters
    ----------
    stream : binary file object
        Read until its end, but never more than ``limits.max_bytes + 1`` bytes.
    limits : Limits
        ``max_bytes`` applies.

    Returns
    -------
    bytes
        1 to ``limits.max_bytes`` bytes.

    Raises
    ------
    UnreadableImageError
        Nothing came, the stream is closed, in text mode or not readable, or reading failed.
    ImageTooLargeError
        More than ``limits.max_bytes`` bytes came.
    """
    try:
        return _read_all(stream.read, limits)
    except ImageError:
        raise
    except OSError as error:
        if error.errno is None:  # io.UnsupportedOperation: opened for writing
            raise UnreadableImageError(
                "the input cannot be read: pass an image through a pipe or name a file"
            ) from None
        raise from_os(error) from None
    except ValueError:
        raise UnreadableImageError("the input is closed: pass an image through a pipe or name a file") from None


def _read_all(read: Callable[[int], bytes | None], limits: Limits) -> bytes:
    parts: list[bytes] = []
    room = limits.max_bytes + 1
    while room:
        part = read(min(room, READ_STEP))
        if not part:
            break
        if not isinstance(part, bytes):
            raise UnreadableImageError("the input is text: open it in binary mode")
        parts.append(part)
        room -= len(part)
    if not room:
        raise too_many_bytes(limits)
    if not parts:
        raise UnreadableImageError("the file is empty: copy or export it again")
    return b"".join(parts)


def replace_file(path: str, content: bytes) -> None:
    """Write through a temporary file in the same folder; a failure leaves neither of them behind."""
    with contextlib.suppress(FileNotFoundError):
        _require_file(os.lstat(path).st_mode)  # renaming over a device such as /dev/null would delete it
    # Not derived from the target's name, which may already have the longest length that the file system allows.
    temporary = os.path.join(os.path.dirname(path), f".{os.urandom(8).hex()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)  # less the umask
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)  # a power cut after the rename must not leave an empty file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
