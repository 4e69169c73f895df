"""Look at an image file before any decoder does: what it is, how large it is, and whether all of it is there.

Only the standard library is used, so a picture that must be refused (too many pixels, cut off, not a picture) costs
neither the memory of a decoder nor that of numpy.  Every loop is bounded by the file's length or by a constant below,
and every refusal is an :class:`~edge_mdda.errors.ImageError` whose text is one line: the cause, then what to do.

By hand, because Pillow, which knows these headers too, adds 5 MB and 0.1 s to every screening (Python 3.11, x86_64) and
decodes what is cut off without a word.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

from edge_mdda.errors import DamagedImageError, UnsupportedImageError

MAX_SEGMENTS = 10_000  # JPEG marker segments; real files have tens
MAX_SCANS = 100  # passes of a progressive JPEG; each one costs a sweep over the picture, real files have about ten
MAX_CHUNKS = 100_000  # PNG or WebP chunks; a 32 MiB PNG in the usual 8 KiB chunks has 4,096
MAX_STRIPS = 100_000  # TIFF strips or tiles; one strip a row is common
MAX_SIDE = 2**20  # pixels; OpenCV refuses longer sides


def _damaged(kind: str, what: str) -> DamagedImageError:
    return DamagedImageError(f"the {kind} {what}: copy or export the file again")


def _unsupported(kind: str, what: str) -> UnsupportedImageError:
    return UnsupportedImageError(f"the {kind} {what}: save the image as an ordinary 8-bit JPEG or PNG")


@dataclass(frozen=True)
class Header:
    """What the bytes say about the picture (sizes in pixels, as stored, before the orientation is applied)."""

    format: str  # "JPEG", "PNG", "WebP", "BMP" or "TIFF"
    width: int
    height: int
    pixels: int  # the most a decoder holds at once: more than width * height for a TIFF with large tiles
    orientation: int = 1  # EXIF, 1 to 8; 1 (as stored) when absent or senseless
    has_alpha: bool = False  # the decoder returns transparency as a fourth channel
    premultiplied: bool = False  # ... and colours that are already multiplied by it (some TIFF)
    grey_key: int | None = None  # the decoded grey level that means "transparent" (some grey PNG)
    orientation_entry: int | None = None  # where a TIFF keeps its orientation, so that a copy can be set to 1


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
        raise _damaged("file", "is empty")
    readers = {b"\xff\xd8": _jpeg, b"\x89P": _png, b"RI": _webp, b"II": _tiff, b"MM": _tiff, b"BM": _bmp}
    if _SIGNATURE.match(data):
        return readers[data[:2]](data)
    if data[:4] in (b"II+\0", b"MM\0+"):
        raise _unsupported("TIFF", "is a BigTIFF, which is not read here")
    raise UnsupportedImageError(f"{_describe(data)}: use a JPEG, PNG, WebP, BMP or TIFF image")


# A BMP's two letters could begin a text; its header size, below 256, tells.  JPEG needs only the two bytes.
_SIGNATURE = re.compile(rb"\xff\xd8|\x89PNG|RIFF....WEBP|II\*\0|MM\0\*|BM(?:.{13}\0\0\0|.{0,15}\Z)", re.DOTALL)
_MAGIC = (  # (offset, bytes, name) of what people hand over by mistake
    (0, b"GIF8", "a GIF file"),
    (0, b"%PDF", "a PDF document"),
    (128, b"DICM", "a DICOM file"),
    (0, b"PK\x03\x04", "a ZIP archive (or an Office document)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"jP  \r\n", "a JPEG 2000 image"),
    (0, b"RIFF", "a sound or video file"),
)


def _describe(data: bytes) -> str:
    """Say what an unreadable file probably is."""
    if data[4:8] == b"ftyp":
        brands = data[8:64]
        name = "an AVIF" if b"avi" in brands else "a HEIC" if re.search(rb"he[iv]|mif1|msf1", brands) else "a video"
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


def _unpack(layout: str, data: bytes, offset: int, where: str) -> tuple[int, ...]:
    """``struct.unpack_from`` that reports reading past the end as a cut-off file."""
    if offset < 0 or offset + struct.calcsize(layout) > len(data):
        raise _damaged(where, "is cut off or corrupt")
    return struct.unpack_from(layout, data, offset)


def _check_size(kind: str, width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise _damaged(kind, f"claims {width} x {height} pixels, outside the possible 1 to {MAX_SIDE} a side")


_EOI, _SOI, _SOS, _APP1, _APP14 = 0xD9, 0xD8, 0xDA, 0xE1, 0xEE
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # C4, C8 and CC are tables, not frames
_SOF_READ = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive with Huffman codes
_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and the restart markers stand alone
_MARKER = re.compile(rb"\xff[\x01-\xfe]")  # like libjpeg, skips padding and stray bytes between segments
_MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # FF 00 is data and FF D0..D7 are restarts inside a scan


def _jpeg(data: bytes) -> Header:
    cut = _damaged("JPEG", "is cut off (it ends before its end marker)")
    pos, pattern, scans, adobe, orientation = 2, _MARKER, 0, False, 0
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
        (length,) = _unpack(">H", data, pos, "JPEG")
        start, pos = pos + 2, pos + length
        if pos > len(data):
            raise cut
        if length < 2 or marker == _SOI:
            raise _damaged("JPEG", "has a corrupt segment")
        if marker in _SOF:
            if frame is not None:
                raise _damaged("JPEG", "states its size more than once")
            frame = _jpeg_frame(marker, data[start:pos])
        elif marker == _SOS:
            scans, pattern = scans + 1, _MARKER_IN_SCAN
        elif marker == _APP1 and not orientation and data.startswith(b"Exif\0\0", start, pos):
            orientation = _exif_orientation(data[start:pos])
        elif marker == _APP14:
            adobe = adobe or data.startswith(b"Adobe", start, pos)
    else:
        raise _damaged("JPEG", f"has more than {MAX_SEGMENTS} segments")
    if frame is None or not scans:
        raise _damaged("JPEG", "has no image in it")
    if scans > MAX_SCANS:
        raise _unsupported("JPEG", f"has more than {MAX_SCANS} scans")
    width, height, components = frame
    if components == 4 and not adobe:  # without Adobe's marker nothing says whether 0 means no ink or full ink
        raise _unsupported("JPEG", "is CMYK without a word on what its colours mean")
    return Header("JPEG", width, height, width * height, orientation or 1)


def _jpeg_frame(marker: int, body: bytes) -> tuple[int, int, int]:
    if marker not in _SOF_READ:
        raise _unsupported("JPEG", "is lossless, hierarchical or arithmetic-coded")
    bits, height, width, components = _unpack(">BHHB", body, 0, "JPEG frame header")
    _check_size("JPEG", width, height)
    if bits != 8 or components not in (1, 3, 4):
        raise _unsupported("JPEG", f"has {components} colour components of {bits} bits")
    return width, height, components


def _exif_orientation(blob: bytes) -> int:
    """Return the orientation 1..8 of an EXIF block (with or without ``Exif\\0\\0``); 1 if it is absent or damaged."""
    blob = blob.removeprefix(b"Exif\0\0")
    if blob[:4] not in _TIFF_MAGIC:
        return 1
    try:
        return _Ifd(blob).orientation()
    except DamagedImageError:
        return 1


_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type


def _png(data: bytes) -> Header:
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise _damaged("PNG", "has a corrupt signature, as when copied in text mode")
    pos, width, height, bits, colour, orientation = 8, 0, 0, 0, 0, 1
    seen: set[bytes] = set()
    transparency: bytes | None = None
    for number in range(MAX_CHUNKS):
        end = pos + 12 + _unpack(">I", data, pos, "PNG")[0]
        if end > len(data):
            raise _damaged("PNG", "is cut off (it ends before its last chunk)")
        kind, body = data[pos + 4 : pos + 8], data[pos + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, end - 4)[0]:
            raise _damaged("PNG", f"is corrupt (checksum of chunk {kind!a})")
        if (kind == b"IHDR") != (number == 0):
            raise _damaged("PNG's", "first chunk is not its header, or it has two")
        if kind == b"IHDR":
            width, height, bits, colour, *methods = _unpack(">IIBBBBB", body, 0, "PNG header")
            _check_size("PNG", width, height)
            if len(body) != 13 or bits not in _PNG_DEPTHS.get(colour, ()) or methods[:2] != [0, 0] or methods[2] > 1:
                raise _damaged("PNG's", "header is senseless")
        elif kind == b"acTL":
            raise _unsupported("PNG", "is an animation")
        elif kind == b"eXIf":
            orientation = _exif_orientation(body)
        elif kind == b"tRNS":
            transparency = body
        seen.add(kind)
        pos = end
        if kind == b"IEND":
            break
    if not seen >= {b"IDAT", b"IEND"} or (colour == 3 and b"PLTE" not in seen):
        raise _damaged("PNG", f"has no image data, no palette or more than {MAX_CHUNKS} chunks")
    grey_key = None
    if transparency is not None and colour == 0:  # OpenCV drops this kind of transparency
        (level,) = _unpack(">H", transparency, 0, "PNG transparency")
        grey_key = level if bits == 16 else (level & (2**bits - 1)) * (255 // (2**bits - 1))
    has_alpha = colour in (4, 6) or (transparency is not None and colour in (2, 3))
    return Header("PNG", width, height, width * height, orientation, has_alpha, grey_key=grey_key)


def _webp(data: bytes) -> Header:
    limit = 8 + _unpack("<I", data, 4, "WebP")[0]
    canvas: tuple[int, ...] | None = None
    frames: list[tuple[int, int]] = []
    orientation, alpha, pos = 1, False, 12
    for _ in range(MAX_CHUNKS):
        if pos + 8 > limit:
            break
        kind, length = data[pos : pos + 4], _unpack("<I", data, pos + 4, "WebP")[0]
        body, pos = data[pos + 8 : pos + 8 + length], pos + 8 + length + (length & 1)
        if pos - (length & 1) > min(limit, len(data)):
            raise _damaged("WebP", "is cut off")
        if kind == b"VP8X":
            flags, *sides = _unpack("<BxxxHBHB", body, 0, "WebP header")
            canvas = (sides[0] + (sides[1] << 16) + 1, sides[2] + (sides[3] << 16) + 1)
            alpha = alpha or bool(flags & 0x10)
            if flags & 0x02:
                raise _unsupported("WebP", "is an animation")
        elif kind in (b"VP8 ", b"VP8L"):
            width, height, transparent = _webp_frame(kind, body)
            frames.append((width, height))
            alpha = alpha or transparent
        elif kind == b"EXIF":
            orientation = _exif_orientation(body)
    if len(frames) != 1:
        raise _damaged("WebP", f"holds {len(frames)} pictures instead of one")
    if canvas and canvas != frames[0]:  # a bomb could announce one size and decode another
        raise _damaged("WebP", "claims {} x {} pixels and holds {} x {}".format(*canvas, *frames[0]))
    _check_size("WebP", *frames[0])
    return Header("WebP", *frames[0], frames[0][0] * frames[0][1], orientation, alpha)


def _webp_frame(kind: bytes, head: bytes) -> tuple[int, int, bool]:
    if kind == b"VP8L":
        signature, packed = _unpack("<BI", head, 0, "WebP image")
        if signature == 0x2F and packed >> 29 == 0:
            return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, bool(packed >> 28)
    elif head[3:6] == b"\x9d\x01\x2a" and not head[0] & 1:
        width, height = _unpack("<HH", head, 6, "WebP image")
        return width & 0x3FFF, height & 0x3FFF, False
    raise _damaged("WebP's", "image data is corrupt")


# (bits a pixel, red, green, blue) that OpenCV reads correctly
_BMP_MASKS = {(32, 0xFF0000, 0xFF00, 0xFF), (16, 0xF800, 0x07E0, 0x001F), (16, 0x7C00, 0x03E0, 0x001F)}


def _bmp(data: bytes) -> Header:
    (offset, dib) = _unpack("<II", data, 10, "BMP header")
    if dib not in (12, 40, 52, 56, 64, 108, 124):
        raise _unsupported("BMP", f"has an unknown header ({dib} bytes)")
    layout = "<HHHH" if dib == 12 else "<iiHHI"
    width, height, _, bits, compression = (*_unpack(layout, data, 18, "BMP header"), 0)[:5]
    height, alpha = abs(height), 0  # negative: the top row comes first
    _check_size("BMP", width, height)
    if bits not in (1, 4, 8, 16, 24, 32) or compression not in (0, 3):
        raise _unsupported("BMP", f"has an unusual layout ({bits} bits a pixel, compression {compression})")
    if compression == 3:  # the colours' places are given as masks, and the alpha mask only by the longer headers
        if (bits, *_unpack("<III", data, 54, "BMP header")) not in _BMP_MASKS:
            raise _unsupported("BMP", "stores its colours in an unusual layout")
        alpha = _unpack("<I", data, 66, "BMP header")[0] if dib >= 56 else 0
    if offset < 14 + dib or offset + (width * bits + 31) // 32 * 4 * height > len(data):  # rows are padded to 4 bytes
        raise _damaged("BMP", "is cut off (its pixels lie outside the file or in the header)")
    return Header("BMP", width, height, width * height, has_alpha=bool(alpha))


_TIFF_MAGIC = (b"II*\0", b"MM\0*")
_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}  # unsigned integers of 1, 2 and 4 bytes; the tags below have no other
_TIFF_LISTS = frozenset({258, 273, 279, 324, 325, 338, 339})  # bits, strips, tiles, extra samples, sample format
_TIFF_TAGS = _TIFF_LISTS | {256, 257, 259, 262, 274, 277, 278, 284, 322, 323}
_TIFF_COMPRESSION = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})  # none, fax, LZW, JPEG, deflate, PackBits
_TIFF_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # colour samples by photometric interpretation


class _Ifd:
    """The first directory of a classic TIFF; values are read on demand and within the file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        (start,) = _unpack(self.order + "I", data, 4, "TIFF header")
        (count,) = _unpack(self.order + "H", data, start, "TIFF directory")
        _unpack(f"{12 * count}x", data, start + 2, "TIFF directory")
        self.entries: dict[int, tuple[int, int, int]] = {}
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(self.order + "HHI", data, entry)
            if tag not in _TIFF_TAGS:
                continue
            scalar = number == 1 or tag in _TIFF_LISTS
            if tag in self.entries or kind not in _TIFF_TYPES or not number or not scalar:  # 2 sizes could hide a bomb
                raise _damaged("TIFF", f"has a senseless directory (tag {tag})")
            inline = struct.calcsize(_TIFF_TYPES[kind]) * number <= 4
            where = entry + 8 if inline else _unpack(self.order + "I", data, entry + 8, "TIFF")[0]
            self.entries[tag] = (kind, number, where)

    def values(self, tag: int, at_most: int) -> tuple[int, ...]:
        """Up to ``at_most`` values of a tag; none if it is absent."""
        kind, number, where = self.entries.get(tag, (1, 0, 0))
        layout = f"{self.order}{min(number, at_most)}{_TIFF_TYPES[kind]}"
        return _unpack(layout, self.data, where, "TIFF") if number else ()

    def one(self, tag: int, default: int) -> int:
        return next(iter(self.values(tag, 1)), default)

    def orientation(self) -> int:
        return value if 1 <= (value := self.one(274, 1)) <= 8 else 1


