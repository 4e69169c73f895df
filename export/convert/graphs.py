"""Float ONNX graphs made ready for conversion: checked, static, of one opset, with the preprocessing inside.

The *core* of a model takes ``(1, 3, h, w)`` float RGB in 0..255 and returns ``(1, n_labels)``; every ONNX
format and the TFLite route start from it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.convert import binary
from export.convert.formats import IR_VERSION, OPSET
from export.errors import ExportError

PIXELS, OUTPUT = "pixels", "logits"
TWO_LABELS = ("benign", "malignant")  # of a network with one output, which stands for the second
QUANTISED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "DynamicQuantizeLinear"}


def one_line(error: BaseException, limit: int = 200) -> str:
    """The first line of a foreign error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[0].split())[:limit]


def load_graph(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file; external weights are not followed."""
    try:
        model = onnx.load_from_string(path.read_bytes())
        onnx.checker.check_model(model)
    except OSError:
        raise
    except Exception as error:  # protobuf's and the checker's own types
        raise ExportError(f"{path}: not a usable ONNX file ({one_line(error)})") from error
    return model


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that are fed, without the initialisers that older files list among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def check_source(model: onnx.ModelProto, name: str) -> None:
    """One image input, one output, float, standard operators, not quantised already."""
    inputs = inputs_of(model)
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ExportError(
            f"{name}: has {len(inputs)} inputs and {len(model.graph.output)} outputs, expected one of each"
        )
    if inputs[0].type.tensor_type.elem_type not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise ExportError(f"{name}: the input is neither float32 nor uint8; export the float model")
    kinds = {node.op_type for node in model.graph.node}
    if kinds & QUANTISED:
        raise ExportError(f"{name}: is quantised already ({sorted(kinds & QUANTISED)[0]}); convert the float model")
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if foreign:
        raise ExportError(f"{name}: operator(s) outside the ONNX standard: {', '.join(foreign)}")


def fix_shape(model: onnx.ModelProto, name: str, layout: str, size: tuple[int, int] | None) -> tuple[int, int]:
    """Check that the input is static, or make it so where ``size`` (height, width) is given; returns the size."""
    value = inputs_of(model)[0]
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise ExportError(f"{name}: the input has {len(dims)} axes, expected 4")
    shape = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]
    if None in shape and size is None:
        shown = ", ".join(str(s) if s else (d.dim_param or "?") for s, d in zip(shape, dims, strict=True))
        raise ExportError(f"{name}: the input has the dynamic shape ({shown}); fix it with --input-size HEIGHTxWIDTH")
    axes = (2, 3) if layout == "NCHW" else (1, 2)
    if size is None:
        size = shape[axes[0]] or 0, shape[axes[1]] or 0
    wanted = [1, 3, *size] if layout == "NCHW" else [1, *size, 3]
    if any(have is not None and have != want for have, want in zip(shape, wanted, strict=True)):
        raise ExportError(
            f"{name}: the input has the shape {tuple(shape)}, but {layout} of {size[0]}x{size[1]} is {tuple(wanted)};"
            " set --layout and --input-size"
        )
    for d, want in zip(dims, wanted, strict=True):
        d.dim_value = want
    return size


def check_weights(model: onnx.ModelProto, name: str) -> None:
    """Refuse NaN and infinite weights."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ExportError(f"{name}: the weights '{tensor.name}' hold NaN or infinity; train again")


def _to_opset(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    have = versions.get("", versions.get("ai.onnx", 0))
    if have == OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:
        raise ExportError(f"{name}: opset {have} cannot be brought to {OPSET} ({one_line(error)})") from error


def _rename_input(model: onnx.ModelProto, new: str) -> str:
    """Free the name ``new`` for the picture; returns the name that the graph's first node reads."""
    old = inputs_of(model)[0].name
    inner = "edge_mdda_input"
    for node in model.graph.node:
        node.input[:] = [inner if n == old else (n + "_inner" if n == new else n) for n in node.input]
        node.output[:] = [n + "_inner" if n == new else n for n in node.output]
    return inner


def _with_input(model: onnx.ModelProto, kind: int, shape: list[int], head: list[onnx.NodeProto]) -> onnx.ModelProto:
    """The graph behind another input; ``head`` leads from :data:`PIXELS` to the inner name."""
    graph = model.graph
    old = inputs_of(model)[0]
    weights = [value for value in graph.input if value.name != old.name]
    del graph.input[:]
    graph.input.extend([helper.make_tensor_value_info(PIXELS, kind, shape), *weights])
    nodes = head + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def optimised(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Constants and batch norms folded, standard operators only, shapes inferred (ONNX Runtime's basic level)."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 4  # it warns of hardware-specific graphs, which the basic level is not
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(f"{name}: ONNX Runtime cannot open the model ({one_line(error)})") from error
        result = onnx.load(target)
    return standard_only(result)


def standard_only(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with one opset entry; ExportError if a tool left operators of its own in it."""
    foreign = sorted({node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise ExportError(f"a tool put operators outside the ONNX standard into the graph: {', '.join(foreign)}")
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    return model


def make_core(
    model: onnx.ModelProto, name: str, layout: str, mean: tuple[float, ...], std: tuple[float, ...], n_labels: int
) -> onnx.ModelProto:
    """The core of a checked source with a static input: normalisation inside, NCHW float 0..255.

    ``mean`` and ``std`` have one value or one for each channel and hold for pixels in 0..255.

    Raises
    ------
    ExportError
        Weights that are no numbers, a foreign opset, or an output that does not fit the labels.
    """
    check_weights(model, name)
    model = _to_opset(model, name)
    shape = [d.dim_value for d in inputs_of(model)[0].type.tensor_type.shape.dim]
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    inner = _rename_input(model, PIXELS)
    head, value = [], PIXELS
    for kind, numbers, neutral in (("Sub", mean, 0.0), ("Div", std, 1.0)):
        if any(n != neutral for n in numbers):
            constant = f"edge_mdda_{kind.lower()}"
            content = np.array(numbers, np.float32).reshape((1, -1, 1, 1) if len(numbers) > 1 else (1,))
            model.graph.initializer.append(numpy_helper.from_array(content, constant))
            head.append(helper.make_node(kind, [value, constant], [f"{constant}_out"], name=constant))
            value = f"{constant}_out"
    if layout == "NHWC":
        head.append(helper.make_node("Transpose", [value], [inner], name="edge_mdda_layout", perm=[0, 2, 3, 1]))
    else:
        head.append(helper.make_node("Identity", [value], [inner], name="edge_mdda_identity"))
    model = _with_input(model, TensorProto.FLOAT, [1, 3, height, width], head)
    core = optimised(model, name)
    if n_labels == len(TWO_LABELS) and binary.single_output(core):
        core = binary.with_two_outputs(core, name)
    check_output(core, name, n_labels)
    return core


def check_output(core: onnx.ModelProto, name: str, n_labels: int) -> None:
    """The output must be static ``(1, n_labels)``."""
    value = onnx.shape_inference.infer_shapes(core).graph.output[0]
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if shape in ([1, 1], [1]):
        raise ExportError(
            f"{name}: has one output, but there are {n_labels} labels; if it tells malignant from benign by one number,"
            f" give --labels {','.join(TWO_LABELS)}"
        )
    if shape != [1, n_labels]:
        raise ExportError(f"{name}: the output has the shape {tuple(shape)}, but there are {n_labels} labels")


def returns_probabilities(core: onnx.ModelProto) -> bool:
    """Whether the graph ends in a softmax."""
    last = {output: node for node in core.graph.node for output in node.output}[core.graph.output[0].name]
    return last.op_type == "Softmax"


def with_pixels(core: onnx.ModelProto) -> onnx.ModelProto:
    """The core behind a uint8 NHWC input."""
    model = onnx.ModelProto()
    model.CopyFrom(core)
    _, _, height, width = (d.dim_value for d in inputs_of(model)[0].type.tensor_type.shape.dim)
    inner = _rename_input(model, PIXELS)
    head = [
        helper.make_node("Cast", [PIXELS], ["edge_mdda_float"], name="edge_mdda_cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["edge_mdda_float"], [inner], name="edge_mdda_nchw", perm=[0, 3, 1, 2]),
    ]
    return _with_input(model, TensorProto.UINT8, [1, height, width, 3], head)


def to_fp16(core: onnx.ModelProto) -> onnx.ModelProto:
    """The core computing in fp16; input and output stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(core)
    return convert_float_to_float16(copy, keep_io_types=True)


def with_metadata(content: bytes, key: str, value: str) -> bytes:
    """An ONNX file with one more metadata entry."""
    model = onnx.load_from_string(content)
    entry = model.metadata_props.add()
    entry.key, entry.value = key, value
    return model.SerializeToString()
