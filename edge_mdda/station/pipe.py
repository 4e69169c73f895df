"""Messages between the station and its worker: a length, JSON, and bytes that belong to it."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import IO, Any

LENGTHS = struct.Struct("!I")
MAX_HEADER, MAX_BLOB = 1 << 20, 1 << 30  # bytes


def send(stream: IO[bytes], header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Write one message and flush it."""
    text = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    stream.write(LENGTHS.pack(len(text)) + text)
    for blob in blobs:
        stream.write(blob)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes]] | None:
    """Read one message; None at the end of the stream. EOFError where it breaks off or makes no sense."""
    start = stream.read(LENGTHS.size)
    if not start:
        return None
    if len(start) < LENGTHS.size or (size := LENGTHS.unpack(start)[0]) > MAX_HEADER:
        raise EOFError("a message broke off")
    header = json.loads(_whole(stream, size))
    blobs = []
    for length in header.pop("blobs"):
        if not 0 <= length <= MAX_BLOB:
            raise EOFError("a message makes no sense")
        blobs.append(_whole(stream, length))
    return header, blobs


def _whole(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError("a message broke off")
    return content
