"""Random views of a lesion: what a dermatoscope, a camera and a JPEG encoder do to it, and the purifier.

Every view is a function of the image, one ``numpy.random.Generator`` and the shipped presets, so a training run can be
resumed in the middle and see the same pictures again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from edge_mdda.mdda.params import PRESETS

MAX_SHIFT = 0.08  # of the side
SCALE_RANGE = (0.80, 1.30)
ASPECT_RANGE = (0.85, 1.18)  # the 4:3 originals were squeezed to a square
GAIN_SPREAD = 0.05  # log-normal per channel: white balance of another camera
CONTRAST_RANGE = (0.80, 1.25)
BRIGHTNESS_SPREAD = 10.0  # grey levels
SATURATION_RANGE = (0.80, 1.25)
BLUR_SHARE, BLUR_SIGMA = 0.30, (0.4, 1.6)
JPEG_SHARE, JPEG_QUALITY = 0.35, (35, 95)
NOISE_SHARE, NOISE_SIGMA = 0.15, (1.0, 7.0)  # grey levels
MIN_STRENGTH = 2.0  # grey levels, of the purifier
SWEEPS = 7  # of its solver; strong purifiers stay a little rougher than at the board's iterations
ERASE_SHARE, ERASE_SIDE = 0.25, (0.10, 0.30)  # of the side


def _geometry(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Rotate by any angle, flip, scale, stretch and shift about the centre; reflect at the border."""
    side = image.shape[0]
    angle = rng.uniform(0, 2 * np.pi)
    scale = np.exp(rng.uniform(*np.log(SCALE_RANGE))) * size / side
    stretch = np.exp(rng.uniform(*np.log(ASPECT_RANGE)) / 2)
    flip = rng.choice((-1.0, 1.0))
    c, s = np.cos(angle), np.sin(angle)
    rotate = np.array([[c, -s], [s, c]])
    # The stretch acts before the rotation: it belongs to the stored picture's own axes.
    linear = scale * rotate @ np.diag([flip * stretch, 1 / stretch])
    centre_in = np.full(2, (side - 1) / 2)
    centre_out = (size - 1) / 2 + rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * size
    matrix = np.hstack([linear, (centre_out - linear @ centre_in)[:, None]])
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _colour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White balance, brightness, contrast and saturation as one affine colour map."""
    grey = np.full((3, 3), 1 / 3)
    saturation = rng.uniform(*SATURATION_RANGE)
    mix = saturation * np.eye(3) + (1 - saturation) * grey
    gains = np.exp(rng.normal(0, GAIN_SPREAD, 3)) * rng.uniform(*CONTRAST_RANGE)
    linear = mix * gains[:, None]
    middle = image.reshape(-1, 3).mean(0)
    offset = middle + rng.normal(0, BRIGHTNESS_SPREAD) - linear @ middle + (gains / gains.mean() - 1) * middle
    return cv2.transform(image, np.hstack([linear, offset[:, None]]))


def _damage(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, sensor noise and JPEG blocks, each on a share of the images."""
    if rng.random() < BLUR_SHARE:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*BLUR_SIGMA))
    if rng.random() < NOISE_SHARE:
        noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(*NOISE_SIGMA))
        image = np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < JPEG_SHARE:
        # Encoded as if it were BGR: that swaps which colour is subsampled how, and the damage is random anyway.
        quality = int(rng.integers(*JPEG_QUALITY))
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    return image


def _erase(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hide one rectangle behind its mean colour, so that no single spot decides."""
    if rng.random() < ERASE_SHARE:
        size = image.shape[0]
        height, width = (rng.uniform(*ERASE_SIDE, 2) * size).astype(int)
        top, left = rng.integers(0, size - height), rng.integers(0, size - width)
        patch = image[top : top + height, left : left + width]
        patch[:] = patch.reshape(-1, 3).mean(0)
    return image


def random_view(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """One random view of an ``(h, h, 3)`` uint8 RGB image as ``(size, size, 3)`` uint8 RGB."""
    view = _geometry(image, size, rng)
    view = np.ascontiguousarray(_colour(view, rng))
    return _erase(_damage(view, rng), rng)


def colour_view(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image under another light and camera, every pixel in its place."""
    return np.ascontiguousarray(_colour(image, rng))


def shipped_presets() -> dict[str, dict[str, Any]]:
    """What the views depend on beside image and generator; a run that resumes must find the same."""
    return {name: params.to_dict() for name, params in PRESETS.items()}


@dataclass
class RandomPurifier:
    """A preset's MDDA at a random strength on a share of the views, so that the network knows what MDDA leaves.

    Parameters
    ----------
    share : float
        Share of the views that pass through MDDA, 0 to 1.
    max_sigma : float
        The strength (sigma, with lam equal to it) is uniform in 2..``max_sigma`` grey levels.
    """

    share: float
    max_sigma: float = 8.0

    def __call__(self, view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.share:
            return view
        from edge_mdda.mdda.purifier import Purifier

        strength = float(rng.uniform(MIN_STRENGTH, self.max_sigma))
        params = replace(
            PRESETS[str(rng.choice(sorted(PRESETS)))],
            n_blocks=int(rng.integers(1, 4)),
            sigma=strength,
            lam=strength * float(rng.uniform(0.8, 1.2)),
            iterations=SWEEPS,
        )
        with Purifier(view.shape[0], view.shape[1], params) as purifier:
            return purifier.purify(view, int(rng.integers(2**53)))
