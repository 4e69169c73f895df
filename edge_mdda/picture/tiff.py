"""Headers of TIFF files: the first directory, where its pixels lie, and what else the file holds."""

from __future__ import annotations

import struct
from itertools import pairwise

from edge_mdda.picture import exif
from edge_mdda.picture.parsing import ADOBE_RGB, MAX_PROFILE, Header, check_size, damaged, unpack, unsupported

MAX_STRIPS = 100_000  # TIFF strips or tiles; one strip a row is common
MAX_DIRECTORIES = 1000
ORIENTATION, PROFILE, KIND, OLD_KIND, DNG = 274, 34675, 254, 255, 50706  # tags
REDUCED, MASK = 1, 4  # bits of KIND: a smaller copy, a transparency mask
OLD_REDUCED = 2  # of OLD_KIND
_TYPES = {1: "B", 3: "H", 4: "I"}  # unsigned integers of 1, 2 and 4 bytes; the tags below have no other
_LISTS = frozenset({258, 273, 279, 324, 325, 338, 339})  # bits, strips, tiles, extra samples, sample format
_TAGS = _LISTS | {256, 257, 259, 262, 277, 278, 284, 322, 323}
_COMPRESSION = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})  # none, fax, LZW, JPEG, deflate, PackBits
_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # colour samples by photometric interpretation


class _Ifd:
    """The first directory of a classic TIFF; values are read on demand and within the file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        (start,) = unpack(self.order + "I", data, 4, "TIFF header")
        (count,) = unpack(self.order + "H", data, start, "TIFF directory")
        unpack(f"{12 * count}x", data, start + 2, "TIFF directory")
        self.start, self.count = start, count
        self.orientation_entry: int | None = None
        self.profile: bytes | None = None
        self.is_raw = data[8:10] == b"CR"  # Canon's; others have a small JPEG as their first picture
        self.entries: dict[int, tuple[int, int, int]] = {}
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(self.order + "HHI", data, entry)
            if tag == ORIENTATION and self.orientation_entry is None:
                self.orientation_entry = entry
            elif tag == PROFILE:
                self.profile = self._profile(number, unpack(self.order + "I", data, entry + 8, "TIFF")[0])
            elif tag == DNG or (tag in (KIND, OLD_KIND) and self._is_copy(entry)):
                self.is_raw = True
            if tag not in _TAGS and (tag != ORIENTATION or self.orientation_entry == entry):
                continue
            scalar = number == 1 or tag in _LISTS
            if tag in self.entries or kind not in _TYPES or not number or not scalar:  # 2 sizes could hide a bomb
                raise damaged("TIFF", f"has a senseless directory (tag {tag})")
            inline = struct.calcsize(_TYPES[kind]) * number <= 4
            where = entry + 8 if inline else unpack(self.order + "I", data, entry + 8, "TIFF")[0]
            self.entries[tag] = (kind, number, where)

    def values(self, tag: int, at_most: int) -> tuple[int, ...]:
        """Up to ``at_most`` values of a tag; none if it is absent."""
        kind, number, where = self.entries.get(tag, (1, 0, 0))
        layout = f"{self.order}{min(number, at_most)}{_TYPES[kind]}"
        return unpack(layout, self.data, where, "TIFF") if number else ()

    def one(self, tag: int, default: int) -> int:
        return next(iter(self.values(tag, 1)), default)

    def _profile(self, length: int, where: int) -> bytes:
        if not 4 < length <= MAX_PROFILE or where + length > len(self.data):
            raise damaged("TIFF's", "colour profile lies outside the file")
        return self.data[where : where + length]

    def _is_copy(self, entry: int) -> bool:
        """Whether a directory's entry says that its picture is a smaller copy or a mask of another."""
        tag, kind = struct.unpack_from(self.order + "HH", self.data, entry)
        (value,) = struct.unpack_from(self.order + _TYPES.get(kind, "I"), self.data, entry + 8)
        return bool(value & (REDUCED | MASK)) if tag == KIND else tag == OLD_KIND and value == OLD_REDUCED

    def other_pictures(self) -> int:
        """How many pictures follow the first one, smaller copies and masks of it left out."""
        seen, others = {self.start}, 0
        at, count = self.start, self.count
        while True:
            # The last link may be missing: some programs end the file there.
            link = at + 2 + 12 * count
            following = unpack(self.order + "I", self.data, link, "TIFF")[0] if link + 4 <= len(self.data) else 0
            if not following:
                return others
            if following in seen or len(seen) > MAX_DIRECTORIES:
                raise damaged("TIFF", "has directories that go round in a circle, or too many")
            seen.add(at := following)
            (count,) = unpack(self.order + "H", self.data, at, "TIFF directory")
            unpack(f"{12 * count}x", self.data, at + 2, "TIFF directory")
            others += not any(self._is_copy(entry) for entry in range(at + 2, at + 2 + 12 * count, 12))


