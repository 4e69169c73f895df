"""Models in LiteRT: ``ai-edge-litert``, or ``tflite-runtime`` where that is what the board has."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from edge_mdda.classifier.manifest import Manifest
from edge_mdda.classifier.tensors import check_batch, to_input, to_probabilities
from edge_mdda.errors import ModelError


def _interpreter_class() -> tuple[Any, str]:
    """``(Interpreter, runtime's name and version)`` of the first runtime that is installed and fit to run."""
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter, f"ai-edge-litert {ai_edge_litert.__version__}"
    except ImportError:
        pass
    try:
        import tflite_runtime
        from tflite_runtime.interpreter import Interpreter
    except ImportError as error:
        raise ModelError("no TFLite runtime is installed; run: pip install ai-edge-litert") from error
    if int(np.__version__.split(".")[0]) >= 2:
        # It imports, and fails later with a message that names neither package.
        raise ModelError(f"tflite-runtime needs numpy below 2, found {np.__version__}; run: pip install 'numpy<2'")
    return Interpreter, f"tflite-runtime {tflite_runtime.__version__}"


class TfliteClassifier:
    """A model opened in LiteRT on the CPU; see :class:`edge_mdda.classifier.Classifier`."""

    def __init__(self, content: bytes, manifest: Manifest, threads: int = 1) -> None:
        interpreter_class, package = _interpreter_class()
        try:
            self._interpreter = interpreter_class(model_content=content, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            cause = str(error).splitlines()[0][:200]
            raise ModelError(f"{manifest.file}: {package} cannot open the model ({cause})") from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(f"{manifest.file}: expected one image input and one output")
        self._input, self._output = inputs[0], outputs[0]
        self.manifest = manifest
        self._lock = threading.Lock()  # set, invoke and get belong together
        self.runtime = package

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Class probabilities ``(n, n_labels)`` float32 of ``(n, height, width, 3)`` uint8 RGB."""
        check_batch(batch, self.manifest)
        with self._lock:
            outputs = [self._run(image) for image in batch]
        return to_probabilities(np.concatenate(outputs), self.manifest)

    def _run(self, image: np.ndarray) -> np.ndarray:
        try:
            self._interpreter.set_tensor(self._input["index"], self._quantised(image))
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            cause = str(error).splitlines()[0][:200]
            raise ModelError(f"{self.manifest.file}: the model cannot run ({cause})") from error
        return self._dequantised(self._interpreter.get_tensor(self._output["index"]))

    def _quantised(self, image: np.ndarray) -> np.ndarray:
        dtype = np.dtype(self._input["dtype"])
        scale, zero_point = self._input["quantization"]
        if dtype.kind == "f" or not scale:
            return to_input(image, self.manifest, dtype)
        real = to_input(image, self.manifest, np.float32)
        limits = np.iinfo(dtype)
        return np.clip(np.round(real / scale + zero_point), limits.min, limits.max).astype(dtype)

    def _dequantised(self, values: np.ndarray) -> np.ndarray:
        scale, zero_point = self._output["quantization"]
        if values.dtype.kind == "f" or not scale:
            return values
        return (values.astype(np.float32) - zero_point) * np.float32(scale)
