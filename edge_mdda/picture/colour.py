"""Colours to sRGB: what a picture's profile, or the numbers in its place, says that its levels mean.

The network was trained on sRGB. Taken for sRGB, pictures in Adobe RGB or Display P3 look dull, and some lesions benign.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edge_mdda.picture.icc import D50, LEVELS, Profile
from edge_mdda.picture.parsing import SRGB_PRIMARIES, Primaries, damaged

BAND_ROWS = 64  # rows converted at a time, so that the intermediates stay small
STEPS = 65535  # of light; sRGB is so steep near black that fewer would lose levels
MAX_CHANGE = 1  # grey levels; a profile that changes no colour by more is sRGB's, however it was written
LEAST_Y = 1e-5  # the unit of PNG; ProPhoto's blue has ten of it
MOST_GAIN = 100  # of light from one channel to another; ProPhoto, the widest in use, needs 2
_PROBE = 9  # levels a channel at which that is tried
# From XYZ to the cones' answers (ICC.1, annex E).
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def srgb_light(level: np.ndarray) -> np.ndarray:
    """Light of sRGB values, both 0 to 1 (IEC 61966-2-1)."""
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def _srgb_level(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def to_xyz(chromaticities: tuple[float, ...]) -> np.ndarray:
    """(3, 3) from light to XYZ relative to D50, for x and y of white, red, green and blue.

    Raises
    ------
    DamagedImageError
        They are no colours, or lie on a line.
    """
    white, *colours = (chromaticities[k : k + 2] for k in range(0, 8, 2))
    if any(not (0 <= x <= 1 and LEAST_Y <= y <= 1) for x, y in (white, *colours)):
        raise damaged("picture's colour description", "is senseless")
    columns = np.stack([_xyz(*xy) for xy in colours], axis=1)
    if abs(np.linalg.det(columns)) < 1e-6:
        raise damaged("picture's colour description", "is senseless")
    with np.errstate(all="ignore"):  # ToSrgb judges the outcome
        native = columns * np.linalg.solve(columns, _xyz(*white))
        cones = (_BRADFORD @ np.array(D50)) / (_BRADFORD @ _xyz(*white))
        adapted: np.ndarray = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ native
    return adapted


class ToSrgb:
    """Brings uint8 RGB to sRGB by tables: nine of light, one of levels."""

    def __init__(self, light: np.ndarray, matrix: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            to_srgb = np.linalg.solve(to_xyz(SRGB_PRIMARIES), matrix)
        if not np.abs(to_srgb).max() <= MOST_GAIN:  # not a number is not, either
            raise damaged("picture's colour description", "is senseless")
        self._light = np.round(to_srgb[:, :, None] * light[None] * STEPS).astype(np.int32)  # (to, from, level)
        self._level = np.round(_srgb_level(np.linspace(0, 1, STEPS + 1)) * (LEVELS - 1)).astype(np.uint8)

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 in place."""
        for top in range(0, len(rgb), BAND_ROWS):
            band = rgb[top : top + BAND_ROWS]
            channels = [np.ascontiguousarray(band[..., c]) for c in range(3)]
            for to in range(3):
                sums = sum(self._light[to, c].take(channels[c]) for c in range(3))
                band[..., to] = self._level.take(sums, mode="clip")
        return rgb

    def changes_nothing(self) -> bool:
        """Whether it is sRGB already, but for rounding."""
        steps = np.linspace(0, LEVELS - 1, _PROBE).astype(np.uint8)
        probe = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, _PROBE, 3)
        return int(np.abs(self(probe.copy()).astype(np.int16) - probe).max()) <= MAX_CHANGE


@lru_cache(maxsize=4)  # a folder's pictures mostly share one
def converter(profile: bytes | None, primaries: Primaries | None) -> ToSrgb | None:
    """What brings such a picture to sRGB; None where it is there already.

    Raises
    ------
    ImageError
        A corrupt profile, or one that needs more than curves and a matrix.
    """
    if profile is not None:
        found = Profile(profile)
        made = ToSrgb(found.light, found.to_xyz)
    elif primaries is not None:
        levels = np.linspace(0, 1, LEVELS)
        one = srgb_light(levels) if primaries.exponent is None else levels**primaries.exponent
        made = ToSrgb(np.tile(one, (3, 1)), to_xyz(primaries.chromaticities))
    else:
        return None
    return None if made.changes_nothing() else made
