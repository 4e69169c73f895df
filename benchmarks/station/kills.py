"""SIGKILL at random moments while visits are written, again and again on the same records."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.station.invariants import FIGURES, problems
from benchmarks.station.writer import announce_on, write_visits
from edge_mdda.station.store import Store

LONGEST_S = 0.25  # seconds from the first write to the latest kill
RENEW = 50  # kills on one folder; then a new one, so that each check stays short


def _writer(folder: Path, out: int) -> None:
    """The child: never returns."""
    status = 1
    try:
        announce = announce_on(out)
        store = Store(folder)
        announce("open")
        write_visits(store, announce)
        status = 0
    finally:
        os._exit(status)


def kill_once(folder: Path, after_s: float) -> list[str]:
    """Let a child write for so long, kill it, and return what it acknowledged."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        _writer(folder, into)
    os.close(into)
    with open(out, "rb") as stream:
        first = stream.readline()
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        lines = (first + stream.read()).decode().split("\n")
    os.waitpid(child, 0)
    if lines[0] != "open":
        raise RuntimeError(f"the writer did not start: {lines[0]!r}")
    return lines[1:-1]  # the last one is empty or cut off


def run(kills: int, seed: int) -> dict[str, Any]:
    """Kill so many writers; counts of what did not hold, and of what was written."""
    rng = random.Random(seed)
    total = dict.fromkeys(FIGURES, 0)
    written = 0
    done = 0
    while done < kills:
        with tempfile.TemporaryDirectory(prefix="edge-mdda-kills-") as place:
            folder, acknowledged, checked = Path(place) / "data", list[str](), set[str]()
            for _ in range(min(RENEW, kills - done)):
                acknowledged += kill_once(folder, rng.uniform(0, LONGEST_S))
                for name, count in problems(folder, acknowledged, checked).items():
                    total[name] += count
                done += 1
            written += len(acknowledged)
    return {"kills": done, "acknowledged": written, **total}
