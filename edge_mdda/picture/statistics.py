"""Numbers that tell a dermatoscope's picture of a lesion from a spoiled one, and from what is no lesion.

All are taken at the network's size. They know nothing of the diagnosis; ``python -m benchmarks.inputs fit`` takes them
from photographs of several sources and writes what is usual into ``usual.json``.
"""

from __future__ import annotations

import numpy as np

DARK_LEVEL = 14  # grey levels of the brightest channel; below it lies no skin, only the border of the field of view
BURNT_LEVEL = 252  # grey levels of the darkest channel
OPEN_SHARE = 0.05  # of the pixels; below it a share says nothing
BLOCK = 8  # pixels a side of what JPEG codes together
BLOCKS_SIDE = 512  # pixels; the middle part of this size tells
LEAST_STEP = 0.5  # grey levels; keeps a nearly flat picture from showing blocks
FLOOR = 0.05  # grey levels; logarithms of energies begin here
NAMES = (
    "light", "dark_end", "light_end", "log_contrast", "red_green", "green_blue", "log_colour", "log_fine", "log_middle",
    "log_coarse", "fine_share", "fine_least", "centre", "log_grain_direction", "lattice", "log_hue",
)  # fmt: skip
"""Names of the statistics, in the order of :func:`statistics`."""


def border_share(pixels: np.ndarray) -> float:
    """Share of the pixels that are black: outside a round field of view, a letterbox, a covered lens."""
    red, green, blue = np.moveaxis(pixels, 2, 0)  # five times as fast as a maximum over the last axis
    return float((np.maximum(np.maximum(red, green), blue) < DARK_LEVEL).mean())


def burnt_share(pixels: np.ndarray) -> float:
    """Share of the pixels that are white in all channels."""
    red, green, blue = np.moveaxis(pixels, 2, 0)
    return float((np.minimum(np.minimum(red, green), blue) > BURNT_LEVEL).mean())


def blocking(pixels: np.ndarray) -> float:
    """How much steeper green is between the blocks of 8 x 8 of a JPEG than within them: 0 not at all, 1 twice as steep.

    Measured on the picture as it was stored, in its middle: shrinking hides the blocks and the loss of detail.
    Both directions must show it, wherever the blocks begin, since a cut picture's do not begin at its corner.
    """
    top, left = (max(0, (side - BLOCKS_SIDE) // 2) for side in pixels.shape[:2])
    plane = pixels[top : top + BLOCKS_SIDE, left : left + BLOCKS_SIDE, 1].astype(np.int16)
    excess = []
    for axis in (0, 1):
        steps = np.abs(np.diff(plane, axis=axis)).mean(axis=1 - axis)
        whole = len(steps) // BLOCK * BLOCK
        if whole < 2 * BLOCK:
            return 0.0
        by_place = steps[:whole].reshape(-1, BLOCK).mean(axis=0)
        usual = float(np.median(by_place))
        excess.append((float(by_place.max()) - usual) / (usual + LEAST_STEP))
    return min(excess)


def _halved(plane: np.ndarray) -> np.ndarray:
    h, w = plane.shape[0] & ~1, plane.shape[1] & ~1
    plane = plane[:h, :w]
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) * np.float32(0.25)


def light_ends(pixels: np.ndarray) -> tuple[float, float, float]:
    """Grey levels of red, green and blue that 5 % of a coarse view are lighter than."""
    red, green, blue = (
        float(np.percentile(_halved(_halved(_halved(pixels[..., c].astype(np.float32)))), 95)) for c in range(3)
    )
    return red, green, blue


def _slope(plane: np.ndarray) -> tuple[float, float]:
    """Root mean square differences across and down."""
    return (
        float(np.sqrt(np.square(np.diff(plane, axis=1)).mean())),
        float(np.sqrt(np.square(np.diff(plane, axis=0)).mean())),
    )


def statistics(pixels: np.ndarray) -> np.ndarray:
    """The statistics of ``NAMES`` for one picture.

    Parameters
    ----------
    pixels : ndarray
        (h, w, 3) uint8 RGB at the network's size.

    Returns
    -------
    ndarray
        (len(NAMES),) float32; grey levels, logarithms of grey levels, or shares.
    """
    image = pixels.astype(np.float32)
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    coarse = luma
    for _ in range(3):
        coarse = _halved(coarse)
    ends = np.percentile(coarse, (5, 50, 95))
    red_green, green_blue = red - green, green - blue
    colour = float(np.sqrt(red_green.var() + green_blue.var()))
    # What is left of the colour once its part that follows the light is taken out: nothing in a toned grey picture.
    light = (luma - luma.mean()) / max(float(luma.std()), FLOOR)
    left = [plane - plane.mean() - (plane * light).mean() * light for plane in (red_green, green_blue)]
    hue = float(np.sqrt(left[0].var() + left[1].var()))
    slopes, plane = [], luma
    for _ in range(3):
        slopes.append(_slope(plane))
        plane = _halved(plane)
    levels = np.hypot(*np.array(slopes).T) + FLOOR
    fine, coarser = (np.array(slopes[k]) + FLOOR for k in (0, 2))
    directions = abs(np.log(fine[0] / fine[1]))
    h, w = coarse.shape
    inner = coarse[h // 4 : h - h // 4, w // 4 : w - w // 4].mean()
    spectrum = np.abs(np.fft.rfft2(luma[::2, ::2] - luma.mean()))
    spectrum[:4], spectrum[-3:], spectrum[:, :4] = 0, 0, 0
    peaked = float(spectrum.max() / (np.sqrt(np.square(spectrum).mean()) + FLOOR))
    values = (
        ends[1], ends[0], ends[2], np.log(float(coarse.std()) + FLOOR), red_green.mean(), green_blue.mean(),
        np.log(colour + FLOOR), *np.log(levels), np.log(levels[0] / levels[2]), np.log(fine / coarser).min(),
        float(inner - coarse.mean()), directions, np.log(peaked + FLOOR), np.log(hue + FLOOR),
    )  # fmt: skip
    return np.array(values, np.float32)
