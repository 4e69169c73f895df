"""Which of the packages that matter here are installed, without importing one."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "ai-edge-litert", "tflite-runtime", "numba")
MODULES = {"onnx": ("onnxruntime",), "tflite": ("ai_edge_litert", "tflite_runtime")}
"""What a runtime is imported as; one is enough."""


def versions() -> dict[str, str]:
    """Installed version of every package that matters here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def is_installed(runtime: str) -> bool:
    """Whether one of a runtime's modules could be imported."""
    return any(map(find_spec, MODULES[runtime]))
