"""Networks with one output for two labels: the logit, or by a sigmoid the probability, of the second label.

They become networks with two logits, minus and plus half of the one: their softmax is the sigmoid of the difference,
so the answers stay what they were, and nothing else needs to know.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.errors import ExportError

Predict = Callable[[np.ndarray], np.ndarray]
SURE = 1e-7  # nearest to 0 or 1 that a sigmoid in float32 is taken for
BETWEEN = {"Identity", "Squeeze", "Flatten", "Reshape"}  # what may follow the last layer; one number stays one


def single_output(core: onnx.ModelProto) -> bool:
    """Whether the graph answers with one number a picture."""
    value = onnx.shape_inference.infer_shapes(core).graph.output[0]
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    return shape in ([1, 1], [1])


def ends_in_sigmoid(core: onnx.ModelProto) -> bool:
    """Whether the number is a probability."""
    makers = {output: node for node in core.graph.node for output in node.output}
    node = makers.get(core.graph.output[0].name)
    while node is not None and node.op_type in BETWEEN:
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "Sigmoid"


def with_two_outputs(core: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The graph with two logits in the place of its one output; its last layer gets a second row of weights.

    Raises
    ------
    ExportError
        The number does not come from a fully connected layer.
    """
    graph = core.graph
    makers = {output: node for node in graph.node for output in node.output}
    tail, value = [], graph.output[0].name
    while (node := makers.get(value)) is not None and node.op_type in BETWEEN | {"Sigmoid"}:
        tail.append(node)
        value = node.input[0]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    if node is None or node.op_type != "Gemm" or any(part not in weights for part in node.input[1:]):
        kind = node.op_type if node is not None else "nothing"
        raise ExportError(f"{name}: its one output comes from {kind}, not from a linear layer; give it two outputs")
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    rows = numpy_helper.to_array(weights[node.input[1]])
    rows = rows if attributes.get("transB", 0) else rows.T
    bias = numpy_helper.to_array(weights[node.input[2]]).reshape(-1) if len(node.input) > 2 else np.zeros(1, rows.dtype)
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    halves = np.array([[-0.5], [0.5]], rows.dtype)
    new_rows, new_bias = (halves * rows * alpha).astype(rows.dtype), (halves[:, 0] * bias * beta).astype(rows.dtype)
    for node_behind in tail:
        graph.node.remove(node_behind)
    names = f"{node.output[0]}_two_weights", f"{node.output[0]}_two_bias"
    graph.initializer.extend(numpy_helper.from_array(v, n) for v, n in zip((new_rows, new_bias), names, strict=True))
    position = list(graph.node).index(node)
    first_input, output = node.input[0], graph.output[0].name
    more = {"transA": attributes["transA"]} if "transA" in attributes else {}
    graph.node.remove(node)
    graph.node.insert(
        position,
        helper.make_node("Gemm", [first_input, *names], [output], name=node.name or "edge_mdda_two", transB=1, **more),
    )
    used = {part for other in graph.node for part in other.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    kind = graph.output[0].type.tensor_type.elem_type
    del graph.output[:], graph.value_info[:]
    graph.output.append(helper.make_tensor_value_info(output, kind, [1, len(halves)]))
    return core


def two_columns(predict: Predict, sigmoid: bool) -> Predict:
    """``predict``, of a network with one output as logits ``(n, 2)``; what has more columns stays as it is."""

    def both(batch: np.ndarray) -> np.ndarray:
        outputs = predict(batch)
        if outputs.size > len(batch):
            return outputs
        values = np.asarray(outputs, np.float64).reshape(len(batch), 1)
        if sigmoid:
            values = np.clip(values, SURE, 1 - SURE)
            values = np.log(values / (1 - values))
        return np.concatenate([-values / 2, values / 2], axis=1)

    return both
