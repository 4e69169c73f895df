"""Every operator of the TFLite route against ONNX Runtime, which reads the same graph by itself."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import onnxruntime  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from export.convert.rebuild import OPERATORS, Rebuilt  # noqa: E402
from export.errors import ExportError  # noqa: E402

SHAPE = (1, 3, 12, 10)
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


# name of the case: operator, constant inputs, attributes; the picture is the first input
CASES: dict[str, tuple[str, list[np.ndarray], dict]] = {
    "add one number": ("Add", [np.float32([2.5])], {}),
    "add a channel vector": ("Add", [floats(1, 3, 1, 1)], {}),
    "sub": ("Sub", [floats(1, 3, 1, 1)], {}),
    "mul": ("Mul", [floats(1, 3, 1, 1)], {}),
    "mul by a whole picture": ("Mul", [floats(*SHAPE)], {}),
    "div": ("Div", [np.float32([127.5])], {}),
    "conv": ("Conv", [floats(5, 3, 3, 3), floats(5)], {"pads": [1, 1, 1, 1]}),
    "conv, uneven pads": ("Conv", [floats(5, 3, 3, 3)], {"pads": [0, 1, 2, 0], "strides": [2, 2]}),
    "conv, bottom and right": ("Conv", [floats(5, 3, 3, 3)], {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
    "conv, groups": ("Conv", [floats(6, 1, 3, 3), floats(6)], {"group": 3, "dilations": [2, 2]}),
    "average pool": ("AveragePool", [], {"kernel_shape": [2, 3], "strides": [2, 1]}),
    "average pool with its padding": (
        "AveragePool",
        [],
        {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1], "count_include_pad": 1},
    ),
    "max pool": ("MaxPool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 0, 1], "strides": [2, 2]}),
    "batch norm": ("BatchNormalization", [floats(3), floats(3), floats(3), np.abs(floats(3)) + 0.1], {"epsilon": 1e-3}),
    "relu6": ("Clip", [np.float32(0), np.float32(6)], {}),
    "clip": ("Clip", [np.float32(-0.5), np.float32(0.25)], {}),
    "relu": ("Relu", [], {}),
    "leaky relu": ("LeakyRelu", [], {"alpha": 0.2}),
    "sigmoid": ("Sigmoid", [], {}),
    "hard sigmoid": ("HardSigmoid", [], {"alpha": 0.3, "beta": 0.4}),
    "hard swish": ("HardSwish", [], {}),
    "tanh": ("Tanh", [], {}),
    "identity": ("Identity", [], {}),
    "pad": ("Pad", [np.int64([0, 0, 1, 0, 0, 0, 2, 3]), np.float32(1.5)], {}),
    "pad by default": ("Pad", [np.int64([0, 0, 0, 0, 0, 0, 1, 1])], {}),
    "global pool": ("GlobalAveragePool", [], {}),
    "mean over the picture": ("ReduceMean", [], {"axes": [2, 3], "keepdims": 0}),
    "mean, kept": ("ReduceMean", [], {"axes": [-1, -2]}),
    "mean over the channels": ("ReduceMean", [], {"axes": [1], "keepdims": 1}),
    "flatten": ("Flatten", [], {}),
    "reshape": ("Reshape", [np.int64([0, -1])], {}),
    "softmax": ("Softmax", [], {"axis": 1}),
}
OF_ROWS: dict[str, tuple[str, list[np.ndarray], dict]] = {
    "gemm": ("Gemm", [floats(4, 3), floats(4)], {"transB": 1}),
    "gemm, straight": ("Gemm", [floats(3, 4)], {}),
    "matmul": ("MatMul", [floats(3, 4)], {}),
    "softmax of rows": ("Softmax", [], {"axis": -1}),
}


def graph_of(nodes: list, constants: list[np.ndarray]) -> object:
    initialisers = [numpy_helper.from_array(np.asarray(c), f"c{k}") for k, c in enumerate(constants)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initialisers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def both(model) -> tuple[np.ndarray, np.ndarray]:
    x = floats(*SHAPE) * 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        ours = Rebuilt(model)(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 2, 3, 1))))
    return ours.numpy(), session.run(None, {"x": x})[0]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("position", ["first", "later"])
def test_operators_on_pictures(case, position):
    kind, constants, attributes = CASES[case]
    names = [f"c{k}" for k in range(len(constants))]
    head = [helper.make_node("Relu", ["x"], ["r"])] if position == "later" else []
    node = helper.make_node(kind, ["r" if head else "x", *names], ["y0"], **attributes)
    # A last Relu brings pictures that are still NHWC inside back to NCHW.
    ours, theirs = both(graph_of([*head, node, helper.make_node("Relu", ["y0"], ["y"])], constants))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", OF_ROWS)
def test_operators_on_rows(case):
    kind, constants, attributes = OF_ROWS[case]
    names = [f"c{k}" for k in range(len(constants))]
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
             helper.make_node(kind, ["m", *names], ["y"], **attributes)]  # fmt: skip
    ours, theirs = both(graph_of(nodes, constants))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_concat_and_squeeze():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Concat", ["r", "x"], ["c"], axis=1),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Squeeze", ["p", "c0"], ["y"]),
    ]
    ours, theirs = both(graph_of(nodes, [np.int64([2, 3])]))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_every_operator_is_tested():
    assert {case[0] for case in (*CASES.values(), *OF_ROWS.values())} | {"Concat", "Squeeze"} == set(OPERATORS)


def test_an_operator_without_conversion_is_named():
    with pytest.raises(ExportError, match=r"no TFLite conversion for the operator\(s\) Erf; known are Add, "):
        Rebuilt(graph_of([helper.make_node("Erf", ["x"], ["y"])], []))


@pytest.mark.parametrize(
    ("kind", "attributes", "cause"),
    [
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}, "leaves its padding out"),
        ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 1}, "ceil_mode"),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, "auto_pad"),
        ("Flatten", {"axis": 2}, "axis other than 1"),
    ],
)
def test_variants_that_would_be_wrong_are_refused(kind, attributes, cause):
    model = graph_of([helper.make_node(kind, ["x"], ["y"], **attributes)], [])
    with pytest.raises(ExportError, match=cause):
        Rebuilt(model)(torch.zeros(1, 12, 10, 3))
