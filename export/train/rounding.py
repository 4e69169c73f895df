"""Weights rounded to int8 so that each layer's outputs change least, instead of each to its nearest step.

The early layers of EfficientNet-Lite lose most: their few, strongly correlated inputs let rounding errors add
up, and what they lose is amplified behind them. Going through the network in order, each layer is fitted to
what the float network computes, from inputs that already carry the errors of the layers before it.

References
----------
K. Behdin et al., "QuantEase: Optimization-based Quantization for Language Models", 2023 (coordinate descent).
M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from export.train.fake_quant import INPUT, INPUT_RANGE, WEIGHT_LEVELS, FakeQuantNet, Layer, Range, without_float_start
from export.train.network import LesionNet

FITTED_LAYERS = 12
"""Behind these the nearest step is as good (their rounding moves the logits by less than 1 %)."""
POSITIONS = 64  # of each picture that a layer is fitted to
CLIPPED_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)  # of the largest weight, tried as the end of the grid
SWEEPS = 8
DAMPING = 0.01  # of the mean second moment, keeps directions that the pictures do not show
CHUNK = 32  # pictures computed at once

Pair = tuple[torch.Tensor, torch.Tensor]


def to_batch(images: np.ndarray) -> torch.Tensor:
    """``(n, h, w, 3)`` uint8 as the networks take it; NHWC memory is torch's channels_last."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()


class _Observer(FakeQuantNet):
    """Exact, and remembers the extremes of every activation."""

    seen: dict[str, Range]

    def point(self, name: str, x: torch.Tensor, clipped: bool = False) -> torch.Tensor:
        y = super().point(name, x, clipped)
        low, high = self.seen.get(name, (0.0, 0.0))
        self.seen[name] = min(low, float(y.amin())), max(high, float(y.amax()))
        return y


@torch.no_grad()
def calibrate(network: LesionNet, images: np.ndarray) -> dict[str, Range]:
    """Extremes of every activation on ``(n, h, w, 3)`` uint8 images, in the order of execution."""
    observer = _Observer(network, n_float=None).eval()
    observer.seen = {}
    for start in range(0, len(images), CHUNK):
        observer(to_batch(images[start : start + CHUNK]))
    return {**observer.seen, INPUT: INPUT_RANGE}


