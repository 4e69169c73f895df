"""A shipped int8 ONNX file as a network to train on from: its weights, without the rounding of activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_mdda.classifier.manifest import manifest_path, read_manifest
from export.options import TrainOptions
from export.train.fake_quant import FakeQuantNet
from export.train.network import CheckpointError, LesionNet, network_from_checkpoint

LAYER_INPUTS = 3  # of a convolution or the last layer: data, weights, bias


def network_from_onnx(path: Path, arch: str, n_classes: int) -> LesionNet:
    """The network of an ``onnx-int8`` or ``onnx-fp32`` file that was converted from a :class:`LesionNet`.

    Batch norms are part of the weights there; those of the answer do nothing, so train it folded
    (:class:`~export.train.fake_quant.FakeQuantNet` without ranges).

    Parameters
    ----------
    path : Path
        The file.
    arch : str
        Its architecture.
    n_classes : int
        Its classes.

    Raises
    ------
    CheckpointError
        The file cannot be read, or its layers are not those of the architecture.
    """
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf and the system raise many kinds
        raise CheckpointError(f"{path}: not a readable ONNX file ({type(error).__name__})") from error
    stored = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {node.output[0]: node for node in graph.node}

    def value(name: str) -> np.ndarray:
        if name in stored:
            return numpy_helper.to_array(stored[name])
        node = made_by.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            raise CheckpointError(f"{path}: '{name}' is no stored weight")
        steps, scale, zero = (numpy_helper.to_array(stored[part]) for part in node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [-1 if scale.ndim and k == axis else 1 for k in range(steps.ndim)]
        return ((steps.astype(np.float32) - zero.astype(np.float32).reshape(shape)) * scale.reshape(shape)).astype("f4")

    folded = FakeQuantNet(LesionNet(n_classes, arch=arch), n_float=None)
    layers = folded.in_order()
    nodes = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    if len(nodes) != len(layers) or any(len(node.input) != LAYER_INPUTS for node in nodes):
        raise CheckpointError(f"{path}: {len(nodes)} layers, {arch} has {len(layers)}")
    with torch.no_grad():
        for node, layer in zip(nodes, layers, strict=True):
            for parameter, name in ((layer.weight, node.input[1]), (layer.bias, node.input[2])):
                found = torch.from_numpy(np.array(value(name)))
                if found.shape != parameter.shape:
                    raise CheckpointError(f"{path}: '{name}' has shape {tuple(found.shape)}, {arch} another")
                parameter.copy_(found)
    return folded.to_network()


def open_network(path: Path, arch: str = TrainOptions.arch) -> tuple[LesionNet, dict[str, Any]]:
    """A checkpoint's network and other fields; of an ONNX file with its manifest the same, as far as it has them."""
    if path.suffix != ".onnx":
        return network_from_checkpoint(path)
    labels = list(read_manifest(manifest_path(path))[1].labels)
    return network_from_onnx(path, arch, len(labels)).eval(), {"labels": labels, "options": {"arch": arch}}
