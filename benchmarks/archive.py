"""How fast an archive is screened by one process and by Dask workers, what kills do, and the cost of a million.

    python -m benchmarks.archive                                   photographs of ../shared/data, or drawn ones
    python -m benchmarks.archive --pictures DIR --count 1000 --price 0.03 --json out.json

The kill test ends workers at random moments, then the run itself, starts it again, and compares every row with those of
a run that nothing disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

PICTURES = Path("../shared/data/isic-archive/images")
WORKERS = (1, 2)
PRICE = 0.05  # US dollars a core and hour: about what clouds ask for a general-purpose core; put in your own
MILLION, HOUR_S = 1_000_000, 3600
PART, BATCH = 50, 10  # smaller than the command's own, so that a short run has parts to lose
WARM_UPS = 3  # pictures before the one process is timed
RATE = re.compile(r"([\d.]+) pictures/s")


def drawn(folder: Path, count: int) -> None:
    """Drawn spots on skin, where there are no photographs."""
    import cv2

    rng = np.random.default_rng(0)
    for k in range(count):
        image = rng.normal((225, 180, 160), 4, (224, 224, 3)).clip(0, 255).astype(np.uint8)
        cv2.circle(image, (112, 112), int(rng.integers(30, 70)), tuple(map(int, rng.integers(0, 150, 3))), -1)
        cv2.imwrite(str(folder / f"{k}.png"), image[..., ::-1])


def one_process(names: list[str]) -> float:
    """Pictures a second of a plain loop over the screener, one thread."""
    from edge_mdda.files import Limits
    from edge_mdda.screening import Screener
    from export.archive.rows import row_of

    with Screener() as screener:
        for name in names[:WARM_UPS]:
            row_of(screener, name, Limits())
        start = time.perf_counter()
        for name in names:
            row_of(screener, name, Limits())
        return len(names) / (time.perf_counter() - start)


def command(listed: Path, out: Path, workers: int) -> list[str]:
    """The command line of a run."""
    size = ["--workers", str(workers), "--part", str(PART), "--batch", str(BATCH)]
    return [sys.executable, "-m", "export", "archive", str(listed), "--out", str(out), *size]


def undisturbed(listed: Path, out: Path, workers: int) -> dict[str, float]:
    """Rate as the command tells it (from the first batch on), and seconds of the whole command."""
    start = time.perf_counter()
    done = subprocess.run(command(listed, out, workers), check=True, stdout=subprocess.PIPE, text=True)
    found = RATE.search(done.stdout)
    assert found is not None, done.stdout
    return {"pictures_per_second": float(found[1]), "whole_command_s": round(time.perf_counter() - start, 1)}


def workers_of(pid: int) -> list[int]:
    """Process ids of a run's workers."""
    import psutil

    try:
        children = psutil.Process(pid).children(recursive=True)
        return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def kill_test(listed: Path, out: Path, reference: Path, kills: int, seconds: float, seed: int) -> dict[str, int]:
    """Kill workers, then the run, and let it finish; counts of what went wrong, and of the kills.

    ``seconds`` is about what a run takes from the first part on, over which the kills are spread.
    """
    import pyarrow.parquet as pq

    rng, counts = random.Random(seed), {"workers_killed": 0, "runs_killed": 0}
    for last in (False, True):
        with subprocess.Popen(command(listed, out, max(WORKERS)), stdout=subprocess.DEVNULL) as run:
            there = len(list(out.glob("part-*")))
            while run.poll() is None and len(list(out.glob("part-*"))) == there:  # until its workers work
                time.sleep(0.1)
            for _ in range(kills):
                time.sleep(rng.uniform(0, seconds / (2 * kills)))
                if running := workers_of(run.pid):
                    os.kill(rng.choice(running), signal.SIGKILL)
                    counts["workers_killed"] += 1
            if not last and run.poll() is None:
                run.kill()
                counts["runs_killed"] += 1
        if last and run.returncode:
            raise RuntimeError(f"the run ended with {run.returncode}")
    before, after = (pq.read_table(folder).to_pylist() for folder in (reference, out))
    positions = [row["position"] for row in after]
    return counts | {
        "pictures_lost": len(before) - len(set(positions)),
        "pictures_twice": len(positions) - len(set(positions)),
        "rows_that_differ": sum(a != b for a, b in zip(before, after, strict=False)),
    }