def _positions(layer: Layer, x: torch.Tensor, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns ``(images, n)`` of random outputs."""
    height, width = (-(-side // layer.step) for side in x.shape[2:])
    chosen = torch.randint(height * width, (len(x), n), generator=generator)
    return chosen // width, chosen % width


def columns(layer: Layer, x: torch.Tensor, places: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
    """What the layer's weights are multiplied with, ``(samples, groups, weights)``; see :func:`as_matrix`."""
    if places is None:
        return x[:, None]
    x = functional.pad(x, layer.padding)
    rows, cols = (p * layer.step for p in places)
    image = torch.arange(len(x))[:, None]
    height, width = layer.weight.shape[2:]
    taps = [x[image, :, rows + i, cols + j] for i in range(height) for j in range(width)]
    patches = torch.stack(taps, -1).flatten(0, 1)  # (samples, channels, taps)
    return patches if layer.groups > 1 else patches.flatten(1)[:, None]


def as_matrix(layer: Layer, weight: torch.Tensor) -> torch.Tensor:
    """Weights as ``(groups, outputs of a group, weights of an output)``: one group, or one for each channel."""
    flat = weight.flatten(1)
    return flat[:, None] if layer.groups > 1 else flat[None]


def descend(target: torch.Tensor, moment: torch.Tensor, scale: torch.Tensor) -> Pair:
    """Whole numbers ``q`` that make ``(q * scale - target) moment (q * scale - target)`` small, and that error.

    The largest weight of an output stays at the end of the grid, so that the scale can be told from the weights.

    Parameters
    ----------
    target : Tensor
        ``(groups, outputs, weights)``.
    moment : Tensor
        ``(groups, weights, weights)`` second moments of the inputs, positive definite.
    scale : Tensor
        ``(groups, outputs, 1)`` step sizes.
    """
    wanted = target / scale
    largest = wanted.abs().argmax(2, keepdim=True)
    ends = WEIGHT_LEVELS * wanted.gather(2, largest).sign()
    fixed = torch.zeros_like(wanted, dtype=torch.bool).scatter_(2, largest, True)
    best, least = torch.empty(0), torch.empty(0)
    for start in (wanted.round(), _carried(wanted.scatter(2, largest, ends), wanted, moment)):
        q = _improve(start.clamp(-WEIGHT_LEVELS, WEIGHT_LEVELS).scatter(2, largest, ends), wanted, moment, fixed)
        rest = q - wanted
        error = ((rest @ moment) * rest).sum(2, keepdim=True) * scale**2
        best = torch.where(error < least, q, best) if len(least) else q
        least = torch.minimum(error, least) if len(least) else error
    return best, least


def _carried(start: torch.Tensor, wanted: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """Round from the last weight to the first, each making up for the errors behind it (Babai's nearest plane)."""
    q = start.clone()
    upper = torch.linalg.cholesky(moment).mT
    for k in reversed(range(q.shape[2])):
        behind = (upper[:, None, k, k + 1 :] * (q - wanted)[..., k + 1 :]).sum(2)
        q[..., k] = (start[..., k] - behind / upper[:, k, k, None]).round().clamp(-WEIGHT_LEVELS, WEIGHT_LEVELS)
    return q


def _improve(q: torch.Tensor, wanted: torch.Tensor, moment: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    """One weight after the other gets its best whole number given the others, until none moves."""
    q = q.clone()
    slope = (q - wanted) @ moment
    for _ in range(SWEEPS):
        moved = False
        for k in range(q.shape[2]):
            curvature = moment[:, k, k, None]
            better = (q[..., k] - slope[..., k] / curvature).round().clamp(-WEIGHT_LEVELS, WEIGHT_LEVELS)
            change = torch.where(fixed[..., k], 0.0, better - q[..., k])
            if change.any():
                moved = True
                q[..., k] += change
                slope += change[..., None] * moment[:, None, k]
        if not moved:
            break
    return q


def fit_weight(layer: Layer, exact: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """Int8 weights, in float, that best turn ``rounded`` inputs into what the layer makes of the ``exact`` ones.

    Both are as :func:`columns` returns them. Constant errors are left to the bias.
    """
    weight = as_matrix(layer, layer.weight.detach()).double()
    a = (rounded - rounded.mean(0)).double().permute(1, 2, 0)
    b = (exact - exact.mean(0)).double().permute(1, 2, 0)
    moment, cross = a @ a.mT / a.shape[2], b @ a.mT / a.shape[2]
    level = moment.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(1e-9)
    damping = DAMPING * level * torch.eye(len(moment[0]), dtype=moment.dtype)
    target = (weight @ (cross + damping)) @ torch.linalg.inv(moment + damping)
    largest = target.abs().amax(2, keepdim=True).clamp_min(1e-12)
    best, least = torch.empty(0), torch.empty(0)
    for share in CLIPPED_SHARES:
        scale = largest * share / WEIGHT_LEVELS
        q, error = descend(target, moment + 0.1 * damping, scale)
        better = error < least if len(least) else torch.ones_like(error, dtype=torch.bool)
        best = torch.where(better, q * scale, best) if len(best) else q * scale
        least = torch.where(better, error, least) if len(least) else error
    return best.reshape(layer.weight.shape).float()


class _Rounder:
    """Steps over pairs: the float network's activations and the quantised one's, over all images."""

    def __init__(self, exact: FakeQuantNet, rounded: FakeQuantNet, seed: int) -> None:
        self.exact, self.rounded = exact, rounded
        self.by_name = {layer.name: layer for layer in exact.in_order()}
        self.fitted = {layer.name for layer in exact.in_order()[:FITTED_LAYERS]}
        self.generator = torch.Generator().manual_seed(seed)

    def run_layer(self, layer: Layer, x: Pair) -> Pair:
        source = self.by_name[layer.name]
        if layer.name in self.fitted and not layer.exact:
            layer.weight.copy_(self._fit(source, *x))
        layer.bias.data += _channel_means(source, x[0]) - _channel_means(layer, x[1])
        return (
            _in_chunks(lambda part: self.exact.run_layer(source, part), x[0]),
            _in_chunks(lambda part: self.rounded.run_layer(layer, part), x[1]),
        )

    def _fit(self, source: Layer, exact: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        places = _positions(source, exact, POSITIONS, self.generator) if exact.ndim == 4 else None
        return fit_weight(source, columns(source, exact, places), columns(source, rounded, places))

    def add(self, name: str, x: Pair, before: Pair) -> Pair:
        return self.exact.add(name, x[0], before[0]), self.rounded.add(name, x[1], before[1])

    def pool(self, x: Pair) -> Pair:
        return self.exact.pool(x[0]), self.rounded.pool(x[1])


def _in_chunks(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return torch.cat([function(part) for part in x.split(CHUNK)])


def _channel_means(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """Mean of each output channel, chunk by chunk: the whole output would not fit."""
    means = [y.mean((0, 2, 3)) * len(y) if y.ndim == 4 else y.sum(0) for y in map(layer, x.split(CHUNK))]
    return torch.stack(means).sum(0) / len(x)


@torch.no_grad()
def round_network(
    network: LesionNet, ranges: dict[str, Range], images: np.ndarray, n_float: int = 0, seed: int = 0
) -> FakeQuantNet:
    """A quantised network whose weights and biases are fitted to the float one layer by layer.

    Parameters
    ----------
    network : LesionNet
        The float network.
    ranges : dict
        Of :func:`calibrate`.
    images : ndarray
        ``(n, h, w, 3)`` uint8; about 20 MB of memory each while it lasts.
    n_float : int
        So many layers are left in float, from the first on.
    seed : int
        Of the positions that are looked at.
    """
    exact = FakeQuantNet(network, n_float=None).eval()
    rounded = FakeQuantNet(network, without_float_start(ranges, n_float), n_float).eval()
    pixels = to_batch(images)
    rounded.walk((exact.enter(pixels), rounded.enter(pixels)), _Rounder(exact, rounded, seed))
    return rounded
