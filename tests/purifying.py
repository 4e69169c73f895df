"""What the purifier's tests share: its settings and variants, images of any size, and purifying one."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from edge_mdda.mdda.params import PRESETS, MddaParams
from edge_mdda.mdda.purifier import Purifier

BALANCED = PRESETS["balanced"]
FOUR_SCALES = MddaParams()
SETTINGS = {**PRESETS, "four scales": FOUR_SCALES}
sides = st.integers(16, 80)
few = settings(deadline=None, derandomize=True, max_examples=12)


def only(scale_list, weights, **fields) -> MddaParams:
    return MddaParams(scales=scale_list, output_weights=weights, **fields)


VARIANTS = {
    "sigma for each block": MddaParams(n_blocks=3, sigma=(6.0, 0.0, 2.0)),
    "lam and iterations for each scale": MddaParams(lam=(2.0, 5.0, 0.0, 9.0), iterations=(1, 7, 4, 12)),
    "no denoising": MddaParams(lam=0.0),
    "no noise": MddaParams(sigma=0.0),
    "strong noise": MddaParams(sigma=64.0, lam=64.0),
    "no smoothing": MddaParams(smoothing=0.0),
    "full smoothing": MddaParams(smoothing=1.0),
    "one block": MddaParams(n_blocks=1),
    "five blocks": MddaParams(n_blocks=5, iterations=2),
    "one iteration": MddaParams(iterations=1),
    "more iterations than rows": MddaParams(iterations=40, n_blocks=1),
    "scales apart": MddaParams(aggregation=(1, 0, 0)),
    "finer neighbour favoured": MddaParams(aggregation=(0.5, 0.4, 0.1)),
    "coarser neighbour alone": MddaParams(aggregation=(0.5, 0, 3)),
    "finest scale alone in the result": MddaParams(output_weights=(1, 0, 0, 0)),
    "coarsest scale alone in the result": MddaParams(output_weights=(0, 0, 0, 2)),
    "scale 1": only((1,), (1,)),
    "scales 1 and 1/2": only((1, 0.5), (2, 1)),
    "scales 2 and 1": only((2, 1), (1, 2)),
    "scales 1 to 1/8": only((1, 0.5, 0.25, 0.125), (4, 3, 2, 1)),
    "all five scales": only((2, 1, 0.5, 0.25, 0.125), (1, 1, 1, 1, 1)),
}


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.asarray(a, float) - b) ** 2)))


def detail(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A piece of the drawn image with skin, border and pigment network in it."""
    return image[60 : 60 + height, 20 : 20 + width].copy()


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def purify(image: np.ndarray, seed: int, params: MddaParams = BALANCED, threads: int = 1) -> np.ndarray:
    """In a fresh purifier."""
    with Purifier(*image.shape[:2], params, threads) as purifier:
        return purifier.purify(image, seed)


def stages_of(image: np.ndarray, seed: int, params: MddaParams = BALANCED) -> dict[str, np.ndarray]:
    return Purifier(*image.shape[:2], params).purify_stages(image, seed)
