"""Time, exactness and memory of every contestant, measured side by side."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np

from benchmarks.speed.image import benchmark_image
from benchmarks.speed.inside import QUICK_ROUNDS, ROUNDS, sweep_over_l1, two_threads
from benchmarks.speed.memory import extra_peak_mb
from benchmarks.speed.peers import PARAMS, PEERS, SEED, Contestant, Denoiser, ours, skimage_chambolle_equal
from benchmarks.speed.reference import rof_optimum
from edge_mdda.mdda.purifier import Purifier

RUNS_PER_ROUND = 40  # at most, of one contestant
SLOW_S = 1.0  # a contestant slower than this is run once, not twice, before the timing
CHANNEL = 1  # the plane on which exactness is measured (green)
EQUAL_ITERATIONS = range(4, 120)  # where the setting of Chambolle that equals our RMSE is looked for
MS_PER_S = 1000


def measure(size: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure all contestants.

    Parameters
    ----------
    size : int
        Side of the image in pixels.
    rounds : int
        Interleaved rounds.
    seconds : float
        Time to share among the contestants.

    Returns
    -------
    dict
        What ``--json`` writes: ``ours_ms``, ``ratios``, ``rmse``, ``rmse_worst``, ``rmse_by_scale``,
        ``no_worse_rmse``, ``sweep_over_l1``, ``two_threads``, ``contestants``, ``not_installed``, ``setting``,
        ``hardware``.
    """
    cv2.setNumThreads(1)
    image = benchmark_image(size)
    contestants, missing = _contestants(size)
    _tell("exactness")
    rmse = _exactness(image, size, contestants)
    times = _interleaved(image, contestants, rounds, seconds)
    rows = {}
    for contestant in contestants:
        _tell(f"memory of {contestant.name}")
        rows[contestant.name] = _row(contestant, times[contestant.name], times["ours"], size)
    _tell("inside our purifier")
    inside_rounds = ROUNDS if rounds > 1 else QUICK_ROUNDS
    inside = {"sweep_over_l1": sweep_over_l1(inside_rounds), "two_threads": two_threads(image, inside_rounds)}
    _tell("")
    mean = {name: _mean(by_scale) for name, by_scale in rmse.items()}
    worst = {name: max(by_scale.values()) for name, by_scale in rmse.items()}
    return {
        "ours_ms": rows["ours"]["median_ms"],
        "ratios": {name: rows[name]["times_slower"] for name in PEERS if name in rows},
        "rmse": mean,
        "rmse_worst": worst,
        "rmse_by_scale": rmse,
        "no_worse_rmse": {name: mean["ours"] <= mean[name] for name in mean if name in PEERS},
        **inside,
        "contestants": rows,
        "not_installed": missing,
        "setting": {"size": size, "rounds": rounds, "seconds": seconds, "seed": SEED, "params": asdict(PARAMS)},
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """Processor, cores and the versions of what the times depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.split(":")[0].strip() in ("model name", "Model"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _contestants(size: int) -> tuple[list[Contestant], list[str]]:
    found, missing = [ours(size)], []
    if (os.cpu_count() or 1) >= 2:
        found.append(ours(size, threads=2))
    for name, build in PEERS.items():
        _tell(f"loading {name}")
        try:
            found.append(build())
        except ImportError:
            missing.append(name)
    return found, missing


def _exactness(image: np.ndarray, size: int, contestants: list[Contestant]) -> dict[str, dict[str, float]]:
    """RMSE in grey levels from the ROF optimum by contestant and scale, one plane of the first block.

    Every solver gets the very plane that ours got. Appends the setting of Chambolle that is as exact as
    ours to ``contestants``: a default that stops early would otherwise be timed for less work.
    """
    stages = Purifier(size, size, PARAMS).purify_stages(image, SEED)
    lam = PARAMS.scale_lam(0)
    scales = [f"{scale:g}" for scale in PARAMS.scales]
    noisy = {scale: stages[f"block1/diffused/{scale}"][..., CHANNEL] for scale in scales}
    optimum = {scale: rof_optimum(noisy[scale], lam)[0] for scale in scales}

    def solved(denoise: Denoiser) -> dict[str, float]:
        return errors({scale: denoise(plane[..., None])[..., 0] for scale, plane in noisy.items()})

    def errors(planes: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {scale: float(np.sqrt(np.mean((planes[scale] - optimum[scale]) ** 2))) for scale in scales}

    rmse = {"ours": errors({scale: stages[f"block1/denoised/{scale}"][..., CHANNEL] for scale in scales})}
    rmse |= {c.name: solved(c.denoise) for c in contestants if c.denoise}
    if "skimage_chambolle" in rmse:
        equal, by_scale = _chambolle_like_ours(solved, _mean(rmse["ours"]))
        rmse[equal.name] = by_scale
        place = [c.name for c in contestants].index("skimage_chambolle") + 1
        contestants.insert(place, equal)
    return rmse


def _chambolle_like_ours(
    solved: Callable[[Denoiser], dict[str, float]], ours_rmse: float
) -> tuple[Contestant, dict[str, float]]:
    """Chambolle with the most iterations at which ours is still no worse, and its RMSE by scale."""
    best: tuple[Contestant, dict[str, float]] | None = None
    for iterations in EQUAL_ITERATIONS:
        contestant = skimage_chambolle_equal(iterations)
        assert contestant.denoise
        by_scale = solved(contestant.denoise)
        if best and _mean(by_scale) < ours_rmse:
            break
        best = contestant, by_scale
    assert best
    return best


def _interleaved(
    image: np.ndarray, contestants: list[Contestant], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Milliseconds of every run: round after round, so that a disturbed minute disturbs all alike.

    All get the same time: a fast one runs several times a round, a slow one sits rounds out.
    """
    share = seconds / rounds / len(contestants)
    rate: dict[str, float] = {}
    credit: dict[str, float] = {}
    times: dict[str, list[float]] = {}
    for contestant in contestants:
        _tell(f"warming {contestant.name}")
        taken = _timed(contestant, image)
        if taken < SLOW_S:
            taken = min(taken, _timed(contestant, image))
        name = contestant.name
        rate[name] = min(share / taken, RUNS_PER_ROUND)
        credit[name] = max(0.0, 1 - rate[name])  # one run in the first round at least
        times[name] = []
    for number in range(rounds):
        for contestant in contestants:
            name = contestant.name
            _tell(f"round {number + 1} of {rounds}: {name}")
            credit[name] += rate[name]
            runs = int(credit[name])
            credit[name] -= runs
            times[name] += [_timed(contestant, image) * MS_PER_S for _ in range(runs)]
    return times


def _mean(by_scale: Mapping[str, float]) -> float:
    return float(np.mean(list(by_scale.values())))


def _timed(contestant: Contestant, image: np.ndarray) -> float:
    start = time.perf_counter()
    contestant.run(image)
    return time.perf_counter() - start


def _row(contestant: Contestant, times: list[float], ours_times: list[float], size: int) -> dict[str, Any]:
    name = contestant.name
    if name == "skimage_chambolle_equal":
        name += f":{contestant.note.split()[0]}"
    p10, median, p90 = (float(v) for v in np.percentile(times, (10, 50, 90)))
    return {
        "title": contestant.title,
        "note": contestant.note,
        "median_ms": median,
        "p10_ms": p10,
        "p90_ms": p90,
        "repeats": len(times),
        "times_slower": median / float(np.median(ours_times)),
        "extra_peak_mb": extra_peak_mb(name, size),
    }


def _tell(text: str) -> None:
    """Progress on one line of the terminal; nothing where stderr is a file or a pipe."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
