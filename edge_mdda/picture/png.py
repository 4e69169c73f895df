"""Headers of PNG files: every chunk's checksum, the size, transparency, orientation and colours.

References
----------
W3C, "Portable Network Graphics (PNG) Specification (Third Edition)", 2025.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from edge_mdda.picture import exif
from edge_mdda.picture.parsing import (
    ADOBE_RGB,
    DISPLAY_P3,
    MAX_CHUNKS,
    MAX_PROFILE,
    SRGB_PRIMARIES,
    Header,
    Primaries,
    check_size,
    damaged,
    unpack,
    unsupported,
)

MAX_TEXT = 2**18  # bytes of a text that may hold EXIF, unpacked; a JPEG's EXIF has at most 65,533, two digits each
_TELLING = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf"})
MAX_TEXTS = 8  # of a PNG that are unpacked to look for EXIF
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_SRGB_CODE, _P3_CODE, _SRGB_CURVES, _FULL_RANGE = 1, 12, (1, 13), 1  # ITU-T H.273
_GAMMA_UNIT = 100_000  # PNG gives gammas and chromaticities as whole numbers
_USUAL_GAMMA = range(44_000, 47_000)  # with sRGB's primaries its curve is meant
_SAME_PLACE = 0.003  # of x and y


def read_png(data: bytes) -> Header:
    """Check every chunk; the errors are those of ``read_header``."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise damaged("PNG", "has a corrupt signature, as when copied in text mode")
    pos, width, height, bits, colour = 8, 0, 0, 0, 0
    seen: dict[bytes, bytes] = {}  # the first of each small chunk that tells of colours or the orientation
    texts: list[bytes] = []
    transparency: bytes | None = None
    for number in range(MAX_CHUNKS):
        end = pos + 12 + unpack(">I", data, pos, "PNG")[0]
        if end > len(data):
            raise damaged("PNG", "is cut off (it ends before its last chunk)")
        kind, body = data[pos + 4 : pos + 8], data[pos + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, end - 4)[0]:
            raise damaged("PNG", f"is corrupt (checksum of chunk {kind!a})")
        if (kind == b"IHDR") != (number == 0):
            raise damaged("PNG's", "first chunk is not its header, or it has two")
        if kind == b"IHDR":
            width, height, bits, colour, *methods = unpack(">IIBBBBB", body, 0, "PNG header")
            check_size("PNG", width, height)
            if len(body) != 13 or bits not in _DEPTHS.get(colour, ()) or methods[:2] != [0, 0] or methods[2] > 1:
                raise damaged("PNG's", "header is senseless")
        elif kind == b"acTL":
            raise unsupported("PNG", "is an animation")
        elif kind == b"tRNS":
            transparency = body
        elif kind in (b"tEXt", b"zTXt") and body.startswith(b"Raw profile type ") and len(texts) < MAX_TEXTS:
            texts.append(_unpacked_text(kind, body))
        seen.setdefault(kind, body if kind in _TELLING else b"")
        pos = end
        if kind == b"IEND":
            break
    if not seen.keys() >= {b"IDAT", b"IEND"} or (colour == 3 and b"PLTE" not in seen):
        raise damaged("PNG", f"has no image data, no palette or more than {MAX_CHUNKS} chunks")
    grey_key = None
    if transparency is not None and colour == 0:  # OpenCV drops this kind of transparency
        (level,) = unpack(">H", transparency, 0, "PNG transparency")
        grey_key = level if bits == 16 else (level & (2**bits - 1)) * (255 // (2**bits - 1))
    has_alpha = colour in (4, 6) or (transparency is not None and colour in (2, 3))
    block = seen.get(b"eXIf", b"")
    orientation = exif.orientation(block) or next(filter(None, map(exif.orientation, texts)), 1)
    profile, primaries = _colours(seen)
    if not seen.keys() & (_TELLING - {b"eXIf"}) and exif.is_adobe_rgb(block):
        primaries = ADOBE_RGB
    return Header(
        "PNG",
        width,
        height,
        width * height,
        orientation,
        has_alpha,
        grey_key=grey_key,
        profile=profile,
        primaries=primaries,
    )


def _unpacked_text(kind: bytes, body: bytes) -> bytes:
    """The EXIF block in a text of ImageMagick's: its name, its length and its bytes as hexadecimal digits."""
    name, _, rest = body.partition(b"\0")
    if name not in (b"Raw profile type exif", b"Raw profile type APP1"):
        return b""
    try:
        text = zlib.decompressobj().decompress(rest[1:], MAX_TEXT) if kind == b"zTXt" else rest[:MAX_TEXT]
        return bytes.fromhex("".join(text.decode("latin-1").split()[2:]))
    except (zlib.error, ValueError):
        return b""


def _colours(chunks: Mapping[bytes, bytes]) -> tuple[bytes | None, Primaries | None]:
    """Profile and primaries; the PNG specification says which chunk comes first. Two times None: sRGB."""
    if b"cICP" in chunks:
        primaries, curve, matrix, full = unpack("BBBB", chunks[b"cICP"], 0, "PNG's colour description")
        if primaries not in (_SRGB_CODE, _P3_CODE) or curve not in _SRGB_CURVES or (matrix, full) != (0, _FULL_RANGE):
            raise unsupported("PNG", "has the colours of a film or of high dynamic range")
        return None, DISPLAY_P3 if primaries == _P3_CODE else None
    if b"iCCP" in chunks:
        packed = chunks[b"iCCP"].partition(b"\0")[2][1:]
        try:
            unpacker = zlib.decompressobj()
            profile = unpacker.decompress(packed, MAX_PROFILE)
        except zlib.error:
            profile = b""
        if not profile or not unpacker.eof:
            raise damaged("PNG's", "colour profile is corrupt")
        return profile, None
    if b"sRGB" in chunks or not chunks.keys() & {b"gAMA", b"cHRM"}:
        return None, None
    exponent: float | None = None
    places: tuple[float, ...] = SRGB_PRIMARIES
    if b"gAMA" in chunks:
        (gamma,) = unpack(">I", chunks[b"gAMA"], 0, "PNG's gamma")
        if not _GAMMA_UNIT // 10 <= gamma <= _GAMMA_UNIT * 5:
            raise damaged("PNG's", f"gamma is senseless ({gamma / _GAMMA_UNIT:g})")
        exponent = _GAMMA_UNIT / gamma
    if b"cHRM" in chunks:
        places = tuple(value / _GAMMA_UNIT for value in unpack(">8I", chunks[b"cHRM"], 0, "PNG's chromaticities"))
    of_srgb = all(abs(a - b) <= _SAME_PLACE for a, b in zip(places, SRGB_PRIMARIES, strict=True))
    if of_srgb and exponent is not None and round(_GAMMA_UNIT / exponent) in _USUAL_GAMMA:
        exponent = None
    return None, Primaries(exponent, places)
