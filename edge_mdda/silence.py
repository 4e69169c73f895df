"""Nothing leaves this machine: every opt-out of the libraries below, set before one of them is imported.

ONNX Runtime 1.32 writes a device ID below the user's cache folder, queues an event and looks up host names when it
opens its first session; ``disable_telemetry_events()`` comes too late for that. Only its environment variables stop it,
and only if they stand before its import. ``import edge_mdda`` therefore calls :func:`hush`. A program that imports ONNX
Runtime *before* ``edge_mdda`` must set them itself. ``tests/test_trust_silence.py`` watches what the runtimes then do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

OPT_OUTS = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime 1.32
    "ORT_TELEMETRY_DISABLED": "1",  # the same, under the name that some of its builds read
    "DO_NOT_TRACK": "1",  # the convention of consoledonottrack.com
    "HF_HUB_DISABLE_TELEMETRY": "1",  # a dependency of converters on the workstation
}
"""Environment variables and the value that says no; a value of the user's own is overridden."""

TRACE = os.path.join(".cache", "Microsoft", "DeveloperTools", ".onnxruntime")
"""Where ONNX Runtime keeps its device ID and its queue of events, below the home folder."""


def hush(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set every opt-out, for this process and its children."""
    environ.update(OPT_OUTS)


def missing(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Opt-outs that are not in force."""
    return [name for name, value in OPT_OUTS.items() if environ.get(name) != value]


def trace_folder(environ: Mapping[str, str] = os.environ) -> str | None:
    """The folder that telemetry has left in this user's home, or None."""
    folder = os.path.join(environ.get("HOME") or os.path.expanduser("~"), TRACE)
    return folder if os.path.isdir(folder) else None
