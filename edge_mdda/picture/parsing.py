"""What all readers of headers share: what a header says, and reading bytes within a file's bounds."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edge_mdda.errors import DamagedImageError, UnsupportedImageError

MAX_CHUNKS = 100_000  # PNG or WebP chunks; a 32 MiB PNG in the usual 8 KiB chunks has 4,096
MAX_SIDE = 2**20  # pixels; OpenCV refuses longer sides
MAX_PROFILE = 4 * 2**20  # bytes of a colour profile; those of displays and cameras have 0.5 to 60 thousand


def damaged(kind: str, what: str) -> DamagedImageError:
    """A file that contradicts itself or ends early."""
    return DamagedImageError(f"the {kind} {what}: copy or export the file again")


def unsupported(kind: str, what: str) -> UnsupportedImageError:
    """A variant that is not read here."""
    return UnsupportedImageError(f"the {kind} {what}: save the image as an ordinary 8-bit JPEG or PNG")


SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # IEC 61966-2-1; x, y of white, red, green, blue


@dataclass(frozen=True)
class Primaries:
    """Colours that are given by numbers instead of a profile."""

    exponent: float | None = None
    """Light is the pixel's value to this power; None: as sRGB."""
    chromaticities: tuple[float, ...] = SRGB_PRIMARIES
    """CIE 1931 x and y of white, red, green and blue."""


ADOBE_RGB = Primaries(563 / 256, (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06))  # Adobe RGB (1998)
DISPLAY_P3 = Primaries(None, (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060))  # SMPTE EG 432-1, D65


@dataclass(frozen=True)
class Header:
    """What the bytes say about the picture (sizes in pixels, as stored, before the orientation is applied)."""

    format: str  # "JPEG", "PNG", "WebP", "BMP", "TIFF", "HEIC", "DICOM" or, within it, "JPEG 2000"
    width: int
    height: int
    pixels: int  # the most a decoder holds at once: more than width * height for a TIFF with large tiles
    orientation: int = 1  # EXIF, 1 to 8; 1 (as stored) when absent or senseless
    has_alpha: bool = False  # the decoder returns transparency as a fourth channel
    premultiplied: bool = False  # ... and colours that are already multiplied by it (some TIFF)
    grey_key: int | None = None  # the decoded grey level that means "transparent" (some grey PNG)
    orientation_entry: int | None = None  # where a TIFF keeps its orientation, so that a copy can be set to 1
    profile: bytes | None = None  # ICC profile of the colours; None: sRGB, or the primaries
    primaries: Primaries | None = None  # colours given by numbers; None: sRGB, or the profile


def unpack(layout: str, data: bytes, offset: int, where: str) -> tuple[int, ...]:
    """``struct.unpack_from`` that reports reading past the end as a cut-off file."""
    if offset < 0 or offset + struct.calcsize(layout) > len(data):
        raise damaged(where, "is cut off or corrupt")
    return struct.unpack_from(layout, data, offset)


def check_size(kind: str, width: int, height: int) -> None:
    """Refuse sides that no picture has."""
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise damaged(kind, f"claims {width} x {height} pixels, outside the possible 1 to {MAX_SIDE} a side")
