"""The command line of a run, checked before anything heavy is loaded."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.robustness import plan
from benchmarks.robustness.cache import default_folder

DATA = Path("../shared/data/ham10000")
MODELS = ("standard", "hardened", "all")
MAX_EPS = 64  # grey levels; more is no longer a perturbation
MAX_THREADS = 256
MAX_IMAGES = 10_000  # of a class
MAX_SEED = 2**31 - 1
EXAMPLES = """examples:
  python -m benchmarks.robustness --quick --json out.json
  python -m benchmarks.robustness --model all --out report/          some hours; the same command goes on
  python -m benchmarks.robustness --images 1000 --out report/        all of test in every row; for a GPU: --device cuda
  python -m benchmarks.robustness --attacks difgsm,pgd10 --eps 2,4 --defences none,mdda_balanced --images 20

The results say how a referral aid stands up to tampering; it is never a diagnosis."""


def names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"unknown '{', '.join(unknown)}', known are {', '.join(known)}")
        return names

    return parse


def _eps(text: str) -> tuple[float, ...]:
    values = []
    for part in text.split(","):
        if not part.strip().isdigit() or not 1 <= int(part) <= MAX_EPS:
            raise argparse.ArgumentTypeError(f"'{part}' is no whole number of grey levels from 1 to {MAX_EPS}")
        values.append(float(int(part)))
    return tuple(dict.fromkeys(values))


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number in a range."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, got '{text}'")
        return value

    return parse


def new_file(text: str) -> Path:
    """An argparse type: a file to write, in a folder that is there; said now, not after hours of work."""
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no such folder to write to")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is a folder; name a file")
    return path


def _new_folder(text: str) -> Path:
    """An argparse type: a folder to write to, which is made where it is not there."""
    path = Path(text)
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: {there.name} is a file; name a folder")
    return path


def add_run(subparsers: Any, execute: Callable[[argparse.Namespace], int]) -> None:
    """The options of ``run``."""
    parser = subparsers.add_parser(
        "run",
        help="attack, defend, judge (default)",
        description="Attack the shipped networks on photographs of the test split and judge every defence.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="about 120 images and a few attacks: minutes, not hours")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the rows and how they came about")
    parser.add_argument("--out", type=_new_folder, metavar="DIR", help="write the report (markdown and JSON) there")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="the data set (%(default)s)")
    parser.add_argument("--model", choices=MODELS, default="all", help="network (%(default)s)")
    parser.add_argument(
        "--attacks", type=names(plan.ATTACK_NAMES), metavar="NAMES", help=f"of {', '.join(plan.ATTACK_NAMES)}"
    )
    parser.add_argument(
        "--threat-model", type=names(plan.THREAT_MODELS), metavar="NAMES", help=f"of {', '.join(plan.THREAT_MODELS)}"
    )
    parser.add_argument(  # its former name
        "--knows",
        dest="threat_model",
        type=names(plan.THREAT_MODELS),
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )
    parser.add_argument("--eps", type=_eps, metavar="N,N", help="grey levels of 255 (by the plan)")
    parser.add_argument("--defences", type=str, metavar="NAMES", help="only these (all)")
    parser.add_argument(
        "--images", type=whole(1, MAX_IMAGES), metavar="N", help="images a class (by the plan; with --quick at most)"
    )
    parser.add_argument("--seed", type=whole(0, MAX_SEED), default=0, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--threads", type=whole(1, MAX_THREADS), default=len(os.sched_getaffinity(0)), metavar="N", help="(all cores)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the attacks' gradients (cpu)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="(XDG cache folder)")
    parser.set_defaults(execute=execute)


def parse(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of :class:`benchmarks.robustness.run.Options` but the models.

    Raises
    ------
    argparse.ArgumentTypeError
        An unknown defence.
    """
    from benchmarks.robustness.defences import DEFENCES

    defences = names(tuple(DEFENCES))(args.defences) if args.defences is not None else None
    return {
        "data": args.data,
        "quick": args.quick,
        "attacks": args.attacks,
        "eps": args.eps,
        "threat_model": args.threat_model,
        "defences": defences,
        "images": args.images,
        "seed": args.seed,
        "threads": args.threads,
        "device": args.device,
        "cache": args.cache or default_folder(),
    }
