"""Slow, obvious float64 oracles of everything in the purifier, written from the mathematics and not from the kernels.

Planes are float64 ``(h, w)``, images ``(h, w, 3)``, grey levels 0..255. Nothing here is compiled or fused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_mdda.mdda.rof_schedule import schedule, shrink_magic

MASK_32 = np.uint64(0xFFFFFFFF)

# -- resampling ------------------------------------------------------------------------------------------------------


def downsample(fine: np.ndarray) -> np.ndarray:
    """Mean of every 2 x 2 box; on an odd side the last row or column stands in for the missing one."""
    h, w = fine.shape
    fine = np.pad(np.asarray(fine, float), ((0, h % 2), (0, w % 2)), mode="edge")
    return (fine[0::2, 0::2] + fine[0::2, 1::2] + fine[1::2, 0::2] + fine[1::2, 1::2]) / 4


def upsample(coarse: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear by two with half-pixel centres and replicated edges, cropped to ``(height, width)``."""

    def along_rows(plane: np.ndarray, n: int) -> np.ndarray:
        position = (np.arange(n) + 0.5) / 2 - 0.5
        lower = np.floor(position).astype(int)
        share = (position - lower)[:, None]
        last = len(plane) - 1
        return (1 - share) * plane[np.clip(lower, 0, last)] + share * plane[np.clip(lower + 1, 0, last)]

    return along_rows(along_rows(np.asarray(coarse, float), height).T, width).T


def aggregate(
    fine: np.ndarray | None, here: np.ndarray, coarse: np.ndarray | None, w_fine: float, w_here: float, w_coarse: float
) -> np.ndarray:
    """Weighted sum of a plane and its neighbouring scales; a neighbour may be ``None`` where its weight is zero."""
    out = w_here * np.asarray(here, float)
    if w_fine:
        out = out + w_fine * downsample(fine)
    if w_coarse:
        out = out + w_coarse * upsample(coarse, *here.shape)
    return out


def smooth(plane: np.ndarray, side: float, gap: int = 1) -> np.ndarray:
    """Filter with taps ``(side, 1 - 2 side, side)`` both ways, ``gap`` pixels apart, edges replicated."""
    h, w = plane.shape
    padded = np.pad(np.asarray(plane, float), gap, mode="edge")
    taps = (side, 1 - 2 * side, side)
    return sum(
        taps[i] * taps[j] * padded[gap * i : gap * i + h, gap * j : gap * j + w] for i in range(3) for j in range(3)
    )


# -- noise -----------------------------------------------------------------------------------------------------------


def noise_sums(first: int, count: int, key_low: int, key_high: int) -> np.ndarray:
    """The integers behind the noise: sums of four 16-bit values of a keyed hash of the sample number."""

    def times(a: np.ndarray, b: int) -> np.ndarray:
        return (a * np.uint64(b)) & MASK_32

    def xor_shift(a: np.ndarray, bits: int) -> np.ndarray:
        return a ^ (a >> np.uint64(bits))

    n = (np.arange(count, dtype=np.uint64) + np.uint64((int(first) + int(key_low)) % 2**32)) & MASK_32
    h = xor_shift(times(n, 0x9E3779B9), 16)
    h = xor_shift(times(h, 0x7FEB352D), 15) ^ np.uint64(int(key_high))
    h = xor_shift(times(h, 0x846CA68B), 16)
    p = times(h, 0x9E3779B1)
    return sum((half & np.uint64(0xFFFF)).astype(np.int64) for half in (h, h >> np.uint64(16), p, p >> np.uint64(16)))


def noise(first: int, count: int, key_low: int, key_high: int) -> np.ndarray:
    """Standard normal samples ``first`` to ``first + count - 1`` of a key."""
    z = (noise_sums(first, count, key_low, key_high) - 131070) / math.sqrt(4 * (65536**2 - 1) / 12)
    return 0.96097677 * z + 0.009163997 * z**3 + 0.00125 * z**5


