"""ICC profiles of the kind that cameras, displays and editors embed: three curves and a matrix, or one curve for grey.

Profiles with tables (printers, some scanners) are refused with a line that says what to do: applying them needs a
colour engine, and taking their colours for sRGB could hide a lesion's.

References
----------
International Color Consortium, "Specification ICC.1:2022 (profile version 4.4)", 2022.
"""

from __future__ import annotations

import struct

import numpy as np

from edge_mdda.errors import UnsupportedImageError
from edge_mdda.picture.parsing import damaged, unpack

HEADER, ENTRY = 128, 12  # bytes
MAX_TAGS = 1000
LEVELS = 256
D50 = (0.9642, 1.0, 0.8249)  # XYZ of the white that profiles are relative to
_PARAMETERS = (1, 3, 4, 5, 7)  # of the parametric curve types 0 to 4, ICC.1 table 68
_FIXED = 65536.0  # s15Fixed16Number
_NAME = "picture's colour profile"


def _refuse(what: str) -> UnsupportedImageError:
    return UnsupportedImageError(f"the colour profile {what} and cannot be applied here: save the image in sRGB")


class Profile:
    """Curves and matrix of a profile.

    Attributes
    ----------
    light : ndarray
        (3, 256) float64, light of each level of red, green and blue, 0 to 1.
    to_xyz : ndarray
        (3, 3) float64, from light to XYZ relative to D50.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        if len(data) < HEADER + 4 or data[36:40] != b"acsp":
            raise damaged(_NAME, "is corrupt")
        space, connection = data[16:20], data[20:24]
        self._tags = self._read_tags()
        if space not in (b"RGB ", b"GRAY"):
            raise _refuse(f"is for {printable(space)}")
        if space == b"GRAY":
            self.light = np.tile(self._curve(b"kTRC"), (3, 1))
            self.to_xyz = np.diag(D50)
            return
        if connection != b"XYZ " or b"A2B0" in self._tags or b"rXYZ" not in self._tags:
            raise _refuse("holds tables")
        self.light = np.stack([self._curve(name) for name in (b"rTRC", b"gTRC", b"bTRC")])
        self.to_xyz = np.stack([self._xyz(name) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
        if abs(np.linalg.det(self.to_xyz)) < 1e-6:
            raise damaged(_NAME, "is senseless (its primaries lie on a line)")

    def _read_tags(self) -> dict[bytes, tuple[int, int]]:
        (count,) = unpack(">I", self._data, HEADER, _NAME)
        if count > MAX_TAGS:
            raise damaged(_NAME, "is corrupt")
        unpack(f"{count * ENTRY}x", self._data, HEADER + 4, _NAME)
        tags = {}
        for number in range(count):
            name, where, length = struct.unpack_from(">4sII", self._data, HEADER + 4 + number * ENTRY)
            tags[name] = (where, length)
        return tags

    def _place(self, name: bytes) -> int:
        if name not in self._tags:
            raise damaged(_NAME, f"lacks {printable(name)}")
        return self._tags[name][0]

    def _xyz(self, name: bytes) -> np.ndarray:
        kind, *values = unpack(">4s4x3i", self._data, self._place(name), _NAME)
        if kind != b"XYZ ":
            raise damaged(_NAME, "is corrupt")
        return np.array(values) / _FIXED

    def _curve(self, name: bytes) -> np.ndarray:
        """(256,) light of each level."""
        place = self._place(name)
        kind, number = unpack(">4s4xI", self._data, place, _NAME)
        x = np.linspace(0, 1, LEVELS)
        if kind == b"curv" and number <= 1:
            exponent = unpack(">H", self._data, place + 12, _NAME)[0] / 256 if number else 1.0
            y = x**exponent
        elif kind == b"curv":
            table = np.array(unpack(f">{min(number, 65536)}H", self._data, place + 12, _NAME)) / 65535
            y = np.interp(x, np.linspace(0, 1, len(table)), table)
        elif kind == b"para" and number >> 16 < len(_PARAMETERS):
            count = _PARAMETERS[number >> 16]
            y = _parametric(x, number >> 16, np.array(unpack(f">{count}i", self._data, place + 12, _NAME)) / _FIXED)
        else:
            raise damaged(_NAME, "is corrupt")
        if not np.isfinite(y).all() or y[-1] - y[0] < 0.1:
            raise damaged(_NAME, "is senseless (a curve that does not rise)")
        return y.clip(0, 1)


def _parametric(x: np.ndarray, kind: int, p: np.ndarray) -> np.ndarray:
    """The parametric curves of ICC.1, 10.18."""
    g, a, b, c, d, e, f = np.pad(p, (0, 7 - len(p))).tolist()
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # what is not finite is refused afterwards
        if kind == 0:
            return x**g
        power = np.maximum(a * x + b, 0) ** g
        if kind in (1, 2):
            offset = c if kind == 2 else 0.0
            return np.where(x >= (-b / a if a else 0.0), power + offset, offset)
        return np.where(x >= d, power + (e if kind == 4 else 0.0), c * x + (f if kind == 4 else 0.0))


def printable(name: bytes) -> str:
    """A four-letter code in a message."""
    return name.decode("ascii", "backslashreplace").strip() or "nothing"