def read_tiff(data: bytes) -> Header:
    """Check the first directory; the errors are those of ``read_header``."""
    ifd = _Ifd(data)
    if ifd.is_raw:  # what could be decoded here is a camera's small preview, with the camera's own colours
        raise unsupported("TIFF", "is a camera's raw file, or begins with a small preview")
    if others := ifd.other_pictures():  # a lesion on the second page must not go unseen
        raise unsupported("TIFF", f"holds {others + 1} pictures, and one is judged at a time")
    width, height = ifd.one(256, 0), ifd.one(257, 0)
    check_size("TIFF", width, height)
    samples, photometric, planar = ifd.one(277, 1), ifd.one(262, -1), ifd.one(284, 1)
    depths, extra = set(ifd.values(258, 16)) or {1}, ifd.one(338, 0)
    bits = max(depths)
    if set(ifd.values(339, 16)) - {1}:
        raise unsupported("TIFF", "holds measurements (floating-point or signed), not a photo")
    if photometric not in _SAMPLES or ifd.one(259, 1) not in _COMPRESSION:
        raise unsupported("TIFF", f"has unusual colours ({photometric}) or an unusual compression ({ifd.one(259, 1)})")
    colours = _SAMPLES[photometric]
    known = samples in ((3, 4) if photometric == 2 else (colours,)) and len(depths) == 1
    known = known and bits in ((1, 8, 16) if colours == 1 else (8, 16))
    if not known or (bits == 16 and (photometric not in (1, 2) or planar != 1)):  # OpenCV 5.0 gets the latter wrong
        raise unsupported("TIFF", f"has an unusual layout ({samples} x {bits} bits, photometric {photometric})")
    block = _blocks(ifd, len(data), width, height, samples, bits, planar)
    alpha = samples > colours and extra in (1, 2)
    premultiplied = alpha and (bits == 8 or extra == 1)  # libtiff's 8-bit reader multiplies by alpha itself
    return Header(
        "TIFF",
        width,
        height,
        max(width * height, block),
        exif.orientation(data) or 1,
        alpha,
        premultiplied,
        orientation_entry=ifd.orientation_entry,
        profile=ifd.profile,
        primaries=ADOBE_RGB if ifd.profile is None and exif.is_adobe_rgb(data) else None,
    )


def _blocks(ifd: _Ifd, length: int, width: int, height: int, samples: int, bits: int, planar: int) -> int:
    """Check that the strips or tiles lie within the file; return the pixels of one of them."""
    tiled = 322 in ifd.entries or 323 in ifd.entries or 324 in ifd.entries
    if tiled:
        across, down = ifd.one(322, 0), ifd.one(323, 0)
        check_size("TIFF tile", across, down)
    else:
        across, down = width, min(ifd.one(278, height) or height, height)
    blocks = -(-width // across) * -(-height // down) * (samples if planar == 2 else 1)
    if blocks > MAX_STRIPS:
        raise unsupported("TIFF", f"is in more than {MAX_STRIPS} pieces")
    offsets, counts = (ifd.values(tag, blocks) for tag in ((324, 325) if tiled else (273, 279)))
    if len(offsets) < blocks or len(counts) < blocks:
        raise damaged("TIFF", "does not say where its image data is")
    spans = sorted(zip(offsets, counts, strict=True))
    if any(a[0] + a[1] > b[0] for a, b in pairwise([*spans, (length, 0)])):  # bombs use the same data many times
        raise damaged("TIFF", "is cut off (its image data overlaps or lies beyond the end of the file)")
    row = -(-across * bits * (samples if planar != 2 else 1) // 8)  # bytes
    rows = blocks * down if tiled else height * (samples if planar == 2 else 1)
    if ifd.one(259, 1) == 1 and ifd.one(262, 0) != 6 and sum(counts) < row * rows:  # neither compressed nor subsampled
        raise damaged("TIFF", "has less image data than its size needs")
    return across * down
