"""Look at an image file before any decoder does: what it is, how large it is, and whether all of it is there.

Only the standard library is used, so a picture that must be refused (too many pixels, cut off, not a picture) costs
neither the memory of a decoder nor that of numpy.  Every loop is bounded by the file's length or by a constant below,
and every refusal is an :class:`~edge_mdda.errors.ImageError` whose text is one line: the cause, then what to do.

By hand, because Pillow, which knows these headers too, adds 5 MB and 0.1 s to every screening (Python 3.11, x86_64) and
decodes what is cut off without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edge_mdda.errors import UnsupportedImageError
from edge_mdda.picture import exif
from edge_mdda.picture.dicom import is_dicom, read_dicom
from edge_mdda.picture.heic import is_heic, read_heic
from edge_mdda.picture.parsing import (
    ADOBE_RGB,
    MAX_CHUNKS,
    MAX_PROFILE,
    Header,
    Primaries,
    check_size,
    damaged,
    unpack,
    unsupported,
)
from edge_mdda.picture.png import read_png
from edge_mdda.picture.tiff import read_tiff

MAX_SEGMENTS = 10_000  # JPEG marker segments; real files have tens
MAX_SCANS = 100  # passes of a progressive JPEG; each one costs a sweep over the picture, real files have about ten


def read_header(data: bytes) -> Header:
    """Recognise an image and check its structure.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    Header
        Sides are within 1 to ``MAX_SIDE`` pixels; whether ``pixels`` is acceptable is left to the caller.

    Raises
    ------
    UnsupportedImageError
        Not an image, or a type or variant that is not read here.
    DamagedImageError
        Cut off, corrupt or contradictory.
    """
    if not data:
        raise damaged("file", "is empty")
    readers = {b"\xff\xd8": _jpeg, b"\x89P": read_png, b"RI": _webp, b"II": read_tiff, b"MM": read_tiff, b"BM": _bmp}
    if _SIGNATURE.match(data):
        return readers[data[:2]](data)
    if is_dicom(data):
        return read_dicom(data).header
    if is_heic(data):
        return read_heic(data)
    if data[:4] in (b"II+\0", b"MM\0+"):
        raise unsupported("TIFF", "is a BigTIFF, which is not read here")
    raise UnsupportedImageError(f"{_describe(data)}: use a JPEG, PNG, WebP, BMP or TIFF image")


# A BMP's two letters could begin a text; its header size, below 256, tells.  JPEG needs only the two bytes.
_SIGNATURE = re.compile(rb"\xff\xd8|\x89PNG|RIFF....WEBP|II\*\0|MM\0\*|BM(?:.{13}\0\0\0|.{0,15}\Z)", re.DOTALL)
_MAGIC = (  # (offset, bytes, name) of what people hand over by mistake
    (0, b"GIF8", "a GIF file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive (or an Office document)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"jP  \r\n", "a JPEG 2000 image"),
    (0, b"RIFF", "a sound or video file"),
)


def _describe(data: bytes) -> str:
    """Say what an unreadable file probably is."""
    if data[4:8] == b"ftyp":
        name = "an AVIF" if b"avi" in data[8:64] else "a video"
        return f"this is {name} file, which is not read here"
    for offset, magic, name in _MAGIC:
        if data.startswith(magic, offset):
            return f"this is {name}, which is not read here"
    sample = data[:1024]
    if b"<svg" in sample:
        return "this is an SVG drawing, which is not read here"
    if all(byte >= 32 or byte in b"\t\n\f\r\x1b" for byte in sample):
        return "this is text, not an image"
    return "this is not a recognised image (unknown type, or its beginning is damaged)"


_EOI, _SOI, _SOS, _APP1, _APP2, _APP14 = 0xD9, 0xD8, 0xDA, 0xE1, 0xE2, 0xEE
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # C4, C8 and CC are tables, not frames
_SOF_READ = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive with Huffman codes
_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and the restart markers stand alone
_MARKER = re.compile(rb"\xff[\x01-\xfe]")  # like libjpeg, skips padding and stray bytes between segments
_MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # FF 00 is data and FF D0..D7 are restarts inside a scan


def _jpeg(data: bytes) -> Header:
    cut = damaged("JPEG", "is cut off (it ends before its end marker)")
    pos, pattern, scans, adobe, orientation, adobe_rgb = 2, _MARKER, 0, False, 0, False
    profile: dict[int, tuple[int, bytes]] = {}
    frame: tuple[int, int, int] | None = None
    for _ in range(MAX_SEGMENTS):
        match = pattern.search(data, pos)
        if match is None:
            raise cut
        marker, pos, pattern = data[match.end() - 1], match.end(), _MARKER
        if marker == _EOI:
            break
        if marker in _NO_LENGTH:
            continue
        (length,) = unpack(">H", data, pos, "JPEG")
        start, pos = pos + 2, pos + length
        if pos > len(data):
            raise cut
        if length < 2 or marker == _SOI:
            raise damaged("JPEG", "has a corrupt segment")
        if marker in _SOF:
            if frame is not None:
                raise damaged("JPEG", "states its size more than once")
            frame = _jpeg_frame(marker, data[start:pos])
        elif marker == _SOS:
            scans, pattern = scans + 1, _MARKER_IN_SCAN
        elif marker == _APP1 and data.startswith(b"Exif\0", start, pos):
            orientation = orientation or exif.orientation(data[start:pos])
            adobe_rgb = adobe_rgb or exif.is_adobe_rgb(data[start:pos])
        elif marker == _APP2 and data.startswith(b"ICC_PROFILE\0", start, pos) and pos - start > _ICC_HEAD:
            profile.setdefault(data[start + 12], (data[start + 13], data[start + _ICC_HEAD : pos]))
        elif marker == _APP14:
            adobe = adobe or data.startswith(b"Adobe", start, pos)
    else:
        raise damaged("JPEG", f"has more than {MAX_SEGMENTS} segments")
    if frame is None or not scans:
        raise damaged("JPEG", "has no image in it")
    if scans > MAX_SCANS:
        raise unsupported("JPEG", f"has more than {MAX_SCANS} scans")
    width, height, components = frame
    if components == 4 and not adobe:  # without Adobe's marker nothing says whether 0 means no ink or full ink
        raise unsupported("JPEG", "is CMYK without a word on what its colours mean")
    icc = _joined(profile)
    if components == 4 and icc is not None:
        raise unsupported("JPEG", "is CMYK with a printer's colour profile")
    primaries = ADOBE_RGB if adobe_rgb and icc is None else None
    return Header("JPEG", width, height, width * height, orientation or 1, profile=icc, primaries=primaries)


_ICC_HEAD = 14  # bytes: its name, a zero, the number of this part and of all parts


def _joined(parts: Mapping[int, tuple[int, bytes]]) -> bytes | None:
    """The colour profile of a JPEG, which may need several segments of 64 KiB."""
    if not parts:
        return None
    count = next(iter(parts.values()))[0]
    if sorted(parts) != list(range(1, count + 1)) or any(total != count for total, _ in parts.values()):
        raise damaged("JPEG's", "colour profile is incomplete")
    return b"".join(parts[number][1] for number in sorted(parts))


def _jpeg_frame(marker: int, body: bytes) -> tuple[int, int, int]:
    if marker not in _SOF_READ:
        raise unsupported("JPEG", "is lossless, hierarchical or arithmetic-coded")
    bits, height, width, components = unpack(">BHHB", body, 0, "JPEG frame header")
    check_size("JPEG", width, height)
    if bits != 8 or components not in (1, 3, 4):
        raise unsupported("JPEG", f"has {components} colour components of {bits} bits")
    return width, height, components


def _webp(data: bytes) -> Header:
    limit = 8 + unpack("<I", data, 4, "WebP")[0]
    canvas: tuple[int, ...] | None = None
    frames: list[tuple[int, int]] = []
    orientation, alpha, pos = 1, False, 12
    profile: bytes | None = None
    primaries: Primaries | None = None
    for _ in range(MAX_CHUNKS):
        if pos + 8 > limit:
            break
        kind, length = data[pos : pos + 4], unpack("<I", data, pos + 4, "WebP")[0]
        body, pos = data[pos + 8 : pos + 8 + length], pos + 8 + length + (length & 1)
        if pos - (length & 1) > min(limit, len(data)):
            raise damaged("WebP", "is cut off")
        if kind == b"VP8X":
            flags, *sides = unpack("<BxxxHBHB", body, 0, "WebP header")
            canvas = (sides[0] + (sides[1] << 16) + 1, sides[2] + (sides[3] << 16) + 1)
            alpha = alpha or bool(flags & 0x10)
            if flags & 0x02:
                raise unsupported("WebP", "is an animation")
        elif kind in (b"VP8 ", b"VP8L"):
            width, height, transparent = _webp_frame(kind, body)
            frames.append((width, height))
            alpha = alpha or transparent
        elif kind == b"EXIF":
            orientation = exif.orientation(body) or 1
            primaries = ADOBE_RGB if exif.is_adobe_rgb(body) else None
        elif kind == b"ICCP":
            profile = body
    if len(frames) != 1:
        raise damaged("WebP", f"holds {len(frames)} pictures instead of one")
    if canvas and canvas != frames[0]:  # a bomb could announce one size and decode another
        raise damaged("WebP", "claims {} x {} pixels and holds {} x {}".format(*canvas, *frames[0]))
    check_size("WebP", *frames[0])
    primaries = primaries if profile is None else None
    pixels = frames[0][0] * frames[0][1]
    return Header("WebP", *frames[0], pixels, orientation, alpha, profile=profile, primaries=primaries)


def _webp_frame(kind: bytes, head: bytes) -> tuple[int, int, bool]:
    if kind == b"VP8L":
        signature, packed = unpack("<BI", head, 0, "WebP image")
        if signature == 0x2F and packed >> 29 == 0:
            return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, bool(packed >> 28)
    elif head[3:6] == b"\x9d\x01\x2a" and not head[0] & 1:
        width, height = unpack("<HH", head, 6, "WebP image")
        return width & 0x3FFF, height & 0x3FFF, False
    raise damaged("WebP's", "image data is corrupt")


# (bits a pixel, red, green, blue) that OpenCV reads correctly
_BMP_MASKS = {(32, 0xFF0000, 0xFF00, 0xFF), (16, 0xF800, 0x07E0, 0x001F), (16, 0x7C00, 0x03E0, 0x001F)}


def _bmp(data: bytes) -> Header:
    (offset, dib) = unpack("<II", data, 10, "BMP header")
    if dib not in (12, 40, 52, 56, 64, 108, 124):
        raise unsupported("BMP", f"has an unknown header ({dib} bytes)")
    layout = "<HHHH" if dib == 12 else "<iiHHI"
    width, height, _, bits, compression = (*unpack(layout, data, 18, "BMP header"), 0)[:5]
    height, alpha = abs(height), 0  # negative: the top row comes first
    check_size("BMP", width, height)
    if bits not in (1, 4, 8, 16, 24, 32) or compression not in (0, 3):
        raise unsupported("BMP", f"has an unusual layout ({bits} bits a pixel, compression {compression})")
    if compression == 3:  # the colours' places are given as masks, and the alpha mask only by the longer headers
        if (bits, *unpack("<III", data, 54, "BMP header")) not in _BMP_MASKS:
            raise unsupported("BMP", "stores its colours in an unusual layout")
        alpha = unpack("<I", data, 66, "BMP header")[0] if dib >= 56 else 0
    if offset < 14 + dib or offset + (width * bits + 31) // 32 * 4 * height > len(data):  # rows are padded to 4 bytes
        raise damaged("BMP", "is cut off (its pixels lie outside the file or in the header)")
    profile = _bmp_profile(data) if dib >= _BMP_V5 else None
    return Header("BMP", width, height, width * height, has_alpha=bool(alpha), profile=profile)


_BMP_V5 = 124  # bytes of the header that can point to a profile


def _bmp_profile(data: bytes) -> bytes | None:
    (space,) = unpack("<I", data, 70, "BMP header")
    if space == int.from_bytes(b"LINK", "big"):
        raise unsupported("BMP", "has its colour profile in another file")
    if space != int.from_bytes(b"MBED", "big"):
        return None
    where, length = unpack("<II", data, 14 + 112, "BMP header")
    if not 0 < length <= MAX_PROFILE or 14 + where + length > len(data):
        raise damaged("BMP's", "colour profile lies outside the file")
    return data[14 + where : 14 + where + length]
