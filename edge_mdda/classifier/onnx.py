"""Models in ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import numpy as np

from edge_mdda.classifier import providers
from edge_mdda.classifier.manifest import Manifest
from edge_mdda.classifier.tensors import check_batch, to_input, to_probabilities
from edge_mdda.errors import ModelError
from edge_mdda.silence import hush

DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
FATAL_ONLY = 4  # of ONNX Runtime's log severities


class OnnxClassifier:
    """A model opened in ONNX Runtime; see :class:`edge_mdda.classifier.Classifier`."""

    def __init__(self, content: bytes, manifest: Manifest, threads: int = 1, provider: str = "cpu") -> None:
        hush()  # again: somebody may have changed the environment since this package was imported
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError("onnxruntime is not installed; run: pip install onnxruntime") from error
        onnxruntime.disable_telemetry_events()  # for builds that ignore the environment
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL_ONLY  # an error is raised, too, and told in one line without colours
        # The manifest's hash covers this file alone: what lies beside it, or in the current folder, is not read.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        # Arenas keep the peak of every size they saw; one image a call needs no such cache.
        options.enable_cpu_mem_arena = False
        # On x86 without VNNI the default kernels add pairs of int8 products in 16 bits and saturate; this option takes
        # exact ones there. Arm and newer x86 processors are exact anyway and ignore it.
        options.add_session_config_entry("session.x64quantprecision", "1")
        chosen = providers.wanted(provider, onnxruntime.get_available_providers(), manifest)
        if provider != "cpu":  # what did not load is said below, in one line
            onnxruntime.set_default_logger_severity(FATAL_ONLY)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints there when it falls back
                self._session = onnxruntime.InferenceSession(content, options, providers=chosen)
        except Exception as error:  # onnxruntime raises types of its own, all below Exception
            cause = str(error).splitlines()[0][:200]
            raise ModelError(f"{manifest.file}: ONNX Runtime cannot open the model ({cause})") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type not in DTYPES:
            raise ModelError(f"{manifest.file}: expected one uint8 or float image input and one output")
        self._input, self._dtype = inputs[0].name, DTYPES[inputs[0].type]
        self.manifest = manifest
        libraries = Path(onnxruntime.__file__).parent / "capi"
        first = providers.loaded(provider, self._session.get_providers(), libraries)
        self.runtime = f"onnxruntime {onnxruntime.__version__} {first}"

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Class probabilities ``(n, n_labels)`` float32 of ``(n, height, width, 3)`` uint8 RGB."""
        check_batch(batch, self.manifest)
        rows = []
        for image in batch:
            try:
                rows.append(self._session.run(None, {self._input: to_input(image, self.manifest, self._dtype)})[0])
            except Exception as error:  # a graph whose shapes do not fit the manifest fails only here
                cause = str(error).splitlines()[0][:200]
                raise ModelError(f"{self.manifest.file}: the model cannot run ({cause})") from error
        return to_probabilities(np.concatenate(rows), self.manifest)
