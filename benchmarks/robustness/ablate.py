"""``python -m benchmarks.robustness ablate``: what pyramid, diffusion, denoising, aggregation and blocks each bring.

One part at a time is taken out of a preset; clean and gray-box accuracy on ``val``, since the presets are chosen there.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.robustness.study import Study, add_options, milliseconds
from benchmarks.robustness.tune import ATTACKS
from edge_mdda.mdda.params import FINEST_SCALE, PRESETS, MddaParams
from export.evaluate import write_json

PER_CLASS = 20
MOST_BLOCKS = 4


def variants(params: MddaParams) -> dict[str, MddaParams]:
    """The preset, and the preset without each of its parts."""
    found = {
        "as it is": params,
        "no pyramid (scale 1 only)": replace(params, scales=(1.0,), output_weights=(1.0,)),
        **_other_pyramid(params),
        "no diffusion (sigma 0)": replace(params, sigma=0.0),
        "no denoising (lam 0)": replace(params, lam=0.0),
        "no aggregation between scales": replace(params, aggregation=(1.0, 0.0, 0.0)),
        "no final smoothing": replace(params, smoothing=0.0),
    }
    for blocks in range(1, MOST_BLOCKS + 1):
        if blocks != params.n_blocks:
            found[f"{blocks} block{'s' if blocks > 1 else ''}"] = replace(params, n_blocks=blocks)
    return found


def _other_pyramid(params: MddaParams) -> dict[str, MddaParams]:
    """Without the finer scale, or with one where there is none, which then shares the weight of scale 1."""
    first, *rest = params.output_weights
    if params.scales[0] == FINEST_SCALE:
        return {"no finer scale": replace(params, scales=params.scales[1:], output_weights=tuple(rest))}
    scales, weights = (FINEST_SCALE, *params.scales), (first / 2, first / 2, *rest)
    return {"a finer scale more": replace(params, scales=scales, output_weights=weights)}


def execute(args: argparse.Namespace) -> int:
    """Judge every variant and print the table."""
    study = Study.open(args, "val")
    sets = {f"{attack} {eps:g}": study.attacked(attack, eps) for attack, eps in ATTACKS}
    found = variants(PRESETS[args.preset])
    times = dict(zip(found, milliseconds(list(found.values()), study.photos.images[0]), strict=True))
    print("| variant | clean | " + " | ".join(sets) + " | attacked | ms |\n|" + " --- |" * (len(sets) + 4), flush=True)
    rows = []
    for name, params in {"no purifier": None, **found}.items():
        row: dict[str, Any] = {"variant": name}
        row["clean"] = study.balanced_accuracy(study.answers(study.photos.images, params))
        row |= {key: study.balanced_accuracy(study.answers(images, params)) for key, images in sets.items()}
        row["attacked"] = float(np.mean([row[key] for key in sets]))
        row["ms"] = round(times.get(name, 0.0), 2)
        rows.append(row)
        accuracies = " | ".join(f"{row[key]:.3f}" for key in ("clean", *sets, "attacked"))
        print(f"| {name} | {accuracies} | {row['ms']:.1f} |", flush=True)
    if args.json:
        content = {**study.about(args.command), "preset": args.preset, "rows": rows}
        write_json(args.json, content)
    return 0


def add_command(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser("ablate", help="what each part of MDDA brings", description=__doc__.split("\n\n")[0])
    add_options(parser, PER_CLASS)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="balanced", help="(%(default)s)")
    parser.set_defaults(execute=execute)
