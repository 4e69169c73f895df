"""The TFLite tool chain, which lives in an environment of its own and is spoken to through one process.

``litert-torch`` and its quantiser bring packages that conflict with this project's; they are installed once, by
``python -m export setup tflite``, and never while something is converted.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.convert.ranges import Range, in_order
from export.errors import ExportError

if TYPE_CHECKING:
    import onnx

ENVIRONMENT_VARIABLE = "EDGE_MDDA_TFLITE_ENV"
PINS = ("torch==2.13.0", "litert-torch==0.10.0", "ai-edge-quantizer==0.10.0", "ai-edge-litert==2.3.0")
TIME_LIMIT = 3600  # seconds of one conversion
WORKER = Path(__file__).with_name("tflite_worker.py")
PROBE = "import litert_torch, ai_edge_quantizer, ai_edge_litert"


def environment(chosen: Path | None = None) -> Path:
    """Folder of the tool environment: the chosen one, ``$EDGE_MDDA_TFLITE_ENV``, or the user's data folder."""
    if chosen is not None:
        return chosen
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(os.environ[ENVIRONMENT_VARIABLE])
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "edge-mdda" / "tflite-env"


def interpreter(folder: Path) -> Path:
    """The environment's Python; ExportError says how to make one."""
    python = folder / "bin" / "python"
    if not python.is_file():
        raise ExportError(
            f"no TFLite tools in {folder}; make them once with: python -m export setup tflite --tflite-env {folder}"
        )
    return python


def setup_commands(folder: Path) -> list[list[str]]:
    """What ``setup tflite`` runs."""
    python = str(folder / "bin" / "python")
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "--quiet", *PINS],
        [python, "-c", PROBE],
    ]


def setup(folder: Path) -> None:
    """Make the tool environment (about 2 GB); ExportError names the step that failed."""
    for command in setup_commands(folder):
        print("+ " + shlex.join(command), flush=True)
        try:
            status = subprocess.run(command, check=False).returncode
        except OSError as error:
            raise ExportError(f"{command[0]}: cannot be run ({error.strerror})") from error
        if status:
            raise ExportError(f"this failed (status {status}): {shlex.join(command)}")


def convert(
    core: onnx.ModelProto,
    pixels: np.ndarray | None,
    weight_scale: str,
    folder: Path | None,
    ranges: Mapping[str, Range] | None = None,
    float_first: int = 0,
) -> tuple[bytes, dict[str, str]]:
    """A TFLite file of the core, and the versions of the tools that made it.

    Parameters
    ----------
    core : onnx.ModelProto
        See :mod:`export.convert.graphs`.
    pixels : ndarray, optional
        Calibration images ``(n, h, w, 3)`` uint8; None makes a float file.
    weight_scale : {'minmax', 'octav'}
        How the scale of the weights is chosen.
    folder : Path, optional
        The tool environment.
    ranges : mapping of str to (float, float), optional
        Activation ranges by module, in place of those seen on ``pixels``; see :mod:`export.convert.ranges`.
    float_first : int
        Convolutions at the start that stay in float, and input and output with them.

    Raises
    ------
    ExportError
        An operator without a conversion, no environment, or whatever the tools complained of.
    """
    python = interpreter(environment(folder))
    with tempfile.TemporaryDirectory() as scratch:
        program, target = Path(scratch) / "program.pt2", Path(scratch) / "model.tflite"
        store_program(core, program)
        images = None
        if pixels is not None:
            images = str(Path(scratch) / "pixels.npy")
            np.save(images, pixels)
        job = Path(scratch) / "job.json"
        content = {
            "program": str(program),
            "target": str(target),
            "pixels": images,
            "weights": weight_scale.upper(),
            "ranges": None if ranges is None else in_order(core, ranges),
            "float_first": float_first,
        }
        job.write_text(json.dumps(content), encoding="utf-8")
        answer = ask(python, job)
        return target.read_bytes(), answer["versions"]


def store_program(core: onnx.ModelProto, program: Path) -> None:
    """Write the core as a ``torch.export`` program with an NHWC input."""
    import torch

    from export.convert.rebuild import Rebuilt

    network = Rebuilt(core).eval()
    _, _, height, width = (d.dim_value for d in core.graph.input[0].type.tensor_type.shape.dim)
    torch.export.save(torch.export.export(network, (torch.zeros(1, height, width, 3),)), program)


def ask(python: Path, job: Path) -> dict[str, Any]:
    """Run the worker on a job and return its answer."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [str(python), str(WORKER), str(job)], capture_output=True, text=True, timeout=TIME_LIMIT, env=environ
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExportError(f"the TFLite tools cannot be run ({' '.join(str(error).split())[:200]})") from error
    lines = done.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise ExportError(f"the TFLite tools stopped with status {done.returncode}: {last}") from None
    if "error" in answer:
        raise ExportError(f"the TFLite tools failed: {answer['error']}")
    return answer
