"""An ONNX graph as a PyTorch module that a TFLite converter lays out without a single TRANSPOSE.

Whatever the source was, its float ONNX file is what gets converted: one path, one set of operators, one
place that says which operator is missing. The input is NHWC, as TFLite wants it; activations with four
axes stay NCHW inside, where the converter moves them to NHWC by itself. It cannot do so past a pooling
over the picture, so that one is written in NHWC here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from export.errors import ExportError


def _pads(attributes: dict[str, Any]) -> list[int]:
    """``F.pad`` order (left, right, top, bottom) of an operator with explicit 2-D pads."""
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    return [left, right, top, bottom]


def _explicit(attributes: dict[str, Any], kind: str) -> None:
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET"):
        raise ExportError(f"{kind} with auto_pad cannot be converted; export the model with explicit pads")


def _conv(a: dict[str, Any], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    _explicit(a, "Conv")
    left, right, top, bottom = _pads(a)
    padding: Any = (top, left)
    if (top, left) != (bottom, right):
        x, padding = functional.pad(x, (left, right, top, bottom)), 0
    dilation, stride = a.get("dilations", [1, 1]), a.get("strides", [1, 1])
    return functional.conv2d(x, weight, bias, stride, padding, dilation, a.get("group", 1))


def _gemm(a: dict[str, Any], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    if a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0 or a.get("transA", 0):
        raise ExportError("Gemm with alpha, beta or transA cannot be converted")
    return functional.linear(x, weight if a.get("transB", 0) else weight.t(), bias)


def _matmul(_: dict[str, Any], x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, weight.t()) if weight.ndim == 2 else x @ weight


def _clip(a: dict[str, Any], x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
    low, high = (a.get(n) if v is None else v for n, v in (("min", low), ("max", high)))
    low, high = (None if v is None else float(v) for v in (low, high))
    if (low, high) == (0.0, 6.0):
        return functional.relu6(x)
    return torch.clamp(x, low, high)


def _axes(a: dict[str, Any], axes: torch.Tensor | None, ndim: int) -> list[int]:
    chosen = a.get("axes") if axes is None else axes.tolist()
    return sorted(axis % ndim for axis in (range(ndim) if chosen is None else chosen))


def _mean(a: dict[str, Any], x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    chosen, keep = _axes(a, axes, x.ndim), bool(a.get("keepdims", 1))
    if x.ndim == 4 and chosen == [2, 3]:
        pooled = x.permute(0, 2, 3, 1).mean((1, 2))
        return pooled[:, :, None, None] if keep else pooled
    return x.mean(chosen, keep)


def _pool(a: dict[str, Any], x: torch.Tensor, kind: str) -> torch.Tensor:
    _explicit(a, kind)
    if a.get("ceil_mode", 0) or a.get("dilations", [1, 1]) != [1, 1]:
        raise ExportError(f"{kind} with ceil_mode or dilations cannot be converted")
    left, right, top, bottom = _pads(a)
    size, stride = a["kernel_shape"], a.get("strides", [1, 1])
    if kind == "MaxPool":
        x = functional.pad(x, (left, right, top, bottom), value=torch.finfo(x.dtype).min) if any(_pads(a)) else x
        return functional.max_pool2d(x, size, stride)
    if any(_pads(a)) and not a.get("count_include_pad", 0):
        raise ExportError("AveragePool that leaves its padding out of the mean cannot be converted")
    x = functional.pad(x, (left, right, top, bottom)) if any(_pads(a)) else x
    return functional.avg_pool2d(x, size, stride)


def _pad(a: dict[str, Any], x: torch.Tensor, pads: torch.Tensor, value: Any = None, *_: Any) -> torch.Tensor:
    if a.get("mode", b"constant") not in (b"constant", "constant"):
        raise ExportError("Pad other than constant cannot be converted")
    amounts = pads.tolist()
    n = len(amounts) // 2
    order = [amounts[axis + end * n] for axis in reversed(range(n)) for end in (0, 1)]
    while len(order) > 2 and order[-2:] == [0, 0]:
        order = order[:-2]
    return functional.pad(x, order, value=0.0 if value is None else float(value))


def _batch_norm(a: dict[str, Any], x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    scale, bias, mean, variance = weights
    return functional.batch_norm(x, mean, variance, scale, bias, eps=a.get("epsilon", 1e-5))


def _flatten(a: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    if a.get("axis", 1) != 1:
        raise ExportError("Flatten from an axis other than 1 cannot be converted")
    if x.ndim == 4 and x.shape[2] == x.shape[3] == 1:
        return x.reshape(x.shape[0], x.shape[1])
    return torch.flatten(x, 1)


def _reshape(_: dict[str, Any], x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())])


OPERATORS: dict[str, Callable[..., torch.Tensor]] = {
    "Add": lambda _, x, y: x + y,
    "AveragePool": lambda a, x: _pool(a, x, "AveragePool"),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Conv": _conv,
    "Div": lambda _, x, y: x / y,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, x: _mean({"axes": [2, 3], "keepdims": 1}, x),
    "HardSigmoid": lambda a, x: torch.clamp(x * a.get("alpha", 0.2) + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda _, x: functional.hardswish(x),
    "Identity": lambda _, x: x,
    "LeakyRelu": lambda a, x: functional.leaky_relu(x, a.get("alpha", 0.01)),
    "MatMul": _matmul,
    "MaxPool": lambda a, x: _pool(a, x, "MaxPool"),
    "Mul": lambda _, x, y: x * y,
    "Pad": _pad,
    "ReduceMean": _mean,
    "Relu": lambda _, x: functional.relu(x),
    "Reshape": _reshape,
    "Sigmoid": lambda _, x: torch.sigmoid(x),
    "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "Squeeze": lambda a, x, axes=None: x.squeeze(tuple(_axes(a, axes, x.ndim))),
    "Sub": lambda _, x, y: x - y,
    "Tanh": lambda _, x: torch.tanh(x),
}
"""ONNX operator to its meaning: ``(attributes, *inputs)``."""


ELEMENTWISE = ("Add", "Div", "Mul", "Sub")


def _padded_picture(x: torch.Tensor, attributes: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    """An NHWC picture with a first convolution's uneven padding, and the attributes without it."""
    left, right, top, bottom = _pads(attributes)
    if (left, top) == (right, bottom):
        return x, attributes
    return functional.pad(x, (0, 0, left, right, top, bottom)), {**attributes, "pads": [0, 0, 0, 0]}


