"""Ways to spoil a picture that were thought of after the checks of a picture were set, and left as they came out.

They show what :mod:`benchmarks.inputs` cannot: how the checks do on faults that nobody had in view. Once a check is
built for one of them, it belongs there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_mdda.picture.decode import decode

Spoil = Callable[[np.ndarray], np.ndarray]


def _multiplied(*gains: float) -> Spoil:
    return lambda x: (x * np.array(gains)).clip(0, 255).astype(np.uint8)


def _curved(exponent: float) -> Spoil:
    return lambda x: (255 * (x / 255) ** exponent).astype(np.uint8)


def _saturated(share: float) -> Spoil:
    import cv2

    def spoil(x: np.ndarray) -> np.ndarray:
        grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]
        return (x * share + (1 - share) * grey).clip(0, 255).astype(np.uint8)

    return spoil


def _noisy(sigma: float) -> Spoil:
    return lambda x: (x + np.random.default_rng(0).normal(0, sigma, x.shape)).clip(0, 255).astype(np.uint8)


def _coded(suffix: str, option: int, quality: int) -> Spoil:
    import cv2

    return lambda x: decode(cv2.imencode(suffix, x[..., ::-1], [option, quality])[1].tobytes())


def _small(side: int, enlarged: bool) -> Spoil:
    import cv2

    def spoil(x: np.ndarray) -> np.ndarray:
        small = cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, x.shape[1::-1], interpolation=cv2.INTER_NEAREST) if enlarged else small

    return spoil


def _haze(x: np.ndarray) -> np.ndarray:
    return (x * 0.5 + 100).clip(0, 255).astype(np.uint8)


def _vignette(x: np.ndarray) -> np.ndarray:
    h, w = x.shape[:2]
    y, c = np.mgrid[:h, :w]
    away = np.hypot((y - h / 2) / (h / 2), (c - w / 2) / (w / 2))
    return (x * np.clip(1 - 0.5 * away**2, 0, 1)[..., None]).astype(np.uint8)


def _shade(x: np.ndarray) -> np.ndarray:
    out = x.copy()
    out[:, : x.shape[1] // 2] = (out[:, : x.shape[1] // 2] * 0.35).astype(np.uint8)
    return out


def _glare(x: np.ndarray) -> np.ndarray:
    h, w = x.shape[:2]
    y, c = np.mgrid[:h, :w]
    spot = np.hypot(y - h / 2, c - w / 2) < 0.2 * min(h, w)
    return np.where(spot[..., None], x * 0.3 + 255 * 0.7, x).astype(np.uint8)


def _diagonal(x: np.ndarray) -> np.ndarray:
    import cv2

    moved: np.ndarray = cv2.filter2D(x, -1, np.eye(15, dtype=np.float32) / 15)
    return moved


def later_kinds() -> dict[str, Spoil]:
    """Ways to spoil a picture, by name and strength; RGB in and out."""
    import cv2

    return {
        "brightness 0.9": _multiplied(0.9, 0.9, 0.9), "brightness 0.72": _multiplied(0.72, 0.72, 0.72),
        "brightness 1.35": _multiplied(1.35, 1.35, 1.35),
        **{f"gamma {g:g}": _curved(g) for g in (0.35, 0.7, 1.5, 4)},
        "warm cast": _multiplied(1.1, 0.85, 0.65), "cold cast": _multiplied(0.8, 0.95, 1.2),
        "magenta cast": _multiplied(1.1, 0.7, 1.1), "mild red cast": _multiplied(1.1, 0.75, 0.7),
        **{f"saturation {s:g}": _saturated(s) for s in (0.25, 0.5, 1.8)},
        "haze": _haze, "vignette": _vignette, "half in shade": _shade, "glare on the lesion": _glare,
        "four levels a channel": lambda x: (x // 64 * 64 + 32).astype(np.uint8),
        "pixels of 4": _small(56, True), "pixels of 7": _small(32, True),
        "stored at 100 px": _small(100, False), "stored at 64 px": _small(64, False),
        "WebP 1": _coded(".webp", cv2.IMWRITE_WEBP_QUALITY, 1),
        "WebP 10": _coded(".webp", cv2.IMWRITE_WEBP_QUALITY, 10),
        "JPEG 3": _coded(".jpg", cv2.IMWRITE_JPEG_QUALITY, 3), "JPEG 7": _coded(".jpg", cv2.IMWRITE_JPEG_QUALITY, 7),
        "noise 15": _noisy(15), "noise 40": _noisy(40), "motion aslant 15 px": _diagonal,
        "median of 9 px": lambda x: cv2.medianBlur(x, 9),
    }  # fmt: skip
