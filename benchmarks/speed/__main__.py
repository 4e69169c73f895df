"""Command line of the speed benchmark."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
MIN_SIZE, MAX_SIZE = 32, 2048  # pixels a side
DEFAULT_SIZE = 224  # pixels a side
DEFAULT_REPEATS, QUICK_REPEATS = 8, 1  # rounds
DEFAULT_SECONDS, QUICK_SECONDS = 60.0, 1.0  # of timing in all


def _size(text: str) -> int:
    value = int(text)
    if not MIN_SIZE <= value <= MAX_SIZE:
        raise argparse.ArgumentTypeError(f"must be from {MIN_SIZE} to {MAX_SIZE} pixels, got {value}")
    return value


def _repeats(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Time our purifier and MDDA on other libraries' denoisers: one image, one thread, interleaved.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results as JSON")
    parser.add_argument("--size", type=_size, default=DEFAULT_SIZE, help="side of the image in pixels (default 224)")
    parser.add_argument("--repeats", type=_repeats, metavar="N", help=f"interleaved rounds (default {DEFAULT_REPEATS})")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help=f"time to share among the contestants (default {DEFAULT_SECONDS:g}); each runs at least once",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round: a check that it works, not a measurement"
    )
    return parser


def _check_writable(path: Path) -> None:
    """Find out now, not after a minute of measuring, that ``path`` cannot be written; raises OSError."""
    if path.is_dir():
        raise IsADirectoryError(f"it is a directory: {path}")
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    probe.touch()
    probe.unlink()


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process.
    """
    args = _parser().parse_args(arguments)
    if args.json:
        try:
            _check_writable(args.json)
        except OSError as error:
            print(f"error: cannot write {args.json}: {error.strerror or error}", file=sys.stderr)
            return 1
    # The libraries read these when they are imported, so they are set first; children inherit them.
    os.environ.update(dict.fromkeys(THREAD_SETTINGS, "1"))
    from benchmarks.speed import measure, report

    repeats = args.repeats or (QUICK_REPEATS if args.quick else DEFAULT_REPEATS)
    seconds = args.seconds or (QUICK_SECONDS if args.quick else DEFAULT_SECONDS)
    results = measure.measure(args.size, repeats, seconds)
    print(report.table(results))
    if args.json:
        try:
            report.write_json(results, args.json)
        except OSError as error:
            print(f"error: cannot write {args.json}: {error.strerror or error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
