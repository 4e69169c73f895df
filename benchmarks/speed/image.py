"""The picture that everything is timed on."""

from __future__ import annotations

import cv2
import numpy as np

from export.demo import draw


def benchmark_image(size: int) -> np.ndarray:
    """The drawn demo picture, squeezed to ``(size, size, 3)`` uint8: no photograph of a patient is needed.

    Parameters
    ----------
    size : int
        Side in pixels.
    """
    return cv2.resize(draw(), (size, size), interpolation=cv2.INTER_AREA)
