"""What EXIF says of a picture's orientation and colours, read as leniently as browsers and cameras' software do.

A block that is damaged elsewhere still tells which side is up; nothing is read outside the block, and every loop is
bounded by its length.

References
----------
CIPA DC-008, "Exchangeable image file format for digital still cameras: Exif version 2.32", 2019.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

MAGIC = (b"II*\0", b"MM\0*")
ORIENTATION, EXIF_IFD, INTEROP_IFD, COLOUR_SPACE, INTEROP_INDEX = 274, 34665, 40965, 40961, 1
ADOBE_RGB_SPACE, UNCALIBRATED = 2, 0xFFFF  # of COLOUR_SPACE; 2 is not in the standard, but written by some cameras
ADOBE_RGB_INDEX = b"R03"  # of INTEROP_INDEX: the DCF option file
_KINDS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i"}  # whole numbers of 1, 2 and 4 bytes
_PREFIX = re.compile(rb"(?:Exif\0[\0\xff])*")  # some programs write it twice


def _body(block: bytes) -> tuple[bytes, str]:
    """The TIFF structure of a block and its byte order; nothing where there is none."""
    match = _PREFIX.match(block)
    body = block[match.end() if match else 0 :]
    return (body, "<" if body[:1] == b"I" else ">") if body[:4] in MAGIC else (b"", "<")


def _entries(body: bytes, order: str, start: int) -> Iterator[tuple[int, int, int]]:
    """Tag, kind and place of the value of each entry that lies within the block, whatever the count claims."""
    if 8 <= start <= len(body) - 2:
        (count,) = struct.unpack_from(order + "H", body, start)
        for number in range(min(count, (len(body) - start - 2) // 12)):
            at = start + 2 + 12 * number
            yield (*struct.unpack_from(order + "HH", body, at), at + 8)


def _values(body: bytes, order: str, start: int, wanted: int) -> Iterator[int]:
    """The whole numbers that a tag's entries hold themselves; a single one always does, whatever its count claims."""
    for tag, kind, at in _entries(body, order, start):
        if tag == wanted and kind in _KINDS:
            yield struct.unpack_from(order + _KINDS[kind], body, at)[0]


def _start(body: bytes, order: str) -> int:
    return int(struct.unpack_from(order + "I", body, 4)[0]) if len(body) >= 8 else 0


def orientation(block: bytes) -> int:
    """The first valid orientation, 1 to 8, of a block with or without ``Exif\\0\\0``; 0 where there is none."""
    body, order = _body(block)
    return next((value for value in _values(body, order, _start(body, order), ORIENTATION) if 1 <= value <= 8), 0)


def is_adobe_rgb(block: bytes) -> bool:
    """Whether a camera says that its colours are those of Adobe RGB; it seldom adds a profile."""
    body, order = _body(block)
    sub = next(_values(body, order, _start(body, order), EXIF_IFD), 0)  # one of each: the work stays linear
    space = next(_values(body, order, sub, COLOUR_SPACE), UNCALIBRATED)
    if space != UNCALIBRATED:  # R03 is sometimes left over from before a program converted the picture
        return space == ADOBE_RGB_SPACE
    interop = next(_values(body, order, sub, INTEROP_IFD), 0)
    marks = (at for tag, _, at in _entries(body, order, interop) if tag == INTEROP_INDEX)
    return any(body.startswith(ADOBE_RGB_INDEX, at) for at in marks)