class Rebuilt(nn.Module):
    """Runs the nodes of a float ONNX graph whose input is ``(1, 3, h, w)``; takes ``(1, h, w, 3)``.

    Raises
    ------
    ExportError
        An operator that is not in :attr:`operators`.
    """

    operators: ClassVar[dict[str, Callable[..., torch.Tensor]]] = OPERATORS

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        missing = sorted({node.op_type for node in graph.node} - set(self.operators) - {"Constant"})
        if missing:
            names, known = ", ".join(missing), ", ".join(sorted(self.operators))
            raise ExportError(f"no TFLite conversion for the operator(s) {names}; known are {known}")
        self._constants: dict[str, torch.Tensor] = {}
        self._slots: dict[str, str] = {}
        for tensor in graph.initializer:
            self._store(tensor.name, tensor)
        self._nodes: list[tuple[str, dict[str, Any], list[str], str]] = []
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._store(node.output[0], attributes["value"])
            else:
                self._nodes.append((node.op_type, attributes, list(node.input), node.output[0]))
        self._input, self._output = graph.input[0].name, graph.output[0].name

    def _store(self, name: str, tensor: onnx.TensorProto) -> None:
        value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
        if value.is_floating_point() and value.ndim:
            slot = f"weight_{len(self._slots)}"
            self._slots[name] = slot
            self.register_parameter(slot, nn.Parameter(value, requires_grad=False))
        else:
            self._constants[name] = value

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The graph's output for one NHWC picture."""
        values: dict[str, Any] = {"": None, self._input: pixels, **self._constants}
        values.update({name: getattr(self, slot) for name, slot in self._slots.items()})
        nhwc = {self._input}  # values that still have the picture's own layout
        for kind, attributes, inputs, output in self._nodes:
            arguments = [values[name] for name in inputs]
            if inputs[0] in nhwc and kind in ELEMENTWISE and arguments[1].numel() in (1, 3):
                values[output] = self.operators[kind](attributes, arguments[0], arguments[1].reshape(-1))
                nhwc.add(output)
                continue
            if inputs[0] in nhwc and kind == "Conv":
                arguments[0], attributes = _padded_picture(arguments[0], attributes)
            arguments = [v.permute(0, 3, 1, 2) if n in nhwc else v for n, v in zip(inputs, arguments, strict=True)]
            values[output] = self.operators[kind](attributes, *arguments)
        return values[self._output]
