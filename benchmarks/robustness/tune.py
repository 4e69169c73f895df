"""``python -m benchmarks.robustness tune``: how strong should the purifier be? The run behind the shipped presets.

Every combination of the grid is judged on images of ``val``: clean, attacked in the gray box, and in time. Those
on the Pareto front are judged again on all clean images of ``val``, and the presets are chosen among them. Nothing is
chosen on ``test``. With ``--write`` the presets are written to ``edge_mdda/presets.json``, which names this command.
The attacker of this search does not know the purifier; what one does who knows it stands in the report.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.robustness import images
from benchmarks.robustness.errors import RobustnessError
from benchmarks.robustness.figure_data import pareto_front
from benchmarks.robustness.rows import MELANOMA
from benchmarks.robustness.study import Study, add_options, milliseconds
from edge_mdda.mdda.params import PRESETS, PRESETS_FILE, MddaParams
from export.dataset import SIDE
from export.evaluate import write_json

PER_CLASS = 20
ATTACKS = (("difgsm", 2.0), ("pgd10", 4.0), ("difgsm", 6.0))
"""Gray-box attacks whose mean balanced accuracy is "attacked"."""
BLOCKS = (1, 2, 3)
STRENGTHS = {3.0: 3, 4.0: 4, 5.0: 4, 6.0: 5, 7.0: 5, 8.0: 6}
"""sigma = lam in grey levels, and the solver iterations that leave an RMSE below half a grey level
(tests/test_kernels.py)."""
OUTPUT_WEIGHTS: dict[tuple[float, ...], dict[tuple[float, ...], float]] = {
    (2.0, 1.0, 0.5, 0.25): {
        (0.40, 0.50, 0.08, 0.02): 8.0,
        (0.30, 0.50, 0.15, 0.05): 8.0,
        (0.20, 0.45, 0.25, 0.10): 8.0,
    },
    (1.0, 0.5, 0.25): {(0.83, 0.13, 0.04): 5.0, (0.72, 0.21, 0.07): 7.0, (0.56, 0.31, 0.13): 7.0},
}
"""Pyramids; how much of each scale comes out (fine, middle, coarse); and the strength beyond which the kernels' rough
square root shows more than tests/test_mdda.py allows. Equal weights cost a network most of its accuracy. The scale 2
holds three quarters of all pixels, and so of the time; the second pyramid is without it."""
LOSSES = {"mild": -0.01, "balanced": 0.01, "strong": 0.05}
"""Clean balanced accuracy that a preset may lose against no purifier; the mild one has to gain a point, or to be
the best on clean images where none does."""
KEEP_MELANOMAS = ("balanced",)
"""Presets that may not find fewer melanomas than no purifier does."""
NOISE, SMOOTHING, MOST_LEFT = 4, 1.2, 0.92
"""Noise of +-4 grey levels on the drawn picture, smoothed (sigma in pixels) so that it holds nothing as fine: one
that leaves more than this share of the error blurs away what it was to keep (tests/test_mdda_quality.py)."""
TIE = 0.01
"""Attacked accuracies as near as this are equal on so few images; the faster one wins."""
EXAMPLES = """\
examples:
  python -m benchmarks.robustness tune --json tune.json        the table and its Pareto front
  python -m benchmarks.robustness tune --write                 also write edge_mdda/presets.json
