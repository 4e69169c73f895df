"""What can be exported: our checkpoint, a stranger's PyTorch network with its weights, or an ONNX file.

Each becomes a :class:`Source`: a core graph (see :mod:`export.convert.graphs`), the labels and origin that go into
the manifest, and ``predict``, which runs the model *as it was given*; parity is measured against that.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import shlex
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mdda.errors import EdgeMddaError
from export.convert import binary, graphs, sanity
from export.convert.binary import Predict
from export.convert.ranges import teacher_of
from export.dataset import CLASSES, MALIGNANT, SIDE
from export.errors import ExportError
from export.train.fine_tune import keep_freed_memory

if TYPE_CHECKING:
    import onnx
    import torch

HAM_TRAINING_DATA = (
    "HAM10000 (P. Tschandl, C. Rosendahl, H. Kittler, Scientific Data 5, 180161, 2018), fixed train split at"
    " 224 x 224; started from ImageNet weights"
)
HAM_LICENCE = "CC BY-NC-SA 4.0 (weights trained on HAM10000: attribution, non-commercial, share alike)"
UNKNOWN = "not given"


@dataclass(frozen=True)
class SourceOptions:
    """What the file cannot tell; None is left to the source's own knowledge or default.

    Attributes
    ----------
    weights : Path, optional
        State dict or safetensors of a factory's network.
    reference : Path, optional
        Checkpoint of the float network that one with ranges was fitted to; parity is measured against it.
    labels : dict of str to str, optional
        Short label to full name, in the order of the outputs.
    malignant : tuple of str, optional
        Labels that count towards the malignant share.
    input_size : tuple of int, optional
        Height and width.
    mean, std : tuple of float
        One value or one a channel, for pixels in 0..255.
    layout : {'NCHW', 'NHWC'}
        Axis order of the model's own input.
    crop : {'squeeze', 'center'}
        How an image comes to the input size.
    name, training_data, training_command, licence : str, optional
        For the manifest.
    """

    weights: Path | None = None
    reference: Path | None = None
    labels: dict[str, str] | None = None
    malignant: tuple[str, ...] | None = None
    input_size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "NCHW"
    crop: str = "squeeze"
    name: str | None = None
    training_data: str | None = None
    training_command: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Source:
    """A model to export; ``predict`` maps ``(n, h, w, 3)`` uint8 to the model's raw outputs ``(n, n_labels)``."""

    name: str
    kind: str
    sha256: str
    core: onnx.ModelProto = field(repr=False)
    predict: Predict = field(repr=False)
    labels: dict[str, str]
    malignant: tuple[str, ...]
    height: int
    width: int
    crop: str
    output: str
    runtime: str
    preprocessing: str
    training_data: str
    training_command: str
    licence: str
    ranges: dict[str, tuple[float, float]] | None = None
    """Activation ranges by module, of a checkpoint that brings them along; see :mod:`export.convert.ranges`."""
    float_layers: int = 0
    """How many of the first convolutions such a checkpoint wants left in float."""
    predict_at: Callable[[tuple[float, ...], tuple[float, ...]], Predict] | None = field(default=None, repr=False)
    """``predict`` with another mean and std; None where they are part of the network."""
    warnings: tuple[str, ...] = ()


def open_source(model: str, options: SourceOptions) -> Source:
    """Open ``model``: a checkpoint of ``export train``, ``package.module:factory``, or an ``.onnx`` file.

    Raises
    ------
    ExportError, CheckpointError
        The model cannot be read, or does not fit the options; one line that says what to do.
    """
    path = Path(model)
    if path.suffix.lower() == ".onnx":
        return _from_onnx(path, options)
    if ":" in model and not path.exists():
        return _from_factory(model, options)
    if options.weights is not None:
        raise ExportError(f"--weights goes with package.module:factory, not with {model}")
    return _from_checkpoint(path, options)


def _labels(options: SourceOptions, stored: dict[str, str] | None = None) -> tuple[dict[str, str], tuple[str, ...]]:
    labels = options.labels or stored
    if labels is None:
        raise ExportError("name the model's outputs in their order: --labels a,b,c or --labels FILE")
    malignant = options.malignant or tuple(label for label in (*MALIGNANT, "malignant") if label in labels)
    if not malignant or set(malignant) - set(labels):
        raise ExportError(f"--malignant: name at least one of {', '.join(labels)}")
    return labels, malignant


