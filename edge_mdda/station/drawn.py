"""Drawn pictures for the demo and the tests: no photograph and no patient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mdda.models import DEMO_IMAGE

if TYPE_CHECKING:
    import numpy as np

JPEG_QUALITY = 92
SKIN = (170, 185, 225)  # grey levels of blue, green and red, as below
BLOTCHES = ((40, 50, 90), (20, 20, 35), (120, 90, 80), (90, 90, 170))  # brown, black, blue-grey, red
MIDDLE, RADII = (300, 225), (150, 120)  # pixels, of the drawn lesion in a picture of 600 x 450
DARK = 0.3  # share of the light that is left in a picture that is too dark


def variation(number: int) -> bytes:
    """A JPEG of 600 x 450 pixels that depends on nothing but ``number``; 0 is the built-in picture itself.

    Of each four, number 1 and 4 are the built-in picture turned, number 2 is an irregular lesion of many colours, and
    number 3 is too dark to be judged.
    """
    content = DEMO_IMAGE.read_bytes()
    if number == 0:
        return content
    import cv2
    import numpy as np

    rng = np.random.default_rng(number)
    picture: np.ndarray = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
    height, width = picture.shape[:2]
    if number % 4 == 2:
        picture = _irregular(rng, height, width)
    else:
        angle, zoom = float(rng.uniform(0, 360)), float(rng.uniform(1.0, 1.4))
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom)
        picture = cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    if number % 4 == 3:
        picture = (picture * DARK).astype(np.uint8)
    cv2.putText(
        picture, "SYNTHETIC - drawn, not a photograph", (12, height - 14), 0, 0.55, (50, 60, 90), 1, cv2.LINE_AA
    )
    done, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise MemoryError
    return bytes(encoded.tobytes())


def _irregular(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Blotches of several colours within a bent border."""
    import cv2
    import numpy as np

    def field(sigma: float) -> np.ndarray:
        smooth = cv2.GaussianBlur(rng.standard_normal((height, width)).astype(np.float32), (0, 0), sigma)
        return smooth / smooth.std()

    y, x = np.mgrid[:height, :width].astype(np.float32)
    skin = np.full((height, width, 3), SKIN, np.float32) + rng.normal(0, 3, (height, width, 1))
    bent = np.hypot((x - MIDDLE[0]) / RADII[0], (y - MIDDLE[1]) / RADII[1]) + 0.25 * field(25)
    inside = (1 / (1 + np.exp((bent - 1) / 0.06)))[..., None]
    which = np.clip(field(9) + 2, 0, len(BLOTCHES) - 1).astype(int)
    colour = cv2.GaussianBlur(np.array(BLOTCHES, np.float32)[which], (0, 0), 4)
    blended: np.ndarray = np.clip(skin * (1 - inside) + colour * inside, 0, 255).astype(np.uint8)
    return blended