"""


def grid() -> list[MddaParams]:
    """All combinations, of each pyramid the weakest first."""
    return [
        MddaParams(scales, blocks, strength, strength, iterations, output_weights=weights)
        for scales, choices in OUTPUT_WEIGHTS.items()
        for blocks, (strength, iterations), weights in itertools.product(BLOCKS, STRENGTHS.items(), choices)
        if strength <= choices[weights]
    ]


def choose(rows: Sequence[dict[str, Any]], without: dict[str, Any]) -> dict[str, int]:
    """The row of each preset: best attacked among those whose clean loss is allowed, the fastest of equals.

    Each is stronger (blocks times sigma) than the one before, or its name would be wrong.
    ``without`` has ``clean_all``, the balanced accuracy on all clean images, and the
    ``melanoma`` recall of no purifier.

    Raises
    ------
    RobustnessError
        No row is good enough.
    """
    chosen: dict[str, int] = {}
    for name, loss in LOSSES.items():
        weaker = max((rows[n]["strength"] for n in chosen.values()), default=0.0)
        kept = [n for n, row in enumerate(rows) if row["left"] < MOST_LEFT and row["strength"] > weaker]
        if name in KEEP_MELANOMAS:
            kept = [n for n in kept if rows[n]["melanoma"] >= without["melanoma"]]
        allowed = [n for n in kept if rows[n]["clean_all"] >= without["clean_all"] - loss]
        if kept and not allowed and name == "mild":
            most = max(rows[n]["clean_all"] for n in kept)
            allowed = [n for n in kept if rows[n]["clean_all"] == most]
        if not allowed:
            raise RobustnessError(
                f"no parameters for '{name}': all are too weak or lose more than {loss:.2f} on clean images"
            )
        most = max(rows[n]["attacked"] for n in allowed)
        chosen[name] = min((n for n in allowed if rows[n]["attacked"] >= most - TIE), key=lambda n: rows[n]["ms"])
    return chosen


def error_left(params: MddaParams) -> float:
    """Share of the root mean square error that is left of noise on the drawn picture."""
    import cv2

    from benchmarks.speed.image import benchmark_image
    from edge_mdda.mdda.purifier import Purifier

    clean = cv2.GaussianBlur(benchmark_image(SIDE), (0, 0), SMOOTHING)
    signs = np.random.default_rng(2).choice([-NOISE, NOISE], clean.shape)
    noisy = np.clip(clean.astype(int) + signs, 0, 255).astype(np.uint8)
    before, after = (
        float(np.sqrt(np.mean((image.astype(float) - clean) ** 2)))
        for image in (noisy, Purifier(SIDE, SIDE, params).purify(noisy, 1))
    )
    return after / before


def judge_clean(study: Study, rows: Sequence[dict[str, Any]]) -> None:
    """Put in ``clean_all`` and ``melanoma`` of all photographs, what is ``left`` of noise, and the ``strength``.

    ``clean`` stays what the search found on its fewer images: the front was drawn from it.
    """
    data = study.photos.data
    melanomas = data.targets == data.labels.index(MELANOMA)
    for row in rows:
        answers = study.answers(study.photos.images, None if row["params"] is None else _params(row))
        row["clean_all"] = study.balanced_accuracy(answers)
        row["left"] = 1.0 if row["params"] is None else error_left(_params(row))
        row["strength"] = 0.0 if row["params"] is None else _params(row).n_blocks * _params(row).block_sigma(0)
        row["melanoma"] = float((answers.argmax(1) == data.targets)[melanomas].mean())


def search(
    study: Study, variants: Sequence[MddaParams], say: Any = print
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Judge all; returns the row without purifier, and one row for each of ``variants``."""
    sets = {f"{attack}_{eps:g}": study.attacked(attack, eps) for attack, eps in ATTACKS}
    rows = []
    times = [0.0, *milliseconds(variants, study.photos.images[0])]
    for params, ms in zip([None, *variants], times, strict=True):
        row: dict[str, Any] = {"clean": study.balanced_accuracy(study.answers(study.photos.images, params))}
        row |= {name: study.balanced_accuracy(study.answers(images, params)) for name, images in sets.items()}
        row |= {"attacked": float(np.mean([row[name] for name in sets])), "ms": round(ms, 3)}
        rows.append({"params": None if params is None else params.to_dict(), **row})
        say(line(params, row))
    return rows[0], rows[1:]


HEAD = (
    "| finest scale | blocks | sigma = lam | output weights | clean | "
    + " | ".join(f"{attack} {eps:g}" for attack, eps in ATTACKS)
    + " | attacked | ms |\n|"
    + " --- |" * (7 + len(ATTACKS))
)


