"""EfficientNet-Lite0 as its int8 file computes it: folded batch norms, rounded weights, rounded activations.

Weights are symmetric int8 per output channel, activations asymmetric uint8 per tensor, rounded where the
exported graph rounds them: after every convolution (behind its ReLU6), after residual sums, pooling and the
last layer. Gradients pass the rounding unchanged and stop where a value is clipped (straight through).

References
----------
B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from export.train.network import INPUT_MEAN, INPUT_STD, LesionNet

WEIGHT_LEVELS = 127
"""Int8 weights are -127..127: symmetric, so that the largest weight of a channel is exactly on the grid."""
ACTIVATION_LEVELS = 255
RELU6 = 6.0
INPUT_RANGE = (-INPUT_MEAN / INPUT_STD, (255 - INPUT_MEAN) / INPUT_STD)
"""Pixels are whole numbers, so this range quantises the input without any loss."""
INPUT, POOL = "input", "body._avg_pooling"

Range = tuple[float, float]


def grid(low: float, high: float) -> tuple[float, int]:
    """``(scale, zero_point)`` of uint8 values from ``low`` to ``high``, as the runtimes choose them."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / ACTIVATION_LEVELS or 1.0
    return scale, round(-low / scale)


def round_weight(weight: torch.Tensor) -> torch.Tensor:
    """Weights on their int8 grid, one scale for each row of the first axis; the gradient passes unchanged."""
    flat = weight.detach().flatten(1)
    scale = (flat.abs().amax(1) / WEIGHT_LEVELS).clamp_min(1e-12)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS)


def round_activation(x: torch.Tensor, bounds: Range) -> torch.Tensor:
    """Activations clipped to ``bounds`` and rounded to 256 levels; the gradient stops where they were clipped."""
    scale, zero = grid(*bounds)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, ACTIVATION_LEVELS)


