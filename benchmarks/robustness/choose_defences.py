"""``python -m benchmarks.robustness choose-defences``: how strong should each competitor be?

Each candidate of :data:`CANDIDATES` is judged on ``val`` (up to 20 images a class): balanced accuracy of the shipped
int8 file on clean images and on the gray-box sets of ``tune``. The best mean of clean and attacked
is the strength in :mod:`benchmarks.robustness.defences`; the MDDA presets were chosen by their own search and stand
beside them. No image of ``test`` took part.

With ``--write`` the best ones go to ``strengths.json``, which names this command; all rows of that run are in
``report/choose-defences.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.robustness import defences
from benchmarks.robustness.defences import Apply, Defence
from benchmarks.robustness.errors import RobustnessError
from benchmarks.robustness.study import Study, add_options
from benchmarks.robustness.tune import ATTACKS
from edge_mdda.classifier import STANDARD
from export.evaluate import write_json

PER_CLASS = 20
CANDIDATES: dict[str, tuple[Callable[..., Apply], tuple[dict[str, Any], ...]]] = {
    "none": (defences.none, ({},)),
    "bdr": (defences.bdr, tuple({"bits": bits} for bits in (2, 3, 4, 5))),
    "sr": (defences.sr, tuple({"sigma": sigma} for sigma in (None, 4.0, 8.0, 12.0, 16.0))),
    "nrp": (defences.nrp, tuple({"passes": passes} for passes in (1, 2, 3, 5, 7))),
    "jpeg": (defences.jpeg, tuple({"quality": quality} for quality in (10, 20, 30, 40, 50, 60, 75))),
    "median": (defences.median, tuple({"side": side} for side in (3, 5, 7, 9, 11, 13, 15))),
    "gaussian": (defences.gaussian, tuple({"sigma": sigma} for sigma in (0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5))),
    "nlm": (defences.nlm, tuple({"strength": strength} for strength in (4.0, 8.0, 12.0, 16.0, 20.0))),
    "tvm": (
        defences.tvm,
        tuple(
            {"kept": kept, "lam": lam} for kept, lam in ((0.5, 5.0), (0.5, 8.0), (0.5, 12.0), (0.5, 16.0), (0.8, 8.0))
        ),
    ),
    "rof": (defences.rof, tuple({"lam": lam} for lam in (5.0, 7.0, 10.0, 14.0, 20.0))),
    **{f"mdda_{name}": (defences.mdda, ({"preset": name},)) for name in defences.PRESETS},
}
EXAMPLES = """\
examples:
  python -m benchmarks.robustness choose-defences
  python -m benchmarks.robustness choose-defences --write --json benchmarks/robustness/report/choose-defences.json
                                                              also write strengths.json, and all rows beside the report
  python -m benchmarks.robustness choose-defences jpeg rof --json out.json
"""


def best(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The row with the best mean of each defence; the first of equals."""
    chosen: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["defence"] not in chosen or row["mean"] > chosen[row["defence"]]["mean"]:
            chosen[row["defence"]] = row
    return chosen


def _name(text: str) -> str:
    """An argparse type; with ``choices`` older Pythons refuse that none is named."""
    if text not in CANDIDATES:
        raise argparse.ArgumentTypeError(f"unknown '{text}', known are {', '.join(CANDIDATES)}")
    return text


def write(chosen: dict[str, dict[str, Any]], about: dict[str, Any]) -> None:
    """Write the strengths of the competitors with the run that chose them."""
    kept = {key: about[key] for key in ("command", "network", "model_sha256", "split", "n")}
    strengths = {name: chosen[name]["parameters"] for name in defences.STRENGTHS}
    write_json(defences.STRENGTHS_FILE, {"chosen_by": kept, "strengths": strengths})


def _choose(args: argparse.Namespace) -> int:
    if args.write and (args.names or args.model != STANDARD or args.images < PER_CLASS):
        raise RobustnessError(
            f"--write is for a search over all defences, behind '{STANDARD}', with {PER_CLASS} images a class;"
            " leave out names, --model and --images"
        )
    study = Study.open(args, "val")
    sets = {f"{attack} {eps:g}": study.attacked(attack, eps) for attack, eps in ATTACKS}
    rows: list[dict[str, Any]] = []
    head = ("defence", "parameters", "clean", *sets, "mean")
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for name in args.names or CANDIDATES:
        make, candidates = CANDIDATES[name]
        for options in candidates:
            defence = Defence(name, name, "a candidate", partial(make, **options))
            row: dict[str, Any] = {"defence": name, "parameters": options}
            row["clean"] = study.balanced_accuracy(study.behind(defence, study.photos.images))
            row |= {key: study.balanced_accuracy(study.behind(defence, images)) for key, images in sets.items()}
            row["mean"] = (row["clean"] + float(np.mean([row[key] for key in sets]))) / 2
            rows.append(row)
            text = ", ".join(f"{key} {value}" for key, value in options.items()) or "-"
            print(f"| {name} | {text} | " + " | ".join(f"{row[key]:.3f}" for key in head[2:]) + " |", flush=True)
    chosen, about = best(rows), study.about(args.command)
    for name, row in chosen.items():
        print(f"{name}: {row['parameters']}")
    if args.json:
        write_json(args.json, {**about, "rows": rows})
    if args.write:
        write(chosen, about)
        print(f"{defences.STRENGTHS_FILE}: written")
    return 0


def add_command(subparsers: Any) -> None:
    """Register ``choose-defences``; its function is in ``execute``."""
    parser = subparsers.add_parser(
        "choose-defences",
        help="how strong each competing defence should be, on val",
        description=__doc__.split("\n\n")[1],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", type=_name, metavar="DEFENCE", help=f"of {', '.join(CANDIDATES)} (default: all)"
    )
    add_options(parser, PER_CLASS)
    parser.add_argument("--write", action="store_true", help="write strengths.json, which a run then takes")
    parser.set_defaults(execute=_choose)
