"""One case in a process of its own: ``python -m benchmarks.footprint.case CASE RUNTIME MODEL``.

Prints one JSON object. Nothing but the product is imported before the clock is read.
"""

import sys
import time

SEED = 1
PICTURE = "edge_mdda/models/demo-synthetic.jpg"  # from the repository's root


def peak_mb() -> float:
    """High-water mark of the resident set. ``getrusage`` would also count the parent's before ``exec``."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise OSError("no VmHWM in /proc/self/status: the benchmark needs Linux")


def main(case: str, runtime: str, model: str) -> None:
    """Do what the case says and report when it was done, by the clock that all processes share."""
    from edge_mdda.screening import Screener

    began = done = time.monotonic()
    backend = None
    if case != "import":
        with open(PICTURE, "rb") as file:
            content = file.read()
        with Screener(model or None, runtime) as screener:
            result = screener.screen(content, SEED)
            began, done = done, time.monotonic()
            if case == "second_screen":
                began = done
                result = screener.screen(content, SEED)
                done = time.monotonic()
        backend = result.kernels["backend"] if result.kernels else None
    print(f'{{"began": {began!r}, "done": {done!r}, "rss_mb": {peak_mb():.1f}, "kernels": "{backend}"}}')


if __name__ == "__main__":
    main(*sys.argv[1:])
