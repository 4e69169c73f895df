"""HEIC, the format of many telephones: read by pillow-heif where that package is installed.

Of the container only what bounds the decoder's work is looked at here: that it is all there, and the sizes in it.
"""

from __future__ import annotations

import io
import re
import struct
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edge_mdda.errors import UnsupportedImageError
from edge_mdda.picture.parsing import (
    DISPLAY_P3,
    MAX_CHUNKS,
    Header,
    Primaries,
    check_size,
    damaged,
    unpack,
    unsupported,
)

if TYPE_CHECKING:
    import numpy as np

_HEIC = re.compile(rb"he[iv][cxms]|mif1|msf1")  # brands
_FILMS = (b"hevc", b"hevx", b"hevm", b"hevs", b"msf1")
_SIZE = re.compile(rb"\0\0\0\x14ispe\0\0\0\0(.{8})", re.DOTALL)  # ISO/IEC 23008-12, 6.5.3
_BOX = 8  # bytes before a box's content


def is_heic(data: bytes) -> bool:
    """Whether the brands say so; AVIF has the same container."""
    return data[4:8] == b"ftyp" and b"avi" not in data[8:64] and _HEIC.search(data[8:64]) is not None


def read_heic(data: bytes) -> Header:
    """What libheif will be asked to decode: the largest of the sizes in the file, since tiles have one, too."""
    if find_spec("pillow_heif") is None:
        raise UnsupportedImageError(
            "this is a HEIC file, for which a package is missing: pip install 'edge-mdda[heic]', or save it as JPEG"
        )
    if data[8:12] in _FILMS:
        raise unsupported("HEIC", "is an animation")
    pos = 0
    for _ in range(MAX_CHUNKS):
        if pos == len(data):
            break
        (size,) = unpack(">I4x", data, pos, "HEIC")
        if size == 1:
            (size,) = unpack(">Q", data, pos + _BOX, "HEIC")
        if size and (size < _BOX or pos + size > len(data)):
            raise damaged("HEIC", "is cut off")
        pos = pos + size if size else len(data)
    sizes = [struct.unpack(">II", match[1]) for match in _SIZE.finditer(data)]
    if not sizes:
        raise damaged("HEIC", "does not state its size")
    for width, height in sizes:
        check_size("HEIC", width, height)
    width, height = max(sizes, key=lambda sides: sides[0] * sides[1])
    return Header("HEIC", width, height, width * height)


_SRGB_CODES, _P3_CODE = (1, 2), 12  # ITU-T H.273; 2 says nothing
_PHOTO_CURVES = (1, 2, 6, 13)  # of H.273; others are for high dynamic range


def decode_heic(data: bytes) -> tuple[np.ndarray, bytes | None, Primaries | None]:
    """The one picture, upright (libheif turns it): RGB or RGBA of 8 bits, its colour profile and its primaries.

    Raises
    ------
    ImageError
        Damaged, several pictures, or of high dynamic range.
    """
    import numpy as np
    import pillow_heif

    try:
        pictures = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        if len(pictures) != 1:
            raise unsupported("HEIC", f"holds {len(pictures)} pictures, and one is judged at a time")
        picture = pictures[0]
        pixels = np.asarray(picture)
    except (ValueError, RuntimeError, OSError, EOFError, SyntaxError) as error:
        if isinstance(error, UnsupportedImageError):
            raise
        raise damaged("HEIC's", "image data is corrupt") from None
    told: dict[str, Any] = dict(picture.info)
    if told.get("icc_profile"):
        return pixels, bytes(told["icc_profile"]), None
    codes = told.get("nclx_profile") or {}
    primaries, curve = int(codes.get("color_primaries", 2)), int(codes.get("transfer_characteristics", 2))
    if primaries not in (*_SRGB_CODES, _P3_CODE) or curve not in _PHOTO_CURVES:
        raise unsupported("HEIC", "has the colours of a film or of high dynamic range")
    return pixels, None, DISPLAY_P3 if primaries == _P3_CODE else None
