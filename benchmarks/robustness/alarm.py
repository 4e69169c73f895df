"""``python -m benchmarks.robustness alarm``: does the disagreement of the two views give tampering away?

The screener's ``retake`` advice rests on the Jensen-Shannon divergence of the raw and the purified view. Its threshold
was chosen on clean images of ``val`` (5 % false alarms) and stands in the model's manifest; here it is judged on
``test``. Two rows have an attacker who knows the purifier and fools both views alike: **he is hardly noticed.**
With ``--draws`` several purifications are averaged, and the table shows what they buy.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.robustness import plan
from benchmarks.robustness.study import Study, add_options
from edge_mdda.mdda.params import MAX_DRAWS, PRESETS
from export.calibration import disagreements
from export.evaluate import write_json

PER_CLASS = 20
GRAY = (("fgsm", 4.0), ("pgd10", 2.0), ("pgd10", 4.0), ("difgsm", 2.0), ("difgsm", 6.0))
DRAWS = (1, 2, 4, 8)
HEAD = (
    "| attack | eps | threat model | draws | n | AUROC | alarms at the threshold | balanced accuracy | spread |\n|"
    + " --- |" * 9
)


def averages(
    answers: np.ndarray, draws: Sequence[int], malignant: Sequence[int]
) -> dict[int, tuple[np.ndarray, float]]:
    """Mean answers of the first K draws, and the mean standard deviation of their malignant share.

    ``answers`` is ``(draws, n, n_labels)``.
    """
    found = {}
    for k in draws:
        shares = answers[:k][:, :, list(malignant)].sum(axis=2)
        found[k] = answers[:k].mean(axis=0), float(shares.std(axis=0).mean())
    return found


class Alarm:
    """Both views of clean and attacked images of one network."""

    def __init__(self, study: Study, preset: str, draws: Sequence[int]) -> None:
        self.study, self.params, self.draws = study, PRESETS[preset], draws
        manifest = study.target.classifier.manifest
        labels = list(manifest.labels)
        self.malignant = [labels.index(label) for label in manifest.malignant]
        self.retake_at = manifest.retake_at
        self.clean = self._scores(study.photos.images)

    def _scores(self, images: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray, float]]:
        """For each K: disagreement of every image, mean purified answers, spread."""
        raw = self.study.answers(images, None)
        answers = np.stack([self.study.answers(images, self.params, draw) for draw in range(max(self.draws))])
        return {
            k: (disagreements(raw, mean), mean, spread)
            for k, (mean, spread) in averages(answers, self.draws, self.malignant).items()
        }

    def rows(self, attack: str, eps: float, threat_model: str, images: np.ndarray | None) -> list[dict[str, Any]]:
        """One row for each number of draws; ``images`` is None for the clean ones themselves."""
        from export.metrics import auroc

        found = self.clean if images is None else self._scores(images)
        rows = []
        for k in self.draws:
            score, mean, spread = found[k]
            against = self.clean[k][0]
            both = np.concatenate([against, score])
            positive = np.arange(len(both)) >= len(against)
            rows.append(
                {
                    "attack": attack,
                    "eps": eps,
                    "threat_model": threat_model,
                    "draws": k,
                    "n": len(score),
                    "auroc": None if images is None else round(auroc(positive, both), 4),
                    "alarms": round(float((score >= self.retake_at).mean()), 4),
                    "balanced_accuracy": round(self.study.balanced_accuracy(mean), 4),
                    "spread": round(spread, 4),
                }
            )
        return rows


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    area = "-" if row["auroc"] is None else f"{row['auroc']:.3f}"
    return (
        f"| {row['attack']} | {row['eps']:g} | {row['threat_model']} | {row['draws']} | {row['n']} | {area} |"
        f" {row['alarms']:.1%} | {row['balanced_accuracy']:.3f} | {row['spread']:.3f} |"
    )


def execute(args: argparse.Namespace) -> int:
    """Judge the alarm and print the table."""
    study = Study.open(args, "test")
    draws = (*(k for k in DRAWS if k < args.draws), args.draws)
    print(HEAD, flush=True)
    rows = []

    def show(new: list[dict[str, Any]]) -> None:
        rows.extend(new)
        for row in new:
            print(line(row), flush=True)

    alarm = Alarm(study, args.preset, draws)
    show(alarm.rows("clean", 0.0, "gray", None))
    for attack, eps in GRAY:
        show(alarm.rows(attack, eps, "gray", study.attacked(attack, eps)))
    few = Study(study.target, study.photos.first(plan.ADAPTIVE_PER_CLASS), study.maker, study.threads, study.seed)
    for attack in plan.THROUGH:
        made = _adaptive(attack, few, args.preset)
        show(Alarm(few, args.preset, draws).rows(attack, plan.ADAPTIVE_EPS, "adaptive", made))
    if args.json:
        content = {**study.about(args.command), "preset": args.preset, "retake_at": alarm.retake_at, "rows": rows}
        write_json(args.json, content)
    return 0


def _adaptive(attack: str, study: Study, preset: str) -> np.ndarray:
    from benchmarks.robustness.defences import DEFENCES
    from benchmarks.robustness.pipeline import Pipeline

    target = study.target
    with Pipeline(DEFENCES[f"mdda_{preset}"], target.classifier, study.threads) as pipeline:
        made = study.maker.through_defence(
            attack, target.twin, target.digest, pipeline, study.photos, plan.ADAPTIVE_EPS, True
        )
    return made.images


def add_command(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "alarm",
        help="the disagreement of the views as a detector; what several draws buy",
        description=__doc__.split("\n\n")[0],
    )
    add_options(parser, PER_CLASS)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="balanced", help="(%(default)s)")
    parser.add_argument(
        "--draws", type=int, default=max(DRAWS), choices=range(1, MAX_DRAWS + 1), metavar="K", help="(%(default)s)"
    )
    parser.set_defaults(execute=execute)