def cost(rate: float, workers: int, price: float) -> dict[str, float]:
    """Core hours and price of a million pictures at a measured rate of so many workers."""
    hours = MILLION / rate / HOUR_S * workers
    return {"core_hours_per_million": round(hours, 1), "price_per_million": round(hours * price, 2)}


def measure(names: list[str], kills: int, price: float, seed: int) -> dict[str, Any]:
    """All of it."""
    load = os.getloadavg()[0]
    found: dict[str, Any] = {"pictures": len(names), "cores": len(os.sched_getaffinity(0)), "load_before": load}
    with tempfile.TemporaryDirectory(prefix="edge-mdda-archive-") as place:
        listed = Path(place) / "list.txt"
        listed.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        found["one_process"] = {"pictures_per_second": round(one_process(names), 1)}
        for workers in WORKERS:
            rates = undisturbed(listed, Path(place) / str(workers), workers)
            found[f"workers_{workers}"] = rates | cost(rates["pictures_per_second"], workers, price)
        seconds = len(names) / found[f"workers_{workers}"]["pictures_per_second"]
        where = Path(place) / "killed", Path(place) / str(workers)
        found["kill_test"] = kill_test(listed, *where, kills, seconds, seed)
    return found | {"price_per_core_hour": price, "load_after": os.getloadavg()[0]}


def table(found: dict[str, Any]) -> str:
    """The figures in markdown."""
    lines = ["| run | pictures/s | against one process | core hours for 10^6 | US dollars for 10^6 |",
             "| --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    alone = found["one_process"]["pictures_per_second"]
    lines.append(f"| one process, no Dask | {alone:.1f} | 1.00 | | |")
    for workers in WORKERS:
        row = found[f"workers_{workers}"]
        rate = row["pictures_per_second"]
        lines.append(
            f"| {workers} worker{'s' * (workers > 1)} | {rate:.1f} | {rate / alone:.2f}"
            f" | {row['core_hours_per_million']:.1f} | {row['price_per_million']:.2f} |"
        )
    kills = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in found["kill_test"].items())
    return "\n".join(lines) + (
        f"\n\n{found['pictures']} pictures on {found['cores']} cores (load {found['load_before']:.1f} before,"
        f" {found['load_after']:.1f} after), {found['price_per_core_hour']} US dollars a core and hour.\n"
        f"Kill test: {kills}."
    )


def main() -> int:
    """Run the benchmark; 1 where a picture was lost, doubled or changed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.archive", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help=f"default: {PICTURES}, or drawn ones")
    parser.add_argument("--count", type=int, default=400, metavar="N", help="pictures (%(default)s)")
    parser.add_argument("--kills", type=int, default=3, metavar="N", help="workers killed in each run (%(default)s)")
    parser.add_argument("--price", type=float, default=PRICE, metavar="USD", help="of a core and hour (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    args = parser.parse_args()
    from edge_mdda.files import replace_file
    from export.archive.listing import pictures_of

    with tempfile.TemporaryDirectory(prefix="edge-mdda-drawn-") as place:
        folder = args.pictures or PICTURES
        if args.pictures is None and not PICTURES.is_dir():
            folder = Path(place)
            drawn(folder, args.count)
        names = list(islice(pictures_of(str(folder)), args.count))
        if len(names) < args.count:
            parser.error(f"{folder} holds {len(names)} pictures, fewer than --count {args.count}")
        found = measure(names, args.kills, args.price, args.seed)
    if args.json:
        replace_file(str(args.json), (json.dumps(found, indent=2) + "\n").encode())
    print(table(found))
    kills = found["kill_test"]
    return int(any(kills[name] for name in ("pictures_lost", "pictures_twice", "rows_that_differ")))


if __name__ == "__main__":
    sys.exit(main())
