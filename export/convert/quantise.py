"""Float ONNX becomes int8 ONNX (QDQ, weights per channel), with seen or with given ranges of the activations."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.convert.ranges import onnx_overrides

if TYPE_CHECKING:
    import onnx

FLOAT_FIRST_CONVOLUTIONS = 3  # without fitted rounding they cost most when quantised
TENSORRT_STYLE: dict[str, Any] = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


def quantise_onnx(
    source: Path,
    target: Path,
    feeds: Iterator[np.ndarray],
    *,
    symmetric: bool = False,
    float_first: int = FLOAT_FIRST_CONVOLUTIONS,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Post-training int8 quantisation (QDQ, weights per channel) of a float ONNX file.

    Parameters
    ----------
    source, target : Path
        The float file, and where the int8 one goes.
    feeds : iterator of ndarray
        Calibration inputs, each of the shape and dtype of the graph's one input.
    symmetric : bool
        All zero points 0 and activations int8, as TensorRT needs; otherwise activations are uint8.
    float_first : int
        How many convolutions at the start stay in float.
    ranges : mapping of str to (float, float), optional
        Activation ranges by module (see :mod:`export.convert.ranges`); they take the place of those seen on ``feeds``.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.load(source, load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            feed = next(feeds, None)
            return None if feed is None else {name: feed}

    prepared = source.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(prepared)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    extra = dict(TENSORRT_STYLE) if symmetric else {}
    if ranges is not None:
        extra["TensorQuantOverrides"] = onnx_overrides(model, ranges)
        # Logits in float: 256 levels would make the best two classes equal now and then.
        extra["OpTypesToExcludeOutputQuantization"] = ["Gemm"]
    quantize_static(
        str(prepared),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=convolutions[:float_first],
        extra_options=extra,
    )


def int8_onnx(
    model: onnx.ModelProto,
    feeds: Iterator[np.ndarray],
    *,
    symmetric: bool = False,
    float_first: int = FLOAT_FIRST_CONVOLUTIONS,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> onnx.ModelProto:
    """:func:`quantise_onnx` of a graph in memory."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        floating, quantised = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, floating)
        quantise_onnx(floating, quantised, feeds, symmetric=symmetric, float_first=float_first, ranges=ranges)
        return onnx.load(quantised)
