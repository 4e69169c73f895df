"""Quantised classifiers behind one protocol: ONNX Runtime and LiteRT (or the older tflite-runtime).

``open_classifier`` reads the model's manifest, refuses a file that the manifest does not describe,
and opens it in the runtime that its suffix, or the caller, names.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from edge_mdda.classifier.manifest import Manifest, read_verified
from edge_mdda.classifier.signature import trusted_keys
from edge_mdda.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

__all__ = [
    "BUILT_IN_MODELS",
    "RUNTIMES",
    "Classifier",
    "Manifest",
    "ModelError",
    "built_in",
    "model_path",
    "models_here",
    "open_classifier",
]

RUNTIMES = {"onnx": ".onnx", "tflite": ".tflite"}
"""Runtime names and the suffix of the files that each one runs."""

MODELS_SETTING, RUNTIME_SETTING = "EDGE_MDDA_MODELS", "EDGE_MDDA_RUNTIME"
"""Environment variables: a folder with the models to use in place of the built-in ones, at most one for each runtime
beside the ones that have a name of their own; and the runtime to use where none is named."""

STANDARD = "standard"
BUILT_IN_MODELS = {
    STANDARD: "lesion-lite0-int8",
    "hardened": "lesion-lite0-hardened-int8",
    "broad": "lesion-lite0-broad-int8",
}
"""Names that stand for a model file, and its stem. ``hardened`` was trained against attackers who know the purifier; it
is wrong more often on pictures that nobody attacked. ``broad`` was trained on three sources of pictures and refers more
of the melanomas of other clinics; it tells the seven classes apart less well, and white-box adaptive attackers were not
tried on it."""
_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "models")


class Classifier(Protocol):
    """A loaded model."""

    manifest: Manifest
    runtime: str
    """What really runs it, for example ``onnxruntime 1.31.1 CPUExecutionProvider``."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Class probabilities ``(n, n_labels)`` float32 of ``(n, height, width, 3)`` uint8 RGB."""
        ...


def built_in(runtime: str | None = None, name: str = STANDARD) -> Path:
    """A built-in model's file for a runtime; by default for that in ``EDGE_MDDA_RUNTIME``, else ONNX Runtime.

    Where ``EDGE_MDDA_MODELS`` names a folder, the model in it.

    Raises
    ------
    ModelError
        That folder holds no model, or several, for the runtime; or ``EDGE_MDDA_RUNTIME`` names none.
    """
    from pathlib import Path  # here: a screening does without it, and without the 0.8 MB that it takes

    return Path(model_path(name, runtime))


def model_path(model: str | Path | None = None, runtime: str | None = None) -> str:
    """The file of a model that is given by name or path; ``standard`` where none is.

    A file that is called like a built-in model can be given as ``./standard``. See :func:`built_in` for the settings
    that decide where a name leads.
    """
    text = STANDARD if model is None else os.fspath(model)
    return _built_in(text, runtime) if text in BUILT_IN_MODELS else text


def _built_in(name: str, runtime: str | None) -> str:
    chosen = runtime or os.environ.get(RUNTIME_SETTING) or "onnx"
    if runtime is None and chosen not in RUNTIMES:
        raise ModelError(f"{RUNTIME_SETTING} must be one of {', '.join(RUNTIMES)}, not {chosen!r}")
    suffix = RUNTIMES.get(chosen, RUNTIMES["onnx"])
    folder = os.environ.get(MODELS_SETTING)
    file = BUILT_IN_MODELS[name] + suffix
    if not folder:
        return os.path.join(_FOLDER, file)
    try:
        there = [file for file in os.listdir(folder) if file.endswith(suffix)]
    except OSError as error:
        raise ModelError(f"{folder} ({MODELS_SETTING}): cannot be read ({error.strerror})") from error
    if name != STANDARD:
        if file not in there:
            raise ModelError(f"{folder} ({MODELS_SETTING}): holds no '{name}' model ({file}); pack it, or leave it out")
        return os.path.join(folder, file)
    others = {stem + suffix for other, stem in BUILT_IN_MODELS.items() if other != STANDARD}
    chosen_ones = [file for file in there if file not in others] if len(there) > 1 else there
    if len(chosen_ones) != 1:
        found = len(chosen_ones)
        raise ModelError(f"{folder} ({MODELS_SETTING}): expected one model ending in {suffix}, found {found}")
    return os.path.join(folder, chosen_ones[0])


def models_here(runtime: str) -> list[str]:
    """Names of the built-in models whose file for a runtime is here; ``standard`` first, and always."""
    found = [STANDARD]
    for name in BUILT_IN_MODELS:
        try:
            if name != STANDARD and os.path.exists(_built_in(name, runtime)):
                found.append(name)
        except ModelError:
            continue
    return found


def open_classifier(
    model: str | Path | None = None, runtime: str | None = None, threads: int = 1, provider: str = "cpu"
) -> Classifier:
    """Open a model file with its manifest.

    Where keys are trusted (see :func:`edge_mdda.classifier.signature.trusted_keys`), only a model signed by
    one of them is opened.

    Parameters
    ----------
    model : path, optional
        ``.onnx`` or ``.tflite`` with ``<same name>.json`` beside it, or a name of ``BUILT_IN_MODELS``.
        Default: the standard built-in model.
    runtime : {'onnx', 'tflite'}, optional
        Default: by the file's suffix, or for the built-in model ``EDGE_MDDA_RUNTIME``.
    threads : int
        Threads of the runtime.
    provider : {'cpu', 'cuda', 'tensorrt', 'auto'}
        What ONNX Runtime runs on; see :mod:`edge_mdda.classifier.providers`. TFLite runs on the CPU.

    Raises
    ------
    ModelError
        Missing, damaged or altered file, unknown or missing runtime; one line that says what to do.
    """
    path = model_path(model, runtime)
    by_suffix = {suffix: name for name, suffix in RUNTIMES.items()}.get(os.path.splitext(path)[1].lower())
    if runtime is not None and runtime not in RUNTIMES:
        raise ModelError(f"unknown runtime '{runtime}'; choose one of {', '.join(RUNTIMES)}")
    if by_suffix is None:
        raise ModelError(f"{path}: expected a model file ending in {' or '.join(RUNTIMES.values())}")
    if runtime is not None and runtime != by_suffix:
        raise ModelError(f"{path}: runtime '{runtime}' runs {RUNTIMES[runtime]} files; give it one with --model")
    if provider not in ("cpu", "auto") and by_suffix != "onnx":
        raise ModelError(f"{path}: provider '{provider}' runs {RUNTIMES['onnx']} files only")
    content, manifest = read_verified(path, f"{path}.json", trusted_keys())
    if by_suffix == "onnx":
        from edge_mdda.classifier.onnx import OnnxClassifier

        return OnnxClassifier(content, manifest, threads, provider)
    from edge_mdda.classifier.tflite import TfliteClassifier

    return TfliteClassifier(content, manifest, threads)