def trace(network: torch.nn.Module, layout: str, size: tuple[int, int], name: str) -> onnx.ModelProto:
    """Float ONNX of a network in evaluation mode, static batch of one."""
    import onnx
    import torch

    shape = (1, 3, *size) if layout == "NCHW" else (1, *size, 3)
    stream = io.BytesIO()
    export: Any = torch.onnx.export  # its type hints know no streams
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it prints graphs when it fails
            warnings.simplefilter("ignore")  # the tracing exporter is deprecated, and the only one for this opset
            export(
                network,
                (torch.zeros(shape),),
                stream,
                opset_version=graphs.OPSET,
                dynamo=False,
                input_names=[graphs.PIXELS],
                output_names=[graphs.OUTPUT],
            )
    except Exception as error:  # whatever a stranger's forward or the exporter raises
        raise ExportError(f"{name}: cannot be traced at {size[0]}x{size[1]} ({graphs.one_line(error)})") from error
    return onnx.load_from_string(stream.getvalue())


def _torch_predict(network: torch.nn.Module, layout: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Predict:
    import torch

    keep_freed_memory()  # else each picture pays for its activations' memory anew, which costs more than the arithmetic
    shift, scale = (torch.tensor(v, dtype=torch.float32) for v in (mean, std))

    def predict(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = (torch.from_numpy(np.ascontiguousarray(batch)).float() - shift) / scale
            rows = [network(p.permute(0, 3, 1, 2) if layout == "NCHW" else p) for p in pixels.split(1)]
            return torch.cat(rows).numpy()

    return predict


def _preprocessing(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    if all(m == 0 for m in mean) and all(s == 1 for s in std):
        return "the model takes RGB in 0..255 and normalises by itself"
    return f"(pixel - {list(mean)}) / {list(std)} of RGB in 0..255, folded into the graph"


def _training_command(content: dict[str, Any]) -> str:
    """The ``export train`` or ``fit-int8`` call that a checkpoint came from."""
    options = [f"--{k.replace('_', '-')}={v}" for k, v in content.get("options", {}).items()]
    origin = str(content.get("init", "imagenet"))
    start = "" if origin == "imagenet" else f" (--init: checkpoint with SHA-256 {origin})"
    labels = content.get("label_hash", "unknown")
    planned, done = content.get("options", {}).get("steps"), content.get("step")
    if planned != done:
        start += f" (stopped after step {done})"
    if "ranges" in content:
        command, start = "fit-int8", f" of the checkpoint with SHA-256 {origin}"
    else:
        command = "train"
    return shlex.join(["python", "-m", "export", command, *options]) + f"{start} (labels.csv: SHA-256 {labels})"


def _from_checkpoint(path: Path, options: SourceOptions) -> Source:
    import torch

    from export.train.network import INPUT_MEAN, INPUT_STD, network_from_checkpoint

    if not path.is_file():
        raise ExportError(f"{path}: no such model; name a checkpoint, an .onnx file or package.module:factory")
    network, content = network_from_checkpoint(path)
    ranges = content.get("ranges")
    teacher = teacher_of(path, content, options.reference)
    judge = network if teacher == path else network_from_checkpoint(teacher)[0]
    stored = {label: CLASSES.get(label, label) for label in content["labels"]}
    labels, malignant = _labels(options, stored)
    size = options.input_size or (SIDE, SIDE)
    core = graphs.make_core(trace(network, "NCHW", size, str(path)), str(path), "NCHW", (0.0,), (1.0,), len(labels))
    return Source(
        name=options.name or path.parent.name or path.stem,
        kind=f"checkpoint of {network.arch}",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        core=core,
        predict=_torch_predict(judge, "NCHW", (0.0,), (1.0,)),
        labels=labels,
        malignant=malignant,
        height=size[0],
        width=size[1],
        crop=options.crop,
        output="logits",
        runtime=f"torch {torch.__version__}",
        preprocessing=f"(pixel - {INPUT_MEAN:g}) / {INPUT_STD:g} of RGB in 0..255, part of the network",
        training_data=options.training_data or (HAM_TRAINING_DATA if stored == CLASSES else UNKNOWN),
        training_command=options.training_command or _training_command(content),
        licence=options.licence or (HAM_LICENCE if stored == CLASSES else UNKNOWN),
        ranges=None if ranges is None else {name: (float(low), float(high)) for name, (low, high) in ranges.items()},
        float_layers=len(content.get("float_layers", [])),
    )


def load_weights(path: Path) -> dict[str, Any]:
    """A state dict from safetensors, or from a PyTorch file read with ``weights_only``."""
    if not path.is_file():
        raise ExportError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as error:  # torch and safetensors raise a zoo of types on a damaged file
        raise ExportError(f"{path}: no readable weights ({type(error).__name__}); damaged, or holding code") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ExportError(f"{path}: no state dict; save it with torch.save(network.state_dict(), ...)")
    return content


def _build(name: str) -> torch.nn.Module:
    import torch

    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ExportError(f"{name}: cannot be imported ({graphs.one_line(error)})") from error
    try:
        network = factory()
    except EdgeMddaError:
        raise
    except Exception as error:  # a stranger's code
        raise ExportError(f"{name}: the factory failed ({type(error).__name__}: {graphs.one_line(error)})") from error
    if not isinstance(network, torch.nn.Module):
        raise ExportError(f"{name}: the factory returned {type(network).__name__}, expected a torch.nn.Module")
    return network


def _from_factory(name: str, options: SourceOptions) -> Source:
    import torch

    if options.weights is None:
        raise ExportError(f"{name}: give its weights with --weights FILE (safetensors or a state dict)")
    if options.input_size is None:
        raise ExportError(f"{name}: give its input size with --input-size HEIGHTxWIDTH")
    labels, malignant = _labels(options)
    network = _build(name)
    try:
        network.load_state_dict(load_weights(options.weights), strict=True)
    except RuntimeError as error:
        raise ExportError(f"{options.weights}: does not fit {name} ({graphs.one_line(error)})") from error
    network = network.float().eval()
    sanity.check_scale(options.mean, options.std)
    warnings_ = sanity.check_batch_norms(network, name)
    traced = trace(network, options.layout, options.input_size, name)
    sanity.check_training_mode(traced, name)
    sanity.check_own_scale(traced, graphs.PIXELS, options.mean, options.std, name)
    sigmoid = binary.ends_in_sigmoid(traced)
    core = graphs.make_core(traced, name, options.layout, options.mean, options.std, len(labels))

    def predict_at(mean: tuple[float, ...], std: tuple[float, ...]) -> Predict:
        predict = _torch_predict(network, options.layout, mean, std)
        return binary.two_columns(predict, sigmoid)

    return Source(
        name=options.name or name.partition(":")[2].replace("_", "-"),
        kind=f"PyTorch network {name}",
        sha256=hashlib.sha256(options.weights.read_bytes()).hexdigest(),
        core=core,
        predict=predict_at(options.mean, options.std),
        predict_at=predict_at,
        warnings=warnings_,
        labels=labels,
        malignant=malignant,
        height=options.input_size[0],
        width=options.input_size[1],
        crop=options.crop,
        output="probabilities" if graphs.returns_probabilities(core) else "logits",
        runtime=f"torch {torch.__version__}",
        preprocessing=_preprocessing(options.mean, options.std),
        training_data=options.training_data or UNKNOWN,
        training_command=options.training_command or UNKNOWN,
        licence=options.licence or UNKNOWN,
    )


def _from_onnx(path: Path, options: SourceOptions) -> Source:
    import onnx
    import onnxruntime

    if options.weights is not None:
        raise ExportError(f"--weights goes with package.module:factory; {path} holds its own")
    if not path.is_file():
        raise ExportError(f"{path}: no such model file")
    labels, malignant = _labels(options)
    model = graphs.load_graph(path)
    graphs.check_source(model, str(path))
    sanity.check_scale(options.mean, options.std)
    sanity.check_training_mode(model, str(path))
    height, width = graphs.fix_shape(model, str(path), options.layout, options.input_size)
    as_given = model.SerializeToString()
    value = graphs.inputs_of(model)[0]
    dtype = np.float32 if value.type.tensor_type.elem_type == 1 else np.uint8
    if dtype == np.uint8 and (any(options.mean) or any(s != 1 for s in options.std)):
        raise ExportError(f"{path}: takes uint8 pixels, so --mean and --std do not apply")
    sanity.check_own_scale(model, value.name, options.mean, options.std, str(path))
    core = graphs.make_core(model, str(path), options.layout, options.mean, options.std, len(labels))
    sigmoid = binary.ends_in_sigmoid(onnx.load_from_string(as_given))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(as_given, settings, providers=["CPUExecutionProvider"])

    def predict_at(mean: tuple[float, ...], std: tuple[float, ...]) -> Predict:
        shift, scale = (np.array(v, np.float32) for v in (mean, std))

        def predict(batch: np.ndarray) -> np.ndarray:
            pixels = batch if dtype == np.uint8 else (batch.astype(np.float32) - shift) / scale
            if options.layout == "NCHW":
                pixels = pixels.transpose(0, 3, 1, 2)
            rows = [session.run(None, {value.name: np.ascontiguousarray(p[None])})[0] for p in pixels]
            return np.concatenate(rows)

        return binary.two_columns(predict, sigmoid)

    return Source(
        name=options.name or path.stem,
        kind="ONNX file",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        core=core,
        predict=predict_at(options.mean, options.std),
        predict_at=None if dtype == np.uint8 else predict_at,
        labels=labels,
        malignant=malignant,
        height=height,
        width=width,
        crop=options.crop,
        output="probabilities" if graphs.returns_probabilities(core) else "logits",
        runtime=f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider",
        preprocessing=_preprocessing(options.mean, options.std),
        training_data=options.training_data or UNKNOWN,
        training_command=options.training_command or UNKNOWN,
        licence=options.licence or UNKNOWN,
    )
