"""Between pixels and planes: unpack a channel, smooth a plane lightly, round and pack it back."""

from __future__ import annotations

from numpy import float32, uint8

from edge_mdda.kernels.registry import kernel

WHITE = float32(255)
HALF = float32(0.5)


@kernel("void(u1[:, :, ::1], i8, f4[:, ::1])")
def unpack(rgb, channel, plane):
    """One channel of interleaved pixels as float32 grey levels 0..255."""
    for i in range(plane.shape[0]):
        row = plane[i]
        pixels = rgb[i]
        for j in range(plane.shape[1]):
            row[j] = float32(pixels[j, channel])


@kernel("void(f4[:, ::1], f4[:, ::1], f4, f4[::1])")
def smooth(plane, out, side, padded):
    """Separable 3 x 3 filter with taps ``(side, 1 - 2 side, side)``, edges replicated.

    ``padded`` holds the width plus 2. ``side`` = 1/4 is the binomial filter, 0 the identity.
    """
    h, w = plane.shape
    centre = float32(1) - side - side
    for i in range(h):
        above = plane[max(i - 1, 0)]
        here = plane[i]
        below = plane[min(i + 1, h - 1)]
        for j in range(w):
            padded[j + 1] = side * (above[j] + below[j]) + centre * here[j]
        padded[0] = padded[1]
        padded[w + 1] = padded[w]
        row = out[i]
        for j in range(w):
            row[j] = side * (padded[j] + padded[j + 2]) + centre * padded[j + 1]


@kernel("void(f4[:, ::1], u1[:, :, ::1], i8)")
def pack(plane, rgb, channel):
    """Clip to 0..255, round half up and store as one channel of interleaved pixels."""
    for i in range(plane.shape[0]):
        row = plane[i]
        pixels = rgb[i]
        for j in range(plane.shape[1]):
            pixels[j, channel] = uint8(min(max(row[j], float32(0)), WHITE) + HALF)
