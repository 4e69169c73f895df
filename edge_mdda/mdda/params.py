"""What MDDA does to an image: one frozen record, checked on creation, and the shipped presets."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from edge_mdda.errors import ParamsError

FINEST_SCALE = 2.0
COARSEST_SCALE = 0.125
MAX_BLOCKS = 16
MAX_STRENGTH = 64.0  # grey levels; beyond it nothing of a lesion is left
MAX_ITERATIONS = 200
MAX_DRAWS = 64  # purifications of one image; the spread of their mean has shrunk eightfold by then
MIN_LAM = 0.01  # grey levels; far below what rounding to 8 bit shows, and step / lam stays finite


@dataclass(frozen=True)
class MddaParams:
    """Parameters of multiscale diffusive and denoising aggregation (MDDA).

    The defaults have the four scales of the paper. What runs where nobody chooses is ``PRESETS["balanced"]``, which may
    have fewer.

    Parameters
    ----------
    scales : tuple of float
        Consecutive powers of two from fine to coarse, 2 to 1/8, with 1 among them.
    n_blocks : int
        Diffuse-denoise-aggregate blocks, 1 to 16.
    sigma : float or tuple of float
        Standard deviation of the diffusion noise in grey levels, 0 to 64; one, or one a block.
    lam : float or tuple of float
        ROF weight lambda in grey levels, 0 (no denoising) to 64; one, or one a scale.
    iterations : int or tuple of int
        Solver iterations, 1 to 200; one, or one a scale. An RMSE below half a grey level
        from the optimum takes 3 at sigma = lam = 3, 4 at 5, 5 at 7 and 8 at 10, with a margin.
    aggregation : tuple of three float
        Weights of a scale itself, of its finer and of its coarser neighbour in each block.
        Normalised over the neighbours that exist; the first must be positive.
    output_weights : tuple of float
        Weight of each scale in the result, normalised.
    smoothing : float
        Final smoothing, 0 (none) to 1 (3 x 3 binomial).

    Raises
    ------
    ParamsError
        The message names the field.

    References
    ----------
    Wang, Li, Shen, Qiao, "Multiscale diffusive and denoising aggregation", Computers in Biology and
    Medicine 164, 2023 (arXiv 2208.10373) gives the structure; the constants are calibrated here.
    """

    scales: tuple[float, ...] = (2.0, 1.0, 0.5, 0.25)
    n_blocks: int = 2
    sigma: float | tuple[float, ...] = 5.0
    lam: float | tuple[float, ...] = 5.0
    iterations: int | tuple[int, ...] = 4
    aggregation: tuple[float, float, float] = (0.8, 0.1, 0.1)
    output_weights: tuple[float, ...] = (0.20, 0.45, 0.25, 0.10)
    smoothing: float = 0.25

    def __post_init__(self) -> None:
        for name in ("scales", "aggregation", "output_weights"):
            value = getattr(self, name)
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise ParamsError(f"{name}: expected a sequence of numbers, got {value!r}")
            object.__setattr__(self, name, tuple(_number(name, v) for v in value))
        for name in ("sigma", "lam", "iterations"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        self._check_scales()
        _integer("n_blocks", self.n_blocks, 1, MAX_BLOCKS)
        for value in self._each("sigma", self.n_blocks, "block"):
            _in_range("sigma", value, 0.0, MAX_STRENGTH)
        for value in self._each("lam", len(self.scales), "scale"):
            _in_range("lam", value, 0.0, MAX_STRENGTH)
            if 0 < value < MIN_LAM:
                raise ParamsError(f"lam: must be 0 (no denoising) or at least {MIN_LAM:g}, got {value!r}")
        for value in self._each("iterations", len(self.scales), "scale"):
            _integer("iterations", value, 1, MAX_ITERATIONS)
        if len(self.aggregation) != 3:
            raise ParamsError("aggregation: expected three weights (itself, finer, coarser)")
        if min(self.aggregation) < 0 or self.aggregation[0] <= 0:
            raise ParamsError(f"aggregation: weights must be >= 0 and the first > 0, got {self.aggregation}")
        if len(self.output_weights) != len(self.scales):
            raise ParamsError(f"output_weights: expected {len(self.scales)}, one a scale, got {self.output_weights}")
        if min(self.output_weights) < 0 or sum(self.output_weights) <= 0:
            raise ParamsError(f"output_weights: must be >= 0 with a positive sum, got {self.output_weights}")
        _in_range("smoothing", self.smoothing, 0.0, 1.0)

    def _check_scales(self) -> None:
        scales = self.scales
        chain = all(fine == 2 * coarse for fine, coarse in pairwise(scales))
        if not chain or 1.0 not in scales or max(scales) > FINEST_SCALE or min(scales) < COARSEST_SCALE:
            raise ParamsError(
                f"scales: expected consecutive powers of two from at most 2 down to at least 1/8, including 1,"
                f" for example (2, 1, 0.5, 0.25); got {scales}"
            )

    def _each(self, name: str, count: int, unit: str) -> tuple[Any, ...]:
        value = getattr(self, name)
        values = value if isinstance(value, tuple) else (value,) * count
        if len(values) != count:
            raise ParamsError(f"{name}: expected one number or {count}, one a {unit}; got {value!r}")
        return values

    def block_sigma(self, block: int) -> float:
        """Diffusion sigma of one block."""
        return float(self._each("sigma", self.n_blocks, "block")[block])

    def scale_lam(self, scale: int) -> float:
        """ROF lambda of one scale, by its index."""
        return float(self._each("lam", len(self.scales), "scale")[scale])

    def scale_iterations(self, scale: int) -> int:
        """Solver iterations of one scale, by its index."""
        return int(self._each("iterations", len(self.scales), "scale")[scale])

    def neighbour_weights(self, scale: int) -> tuple[float, float, float]:
        """``(finer, itself, coarser)`` aggregation weights of one scale, summing to 1."""
        itself, finer, coarser = self.aggregation
        finer = finer if scale > 0 else 0.0
        coarser = coarser if scale + 1 < len(self.scales) else 0.0
        total = itself + finer + coarser
        return finer / total, itself / total, coarser / total

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ParamsError(f"{name}: expected a number, got {value!r}")
    if not abs(value) <= 1e9:  # also refuses NaN
        raise ParamsError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def _in_range(name: str, value: Any, low: float, high: float) -> None:
    if not low <= _number(name, value) <= high:
        raise ParamsError(f"{name}: must be between {low:g} and {high:g}, got {value!r}")


def _integer(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ParamsError(f"{name}: must be a whole number from {low} to {high}, got {value!r}")


PRESETS_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "presets.json")
"""Written by ``python -m benchmarks.robustness tune --write``; it names the run that chose each preset."""


def _read_presets(path: str) -> dict[str, MddaParams]:
    with open(path, encoding="utf-8") as file:
        stored = json.load(file)["presets"]
    return {name: MddaParams(**preset["params"]) for name, preset in stored.items()}


PRESETS: dict[str, MddaParams] = _read_presets(PRESETS_FILE)
"""The shipped strengths: ``mild``, ``balanced`` and ``strong``."""