def line(params: MddaParams | None, row: dict[str, Any]) -> str:
    """One row of the table."""
    what = "none | - | - | -"
    if params is not None:
        weights = " ".join(f"{w:g}" for w in params.output_weights)
        what = f"{params.scales[0]:g} | {params.n_blocks} | {params.block_sigma(0):g} | {weights}"
    accuracies = " | ".join(f"{row[name]:.3f}" for name in ("clean", *(f"{a}_{e:g}" for a, e in ATTACKS), "attacked"))
    return f"| {what} | {accuracies} | {row['ms']:.1f} |"


FRONT_HEAD = HEAD.split("\n")[0].replace("clean", "clean, all | melanoma") + "\n" + HEAD.split("\n")[1] + " --- |"


def front_line(row: dict[str, Any]) -> str:
    """One row of the table of the front, with the figures on all clean images."""
    cells = line(None if row["params"] is None else _params(row), row | {"clean": row["clean_all"]}).split(" | ")
    return " | ".join([*cells[:5], f"{row['melanoma']:.3f}", *cells[5:]])


def execute(args: argparse.Namespace) -> int:
    """Search, choose, print and perhaps write."""
    study = Study.open(args, "val")
    print(HEAD, flush=True)
    without, rows = search(study, grid(), lambda text: print(text, flush=True))
    front = [row for row, best in zip(rows, pareto_front(rows), strict=True) if best]
    whole = Study(study.target, images.read(args.data, "val", None), study.maker, study.threads, study.seed)
    judge_clean(whole, [without, *front])
    chosen = choose(front, without)
    print(
        "\nPareto front (clean, attacked, ms), clean and melanoma recall"
        f" on all {len(whole.photos)} images:\n{FRONT_HEAD}"
    )
    for row in sorted([without, *front], key=lambda row: row["ms"]):
        print(front_line(row))
    print("\nPresets:")
    for name, n in chosen.items():
        same = "as shipped" if PRESETS.get(name) == _params(front[n]) else "other than shipped"
        print(f"{name} ({same}): {front_line(front[n])}")
    about = study.about(args.command)
    about["n_clean"] = len(whole.photos)
    result = {**about, "without": without, "rows": rows, "front": [rows.index(row) for row in front]}
    result["chosen"] = {name: rows.index(front[n]) for name, n in chosen.items()}
    if args.json:
        write_json(args.json, result)
    if args.write:
        write(chosen, front, without, about)
        print(f"{PRESETS_FILE}: written; thresholds and figures belong to the old presets until they are made again")
    return 0


def _params(row: dict[str, Any]) -> MddaParams:
    return MddaParams(**row["params"])


def write(
    chosen: dict[str, int], rows: Sequence[dict[str, Any]], without: dict[str, Any], about: dict[str, Any]
) -> None:
    """Write the presets with their figures and the run that chose them; ``clean`` there is that of all images."""
    names = ("melanoma", *(f"{attack}_{eps:g}" for attack, eps in ATTACKS), "attacked")

    def figures(row: dict[str, Any]) -> dict[str, float]:
        return {"clean": round(row["clean_all"], 4)} | {key: round(row[key], 4) for key in names}

    presets = {
        name: {
            "params": {k: v for k, v in _params(rows[n]).to_dict().items() if v != _default(k)},
            "figures": figures(rows[n]),
        }
        for name, n in chosen.items()
    }
    kept = {k: about[k] for k in ("command", "network", "model_sha256", "split", "n", "n_clean")}
    content = {"chosen_by": kept | {"without_purifier": figures(without)}, "presets": presets}
    write_json(Path(PRESETS_FILE), content)


def _default(name: str) -> Any:
    return MddaParams().to_dict()[name]


def add_command(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "tune",
        help="search the purifier's parameters on val",
        description=__doc__.split("\n\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, PER_CLASS)
    parser.add_argument("--write", action="store_true", help=f"write {PRESETS_FILE}")
    parser.set_defaults(execute=execute)
