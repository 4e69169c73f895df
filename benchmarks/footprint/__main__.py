"""Command line of the footprint benchmark: every case in fresh processes, native kernels against Numba's."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_mdda.classifier import RUNTIMES
from edge_mdda.errors import EdgeMddaError
from edge_mdda.mdda.kernels import NATIVE, NUMBA, SETTING
from edge_mdda.mdda.kernels.native import FOLDER_SETTING

ROOT = Path(__file__).resolve().parents[2]
CASES = ("import", "first_screen", "second_screen")
DEFAULT_REPEATS = 7  # processes a row, after one that warms the disk cache
TIMEOUT_S = 120
GOAL_MB, GOAL_S = 75, 0.6  # screening one image with native kernels and LiteRT, from process start
GOAL_WORKSPACE_MB = 6.5  # one thread, 224 x 224


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def measure(case: str, kernels: str, runtime: str, model: str, folder: str, repeats: int) -> dict[str, Any]:
    """One row: medians over fresh processes.

    ``seconds`` is from process start for ``import`` and ``first_screen``, and of the call alone for ``second_screen``.

    Raises
    ------
    EdgeMddaError
        A process failed or used other kernels than asked for.
    """
    command = [sys.executable, "-m", "benchmarks.footprint.case", case, runtime, model]
    environment = {**os.environ, SETTING: kernels, FOLDER_SETTING: folder}
    seconds, rss = [], []
    for _ in range(repeats + 1):
        started = time.monotonic()
        child = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if child.returncode:
            last = (child.stderr.strip().splitlines() or ["no message"])[-1]
            raise EdgeMddaError(f"{case} with {kernels} kernels and {runtime} failed: {last}")
        answer = json.loads(child.stdout)
        if case != "import" and answer["kernels"] != kernels:
            raise EdgeMddaError(f"asked for {kernels} kernels, got {answer['kernels']}")
        seconds.append(answer["done"] - (answer["began"] if case == "second_screen" else started))
        rss.append(answer["rss_mb"])
    return {
        "case": case,
        "kernels": kernels,
        "runtime": runtime,
        "rss_mb": round(statistics.median(rss[1:]), 1),
        "seconds": round(statistics.median(seconds[1:]), 4),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.footprint",
        description="Peak resident memory and time from process start, each case in fresh processes.",
        epilog="example: python -m benchmarks.footprint --json footprint.json",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("--repeats", type=_positive, default=DEFAULT_REPEATS, help="processes a row (%(default)s)")
    parser.add_argument("--runtime", choices=tuple(RUNTIMES), help="default: all")
    parser.add_argument("--tflite-model", default="", metavar="FILE", help="default: the built-in one")
    args = parser.parse_args(arguments)
    try:
        if args.json and not args.json.absolute().parent.is_dir():
            raise EdgeMddaError(f"{args.json}: there is no such folder to write to")
        results = run(args.repeats, [args.runtime] if args.runtime else list(RUNTIMES), args.tflite_model)
        print(table(results))
        if args.json:
            from edge_mdda.files import replace_file

            replace_file(str(args.json), (json.dumps(results, indent=2) + "\n").encode())
    except (EdgeMddaError, subprocess.TimeoutExpired, OSError) as error:
        print(f"footprint: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"footprint: {error.name} is not installed; run: pip install -e '.[export]'", file=sys.stderr)
        return 1
    return 0


def run(repeats: int, runtimes: Sequence[str], tflite_model: str) -> dict[str, Any]:
    """All rows of the runtimes, with both back ends; the native kernels are compiled for this machine first."""
    from edge_mdda.mdda.kernels import load_kernels
    from edge_mdda.mdda.purifier import Purifier
    from export.native.build import build

    load_kernels()  # fills Numba's cache, so that its first start is not a compilation
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        build("host", Path(folder))
        for runtime in runtimes:
            model = tflite_model if runtime == "tflite" else ""
            rows += [measure(c, k, runtime, model, folder, repeats) for k in (NATIVE, NUMBA) for c in CASES]
    workspace = Purifier(224, 224).workspace_bytes / 2**20
    hardware = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    return {"rows": rows, "workspace_mb": round(workspace, 2), "hardware": hardware}


def table(results: dict[str, Any]) -> str:
    """The rows as Markdown, and what became of the goals."""
    hardware = results["hardware"]
    lines = [
        f"{hardware['machine']}, {hardware['cores']} cores, Python {hardware['python']}; medians of fresh processes.",
        "",
        "| case | kernels | runtime | peak MB | seconds |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    lines += ["| {case} | {kernels} | {runtime} | {rss_mb:.1f} | {seconds:.3f} |".format(**r) for r in results["rows"]]
    lines += [
        "",
        "Seconds from process start; of `second_screen`, the call alone.",
        f"Workspace of the purifier at 224 x 224, one thread: {results['workspace_mb']:.2f} MB"
        f" (goal: under {GOAL_WORKSPACE_MB}).",
    ]
    for row in results["rows"]:
        if (row["case"], row["kernels"], row["runtime"]) == ("first_screen", NATIVE, "tflite"):
            reached = row["rss_mb"] < GOAL_MB and row["seconds"] < GOAL_S
            lines.append(
                f"Goal for native kernels with LiteRT, under {GOAL_MB} MB and {GOAL_S} s to the first result:"
                f" {'reached' if reached else 'NOT reached'} ({row['rss_mb']:.1f} MB, {row['seconds']:.2f} s)."
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