def _tiff(data: bytes) -> Header:
    ifd = _Ifd(data)
    width, height = ifd.one(256, 0), ifd.one(257, 0)
    _check_size("TIFF", width, height)
    samples, photometric, planar = ifd.one(277, 1), ifd.one(262, -1), ifd.one(284, 1)
    depths, extra = set(ifd.values(258, 16)) or {1}, ifd.one(338, 0)
    bits = max(depths)
    if set(ifd.values(339, 16)) - {1}:
        raise _unsupported("TIFF", "holds measurements (floating-point or signed), not a photo")
    if photometric not in _TIFF_SAMPLES or ifd.one(259, 1) not in _TIFF_COMPRESSION:
        raise _unsupported("TIFF", f"has unusual colours ({photometric}) or an unusual compression ({ifd.one(259, 1)})")
    colours = _TIFF_SAMPLES[photometric]
    known = samples in ((3, 4) if photometric == 2 else (colours,)) and len(depths) == 1
    known = known and bits in ((1, 8, 16) if colours == 1 else (8, 16))
    if not known or (bits == 16 and (photometric not in (1, 2) or planar != 1)):  # OpenCV 5.0 gets the latter wrong
        raise _unsupported("TIFF", f"has an unusual layout ({samples} x {bits} bits, photometric {photometric})")
    block = _tiff_blocks(ifd, len(data), width, height, samples, bits, planar)
    alpha = samples > colours and extra in (1, 2)
    premultiplied = alpha and (bits == 8 or extra == 1)  # libtiff's 8-bit reader multiplies by alpha itself
    entry = ifd.entries[274][2] - 8 if 274 in ifd.entries else None
    pixels = max(width * height, block)
    return Header("TIFF", width, height, pixels, ifd.orientation(), alpha, premultiplied, orientation_entry=entry)


