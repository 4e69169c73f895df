"""Very small real models, built in memory: mean colour, one linear layer, logits.

Their weights are known, so a test can compute the answer by itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from edge_mdda.classifier import Manifest
from edge_mdda.classifier.manifest import manifest_path

SIDE = 16
LABELS = {"a": "class a", "b": "class b", "c": "class c"}
WEIGHTS = np.array([[0.02, 0.0, -0.01], [-0.01, 0.03, 0.0], [0.0, -0.02, 0.01]], np.float32)
BIAS = np.array([0.1, -0.2, 0.3], np.float32)


def expected(batch: np.ndarray) -> np.ndarray:
    """Probabilities of the tiny model in float64."""
    logits = batch.astype(np.float64).mean(axis=(1, 2)) @ WEIGHTS.T.astype(np.float64) + BIAS
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def manifest_for(content: bytes, name: str, **changes: object) -> Manifest:
    fields: dict = {
        "name": "tiny",
        "version": "1",
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "labels": LABELS,
        "malignant": ("a",),
        "height": SIDE,
        "width": SIDE,
        "layout": "NHWC",
        "crop": "squeeze",
        "mean": 0.0,
        "std": 1.0,
        "output": "logits",
        "refer_at": 0.5,
        "retake_at": 0.2,
        "chosen_by": "a test",
        "training_data": "none",
        "licence": "Apache-2.0",
    }
    return Manifest(**(fields | changes))


def save(folder: Path, name: str, content: bytes, **changes: object) -> Path:
    """Write a model and its manifest; returns the model's path."""
    path = folder / name
    path.write_bytes(content)
    manifest_path(path).write_text(manifest_for(content, name, **changes).to_json())
    return path


def tflite_model(quantised: bool = True) -> bytes:
    """A TFLite file: mean over the picture, fully connected. ``quantised``: int8 input and output tensors."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as tfl

    buffers = [tfl.BufferT()]
    tensors = []

    def tensor(
        name: str, shape: tuple[int, ...], kind: int, data: np.ndarray | None = None, scale: float = 0.0, zero: int = 0
    ) -> int:
        t = tfl.TensorT()
        t.name, t.shape, t.type, t.buffer = name, np.array(shape, np.int32), kind, 0
        if data is not None:
            buffer = tfl.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            buffers.append(buffer)
            t.buffer = len(buffers) - 1
        if scale:
            t.quantization = tfl.QuantizationParametersT()
            t.quantization.scale = np.array([scale], np.float32)
            t.quantization.zeroPoint = np.array([zero], np.int64)
        tensors.append(t)
        return len(tensors) - 1

    codes: list[int] = []

    def operator(code: int, inputs: list[int], outputs: list[int], options: object = None, kind: int = 0):
        if code not in codes:
            codes.append(code)
        op = tfl.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = (
            codes.index(code),
            np.array(inputs, np.int32),
            np.array(outputs, np.int32),
        )
        op.builtinOptions, op.builtinOptionsType = options, kind
        return op

    types, codes_of = tfl.TensorType, tfl.BuiltinOperator
    pixels = tensor("pixels", (1, SIDE, SIDE, 3), types.FLOAT32)
    axes = tensor("axes", (2,), types.INT32, np.array([1, 2], np.int32))
    mean = tensor("mean", (1, 3), types.FLOAT32)
    weights = tensor("weights", WEIGHTS.shape, types.FLOAT32, WEIGHTS)
    bias = tensor("bias", BIAS.shape, types.FLOAT32, BIAS)
    logits = tensor("logits", (1, 3), types.FLOAT32)
    reducer = tfl.ReducerOptionsT()
    reducer.keepDims = False
    operators = [
        operator(codes_of.MEAN, [pixels, axes], [mean], reducer, tfl.BuiltinOptions.ReducerOptions),
        operator(
            codes_of.FULLY_CONNECTED,
            [mean, weights, bias],
            [logits],
            tfl.FullyConnectedOptionsT(),
            tfl.BuiltinOptions.FullyConnectedOptions,
        ),
    ]
    inputs, outputs = [pixels], [logits]
    if quantised:
        pixels8 = tensor("pixels8", (1, SIDE, SIDE, 3), types.INT8, scale=1.0, zero=-128)
        logits8 = tensor("logits8", (1, 3), types.INT8, scale=0.08, zero=3)
        dequantise = operator(
            codes_of.DEQUANTIZE, [pixels8], [pixels], tfl.DequantizeOptionsT(), tfl.BuiltinOptions.DequantizeOptions
        )
        quantise = operator(
            codes_of.QUANTIZE, [logits], [logits8], tfl.QuantizeOptionsT(), tfl.BuiltinOptions.QuantizeOptions
        )
        operators = [dequantise, *operators, quantise]
        inputs, outputs = [pixels8], [logits8]

    graph = tfl.SubGraphT()
    graph.tensors, graph.operators = tensors, operators
    graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    model = tfl.ModelT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], buffers, []
    for code in codes:
        entry = tfl.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, code, 1
        if code == codes_of.DEQUANTIZE:
            entry.version = 2  # int8
        model.operatorCodes.append(entry)
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def int8_share(model: bytes) -> tuple[int, int]:
    """``(convolutions and matrix products with int8 weights, all of them)`` of an ONNX file."""
    import onnx

    graph = onnx.load_from_string(model).graph
    int8_values = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    dequantised = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in int8_values}
    layers = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    return sum(n.input[1] in dequantised for n in layers), len(layers)
