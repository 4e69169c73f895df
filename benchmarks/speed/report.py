"""The results as a Markdown table and as a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge_mdda.files import replace_file

REQUIRED_RATIO = 35  # times faster than the scikit-image Chambolle pipeline, one thread, at no worse RMSE
REQUIRED_TVL1_RATIO = 90  # times faster than the pipeline on OpenCV's TVL1, one thread
ALLOWED_RMSE = 0.5  # grey levels, one solve, mean and worst scale
ALLOWED_SWEEP_OVER_L1 = 1.25  # a sweep in the pipeline to the same loop in the first cache
REQUIRED_TWO_THREADS = 1.75  # times faster with two threads than with one
HEAD = ("contestant", "median ms", "p10", "p90", "runs", "times slower", "RMSE", "worst", "extra MB", "note")


def table(results: dict[str, Any]) -> str:
    """The results in Markdown.

    Parameters
    ----------
    results : dict
        From :func:`benchmarks.speed.measure.measure`.
    """
    hardware, setting = results["hardware"], results["setting"]
    params = setting["params"]
    scales = ", ".join(f"{scale:g}" for scale in params["scales"])
    lines = [
        f"{hardware['cpu']} ({hardware['machine']}), {hardware['cores']} cores; Python {hardware['python']},"
        f" Numba {hardware['numba']}, NumPy {hardware['numpy']}",
        "",
        f"One drawn picture, {setting['size']} x {setting['size']} x 3; MDDA with scales {scales},"
        f" {params['n_blocks']} blocks, sigma {params['sigma']:g}, lam {params['lam']:g}."
        " One thread unless a row says otherwise, interleaved.",
        "",
        _cells(HEAD),
        _cells(("---",) + ("---:",) * (len(HEAD) - 2) + ("---",)),
    ]
    lines += [_cells(_row_cells(name, row, results)) for name, row in results["contestants"].items()]
    blank = ("",) * (len(HEAD) - 2)
    lines += [_cells((f"`{name}`", *blank, "not installed")) for name in results["not_installed"]]
    return "\n".join([*lines, "", *_remarks(results)])


def write_json(results: dict[str, Any], path: Path) -> None:
    """Write the results in one step, so that a reader never sees half a file; raises OSError.

    Parameters
    ----------
    results : dict
        Plain values.
    path : pathlib.Path
        Replaced if it exists.
    """
    replace_file(str(path), (json.dumps(results, indent=2, allow_nan=False) + "\n").encode())


def _row_cells(name: str, row: dict[str, Any], results: dict[str, Any]) -> tuple[str, ...]:
    rmse, worst = results["rmse"].get(name), results["rmse_worst"].get(name)
    if name.startswith("ours_"):  # the same result, bit for bit
        rmse, worst = results["rmse"]["ours"], results["rmse_worst"]["ours"]
    return (
        f"`{name}`: {row['title']}",
        *(f"{row[key]:.2f}" for key in ("median_ms", "p10_ms", "p90_ms")),
        str(row["repeats"]),
        f"{row['times_slower']:.2f}" if name.startswith("ours") else f"{row['times_slower']:.1f}",
        "" if rmse is None else f"{rmse:.2f}",
        "" if worst is None else f"{worst:.2f}",
        f"{row['extra_peak_mb']:.1f}",
        row["note"],
    )


def _remarks(results: dict[str, Any]) -> list[str]:
    lines = [
        "Absolute times do not travel to another machine; ratios do, roughly.",
        "RMSE: grey levels from the converged optimum of the same ROF problem, one solve: mean and worst scale.",
        "Extra MB: peak memory of one run beyond the loaded libraries, in a fresh process; ours with its workspace.",
    ]
    rmse, by_scale = results["rmse"], results["rmse_by_scale"]
    if "skimage_chambolle" in rmse:
        holds = results["no_worse_rmse"]["skimage_chambolle"]
        pairs = ", ".join(
            f"{value:.2f} to {by_scale['skimage_chambolle'][scale]:.2f} at scale {scale}"
            for scale, value in by_scale["ours"].items()
        )
        lines.append(
            f"No worse RMSE than the Chambolle pipeline: {'holds' if holds else 'DOES NOT HOLD'} on the mean"
            f" ({rmse['ours']:.2f} to {rmse['skimage_chambolle']:.2f}); ours to theirs {pairs}."
        )
        equal = results["contestants"]["skimage_chambolle_equal"]["times_slower"]
        ratio = results["ratios"]["skimage_chambolle"]
        lines.append(
            f"Goal: {REQUIRED_RATIO} times faster than that pipeline at no worse RMSE:"
            f" {_verdict((ratio if holds else equal) >= REQUIRED_RATIO)}"
            f" ({ratio:.1f} times at its default tolerance, {equal:.1f} with iterations that match our RMSE)."
        )
    if "opencv_tvl1" in results["ratios"]:
        ratio = results["ratios"]["opencv_tvl1"]
        lines.append(
            f"Goal: {REQUIRED_TVL1_RATIO} times faster than the pipeline on OpenCV's TVL1:"
            f" {_verdict(ratio >= REQUIRED_TVL1_RATIO)} ({ratio:.1f})."
        )
    worst, inside, threads = results["rmse_worst"]["ours"], results["sweep_over_l1"], results["two_threads"]
    return _bullets(
        *lines,
        f"Goal: RMSE below {ALLOWED_RMSE:g} at every scale: {_verdict(worst < ALLOWED_RMSE)} ({worst:.2f}).",
        f"Goal: a ROF sweep in the pipeline at most {ALLOWED_SWEEP_OVER_L1:g} times as long as on rows in the first"
        f" cache: {_verdict(inside <= ALLOWED_SWEEP_OVER_L1)} ({inside:.2f}).",
        f"Goal: two threads at least {REQUIRED_TWO_THREADS:g} times as fast as one:"
        f" {_verdict(threads >= REQUIRED_TWO_THREADS)} ({threads:.2f}).",
    )


def _verdict(reached: bool) -> str:
    return "reached" if reached else "NOT reached"


def _bullets(*lines: str) -> list[str]:
    return [f"- {line}" for line in lines]


def _cells(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
