"""What a model file really computes in: read from the file itself, and held against what it claims to be."""

from __future__ import annotations

from collections import Counter
from typing import Any

from export.convert.formats import OPSET, Format
from export.errors import ExportError

ONNX_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVES = {
    "Cast",
    "Constant",
    "DequantizeLinear",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Transpose",
}
"""Operators that compute nothing."""

TENSORRT_OPERATORS = {
    *("Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Constant", "Conv", "DequantizeLinear", "Div"),
    *("Flatten", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MatMul", "MaxPool"),
    *("Mul", "Pad", "QuantizeLinear", "ReduceMean", "Relu", "Reshape", "Sigmoid", "Softmax", "Squeeze", "Sub", "Tanh"),
}
"""What TensorRT's ONNX parser takes and this project has a use for."""

TFLITE_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
TFLITE_MOVES = {"DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "TRANSPOSE"}


def audit(content: bytes, suffix: str) -> dict[str, Any]:
    """What the file holds.

    Returns
    -------
    dict
        ``layers`` (convolutions and matrix products) and how many of them compute in ``int8_layers``,
        ``fp16_layers`` and ``fp32_layers``; ``ops`` that compute anything, ``float_ops`` and
        ``float_op_share``; ``operators`` by name; for ONNX ``opset``, ``zero_points_are_zero``,
        ``int8_only`` and ``static``.
    """
    return _audit_tflite(content) if suffix == ".tflite" else _audit_onnx(content)


def _summary(layers: list[str], quantised: list[bool], operators: Counter[str], **more: Any) -> dict[str, Any]:
    kinds, float_ops = Counter(layers), quantised.count(False)
    return {
        "layers": len(layers),
        **{f"{kind}_layers": kinds[kind] for kind in ("int8", "fp16", "fp32")},
        "ops": len(quantised),
        "float_ops": float_ops,
        "float_op_share": round(float_ops / max(len(quantised), 1), 4),
        "operators": dict(sorted(operators.items())),
        **more,
    }


def _audit_onnx(content: bytes) -> dict[str, Any]:
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load_from_string(content)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    weights.update(
        {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and n.attribute[0].HasField("t")}
    )
    made_by = {output: node for node in graph.node for output in node.output}

    def dequantised(name: str, kinds: tuple[int, ...] | None = None) -> bool:
        node = made_by.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return False
        return kinds is None or (node.input[0] in weights and weights[node.input[0]].data_type in kinds)

    def kind_of(node: onnx.NodeProto) -> str:
        if dequantised(node.input[0]) and dequantised(node.input[1], (TensorProto.INT8,)):
            return "int8"
        weight = weights.get(node.input[1])
        return "fp16" if weight is not None and weight.data_type == TensorProto.FLOAT16 else "fp32"

    zero_points = [
        (weights[node.input[2]].data_type, numpy_helper.to_array(weights[node.input[2]]))
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2
    ]
    shapes = [value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output)]
    return _summary(
        [kind_of(node) for node in graph.node if node.op_type in ONNX_LAYERS],
        [any(dequantised(name) for name in node.input) for node in graph.node if node.op_type not in MOVES],
        Counter(node.op_type for node in graph.node),
        opset=max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        domains=sorted({node.domain for node in graph.node}),
        zero_points_are_zero=all(not values.any() for _, values in zero_points),
        int8_only=all(kind == TensorProto.INT8 for kind, _ in zero_points),
        static=all(d.HasField("dim_value") and d.dim_value > 0 for dims in shapes for d in dims),
    )


def _audit_tflite(content: bytes) -> dict[str, Any]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    types = schema.TensorType
    layers, quantised = [], []
    operators: Counter[str] = Counter()
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = codes[operator.opcodeIndex]
            operators[name] += 1
            read, written = (
                [graph.tensors[i].type for i in indices if i >= 0] for indices in (operator.inputs, operator.outputs)
            )
            if name in TFLITE_LAYERS:
                image, weight = (2, 1) if name == "TRANSPOSE_CONV" else (0, 1)
                if (read[image], read[weight], written[0]) == (types.INT8,) * 3:
                    layers.append("int8")
                else:
                    layers.append("fp16" if read[weight] == types.FLOAT16 else "fp32")
            if name not in TFLITE_MOVES:
                quantised.append(types.FLOAT32 not in (*read, *written))
    return _summary(layers, quantised, operators)


def check(found: dict[str, Any], target: Format, float_first: int) -> None:
    """Raise ExportError unless the file is what ``target`` promises; ``float_first`` layers may stay float."""
    wanted, layers = found[f"{target.precision}_layers"], found["layers"]
    allowed = float_first if target.precision == "int8" else 0
    if not layers or layers - wanted > allowed or (target.precision == "int8" and not wanted):
        raise ExportError(
            f"only {wanted} of {layers} convolutions and matrix products compute in {target.precision}"
            f" ({allowed} others allowed): this is no {target.name} file"
        )
    if not target.is_tflite:
        rules = {
            f"opset {found['opset']} instead of {OPSET}": found["opset"] == OPSET,
            "operators outside the ONNX standard": set(found["domains"]) <= {"", "ai.onnx"},
            "a dynamic shape": found["static"],
        }
        if target.symmetric:
            strange = sorted(set(found["operators"]) - TENSORRT_OPERATORS)
            rules |= {
                "zero points other than 0": found["zero_points_are_zero"],
                "quantised values other than int8": found["int8_only"],
                f"operators unknown to TensorRT: {', '.join(strange)}": not strange,
            }
        for broken, good in rules.items():
            if not good:
                raise ExportError(f"the file has {broken}: this is no {target.name} file")


def as_line(found: dict[str, Any]) -> str:
    """The audit in a few words."""
    kinds = ", ".join(f"{found[f'{k}_layers']} {k}" for k in ("int8", "fp16", "fp32") if found[f"{k}_layers"])
    return (
        f"{found['layers']} convolutions and matrix products: {kinds};"
        f" {found['float_ops']} of {found['ops']} computing operators in float ({found['float_op_share']:.0%})"
    )
