"""The part that runs inside the TFLite tool environment; it imports nothing of this project.

``python tflite_worker.py JOB.json`` reads the job, writes the model, and prints one JSON object on the last
line of standard output: ``{"versions": {...}, "bytes": n}`` or ``{"error": "..."}``.

The job has ``program`` (a ``torch.export`` file of the float network, NHWC pixels 0..255 to logits),
``target`` (the ``.tflite`` to write), ``pixels`` (``.npy`` of uint8 calibration images ``(n, h, w, 3)``, or
null for a float model), ``weights`` (``MINMAX`` or ``OCTAV``: how weights are scaled), ``ranges`` (null, or a
list of ``[kind, [low, high] or null]`` in the order of execution, which take the place of what calibration saw)
and ``float_first`` (convolutions at the start that stay in float, and input and output with them).
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torch")


def to_float(program: Path, target: Path) -> None:
    """Convert a stored program to a float TFLite file."""
    import litert_torch
    import torch

    exported = torch.export.load(program)
    example = tuple(torch.zeros_like(value) for value in exported.example_inputs[0])
    litert_torch.convert(exported.module(), example).export(str(target))


KINDS = {"CONV_2D": "conv", "DEPTHWISE_CONV_2D": "conv", "ADD": "add", "MEAN": "mean", "FULLY_CONNECTED": "linear"}
Ranges = list[tuple[str, tuple[float, float] | None]]


def outputs_of(floating: Path) -> list[tuple[str | None, str]]:
    """Kind, where it has one, and output tensor of every operator, in the order of execution."""
    from ai_edge_litert import schema_py_generated as schema

    codes = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.ModelT.InitFromPackedBuf(floating.read_bytes(), 0)
    graph, found = model.subgraphs[0], []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = codes[max(code.builtinCode, code.deprecatedBuiltinCode)]
        found.append((KINDS.get(name), graph.tensors[operator.outputs[0]].name.decode()))
    return found


def set_ranges(seen: dict[str, Any], floating: Path, ranges: Ranges) -> None:
    """Put the given ranges over those of the operators' outputs; ValueError unless kinds and order fit."""
    import numpy as np

    outputs = [(kind, tensor) for kind, tensor in outputs_of(floating) if kind]
    if [kind for kind, _ in outputs] != [kind for kind, _ in ranges]:
        raise ValueError(f"{len(ranges)} ranges do not fit the {len(outputs)} operators of the TFLite graph")
    for (_, tensor), (_, bounds) in zip(outputs, ranges, strict=True):
        if bounds is not None:
            shape = np.asarray(seen.get(tensor, {"min": np.zeros((1, 1, 1, 1))})["min"])
            low, high = (np.full(shape.shape, value, np.float32) for value in (min(bounds[0], 0), max(bounds[1], 0)))
            seen[tensor] = {"min": low, "max": high}


def leave_float(manager: Any, floating: Path, count: int) -> None:
    """Quantise neither the first ``count`` convolutions and what lies before them, nor logits, input and output.

    In 256 levels the best two logits would be equal now and then; ONNX Runtime's int8 product has a float result.
    """
    outputs = outputs_of(floating)
    last = [n for n, (kind, _) in enumerate(outputs) if kind == "conv"][count - 1]
    for _, tensor in (*outputs[: last + 1], *(found for found in outputs[last + 1 :] if found[0] == "linear")):
        manager.add_quantization_config(f"^{re.escape(tensor)};?$", "*", algorithm_key="no_quantize")
    for end in ("INPUT", "OUTPUT"):
        manager.add_quantization_config(".*", end, algorithm_key="no_quantize")


def to_int8(floating: Path, target: Path, pixels: Path, weights: str, ranges: Ranges | None, float_first: int) -> None:
    """Quantise weights, activations, input and output of a float TFLite file to int8."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    signatures = Interpreter(model_path=str(floating)).get_signature_list()
    (signature, names), images = next(iter(signatures.items())), np.load(pixels, mmap_mode="r")
    name = names["inputs"][0]

    class Samples:
        """Read more than once by the tool, so no generator."""

        def __len__(self) -> int:
            return len(images)

        def __iter__(self) -> Iterator[dict[str, Any]]:
            return ({name: image[None].astype(np.float32)} for image in images)

    rules = recipe.static_wi8_ai8(recipe.AlgorithmName[{"MINMAX": "MIN_MAX_UNIFORM_QUANT"}.get(weights, weights)])
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(rules)
    if float_first:
        leave_float(manager, floating, float_first)
        rules = manager.get_quantization_recipe()
    # The tool's own running mean forgets the early images and clips; plain extremes do not.
    observer = calibrator.Calibrator(str(floating), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    observer.calibrate({signature: Samples()}, manager)
    seen = observer.get_model_qsvs()
    if ranges is not None:
        set_ranges(seen, floating, ranges)
    result = quantizer.Quantizer(str(floating), rules).quantize(seen)
    target.write_bytes(bytes(result.quantized_model))


def main(job_file: str) -> dict[str, Any]:
    """Do one job and return what there is to tell."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    target = Path(job["target"])
    with tempfile.TemporaryDirectory() as folder:
        floating = Path(folder) / "float.tflite"
        to_float(Path(job["program"]), floating)
        if job["pixels"] is None:
            target.write_bytes(floating.read_bytes())
        else:
            to_int8(floating, target, Path(job["pixels"]), job["weights"], job["ranges"], job["float_first"])
    return {"versions": {name: version(name) for name in PACKAGES}, "bytes": target.stat().st_size}


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        answer = main(sys.argv[1])
    except Exception as error:  # whatever the tools raise becomes one line for the caller
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    print("\n" + json.dumps(answer), flush=True)
    sys.exit("error" in answer)
