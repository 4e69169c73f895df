"""``python -m benchmarks.robustness choose-defences``: how strong should each competitor be?

Each candidate of :data:`CANDIDATES` is judged on ``val`` (up to 20 images a class): balanced accuracy of the shipped
int8 file on clean images and on the gray-box sets of ``tune``. The best mean of clean and attacked is the default in
:mod:`benchmarks.robustness.defences`; the MDDA presets were chosen by their own search. No image of ``test`` took part.

The strengths in force were found with the float checkpoint ``runs/stage3``, which had not yet been trained on attacked
pictures, and PGD with 10 steps at 4/255 alone, on 121 images (without defence 0.794 clean, 0.000 attacked), as "clean /
attacked", the chosen one in brackets:

- bdr, bits: 2 0.263 / 0.232, 3 0.444 / 0.303, [4 0.737 / 0.048], 5 0.765 / 0.000
- jpeg, quality: 10 0.592 / 0.578, 20 0.699 / 0.683, [30 0.772 / 0.663], 40 0.779 / 0.578, 50 0.787 / 0.537,
  60 0.758 / 0.471, 75 0.779 / 0.305
- median, pixels: 3 0.822 / 0.104, 5 0.793 / 0.525, 7 0.743 / 0.638, 9 0.752 / 0.664, [11 0.737 / 0.687]
- gaussian, sigma: 0.7 0.808 / 0.000, 1 0.794 / 0.160, 1.5 0.796 / 0.496, 2 0.760 / 0.590, [2.5 0.718 / 0.655],
  3 0.683 / 0.683
- nlm, strength: 4 0.758 / 0.435, 6 0.735 / 0.528, 8 0.701 / 0.535, [12 0.737 / 0.628], 16 0.689 / 0.644
  (a search of 13 instead of 11 pixels is no better: 0.765 / 0.423 and 0.701 / 0.559 at 4 and 8)
- tvm, kept and lam: 0.5 5 0.803 / 0.525, [0.5 8 0.794 / 0.583], 0.5 12 0.752 / 0.612, 0.8 8 0.825 / 0.475
- rof, lam: 5 0.763 / 0.264, 7 0.726 / 0.371, [10 0.701 / 0.500], 14 0.637 / 0.506, 20 0.563 / 0.506
- mdda: mild 0.822 / 0.459, balanced 0.801 / 0.565, strong 0.753 / 0.702
- sr, sigma, on 69 of the images (jpeg 30 there: 0.784 / 0.668): None 0.841 / 0.000,
  4 0.798 / 0.157, [8 0.727 / 0.641], 12 0.698 / 0.641, 16 0.570 / 0.541, 24 0.440 / 0.425
- nrp, passes, on the same 69: 1 (as published) 0.856 / 0.146, 2 0.841 / 0.102, 3 0.827 / 0.510, [5 0.784 / 0.583]
- on the same 69: median 9 0.811 / 0.681, tvm 0.827 / 0.625, mdda balanced 0.813 / 0.654, mdda strong 0.770 / 0.711

So a competitor of well-chosen strength comes close to MDDA here: the network was trained on smooth pictures, which
serves all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.robustness import defences
from benchmarks.robustness.defences import Apply, Defence
from benchmarks.robustness.study import Study, add_options
from benchmarks.robustness.tune import ATTACKS
from export.evaluate import write_json

PER_CLASS = 20
CANDIDATES: dict[str, tuple[Callable[..., Apply], tuple[dict[str, Any], ...]]] = {
    "none": (defences.none, ({},)),
    "bdr": (defences.bdr, tuple({"bits": bits} for bits in (2, 3, 4, 5))),
    "sr": (defences.sr, tuple({"sigma": sigma} for sigma in (None, 4.0, 8.0, 12.0, 16.0))),
    "nrp": (defences.nrp, tuple({"passes": passes} for passes in (1, 2, 3, 5))),
    "jpeg": (defences.jpeg, tuple({"quality": quality} for quality in (10, 20, 30, 40, 50, 60, 75))),
    "median": (defences.median, tuple({"side": side} for side in (3, 5, 7, 9, 11))),
    "gaussian": (defences.gaussian, tuple({"sigma": sigma} for sigma in (0.7, 1.0, 1.5, 2.0, 2.5, 3.0))),
    "nlm": (defences.nlm, tuple({"strength": strength} for strength in (4.0, 6.0, 8.0, 12.0, 16.0))),
    "tvm": (
        defences.tvm,
        tuple({"kept": kept, "lam": lam} for kept, lam in ((0.5, 5.0), (0.5, 8.0), (0.5, 12.0), (0.8, 8.0))),
    ),
    "rof": (defences.rof, tuple({"lam": lam} for lam in (5.0, 7.0, 10.0, 14.0, 20.0))),
    **{f"mdda_{name}": (defences.mdda, ({"preset": name},)) for name in defences.PRESETS},
}
EXAMPLES = """\
examples:
  python -m benchmarks.robustness choose-defences
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


def _choose(args: argparse.Namespace) -> int:
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
    for name, row in best(rows).items():
        print(f"{name}: {row['parameters']}")
    if args.json:
        content = {**study.about(args.command), "rows": rows}
        write_json(args.json, content)
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
    parser.set_defaults(execute=_choose)
