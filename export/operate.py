"""The command ``operate`` of ``python -m export``: an operating point from a clinic's own labelled cases.

References
----------
B. Efron, R. Tibshirani, "Improvements on cross-validation: the .632+ bootstrap method", JASA 92, 1997
(judging on the cases that a resample left out).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mdda.errors import EdgeMddaError
from edge_mdda.mdda.params import PRESETS
from export.errors import ExportError
from export.intervals import share_of
from export.metrics import INTERVAL, RESAMPLES, threshold_for_sensitivity
from export.risk_coverage import cell, curve_table, risk_coverage

if TYPE_CHECKING:
    from export.cases import Screened

SENSITIVITY = 0.95  # asked for where nothing else is
LEAST_CASES = 30
"""Malignant and as many benign cases below which none is chosen: with 29 of 29 referred, the sensitivity may still be
88 % (Wilson), and the threshold is the score of the second most overlooked case."""
DECIMALS = 1e4  # of a threshold, as in the manifests

EXAMPLES = """\
examples:
  python -m export operate --images cases/ --labels cases.csv --out operating-point.json
  python -m export operate --images cases/ --labels cases.csv --sensitivity 0.98 --model build/model.onnx
The labels: columns image_id and malignant (0 or 1) or dx; patient_id where it is known. The file that is written holds
refer_at and retake_at as a model's manifest does, and what was measured. The cases must be untouched by training.
"""


def add_commands(commands: Any) -> None:
    """Hook the command into the parser of ``python -m export``."""
    parser = commands.add_parser(
        "operate",
        help="choose an operating point from a clinic's own cases",
        description=f"Choose the referral threshold from labelled cases: at least {LEAST_CASES} malignant and"
        f" {LEAST_CASES} benign ones.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the pictures")
    parser.add_argument("--labels", type=Path, required=True, metavar="FILE.csv", help="image_id, malignant or dx")
    parser.add_argument(
        "--sensitivity",
        type=_share,
        default=SENSITIVITY,
        metavar="S",
        help="of the malignant cases, this share is referred, above 0 to 1 (%(default)s)",
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help=".onnx or .tflite (default: the built-in)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the point as JSON")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="balanced", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of purifier and bootstrap (%(default)s)")
    parser.set_defaults(run=_operate)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0, at most 1, got {text!r}")
    return value


def _rounded_down(threshold: float) -> float:
    # Rounded up, the borderline case that the threshold is made of would fall below it.
    return math.floor(threshold * DECIMALS) / DECIMALS


def resampled_points(
    positive: np.ndarray, score: np.ndarray, groups: np.ndarray, sensitivity: float, seed: int
) -> dict[str, list[float]]:
    """The choice repeated on resamples, each judged on the cases that it left out.

    Parameters
    ----------
    positive : (n,) bool
    score : (n,) float
    groups : (n,) int
        Cases of one group (a patient) are drawn together.
    sensitivity : float
    seed : int

    Returns
    -------
    dict
        ``refer_at`` (95 % interval), and the mean and 95 % interval ``[mean, low, high]`` of ``sensitivity`` and
        ``specificity`` on cases that chose nothing.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    found: dict[str, list[float]] = {"refer_at": [], "sensitivity": [], "specificity": []}
    for _ in range(RESAMPLES):
        drawn = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        if not positive[drawn].any():
            continue
        threshold = threshold_for_sensitivity(positive[drawn], score[drawn], sensitivity)
        found["refer_at"].append(threshold)
        others = np.ones(len(score), bool)
        others[drawn] = False
        for name, kind in (("sensitivity", positive), ("specificity", ~positive)):
            left = others & kind
            if left.any():
                referred = float((score[left] >= threshold).mean())
                found[name].append(referred if name == "sensitivity" else 1 - referred)
    result = {"refer_at": [float(v) for v in np.percentile(found["refer_at"], INTERVAL)]}
    for name in ("sensitivity", "specificity"):
        result[name] = [float(np.mean(found[name])), *(float(v) for v in np.percentile(found[name], INTERVAL))]
    return result


