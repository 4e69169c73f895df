"""One part of the program tried in a process of its own: ``python -m edge_mdda.diagnostics.probe PART [MODEL]``.

Prints one JSON object. The process may die of an instruction that the CPU lacks; ``edge-mdda doctor`` reports that.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = 1
SIDE = 64  # pixels of the picture that the kernels are tried on
MEMORY_FIELD = "VmHWM"


def _numpy(model: str | None) -> dict[str, Any]:
    import numpy as np

    matrix = np.arange(4096, dtype=np.float32).reshape(64, 64) / 4096
    product = matrix @ matrix  # the linear algebra library has code of its own for each CPU
    return {"version": np.__version__, "checksum": float(product.sum())}


def _opencv(model: str | None) -> dict[str, Any]:
    import cv2

    from edge_mdda.models import DEMO_IMAGE
    from edge_mdda.picture.decode import decode, fit

    picture = decode(DEMO_IMAGE.read_bytes())
    return {"version": cv2.__version__, "shape": fit(picture, SIDE, SIDE, "squeeze").shape}


def _classifier(model: str | None, runtime: str) -> dict[str, Any]:
    import numpy as np

    from edge_mdda.classifier import open_classifier

    classifier = open_classifier(model, runtime)
    height, width = classifier.manifest.height, classifier.manifest.width
    ramp = np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(1, height, width, 3)
    row = classifier.predict(ramp)[0]
    return {"runtime": classifier.runtime, "model": classifier.manifest.name, "sum": float(row.sum())}


def _onnx(model: str | None) -> dict[str, Any]:
    answer = _classifier(model, "onnx")
    import onnxruntime

    return {**answer, "available": onnxruntime.get_available_providers()}


def _tflite(model: str | None) -> dict[str, Any]:
    if model is not None:
        return _classifier(model, "tflite")
    from edge_mdda.classifier.tflite import _interpreter_class

    return {"runtime": _interpreter_class()[1], "model": None}


class _Collect(logging.Handler):
    """Log messages as a list."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _kernels(model: str | None) -> dict[str, Any]:
    collected = _Collect()
    logging.getLogger("edge_mdda").addHandler(collected)  # why a library was refused is said there
    from edge_mdda.mdda.kernels import backend

    found = backend()
    import numpy as np

    from edge_mdda.mdda.purifier import Purifier

    ramp = np.linspace(0, 255, SIDE * SIDE * 3).astype(np.uint8).reshape(SIDE, SIDE, 3)
    with Purifier(SIDE, SIDE) as purifier:
        changed = float(np.abs(purifier.purify(ramp, SEED).astype(int) - ramp).mean())
    return {**found.to_dict(), "library": found.library, "refused": collected.messages, "change": changed}


def _screening(model: str | None) -> dict[str, Any]:
    from edge_mdda.hardware.inventory import process_memory
    from edge_mdda.models import DEMO_IMAGE
    from edge_mdda.screening import Screener

    content = Path(DEMO_IMAGE).read_bytes()
    started = time.perf_counter()
    with Screener(model) as screener:
        result = screener.screen(content, SEED)
    return {
        "label": result.label,
        "runtime": result.model["runtime"],
        "seconds": time.perf_counter() - started,
        "peak_bytes": process_memory(MEMORY_FIELD),
    }


PARTS: dict[str, Callable[[str | None], dict[str, Any]]] = {
    "numpy": _numpy,
    "opencv": _opencv,
    "onnx": _onnx,
    "tflite": _tflite,
    "kernels": _kernels,
    "screening": _screening,
}


def main(part: str, model: str | None = None) -> int:
    """Try one part; what it says of itself goes to standard output, why it cannot be used to standard error."""
    from edge_mdda.errors import EdgeMddaError
    from edge_mdda.hardware.child_process import no_core_dump

    no_core_dump()
    try:
        answer = PARTS[part](model)
    except (EdgeMddaError, ImportError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
