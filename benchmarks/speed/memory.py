"""Peak memory of one contestant, in a process of its own: ``python -m benchmarks.speed.memory NAME SIZE``."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # clear_refs: forget the high-water mark of the resident set
WARM_SIZE = 32  # pixels a side: loads what is loaded lazily, needs next to no memory
KB_PER_MB = 1024
FRESH_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # bytes
"""For glibc: take blocks from this size on from the kernel and give them back. By default the memory that importing
freed would serve the run, and its peak would not show."""
TIMEOUT_S = 600


def extra_peak_mb(name: str, size: int) -> float:
    """Memory that one run needs at its peak beyond what the loaded libraries hold, in a fresh process.

    The workspace of our purifier counts as its own.

    Parameters
    ----------
    name : str
        As for :func:`benchmarks.speed.peers.make`.
    size : int
        Side of the image in pixels.
    """
    command = [sys.executable, "-m", "benchmarks.speed.memory", name, str(size)]
    child = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | FRESH_BLOCKS,
        stdout=subprocess.PIPE,
        check=True,
        timeout=TIMEOUT_S,
        text=True,
    )
    return float(child.stdout.split()[-1])


def _status_kb(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise OSError(f"{STATUS} has no {field}")


def _measure_here(name: str, size: int) -> float:
    from benchmarks.speed.image import benchmark_image
    from benchmarks.speed.peers import make

    image = benchmark_image(size)
    make(name, WARM_SIZE).run(benchmark_image(WARM_SIZE))
    gc.collect()
    # ru_maxrss survives exec, so a child of a large process starts at its parent's mark; the kernel's
    # own mark can be reset. Elsewhere than on Linux ru_maxrss is what there is.
    try:
        CLEAR_REFS.write_text(RESET_PEAK)
        before = _status_kb("VmRSS")
    except OSError:
        before = _max_resident_kb()
        make(name, size).run(image)
        return (_max_resident_kb() - before) / KB_PER_MB
    contestant = make(name, size)
    contestant.run(image)
    return max(0, _status_kb("VmHWM") - before) / KB_PER_MB  # the kernel counts in batches


def _max_resident_kb() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


if __name__ == "__main__":
    print(_measure_here(sys.argv[1], int(sys.argv[2])))
