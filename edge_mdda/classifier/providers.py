"""Which part of ONNX Runtime runs a model: TensorRT, CUDA or the CPU, and what really loaded.

A provider that ONNX Runtime lists can still fail to load (a missing library, another CUDA version); the
session is then made without it and only logs a warning. So the session is asked afterwards.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from edge_mdda.classifier.manifest import Manifest
from edge_mdda.errors import ModelError

NAMES = {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
"""What the user types, fastest first, and ONNX Runtime's name for it."""

CHOICES = ("cpu", "cuda", "tensorrt", "auto")
NEEDS = {
    "tensorrt": "an onnxruntime-gpu built for this board's JetPack or CUDA, with TensorRT",
    "cuda": "onnxruntime-gpu",
}


def engine_cache() -> Path:
    """Folder in which TensorRT keeps the engines it built: ``$XDG_CACHE_HOME/edge-mdda/tensorrt``."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "edge-mdda" / "tensorrt"


def _tensorrt_options(manifest: Manifest) -> dict[str, Any]:
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(engine_cache()),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(engine_cache()),
        "trt_fp16_enable": True,
        "trt_int8_enable": "int8" in manifest.target,
    }


def wanted(provider: str, available: list[str], manifest: Manifest) -> list[Any]:
    """The provider list for ``InferenceSession``; ModelError where this ONNX Runtime lacks the one asked for.

    ``auto`` takes all that are there; ``tensorrt`` and ``cuda`` leave what they cannot run to the slower ones.
    """
    if provider not in CHOICES:
        raise ModelError(f"unknown provider '{provider}'; choose one of {', '.join(CHOICES)}")
    order = list(NAMES)
    names = order if provider == "auto" else order[order.index(provider) :]
    if provider != "auto" and NAMES[provider] not in available:
        have = ", ".join(name for name, full in NAMES.items() if full in available)
        raise ModelError(f"this onnxruntime has no provider '{provider}' (it has: {have}); it takes {NEEDS[provider]}")
    chosen: list[Any] = []
    for name in names:
        if NAMES[name] not in available:
            continue
        if name == "tensorrt":
            try:
                engine_cache().mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ModelError(f"{engine_cache()}: cannot make the engine cache ({error.strerror})") from error
            chosen.append((NAMES[name], _tensorrt_options(manifest)))
        else:
            chosen.append(NAMES[name])
    return chosen


def missing_library(provider: str, folder: Path) -> str:
    """What keeps a provider's library in ``folder`` from loading, in the dynamic linker's words; empty if nothing."""
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{provider}.so"))
    except OSError as error:
        return " ".join(str(error).split())
    return ""


def loaded(provider: str, session_providers: list[str], libraries: Path | None = None) -> str:
    """The provider that really loaded first; ModelError when it is not the one asked for by name.

    ``libraries`` is the folder of ONNX Runtime's own libraries, where the cause is looked for.
    """
    first = session_providers[0]
    if provider != "auto" and first != NAMES[provider]:
        cause = missing_library(provider, libraries) if libraries else ""
        raise ModelError(
            f"provider '{provider}' did not load, ONNX Runtime fell back to {first}{f' ({cause})' if cause else ''};"
            f" it takes {NEEDS.get(provider, 'onnxruntime')}, and its libraries in LD_LIBRARY_PATH"
        )
    return first
