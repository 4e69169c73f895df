"""Between pixels and planes: unpack a channel, blend the scales, smooth a plane lightly, round and pack it back."""

from __future__ import annotations

from numpy import float32, uint8

from edge_mdda.mdda.kernels.aggregate import add_neighbours_row, weigh_row
from edge_mdda.mdda.kernels.registry import distinct, kernel, row_helper

WHITE = float32(255)
HALF = float32(0.5)
UP_DOWN_SIDE, UP_DOWN_CENTRE = float32(0.125), float32(0.75)
"""Mean of the two bilinear samples of a pixel at the scale twice as fine: FAR / 2, NEAR, FAR / 2."""


@kernel("void(u1[:, :, ::1], i8, f4[:, ::1])")
def unpack(rgb, channel, plane):
    """One channel of interleaved pixels as float32 grey levels 0..255."""
    for i in range(plane.shape[0]):
        row = plane[i]
        pixels = rgb[i]
        for j in range(plane.shape[1]):
            row[j] = float32(pixels[j, channel])


@distinct
@row_helper
def smooth_down(padded, above, here, below, side, centre):
    """Vertical half of the filter; ``padded`` has one replicated sample at either end."""
    w = len(here)
    for j in range(w):
        padded[j + 1] = side * (above[j] + below[j]) + centre * here[j]
    padded[0] = padded[1]
    padded[w + 1] = padded[w]


@distinct
@row_helper
def smooth_across(row, padded, side, centre):
    """Horizontal half."""
    for j in range(len(row)):
        row[j] = side * (padded[j] + padded[j + 2]) + centre * padded[j + 1]


@distinct
@row_helper
def add_smooth_across(row, padded, side, centre):
    """Horizontal half, added to ``row``."""
    for j in range(len(row)):
        row[j] += side * (padded[j] + padded[j + 2]) + centre * padded[j + 1]


@kernel("void(f4[:, ::1], f4[:, ::1], f4, f4[::1])")
def smooth(plane, out, side, padded):
    """Separable 3 x 3 filter with taps ``(side, 1 - 2 side, side)``, edges replicated.

    ``padded`` holds the width plus 2. ``side`` = 1/4 is the binomial filter, 0 the identity.
    """
    h, w = plane.shape
    centre = float32(1) - side - side
    for i in range(h):
        smooth_down(padded[: w + 2], plane[max(i - 1, 0)], plane[i], plane[min(i + 1, h - 1)], side, centre)
        smooth_across(out[i], padded[: w + 2], side, centre)


@kernel("void(f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4, f4, f4, f4, f4[::1])")
def blend(fine, here, coarse, out, w_fine, w_here, w_wide, w_coarse, scratch):
    """``out = w_fine * down(fine) + w_here * here + w_wide * down(up(here)) + w_coarse * up(coarse)``.

    Up and down again is the 3 x 3 filter with side 1/8, so the twice as large plane between is never made. ``out``
    must be none of the inputs; ``scratch`` holds the width plus 2.
    """
    h, w = here.shape
    for i in range(h):
        row = out[i]
        weigh_row(row, here[i], w_here)
        if w_wide > float32(0):
            side, centre = w_wide * UP_DOWN_SIDE, w_wide * UP_DOWN_CENTRE
            above, below = here[max(i - 1, 0)], here[min(i + 1, h - 1)]
            smooth_down(scratch[: w + 2], above, here[i], below, side, centre)
            add_smooth_across(row, scratch[: w + 2], UP_DOWN_SIDE, UP_DOWN_CENTRE)
        add_neighbours_row(row, i, fine, coarse, w_fine, w_coarse, scratch)


@kernel("void(f4[:, ::1], u1[:, :, ::1], i8)")
def pack(plane, rgb, channel):
    """Clip to 0..255, round half up and store as one channel of interleaved pixels."""
    for i in range(plane.shape[0]):
        row = plane[i]
        pixels = rgb[i]
        for j in range(plane.shape[1]):
            pixels[j, channel] = uint8(min(max(row[j], float32(0)), WHITE) + HALF)