def seed_keys(seed: int) -> tuple[int, int]:
    """Low and high half of the SplitMix64 output for a state equal to the seed (Steele, Lea, Flood, 2014)."""
    z = (seed + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    return z % 2**32, z // 2**32


# -- Rudin-Osher-Fatemi ----------------------------------------------------------------------------------------------


def gradient(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forward differences to the right and down, zero at the far border."""
    gx, gy = np.zeros_like(u), np.zeros_like(u)
    gx[:, :-1] = u[:, 1:] - u[:, :-1]
    gy[:-1] = u[1:] - u[:-1]
    return gx, gy


def divergence(px: np.ndarray, py: np.ndarray) -> np.ndarray:
    """Minus the adjoint of :func:`gradient`; the last column of ``px`` and the last row of ``py`` must be zero."""
    out = px + py
    out[:, 1:] -= px[:, :-1]
    out[1:] -= py[:-1]
    return out


def total_variation(u: np.ndarray) -> float:
    """Isotropic total variation of forward differences."""
    gx, gy = gradient(np.asarray(u, float))
    return float(np.hypot(gx, gy).sum())


def rof_energy(u: np.ndarray, g: np.ndarray, lam: float) -> float:
    """``TV(u) + |u - g|^2 / (2 lam)``."""
    return total_variation(u) + float(((np.asarray(u, float) - g) ** 2).sum()) / (2 * lam)


def rof_optimum(g: np.ndarray, lam: float, rmse: float = 0.01, max_iterations: int = 20_000) -> np.ndarray:
    """Minimiser of :func:`rof_energy`, proven to be within ``rmse`` of the true one.

    Fast gradient projection on the dual (Beck and Teboulle, 2009). The energy is strongly convex, so
    ``|u - u*|^2 <= 2 lam (duality gap)``; that decides when to stop.
    """
    g = np.asarray(g, float)
    if lam == 0:
        return g.copy()
    step = 1 / (8 * lam)  # the gradient has norm below sqrt(8)
    px, py = np.zeros_like(g), np.zeros_like(g)
    qx, qy, momentum = px, py, 1.0
    for iteration in range(max_iterations):
        gx, gy = gradient(g + lam * divergence(qx, qy))
        nx, ny = qx + step * gx, qy + step * gy
        norm = np.maximum(1, np.hypot(nx, ny))
        nx, ny = nx / norm, ny / norm
        grown = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        beta = (momentum - 1) / grown
        qx, qy = nx + beta * (nx - px), ny + beta * (ny - py)
        px, py, momentum = nx, ny, grown
        if iteration % 20 == 19:
            u = g + lam * divergence(px, py)
            dual = float((g**2).sum() - (u**2).sum()) / (2 * lam)
            if 2 * lam * (rof_energy(u, g, lam) - dual) <= g.size * rmse**2:
                return u
    raise AssertionError(f"no proof of an RMSE below {rmse} within {max_iterations} iterations")


def exact_shrink(norm2: np.ndarray, lam: float, fine: bool) -> np.ndarray:
    """Factor that brings a dual vector of this squared length into the disc of radius ``lam``."""
    return lam / np.sqrt(np.maximum(norm2, lam**2))


def bit_trick_shrink(norm2: np.ndarray, lam: float, fine: bool) -> np.ndarray:
    """The same from the bits of a float32: one difference; from sweep 13 on Kadlec's constants, refined once."""
    half = np.asarray(norm2, np.float32).view(np.int32) >> 1
    if not fine:
        return np.minimum((shrink_magic(lam) - half).view(np.float32).astype(float), 1)
    y = (0x5F1FFFF9 - half).view(np.float32).astype(float)
    return np.minimum(lam * 0.703952253 * y * (2.38924456 - norm2 * y * y), 1)


def rof_iterate(
    g: np.ndarray,
    lam: float,
    iterations: int,
    shrink: Callable[[np.ndarray, float, bool], np.ndarray] = exact_shrink,
) -> np.ndarray:
    """The purifier's own solver, one row at a time: projected dual ascent that goes down the rows.

    Row ``i`` of the dual takes a gradient step from ``u = g + div p``, where the rows above already hold this
    sweep's dual, and is projected. All its columns move at once. The steps are those of the kernel.
    """
    g = np.asarray(g, float)
    h = len(g)

    def u_row(i: int) -> np.ndarray:
        above = py[i - 1] if i else 0.0
        return g[i] + np.diff(px[i], prepend=0.0) + py[i] - above

    if lam == 0:
        return g.copy()
    plain, near, wide, *steps = schedule(iterations).astype(float)
    smoothed = smooth(g, 0.25)
    px, py = gradient(plain * g + near * smoothed + wide * smooth(smoothed, 0.25, gap=2))
    for t in range(iterations):
        for i in range(h):
            if t:
                u = u_row(i)
                px[i, :-1] += steps[t - 1] * np.diff(u)
                if i + 1 < h:
                    py[i] += steps[t - 1] * (u_row(i + 1) - u)
            factor = shrink(px[i] ** 2 + py[i] ** 2, lam, t >= 12)
            px[i] *= factor
            py[i] *= factor
    return g + divergence(px, py)


# -- the whole purifier ----------------------------------------------------------------------------------------------


def mdda(
    rgb: np.ndarray,
    params: Any,
    seed: int,
    shrink: Callable[[np.ndarray, float, bool], np.ndarray] = exact_shrink,
    stages: dict[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Multiscale diffusive and denoising aggregation of an image, before rounding; ``stages`` collects the steps.

    Noise samples are numbered block by block, in it scale by scale, in it channel by channel.
    """
    stages = {} if stages is None else stages
    scales, base = params.scales, params.scales.index(1.0)
    key_low, key_high = seed_keys(seed)

    def of_block(value: Any, i: int) -> Any:
        return value[i] if isinstance(value, tuple) else value

    def each_channel(function: Callable[..., np.ndarray], *images: np.ndarray | None) -> np.ndarray:
        planes = [[None if image is None else image[..., c] for image in images] for c in range(3)]
        return np.stack([function(*those) for those in planes], axis=-1)

    pyramid: list[Any] = [None] * len(scales)
    pyramid[base] = np.asarray(rgb, float)
    for s in range(base + 1, len(scales)):
        pyramid[s] = each_channel(downsample, pyramid[s - 1])
    if base:
        size = 2 * rgb.shape[0], 2 * rgb.shape[1]
        pyramid[0] = each_channel(lambda plane: upsample(plane, *size), pyramid[1])
    sizes = [image.shape[:2] for image in pyramid]

    def keep(name: str, images: list[np.ndarray]) -> None:
        stages.update({f"{name}/{scale:g}": image for scale, image in zip(scales, images, strict=True)})

    keep("pyramid", pyramid)
    sample = 0
    for block in range(params.n_blocks):
        sigma = of_block(params.sigma, block)
        diffused = []
        for image in pyramid:
            h, w, _ = image.shape
            eps = noise(sample, 3 * h * w, key_low, key_high).reshape(3, h, w)
            sample += 3 * h * w
            diffused.append(image + sigma * np.moveaxis(eps, 0, -1))
        keep(f"block{block + 1}/diffused", diffused)
        denoised = []
        for s, image in enumerate(diffused):
            lam, n = of_block(params.lam, s), of_block(params.iterations, s)
            denoised.append(each_channel(lambda g, lam=lam, n=n: rof_iterate(g, lam, n, shrink), image))
        keep(f"block{block + 1}/denoised", denoised)
        pyramid = []
        for s, image in enumerate(denoised):
            finer = denoised[s - 1] if s > 0 else None
            coarser = denoised[s + 1] if s + 1 < len(scales) else None
            w_here, w_fine, w_coarse = params.aggregation
            w_fine, w_coarse = (w_fine if s > 0 else 0.0), (w_coarse if s + 1 < len(scales) else 0.0)
            total = w_here + w_fine + w_coarse
            weights = w_fine / total, w_here / total, w_coarse / total
            pyramid.append(
                each_channel(lambda f, x, c, weights=weights: aggregate(f, x, c, *weights), finer, image, coarser)
            )
        keep(f"block{block + 1}/aggregated", pyramid)

    blended = np.zeros(rgb.shape)
    for s, image in enumerate(pyramid):
        if s < base:
            image = each_channel(downsample, image)
        for finer in range(s - 1, base - 1, -1):
            image = each_channel(lambda plane, size=sizes[finer]: upsample(plane, *size), image)
        blended += params.output_weights[s] / sum(params.output_weights) * image
    stages["blended"] = blended
    stages["purified"] = each_channel(lambda plane: smooth(plane, params.smoothing / 4), blended)
    return stages["purified"]


def to_pixels(image: np.ndarray) -> np.ndarray:
    """Clip to 0..255 and round half up."""
    return np.floor(np.clip(image, 0, 255) + 0.5).astype(np.uint8)
