"""Draw the demo picture: a made-up pigmented lesion, no photograph and no patient."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 450, 600  # pixels, the 4:3 of a dermatoscope
SKIN = (226, 178, 158)
PIGMENT = (96, 58, 44)
CORE = (58, 34, 32)
N_HAIRS = 7
JPEG_QUALITY = 88


def _smooth_noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Gaussian field of unit variance with this correlation length in pixels."""
    field = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH)), (0, 0), sigma)
    return field / field.std()


def _blend(image: np.ndarray, colour: tuple[int, int, int], share: np.ndarray) -> np.ndarray:
    return image + share[..., None] * (np.array(colour, float) - image)


def draw(seed: int = 11) -> np.ndarray:
    """The picture as ``(450, 600, 3)`` uint8 RGB, with the word SYNTHETIC in it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    image = np.full((HEIGHT, WIDTH, 3), SKIN, float)
    image += (5 * _smooth_noise(rng, 40) + 2.5 * _smooth_noise(rng, 4) + 1.2 * _smooth_noise(rng, 1))[..., None]
    # An ellipse whose edge is bent by smooth noise, darker towards an off-centre core.
    distance = np.hypot((x - 305) / 132, (y - 228) / 104) + 0.10 * _smooth_noise(rng, 22) + 0.03 * _smooth_noise(rng, 6)
    body = 1 / (1 + np.exp((distance - 1) / 0.07))
    image = _blend(image, PIGMENT, 0.80 * body * (0.85 + 0.08 * _smooth_noise(rng, 9)))
    core = np.exp(-(((x - 335) / 58) ** 2 + ((y - 205) / 46) ** 2)) * body
    image = _blend(image, CORE, np.clip(0.85 * core, 0, 1))
    # A pigment network: dark where two slanted waves are both near zero.
    bend = 3 * _smooth_noise(rng, 14)
    mesh = np.abs(np.sin((x + 0.5 * y + bend) / 5.2)) * np.abs(np.sin((0.5 * x - y + bend) / 5.2))
    image = _blend(image, CORE, 0.30 * body * np.exp(-mesh / 0.12))
    for _ in range(N_HAIRS):
        start = rng.uniform((0, 0), (WIDTH, HEIGHT))
        angle, bow = rng.uniform(0, np.pi), rng.uniform(-0.0015, 0.0015)
        t = np.linspace(-300, 300, 120)
        points = (
            start + np.outer(t, [np.cos(angle), np.sin(angle)]) + np.outer(bow * t**2, [-np.sin(angle), np.cos(angle)])
        )
        cv2.polylines(image, [np.round(points * 8).astype(np.int32)], False, (70, 52, 45), 1, cv2.LINE_AA, 3)
    image = cv2.GaussianBlur(image, (0, 0), 0.8) + rng.normal(0, 1.5, image.shape)
    pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
    cv2.putText(pixels, "SYNTHETIC - drawn, not a photograph", (12, HEIGHT - 14), 0, 0.55, (90, 60, 50), 1, cv2.LINE_AA)
    return pixels


def write_demo(path: Path) -> None:
    """Write the picture as JPEG."""
    encoded = cv2.imencode(".jpg", draw()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    path.write_bytes(encoded.tobytes())
