"""A checkpoint becomes the built-in model: int8 ONNX (QDQ, per channel), its thresholds and its manifest.

The graph takes uint8 NHWC pixels and normalises by itself. A checkpoint of ``python -m export fit-int8`` brings the
ranges of its activations along and is converted with exactly these. Any other is calibrated on training
images, half of them purified, since that is what the network will see.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_mdda import __version__
from edge_mdda.classifier import Classifier, Manifest
from edge_mdda.classifier.manifest import manifest_path
from edge_mdda.files import replace_file
from edge_mdda.params import PRESETS
from export.dataset import MALIGNANT, SIDE, LabelledImages, iter_images, read_split
from export.errors import ExportError
from export.evaluate import open_any, predict_all, purifier_seed
from export.fit_int8 import stored_ranges
from export.metrics import balanced_accuracy, threshold_for_sensitivity
from export.ranges import onnx_overrides, teacher_of

OPSET = 17
CALIBRATION_IMAGES = 400
FLOAT_FIRST_CONVOLUTIONS = 3  # without fitted rounding they cost most when quantised
SENSITIVITY = 0.95  # of the referral threshold, on malignant images of val
FALSE_ALARMS = 0.05  # of the retake threshold, on clean images of val
MAX_BYTES = 4_500_000
MIN_AGREEMENT = 0.90
"""Least share of val images on which int8 and float pick the same class; below it nothing is written."""

TRAINING_DATA = (
    "HAM10000 (P. Tschandl, C. Rosendahl, H. Kittler, Scientific Data 5, 180161, 2018), 4,190 images of the fixed"
    " train split at 224 x 224; EfficientNet-Lite0 started from ImageNet weights"
)
LICENCE = "CC BY-NC-SA 4.0 (weights trained on HAM10000: attribution, non-commercial, share alike)"


TENSORRT_STYLE: dict[str, Any] = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


def _export_float(checkpoint: Path, target: Path) -> None:
    """Float ONNX with uint8 NHWC input, batch norms folded."""
    import torch

    from export.network import network_from_checkpoint

    class FromPixels(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.network(pixels.permute(0, 3, 1, 2).float())

    network = FromPixels(network_from_checkpoint(checkpoint)[0]).eval()
    example = torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is deprecated, and the only one for this opset
        torch.onnx.export(
            network,
            (example,),
            str(target),
            opset_version=OPSET,
            dynamo=False,
            input_names=["pixels"],
            output_names=["logits"],
        )


def _calibration(data: LabelledImages, seed: int) -> Iterator[np.ndarray]:
    """Random images, every second one purified."""
    from edge_mdda.mdda import Purifier

    chosen = np.random.default_rng(seed).choice(len(data), min(CALIBRATION_IMAGES, len(data)), replace=False)
    subset = LabelledImages(tuple(data.paths[i] for i in chosen), data.targets[chosen], data.labels, data.name)
    purifier = Purifier(SIDE, SIDE, PRESETS["balanced"])
    for n, (path, image) in enumerate(zip(subset.paths, iter_images(subset, SIDE, SIDE), strict=True)):
        yield purifier.purify(image, purifier_seed(path, seed)) if n % 2 else image


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
        Activation ranges by module (see :mod:`export.ranges`); they take the place of those seen on ``feeds``.
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
    checkpoint: Path, images: Iterator[np.ndarray], n_float: int, ranges: Mapping[str, tuple[float, float]] | None
) -> bytes:
    """The int8 file of a checkpoint; the images are only looked at where there are no ranges."""
    with tempfile.TemporaryDirectory() as folder:
        floating, quantised = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        _export_float(checkpoint, floating)
        # The tool insists on seeing an image, even if every range is given.
        blank = np.zeros((SIDE, SIDE, 3), np.uint8)
        feeds = images if ranges is None else iter([blank])
        quantise_onnx(floating, quantised, (image[None] for image in feeds), float_first=n_float, ranges=ranges)
        return quantised.read_bytes()


def int8_share(model: bytes) -> tuple[int, int]:
    """``(convolutions and matrix products with int8 weights, all of them)`` of an ONNX file."""
    import onnx

    graph = onnx.load_from_string(model).graph
    int8_values = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    dequantised = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in int8_values}
    layers = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    return sum(n.input[1] in dequantised for n in layers), len(layers)


def choose_thresholds(
    raw: np.ndarray, purified: np.ndarray, data: LabelledImages, malignant: tuple[str, ...] = MALIGNANT
) -> tuple[float, float]:
    """``(refer_at, retake_at)`` from the two views of ``val``: 95 % sensitivity, 5 % false alarms."""
    from edge_mdda.screening import jensen_shannon

    columns = [data.labels.index(label) for label in malignant]
    if not np.isin(data.targets, columns).any():
        raise ExportError("val holds no malignant image: no referral threshold can be chosen")
    share = np.maximum(raw[:, columns].sum(axis=1), purified[:, columns].sum(axis=1))
    refer_at = threshold_for_sensitivity(np.isin(data.targets, columns), share, SENSITIVITY)
    disagreement = np.array([jensen_shannon(p, q) for p, q in zip(raw, purified, strict=True)])
    # Rounded down: rounded up, the borderline positive that the threshold is made of would fall below it.
    return math.floor(refer_at * 1e4) / 1e4, round(float(np.quantile(disagreement, 1 - FALSE_ALARMS)), 4)


def quantise(
    checkpoint: Path, data_root: Path, out: Path, command: str, seed: int = 0, reference: Path | None = None
) -> dict[str, Any]:
    """Convert, verify on ``val`` and write ``out`` and its manifest.

    Parameters
    ----------
    checkpoint : Path
        Of ``python -m export train`` or ``fit-int8``.
    data_root : Path
        ``train`` calibrates, ``val`` verifies and chooses the thresholds.
    out : Path
        The ``.onnx`` file; its manifest goes beside it.
    command : str
        Stored in the manifest as what chose the thresholds.
    seed : int
        Of the calibration images.
    reference : Path, optional
        The float network that int8 is compared with; needed after ``fit-int8``, whose own weights are no reference.

    Raises
    ------
    ExportError
        Not int8, too large, or too far from the float network; nothing is written then.
    """
    from export.network import load_checkpoint

    val = read_split(data_root, "val")
    stored = load_checkpoint(checkpoint)
    ranges = stored_ranges(stored)
    source = open_any(teacher_of(checkpoint, stored, reference))
    n_float = FLOAT_FIRST_CONVOLUTIONS if ranges is None else len(stored["float_layers"])
    content = int8_onnx(checkpoint, _calibration(read_split(data_root, "train"), seed), n_float, ranges)
    n_int8, n_layers = int8_share(content)
    if n_layers - n_int8 > n_float:
        raise ExportError(f"only {n_int8} of {n_layers} layers have int8 weights: this is no int8 model")
    if len(content) > MAX_BYTES:
        raise ExportError(f"the model has {len(content)} bytes, more than {MAX_BYTES}")

    draft = replace(
        source.manifest,
        name=out.stem,
        version=__version__,
        file=out.name,
        sha256=hashlib.sha256(content).hexdigest(),
        layout="NHWC",
        training_data=TRAINING_DATA if data_root.name == "ham10000" else f"{data_root.name}: not described",
        licence=LICENCE if data_root.name == "ham10000" else "of the training data: ask whoever trained it",
    )
    from edge_mdda.classifier.onnx import OnnxClassifier

    classifier: Classifier = OnnxClassifier(content, draft, threads=1)
    raw = predict_all(classifier, val, None)
    purified = predict_all(classifier, val, "balanced")
    wanted = predict_all(source, val, "balanced")
    agreement = float((purified.argmax(1) == wanted.argmax(1)).mean())
    if agreement < MIN_AGREEMENT:
        raise ExportError(f"int8 and float agree on {agreement:.1%} of val only; quantise otherwise or train on")
    refer_at, retake_at = choose_thresholds(raw, purified, val)
    n_classes = len(val.labels)
    metrics = {
        "val_balanced_accuracy_float_purified": balanced_accuracy(val.targets, wanted.argmax(1), n_classes),
        "val_balanced_accuracy_int8_purified": balanced_accuracy(val.targets, purified.argmax(1), n_classes),
        "val_balanced_accuracy_int8_raw": balanced_accuracy(val.targets, raw.argmax(1), n_classes),
        "val_argmax_agreement_with_float": agreement,
        "int8_layers": n_int8,
        "layers": n_layers,
        "bytes": len(content),
    }
    manifest = replace(
        draft,
        refer_at=refer_at,
        retake_at=retake_at,
        chosen_by=f"{command} (val: {SENSITIVITY:.0%} sensitivity; {FALSE_ALARMS:.0%} false alarms)",
        notes="Probabilities assume equally likely classes. A referral aid, never a diagnosis.",
        metrics={k: round(v, 4) for k, v in metrics.items()},
    )
    _write_pair(out, content, manifest)
    return manifest.metrics


def _write_pair(out: Path, content: bytes, manifest: Manifest) -> None:
    """Model and manifest through temporary files; a kill between the two leaves a pair that is refused, not wrong."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, data in ((out, content), (manifest_path(out), manifest.to_json().encode())):
        replace_file(str(path), data)