class Layer(nn.Module):
    """One convolution or the last product, with its batch norm folded in.

    Parameters
    ----------
    name : str
        Path of the convolution in ``LesionNet``; also names its output.
    source : nn.Conv2d or nn.Linear
        The layer.
    norm : nn.BatchNorm2d, optional
        Its batch norm, evaluation mode.
    clipped : bool
        A ReLU6 follows.
    exact : bool
        Its weights are not rounded.
    """

    def __init__(self, name: str, source: Any, norm: nn.BatchNorm2d | None, clipped: bool, exact: bool) -> None:
        super().__init__()
        self.name, self.clipped, self.exact = name, clipped, exact
        weight = source.weight.detach().double()
        bias = torch.zeros(len(weight)) if source.bias is None else source.bias.detach()
        if norm is not None:
            assert norm.running_mean is not None and norm.running_var is not None
            gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
            weight = weight * gain.view(-1, 1, 1, 1)
            bias = norm.bias.detach() + (bias - norm.running_mean) * gain
        self.weight = nn.Parameter(weight.float().contiguous(memory_format=_layout(weight)))
        self.bias = nn.Parameter(bias.float())
        self.step, self.groups = max(getattr(source, "stride", (1,))), int(getattr(source, "groups", 1))
        self.padding = getattr(getattr(source, "static_padding", None), "padding", (0, 0, 0, 0))

    def used_weight(self) -> torch.Tensor:
        """The weights that are multiplied with."""
        return self.weight if self.exact else round_weight(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output before ReLU6 and rounding."""
        weight = self.used_weight()
        if weight.ndim == 2:
            return functional.linear(x, weight, self.bias)
        left, right, top, bottom = self.padding
        if left != right or top != bottom:
            x = functional.pad(x, self.padding)
            return functional.conv2d(x, weight, self.bias, self.step, 0, 1, self.groups)
        return functional.conv2d(x, weight, self.bias, self.step, (top, left), 1, self.groups)


def _layout(weight: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if weight.ndim == 4 else torch.contiguous_format


class Steps(Protocol):
    """What is done at each place of the network; see :meth:`FakeQuantNet.walk`."""

    def run_layer(self, layer: Layer, x: Any) -> Any: ...

    def add(self, name: str, x: Any, before: Any) -> Any: ...

    def pool(self, x: Any) -> Any: ...


class FakeQuantNet(nn.Module):
    """The quantised network in float arithmetic; differentiable.

    Parameters
    ----------
    network : LesionNet
        Its weights are copied.
    ranges : mapping of str to (float, float)
        Ranges of the activations by name. One without a range is left exact.
    n_float : int, optional
        So many layers keep their weights as they are, from the first on. Without ranges and with all layers in
        float (None) this is the float network.
    """

    def __init__(self, network: LesionNet, ranges: Mapping[str, Range] | None = None, n_float: int | None = 0) -> None:
        super().__init__()
        self.arch = network.arch
        pairs = _norms(network)
        linear = tuple(name for name, _ in pairs if name.endswith(("._project_conv", "._fc")))
        exact = len(pairs) if n_float is None else n_float
        layers = [
            Layer(name, network.get_submodule(name), norm, name not in linear, n < exact)
            for n, (name, norm) in enumerate(pairs)
        ]
        self.blocks: list[tuple[str, int, bool]] = []
        """Name, number of layers and whether a residual sum ends it, of each block."""
        for index, block in enumerate(network.body._blocks):
            n_layers = 3 if hasattr(block, "_expand_conv") else 2
            first = getattr(block, "_expand_conv", block._depthwise_conv)
            same = max(block._depthwise_conv.stride) == 1 and first.in_channels == block._project_conv.out_channels
            self.blocks.append((f"body._blocks.{index}", n_layers, same and block.id_skip))
        self.layers = nn.ModuleList(layers)
        self.ranges: dict[str, Range] = dict(ranges or {})

    def in_order(self) -> list[Layer]:
        """The layers as the data meets them."""
        return list(self.layers)  # type: ignore[arg-type]

    def walk(self, x: Any, steps: Steps) -> Any:
        """Lead the normalised picture, or whatever the steps understand, through the network's structure."""
        layers = iter(self.in_order())
        x = steps.run_layer(next(layers), x)
        for name, n_layers, residual in self.blocks:
            before = x
            for _ in range(n_layers):
                x = steps.run_layer(next(layers), x)
            if residual:
                x = steps.add(name, x, before)
        x = steps.pool(steps.run_layer(next(layers), x))
        return steps.run_layer(next(layers), x)

    def point(self, name: str, x: torch.Tensor, clipped: bool = False) -> torch.Tensor:
        """The activation ``name`` as the next layer reads it."""
        bounds = self.ranges.get(name)
        if bounds is None:
            return x.clamp(0, RELU6) if clipped else x
        return round_activation(x, bounds)  # whose clipping includes that of ReLU6

    def enter(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(n, 3, h, w)`` float RGB in 0..255, normalised."""
        return self.point(INPUT, (pixels - INPUT_MEAN) / INPUT_STD)

    def run_layer(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """One layer with its ReLU6 and rounding."""
        return self.point(layer.name, layer(x), layer.clipped)

    def add(self, name: str, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """The residual sum of one block."""
        return self.point(name, x + before)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over the picture."""
        return self.point(POOL, x.mean((2, 3)))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_classes)`` of ``(n, 3, h, w)`` float RGB in 0..255."""
        return self.walk(self.enter(pixels), self)

    @torch.no_grad()
    def to_network(self) -> LesionNet:
        """A plain network with these weights, rounded, and batch norms that do nothing.

        The largest weight of each channel is 127 steps, so every exporter that scales by the largest weight finds
        the same grid again and rounds nothing.
        """
        layers = {layer.name: layer for layer in self.in_order()}
        network = LesionNet(len(self.in_order()[-1].weight), arch=self.arch).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.weight.fill_(1)
                module.running_mean.zero_()
                module.running_var.fill_(1 - module.eps)
        for name, norm in _norms(network):
            layer = layers[name]
            source = network.get_submodule(name)
            source.weight.copy_(layer.used_weight())  # type: ignore[operator]
            (source if norm is None else norm).bias.copy_(layer.bias)  # type: ignore[operator]
        return network


def without_float_start(ranges: Mapping[str, Range], n_float: int) -> dict[str, Range]:
    """The ranges that remain where the first layers are in float: of what a quantised layer reads or writes."""
    return dict(list(ranges.items())[n_float:])


def _norms(network: LesionNet) -> list[tuple[str, nn.BatchNorm2d | None]]:
    """The layers of a network in order, each with the batch norm behind it."""
    body = network.body
    pairs: list[tuple[str, nn.BatchNorm2d | None]] = [("body._conv_stem", body._bn0)]
    for index, block in enumerate(body._blocks):
        name = f"body._blocks.{index}"
        if hasattr(block, "_expand_conv"):
            pairs.append((f"{name}._expand_conv", block._bn0))
        pairs += [(f"{name}._depthwise_conv", block._bn1), (f"{name}._project_conv", block._bn2)]
    return [*pairs, ("body._conv_head", body._bn1), ("body._fc", None)]
