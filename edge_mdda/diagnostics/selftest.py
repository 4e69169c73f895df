"""``edge-mdda selftest``: does this machine compute what the reference machine computed?

The built-in drawn picture goes through the purifier with a fixed seed and through every model, each in a process of its
own, and is compared with the golden values beside the models: purified pixels within one grey level, probabilities
within 0.01. What it does not show: whether the network is right about a lesion, or the camera's pictures are good.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_mdda.classifier import RUNTIMES, STANDARD, built_in, models_here
from edge_mdda.diagnostics.finding import FAILED, OK, UNKNOWN, Finding
from edge_mdda.digest import sha256
from edge_mdda.errors import EdgeMddaError, ImageError, ModelError
from edge_mdda.hardware.child_process import ChildError, no_core_dump, run_module

GOLDEN = "golden.json"
FORMAT = 1
PRESET, SEED = "balanced", 20231107
MAX_GREY_LEVELS = 1  # of any purified value; two compilers round a float differently
MAX_PROBABILITY = 1e-2  # of any class; two CPUs sum an int8 layer's rest in a different order
TIMEOUT_S = 300.0  # one runtime; under emulation the first call takes a minute
AGAIN = "install this release again; if that does not help, install one that was made for this board"


def _demo() -> bytes:
    from edge_mdda.models import DEMO_IMAGE

    return DEMO_IMAGE.read_bytes()


def _picture_name(height: int, width: int) -> str:
    return f"golden-{height}x{width}.png"


def _screen(model: Path, runtime: str, content: bytes) -> Any:
    from edge_mdda.screening import Screener

    with Screener(model, runtime, "both", PRESET) as screener:
        return screener.screen(content, SEED)


def record(folder: Path, models: Sequence[Path]) -> list[Path]:
    """Write the golden values of models: on the workstation, whose kernels and runtimes are the reference.

    Parameters
    ----------
    folder : Path
        Where ``golden.json`` and the purified picture go; it must exist.
    models : sequence of Path
        ``.onnx`` and ``.tflite`` files with their manifests.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ModelError, ImageError
        A model cannot be used, or a file cannot be written.
    """
    from edge_mdda.files import replace_file
    from edge_mdda.picture.decode import write_png

    content, entries, pictures = _demo(), {}, {}
    for model in models:
        runtime = next(name for name, suffix in RUNTIMES.items() if suffix == model.suffix.lower())
        result = _screen(model, runtime, content)
        name = _picture_name(*result.purified.shape[:2])
        pictures[name] = result.purified
        entries[result.model["sha256"]] = {
            "model": result.model["name"],
            "recorded_with": result.model["runtime"],
            "picture": name,
            "purified": {label: round(value, 5) for label, value in result.probabilities.items()},
            "raw": {label: round(value, 5) for label, value in result.raw_probabilities.items()},
        }
    for name, purified in pictures.items():
        write_png(folder / name, purified)
    golden = {
        "format": FORMAT,
        "image_sha256": sha256(content).hexdigest(),
        "preset": PRESET,
        "seed": SEED,
        "pictures": {name: sha256((folder / name).read_bytes()).hexdigest() for name in sorted(pictures)},
        "models": entries,
    }
    replace_file(str(folder / GOLDEN), (json.dumps(golden, indent=2) + "\n").encode())
    return [folder / GOLDEN, *(folder / name for name in sorted(pictures))]


def read_golden(folder: Path) -> dict[str, Any]:
    """The golden values of a folder of models; ModelError where they cannot be used."""
    path = folder / GOLDEN
    try:
        golden: dict[str, Any] = json.loads(path.read_bytes())
        if golden["format"] != FORMAT or (golden["preset"], golden["seed"]) != (PRESET, SEED):
            raise ValueError("made by another version")
        if golden["image_sha256"] != sha256(_demo()).hexdigest():
            raise ValueError("made from another demo picture")
        if not isinstance(golden["models"], dict) or not isinstance(golden["pictures"], dict):
            raise ValueError("a value of a wrong type")
    except OSError as error:
        raise ModelError(f"{path}: cannot read the golden values ({error.strerror}); record them again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not usable ({' '.join(str(error).split())}); record them again") from error
    return golden


def compare(runtime: str, name: str = STANDARD) -> dict[str, Any]:
    """Screen the demo picture with one runtime and a built-in model and tell how far the answer is from the golden one.

    Returns
    -------
    dict
        ``purified_worst`` (grey levels), ``purified_differ`` (share of values, 0 to 1), ``probability_worst`` (0 to 1),
        ``runtime``, ``kernels``, ``model``.

    Raises
    ------
    EdgeMddaError
        There is no model or no golden value for it, or it cannot run.
    """
    import numpy as np

    from edge_mdda.picture.decode import decode

    model = built_in(runtime, name)
    golden = read_golden(model.parent)
    result = _screen(model, runtime, _demo())
    entry = golden["models"].get(result.model["sha256"])
    if entry is None:
        raise ModelError(f"{model.name}: the golden values know no such model; record them again")
    try:
        content = (model.parent / entry["picture"]).read_bytes()
        if sha256(content).hexdigest() != golden["pictures"][entry["picture"]]:
            raise ModelError(f"{entry['picture']}: is damaged; install it again")
        wanted = decode(content).astype(np.int16)
        distance = np.abs(result.purified.astype(np.int16) - wanted)
        worst = max(
            abs(found[label] - entry[view][label])
            for view, found in (("purified", result.probabilities), ("raw", result.raw_probabilities))
            for label in found
        )
    except OSError as error:
        raise ModelError(f"{entry['picture']}: {error.strerror}; install it again") from error
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, EdgeMddaError):
            raise
        raise ModelError(f"{model.parent / GOLDEN}: does not fit {model.name}; record it again") from error
    return {
        "runtime": result.model["runtime"],
        "model": result.model["name"],
        "kernels": result.kernels,
        "purified_worst": int(distance.max()),
        "purified_differ": float((distance > 0).mean()),
        "probability_worst": worst,
    }


def examine(runtimes: Sequence[str] | None = None) -> list[Finding]:
    """Compare each built-in model that is here in each runtime, in a process of its own.

    ``runtimes`` must all work; by default those whose package is not installed are left out and said to be so.
    """

    from edge_mdda.packages import is_installed

    findings = []
    for runtime in runtimes or RUNTIMES:
        if not runtimes and not is_installed(runtime):
            findings.append(Finding(f"selftest {runtime}", UNKNOWN, "its package is not installed"))
            continue
        for name in models_here(runtime):
            title = f"selftest {runtime}" + f" {name}" * (name != STANDARD)
            try:
                answer = run_module("edge_mdda.diagnostics.selftest", [runtime, name], TIMEOUT_S)
            except ChildError as error:
                findings.append(Finding(title, FAILED, str(error), AGAIN))
                continue
            findings.append(_judge(title, answer))
    return findings


def _judge(title: str, answer: dict[str, Any]) -> Finding:
    grey, probability = answer["purified_worst"], answer["probability_worst"]
    good = grey <= MAX_GREY_LEVELS and probability <= MAX_PROBABILITY
    kernels = answer["kernels"]
    text = (
        f"{answer['model']} in {answer['runtime']}, {kernels['backend']} kernels for {kernels['cpu']}: "
        f"purified picture within {grey} grey level{'s' * (grey != 1)} "
        f"({answer['purified_differ']:.2%} of the values differ), probabilities within {probability:.4f}"
    )
    return Finding(title, OK if good else FAILED, text, "" if good else AGAIN)


def main(runtime: str, name: str) -> int:
    """The child's part: one runtime and model, one JSON object."""
    no_core_dump()
    try:
        answer = compare(runtime, name)
    except (EdgeMddaError, ImageError, ImportError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