def choose(screened: Screened, sensitivity: float, retake_at: float, seed: int = 0) -> dict[str, Any]:
    """The operating point of screened cases and what was measured.

    Raises
    ------
    ExportError
        Fewer than ``LEAST_CASES`` malignant or benign cases.
    """
    from export.calibration import disagreements

    positive, score = screened.positive, screened.largest
    require_enough(int(positive.sum()), int((~positive).sum()))
    refer_at = _rounded_down(threshold_for_sensitivity(positive, score, sensitivity))
    patients = [case.patient for case in screened.cases]
    names = [patient or f"\0{k}" for k, patient in enumerate(patients)]  # without a patient, a case stands alone
    groups = np.unique(names, return_inverse=True)[1]
    again = resampled_points(positive, score, groups, sensitivity, seed)
    refer = score >= refer_at
    retake = ~refer & (disagreements(screened.raw, screened.purified) >= retake_at)
    return {
        "refer_at": refer_at,
        "refer_at_ci": again["refer_at"],
        "retake_at": retake_at,
        "rule": f"the largest threshold that refers {sensitivity:.1%} of the malignant cases, rounded down to four"
        " decimals; the largest malignant share of the views counts",
        "cases": len(positive),
        "malignant_cases": int(positive.sum()),
        "benign_cases": int((~positive).sum()),
        "patients": len({patient for patient in patients if patient}) or None,
        "chosen_on_these": {
            "sensitivity": share_of(refer[positive]),
            "specificity": share_of(~refer[~positive]),
            "retaken": share_of(retake),
        },
        "expected_elsewhere": {
            "how": f"{RESAMPLES} bootstrap resamples{' of patients' if any(patients) else ''}, each judged on the"
            " cases that it left out: mean, and 95 % interval",
            "sensitivity": again["sensitivity"],
            "specificity": again["specificity"],
        },
        "risk_coverage": risk_coverage(positive, score),
    }


def require_enough(malignant: int, benign: int) -> None:
    """ExportError below ``LEAST_CASES`` of a kind."""
    if min(malignant, benign) < LEAST_CASES:
        raise ExportError(
            f"{malignant} malignant and {benign} benign cases: an operating point needs at least {LEAST_CASES} of each;"
            " collect more cases, or keep the model's own point"
        )


def operate(args: argparse.Namespace) -> dict[str, Any]:
    """Read, screen and choose, as the command line says."""
    from edge_mdda.digest import sha256
    from edge_mdda.screening import Screener
    from export.cases import read_cases, screen_cases

    with Screener(args.model, preset=args.preset) as screener:
        manifest = screener.classifier.manifest
        cases = read_cases(args.images, args.labels, manifest)
        malignant = sum(case.malignant for case in cases)
        require_enough(malignant, len(cases) - malignant)  # before minutes of screening
        point = choose(screen_cases(screener, cases, args.seed), args.sensitivity, manifest.retake_at, args.seed)
        return {
            **point,
            "model": {"name": manifest.name, "sha256": manifest.sha256, "runtime": screener.classifier.runtime},
            "replaces": {"refer_at": manifest.refer_at},
            "preset": args.preset,
            "seed": args.seed,
            "labels_sha256": sha256(args.labels.read_bytes()).hexdigest(),
            "notice": "A referral aid, never a diagnosis. It holds for this model and for cases like these.",
        }


def point_table(point: dict[str, Any]) -> str:
    """The point in words, and the curve."""
    low, high = point["refer_at_ci"]
    here, there = point["chosen_on_these"], point["expected_elsewhere"]
    lines = [
        f"refer_at {point['refer_at']:.4f} ({low:.4f} to {high:.4f}); the model's own is"
        f" {point['replaces']['refer_at']:.4f}",
        f"{point['malignant_cases']} malignant, {point['benign_cases']} benign cases",
        f"on these cases: sensitivity {cell(here['sensitivity'])}, specificity {cell(here['specificity'])}, retaken"
        f" {cell(here['retaken'])}",
    ]
    parts = [f"{name} {there[name][0]:.1%} ({there[name][1]:.1%} to {there[name][2]:.1%})" for name in
             ("sensitivity", "specificity")]  # fmt: skip
    lines += [f"on cases that chose nothing: {', '.join(parts)}", "", curve_table(point["risk_coverage"]), ""]
    return "\n".join([*lines, point["notice"]])


def _operate(args: argparse.Namespace) -> int:
    from export.evaluate import write_json

    if args.out and not args.out.absolute().parent.is_dir():
        raise ExportError(f"{args.out}: there is no such folder to write to")
    if not 0 <= args.seed < 2**48:
        raise EdgeMddaError("--seed: expected a whole number from 0 to 2**48 - 1")
    point = operate(args)
    if args.out:  # first: a reader of the table may go away
        write_json(args.out, point)
    print(point_table(point))
    return 0
