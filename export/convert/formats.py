"""The formats that a classifier can be exported to: one table, everything else reads it."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any

from export.errors import ExportError


@dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes
    ----------
    name, suffix : str
        What the user types, and how the file ends.
    runtime : str
        What verifies it here, a key of :data:`edge_mdda.classifier.RUNTIMES`.
    targets : tuple of str
        Boards and programs that it is meant for.
    input : str
        The graph's input; its normalisation is always part of the graph.
    layout : {'NHWC', 'NCHW'}
        Axis order of that input.
    precision : {'fp32', 'fp16', 'int8'}
        What the convolutions compute in; the dtype audit holds the file to it.
    symmetric : bool
        All zero points are 0 (TensorRT).
    arguments : tuple of str
        Options of ``convert`` that this format takes beside the common ones.
    tools : str
        Where its tool chain comes from: an extra of this package, or an environment of its own.
    min_agreement, max_kl, max_balanced_loss, max_melanoma_loss : float
        Defaults of the gates: least share of unseen images with the source's class, largest mean
        Kullback-Leibler divergence (nats), largest loss of balanced accuracy and of melanoma recall.
    """

    name: str
    suffix: str
    runtime: str
    targets: tuple[str, ...]
    input: str
    layout: str
    precision: str
    arguments: tuple[str, ...] = ()
    tools: str = "extra export"
    symmetric: bool = False
    min_agreement: float = 0.995
    max_kl: float = 0.001
    max_balanced_loss: float = 0.005
    max_melanoma_loss: float = 0.02

    @property
    def is_tflite(self) -> bool:
        """Whether the TFLite tool environment makes it."""
        return self.runtime == "tflite"


TFLITE_TOOLS = "extra tflite; own environment: python -m export setup tflite"

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            name="onnx-fp32",
            suffix=".onnx",
            runtime="onnx",
            targets=("any board with ONNX Runtime", "reference"),
            input="uint8",
            layout="NHWC",
            precision="fp32",
        ),
        Format(
            name="onnx-int8",
            suffix=".onnx",
            runtime="onnx",
            targets=("Raspberry Pi", "x86-64", "ONNX Runtime on any CPU"),
            input="uint8",
            layout="NHWC",
            precision="int8",
            arguments=("float_first",),
            min_agreement=0.98,
            max_kl=0.02,
        ),
        Format(
            name="onnx-fp16",
            suffix=".onnx",
            runtime="onnx",
            targets=("Jetson: TensorRT, ONNX Runtime CUDA",),
            input="float32",
            layout="NCHW",
            precision="fp16",
        ),
        Format(
            name="onnx-int8-tensorrt",
            suffix=".onnx",
            runtime="onnx",
            targets=("Jetson: TensorRT",),
            input="float32",
            layout="NCHW",
            precision="int8",
            arguments=("float_first",),
            symmetric=True,
            min_agreement=0.98,
            max_kl=0.02,
        ),
        Format(
            name="tflite-int8",
            suffix=".tflite",
            runtime="tflite",
            targets=("Raspberry Pi", "LiteRT and tflite-runtime on any CPU"),
            input="int8",
            layout="NHWC",
            precision="int8",
            arguments=("weight_scale", "tflite_env"),
            tools=TFLITE_TOOLS,
            min_agreement=0.98,
            max_kl=0.02,
        ),
        Format(
            name="tflite-fp32",
            suffix=".tflite",
            runtime="tflite",
            targets=("LiteRT and tflite-runtime on any CPU", "reference"),
            input="float32",
            layout="NHWC",
            precision="fp32",
            arguments=("tflite_env",),
            tools=TFLITE_TOOLS,
        ),
    )
}
"""Every format by name."""

OPSET = 17  # of every ONNX file: the newest that TensorRT 8.6 to 10 and ONNX Runtime from 1.13 on all read
IR_VERSION = 8  # the one that belongs to it


def find_format(name: str) -> Format:
    """The format of that name; ExportError names the nearest one otherwise."""
    if name in FORMATS:
        return FORMATS[name]
    near = difflib.get_close_matches(name.lower(), FORMATS, 1, 0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise ExportError(f"unknown format '{name}'; {hint}known are {', '.join(FORMATS)}")


def parse_formats(text: str) -> tuple[Format, ...]:
    """``a,b`` as formats, in the order given and each once; ``all`` is every one."""
    names = list(FORMATS) if text == "all" else [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise ExportError(f"no format named; choose of {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(find_format(name) for name in names))


def as_json() -> list[dict[str, Any]]:
    """The table as plain values."""
    return [asdict(f) for f in FORMATS.values()]


def as_table() -> str:
    """The table as markdown."""
    heads = ("format", "suffix", "input", "computes in", "runs on", "options", "tools")
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for f in FORMATS.values():
        options = ", ".join(f"--{name.replace('_', '-')}" for name in f.arguments) or "none"
        precision = f.precision + (" (symmetric, zero points 0)" if f.symmetric else "")
        cells = (f.name, f.suffix, f"{f.input} {f.layout}", precision, "; ".join(f.targets), options, f.tools)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