def _tiff_blocks(ifd: _Ifd, length: int, width: int, height: int, samples: int, bits: int, planar: int) -> int:
    """Check that the strips or tiles lie within the file; return the pixels of one of them."""
    tiled = 322 in ifd.entries or 323 in ifd.entries or 324 in ifd.entries
    if tiled:
        across, down = ifd.one(322, 0), ifd.one(323, 0)
        _check_size("TIFF tile", across, down)
    else:
        across, down = width, min(ifd.one(278, height) or height, height)
    blocks = -(-width // across) * -(-height // down) * (samples if planar == 2 else 1)
    if blocks > MAX_STRIPS:
        raise _unsupported("TIFF", f"is in more than {MAX_STRIPS} pieces")
    offsets, counts = (ifd.values(tag, blocks) for tag in ((324, 325) if tiled else (273, 279)))
    if len(offsets) < blocks or len(counts) < blocks:
        raise _damaged("TIFF", "does not say where its image data is")
    spans = sorted(zip(offsets, counts, strict=True))
    if any(a[0] + a[1] > b[0] for a, b in pairwise([*spans, (length, 0)])):  # bombs use the same data many times
        raise _damaged("TIFF", "is cut off (its image data overlaps or lies beyond the end of the file)")
    row = -(-across * bits * (samples if planar != 2 else 1) // 8)  # bytes
    rows = blocks * down if tiled else height * (samples if planar == 2 else 1)
    if ifd.one(259, 1) == 1 and ifd.one(262, 0) != 6 and sum(counts) < row * rows:  # neither compressed nor subsampled
        raise _damaged("TIFF", "has less image data than its size needs")
    return across * down
