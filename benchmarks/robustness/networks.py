"""The attacked networks: the shipped int8 file as a differentiable float module, and the surrogates.

An attacker who holds the board's model file can turn it back into arithmetic with gradients, so that is what
the gray-box and adaptive attacks are run on. The verdict never comes from here: it is the int8 file's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional

from benchmarks.robustness.errors import RobustnessError
from benchmarks.robustness.surrogate_file import SUFFIX, load_surrogate
from edge_mdda.classifier import BUILT_IN_MODELS, Classifier, built_in, open_classifier
from edge_mdda.digest import sha256
from export.convert.graphs import load_graph
from export.convert.rebuild import OPERATORS, Rebuilt

INT8_RANGES = {np.dtype(np.uint8): (0, 255), np.dtype(np.int8): (-128, 127)}
MODELS = {name: built_in(name=name) for name in BUILT_IN_MODELS}
"""Networks that can be judged, by the name in the rows."""
STUDIED = ("standard", "hardened")
"""Those that the plan has rows of."""
SURROGATES = Path(__file__).parent / "surrogates"


def _clip(a: dict[str, Any], x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
    """Clip; with both ends known by the operator that makes a whole pass a fifth faster than ``torch.clamp`` does."""
    if low is None or high is None:
        return OPERATORS["Clip"](a, x, low, high)
    return functional.hardtanh(x, float(low), float(high))


class _Differentiable(Rebuilt):
    operators: ClassVar = {**OPERATORS, "Clip": _clip}


class Twin(nn.Module):
    """A model file's arithmetic in float32, differentiable in its input.

    Weights are the file's integers times their scales. An activation is clipped where its uint8 grid ends, which
    includes the ReLU6 that the file left to it, and not rounded: rounding has no gradient. The logits are the file's
    own: the manifest's temperature, which changes no top class, comes after them.

    Parameters
    ----------
    path : Path
        An int8 ONNX file in QDQ form with a uint8 NHWC input, as ``python -m export`` writes it.

    Raises
    ------
    ExportError
        Not a usable ONNX file, or an operator that is not known.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.body = _Differentiable(dequantised(load_graph(path)))
        self.body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_labels)`` of ``(n, 3, h, w)`` float RGB in 0..255."""
        return self.body(pixels.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1))


def dequantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float graph behind a QDQ file: float weights, clipped activations, float NHWC input, any batch size."""
    graph = model.graph
    weights: dict[str, Any] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    same: dict[str, str] = {}  # value name to the name that now stands for it

    def named(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    for node in graph.node:
        inputs = [named(name) for name in node.input]
        if node.op_type == "DequantizeLinear" and inputs[0] in weights:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            weights[node.output[0]] = _real(weights[inputs[0]], weights[inputs[1]], weights[inputs[2]], axis)
        elif node.op_type in ("Cast", "Transpose") and inputs[0] == graph.input[0].name:
            same[node.output[0]] = inputs[0]
        elif node.op_type == "DequantizeLinear":
            same[node.output[0]] = inputs[0]  # its QuantizeLinear became a Clip
        elif node.op_type == "QuantizeLinear":
            scale, zero = weights[inputs[1]], weights[inputs[2]]
            low, high = INT8_RANGES[zero.dtype]
            bounds = []
            for end, level in (("low", low), ("high", high)):
                bounds.append(f"{node.output[0]}_{end}")
                weights[bounds[-1]] = np.float32((level - int(zero)) * float(scale))
            nodes.append(helper.make_node("Clip", [inputs[0], *bounds], list(node.output)))
        elif node.op_type == "Reshape":
            nodes.append(helper.make_node("Flatten", inputs[:1], list(node.output), axis=1))
        else:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = inputs
            nodes.append(copy)
    used = {name for node in nodes for name in node.input}
    initialisers = [numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items() if name in used]
    return helper.make_model(helper.make_graph(nodes, graph.name, graph.input, graph.output, initialisers))


def _real(values: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> np.ndarray:
    """Numbers that quantised weights stand for; ``scale`` is one number or one for each index along ``axis``."""
    shape = [1] * values.ndim
    if scale.ndim and values.ndim:
        shape[axis] = -1
    centred = values.astype(np.float64) - zero.astype(np.float64).reshape(shape)
    return (centred * scale.astype(np.float64).reshape(shape)).astype(np.float32)


@dataclass(frozen=True)
class Deployed:
    """A network as it is shipped, with its differentiable twin.

    Attributes
    ----------
    name : str
        Key in :data:`MODELS`.
    classifier : Classifier
        The int8 file in its runtime; it gives the verdicts.
    twin : Twin
        What attackers differentiate.
    """

    name: str
    classifier: Classifier
    twin: nn.Module

    @property
    def digest(self) -> str:
        """SHA-256 of the model file."""
        return self.classifier.manifest.sha256


def available() -> list[str]:
    """Names of the studied networks whose files are here."""
    return [name for name in STUDIED if MODELS[name].exists()]


def deployed(name: str, device: str = "cpu") -> Deployed:
    """Open a network by name; RobustnessError if its file is not there."""
    path = MODELS[name]
    if not path.exists():
        raise RobustnessError(
            f"the network '{name}' is not here ({path.name}); choose --model {' or '.join(available())}"
        )
    classifier = open_classifier(path, threads=1)
    return Deployed(name, classifier, Twin(path).to(device))


@dataclass(frozen=True)
class Surrogate:
    """A network on which transfer attacks are made."""

    name: str
    network: nn.Module
    digest: str


def surrogate_files() -> dict[str, Path]:
    """The surrogates' files by name."""
    return {path.name.removesuffix(SUFFIX): path for path in sorted(SURROGATES.glob(f"*{SUFFIX}"))}


def surrogates() -> dict[str, nn.Module]:
    """The other architectures by name; each maps ``(n, 3, 224, 224)`` float in 0..255 to logits."""
    return {name: load_surrogate(path)[0] for name, path in surrogate_files().items()}


def transfer_sources(target: str, device: str = "cpu") -> list[Surrogate]:
    """Every network that is not the target: the other architectures, and the other shipped network."""
    found = [
        Surrogate(name, network.to(device), sha256(surrogate_files()[name].read_bytes()).hexdigest())
        for name, network in surrogates().items()
    ]
    for name in available():
        if name != target:
            found.append(Surrogate(name, Twin(MODELS[name]).to(device), sha256(MODELS[name].read_bytes()).hexdigest()))
    return found
