"""Picture files by their SHA-256: complete and on the disk before anything speaks of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edge_mdda.digest import sha256

MEDIA_TYPES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
"""First bytes of the kinds of pictures that are read; WebP is told apart below."""


def media_type(content: bytes) -> str:
    """What a picture is by its first bytes; ``application/octet-stream`` where that is unknown."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in MEDIA_TYPES if content.startswith(start)), "application/octet-stream")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Blobs:
    """Files named by what is in them, in 256 folders named by the first two digits.

    A file is written to a temporary name, synced, renamed, and its folder synced: after :meth:`put` returns, a power
    cut keeps it whole. What a crash leaves has a temporary name or no row, and :meth:`stray` finds both.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            sync_folder(folder.parent)

    def path(self, digest: str) -> Path:
        """Where the file of this SHA-256 lies."""
        return self.folder / digest[:2] / digest

    def put(self, content: bytes) -> tuple[str, bool]:
        """Keep bytes; returns their SHA-256 in hexadecimal digits and whether they are new. OSError where it fails."""
        digest = sha256(content).hexdigest()
        target = self.path(digest)
        if target.is_file() and target.stat().st_size == len(content):
            return digest, False
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.folder)
        temporary = target.parent / f".{os.urandom(8).hex()}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(target.parent)
        return digest, True

    def get(self, digest: str) -> bytes:
        """The bytes of this SHA-256; OSError where they cannot be had."""
        return self.path(digest).read_bytes()

    def remove(self, digest: str) -> None:
        """Take back what was put and has no row."""
        with contextlib.suppress(OSError):
            self.path(digest).unlink()

    def names(self) -> Iterator[str]:
        """The SHA-256 of every file that is there."""
        for path in self.folder.glob("??/*"):
            if len(path.name) == 64:
                yield path.name

    def unfinished(self) -> list[Path]:
        """What a crash has left under a temporary name."""
        return list(self.folder.glob("??/.*.tmp"))
