"""``python -m benchmarks.robustness calibrate``: are the probabilities what they say, before and after the temperature?

The temperature in the model's manifest was chosen on ``val``; here the reliability of the purified answers, and of the
raw ones, is judged on ``test``, with the calibration error of each. ``figures`` draws the diagram of its JSON.

References
----------
C. Guo et al., "On calibration of modern neural networks", ICML 2017.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.robustness.figure_data import calibration_error, reliability_bins
from benchmarks.robustness.study import Study, add_options
from edge_mdda.mdda.params import PRESETS
from export.evaluate import write_json

PER_CLASS = 1000  # more than any class has: all of the split
VIEWS = ("purified", "raw")


def without_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What the network answered before its logits were divided by ``temperature``; ``(n, n_labels)``."""
    powers = probabilities.astype(np.float64) ** temperature
    return powers / powers.sum(axis=1, keepdims=True)


def bins_of(probabilities: np.ndarray, targets: np.ndarray) -> list[dict[str, float]]:
    """Reliability of the top class."""
    right = probabilities.argmax(axis=1) == targets
    return reliability_bins(probabilities.max(axis=1).clip(0, 1).tolist(), right.tolist())


def execute(args: argparse.Namespace) -> int:
    """Judge, print and perhaps write."""
    study = Study.open(args, "test")
    temperature = study.target.classifier.manifest.temperature
    reliability: dict[str, Any] = {}
    print("| view | temperature | n | calibration error |\n| --- | --- | --- | --- |")
    for view in VIEWS:
        answers = study.answers(study.photos.images, PRESETS[args.preset] if view == "purified" else None)
        stages = {"before": (1.0, without_temperature(answers, temperature)), "after": (temperature, answers)}
        for stage, (value, probabilities) in stages.items():
            bins = bins_of(probabilities, study.photos.data.targets)
            error = calibration_error(bins)
            reliability[f"{view}, {stage}"] = {"bins": bins, "calibration_error": round(error, 4)}
            print(f"| {view} | {value:.3f} | {len(answers)} | {error:.3f} |", flush=True)
    if args.json:
        about = {**study.about(args.command), "preset": args.preset, "temperature": temperature}
        write_json(args.json, {**about, "reliability": reliability})
    return 0


def add_command(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "calibrate",
        help="reliability of the probabilities before and after the temperature",
        description=__doc__.split("\n\n")[0],
    )
    add_options(parser, PER_CLASS)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="balanced", help="(%(default)s)")
    parser.set_defaults(execute=execute)
