"""The part of a picture that shows skin: a dermatoscope's round field or a letterbox is cut to its largest square."""

from __future__ import annotations

import numpy as np

from edge_mdda.picture.statistics import DARK_LEVEL

GRID = 128  # pixels a side, of the view in which the border is looked for
MIN_BORDER = 0.05  # share of the view; less is a dark corner, as many photographs have
CLEAN = 0.985  # share of a square that must not be border
MIN_SQUARE = 0.3  # of the shorter side; a smaller field is left as it is, and the check of the border tells


def useful_square(picture: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns of the largest square of the field of view around its middle; None where no border is.

    Parameters
    ----------
    picture : ndarray
        (h, w, 3) uint8 RGB.

    Notes
    -----
    Only darkness that touches the picture's edge is a border: a black lesion in the middle stays what it is.
    """
    import cv2

    h, w = picture.shape[:2]
    if min(h, w) < GRID // 2:
        return None
    step = max(1, min(h, w) // GRID)
    dark = (picture[::step, ::step].max(axis=2) < DARK_LEVEL).astype(np.uint8)
    if dark.mean() < MIN_BORDER:
        return None
    _, parts = cv2.connectedComponents(dark)
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    border = np.isin(parts, edge[edge > 0])
    if border.mean() < MIN_BORDER or border.all():
        return None
    rows, columns = np.nonzero(~border)
    middle = (int(rows.mean().round()), int(columns.mean().round()))
    for half in range(min(border.shape) // 2, 0, -1):
        top, left = (min(max(m - half, 0), n - 2 * half) for m, n in zip(middle, border.shape, strict=True))
        if 1 - border[top : top + 2 * half, left : left + 2 * half].mean() >= CLEAN:
            break
    side = 2 * half * step
    if side < MIN_SQUARE * min(h, w):
        return None
    return slice(top * step, min(top * step + side, h)), slice(left * step, min(left * step + side, w))


def whole_field(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """All of the field of view at the network's size, with the darkness around it in the skin's colour.

    The square leaves out the field's rim, where a part of a large lesion may lie; a network that sees the rim with
    black corners calls some malignant lesions benign.

    Parameters
    ----------
    picture : ndarray
        (h, w, 3) uint8 RGB with a border, as :func:`useful_square` finds it.

    Returns
    -------
    ndarray
        (height, width, 3) uint8.
    """
    from edge_mdda.picture.decode import fit

    step = max(1, min(picture.shape[:2]) // GRID)
    seen = picture[::step, ::step].max(axis=2) >= DARK_LEVEL
    rows, columns = np.nonzero(seen.any(axis=1))[0], np.nonzero(seen.any(axis=0))[0]
    box = picture[rows[0] * step : (rows[-1] + 1) * step, columns[0] * step : (columns[-1] + 1) * step]
    fitted = fit(box, height, width, "squeeze")
    dark = fitted.max(axis=2) < DARK_LEVEL
    out = fitted.copy()
    if not dark.all():
        out[dark] = np.median(fitted[~dark], axis=0)
    return out
