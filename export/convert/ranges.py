"""Activation ranges that come with a checkpoint, brought to the names or the order that each quantiser wants.

A checkpoint names its ranges by module (``body._blocks.0._depthwise_conv``; a convolution's range is that behind
its ReLU6, a block's that of its residual sum), and ``input`` for the normalised picture. The nodes of a traced
graph carry the path of the module that they came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.errors import ExportError

if TYPE_CHECKING:
    import onnx

Range = tuple[float, float]
KINDS = {"Conv": "conv", "Add": "add", "GlobalAveragePool": "mean", "ReduceMean": "mean", "Gemm": "linear"}
"""Nodes whose output has a range, and what the TFLite worker calls them."""


def _modules(model: onnx.ModelProto) -> list[tuple[str, str, str]]:
    """``(kind, module, tensor)`` of every node with a range, in the order of execution."""
    clips = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "Clip"}
    found = []
    for node in model.graph.node:
        module = node.name.strip("/").removeprefix("network/").rpartition("/")[0].replace("/", ".")
        if node.op_type in KINDS:
            found.append((KINDS[node.op_type], module, clips.get(node.output[0], node.output[0])))
        elif node.op_type == "Div":
            found.append(("input", "input", node.output[0]))
    return found


def _checked(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> list[tuple[str, str, str]]:
    found = _modules(model)
    unmatched = sorted(set(ranges) - {module for _, module, _ in found})
    if unmatched:
        raise ExportError(f"the checkpoint's ranges do not fit the graph ({unmatched[0]}); run fit-int8 again")
    return found


def onnx_overrides(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> dict[str, Any]:
    """``TensorQuantOverrides`` of ONNX Runtime's quantiser."""
    return {
        tensor: [{"rmin": np.float32(ranges[module][0]), "rmax": np.float32(ranges[module][1])}]
        for _, module, tensor in _checked(model, ranges)
        if module in ranges
    }


def in_order(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> list[tuple[str, Range | None]]:
    """Kind and range of every node as the graph meets them, without the input, for the TFLite worker.

    What only layers in float read has no range.
    """
    return [(kind, ranges.get(module)) for kind, module, _ in _checked(model, ranges) if kind != "input"]


def teacher_of(checkpoint: Path, content: Mapping[str, Any], reference: Path | None) -> Path:
    """The float network that int8 has to agree with: what it was fitted to, or the checkpoint itself."""
    from export.train.fine_tune import file_hash

    if "ranges" not in content:
        return reference or checkpoint
    if reference is None:
        raise ExportError(f"{checkpoint}: was fitted to a float network; name that one's checkpoint with --reference")
    if file_hash(reference) != content["init"]:
        raise ExportError(f"{reference}: is not the network that {checkpoint} was fitted to")
    return reference
