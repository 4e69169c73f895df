"""``edge-mdda profile``: how long a screening takes on this board. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mdda import NOTICE
from edge_mdda.cli.options import (
    MAX_THREADS,
    PRESET_SETTING,
    PROVIDER_HELP,
    PROVIDERS,
    THREADS_SETTING,
    number,
    preset,
    real,
)
from edge_mdda.mdda.params import PRESETS

if TYPE_CHECKING:
    from edge_mdda.profiling.run import Plan

SWEEPS = ("threads", "runtimes", "presets")
EXAMPLES = """\
examples:
  edge-mdda profile                                     the built-in picture, 10 seconds
  edge-mdda profile lesion.jpg --calls 1000             enough calls for the 99.9th percentile
  edge-mdda profile --seconds 20 --html out.html        a page with plots, to read and to print
  edge-mdda profile --sweep --json sweep.json           all threads, runtimes and presets
  edge-mdda profile --sweep=threads --seconds 5         only the threads
  edge-mdda profile --minutes 10 --html warm.html       does it hold when it gets warm?
  edge-mdda profile --compare before.json after.json    ratios of two reports

exit status: 0 measured, 1 failed, 2 wrong usage
"""
DEFAULT_SECONDS = 10.0
MAX_CALLS, MAX_SECONDS, MAX_MINUTES, MAX_WARMUP = 10**7, 86400.0, 1440.0, 10**5
HUNDREDTHS = 100


def add_command(commands: Any) -> None:
    """Add the command to the parser's ``add_subparsers``."""
    profile = commands.add_parser(
        "profile",
        help="measure the latency on this board",
        description=f"Measure start, latency by stage, and how both hold over time. {NOTICE}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    profile.add_argument("image", nargs="?", metavar="IMAGE", help="image file (default: the built-in picture)")
    length = profile.add_mutually_exclusive_group()
    length.add_argument("--calls", type=number(1, MAX_CALLS), metavar="N", help="calls to measure")
    length.add_argument("--seconds", type=real(0.1, MAX_SECONDS), metavar="S", help="time to measure for (10)")
    length.add_argument("--minutes", type=real(0.01, MAX_MINUTES), metavar="M", help="the same, for a sustained run")
    profile.add_argument(
        "--warmup",
        type=number(0, MAX_WARMUP),
        default=5,
        metavar="N",
        help="calls after the first that are not counted (%(default)s)",
    )
    profile.add_argument(
        "--preset",
        type=_preset_or_off,
        choices=(*PRESETS, "off"),
        default=os.environ.get(PRESET_SETTING) or "balanced",
        help=f"purifier strength, or off (%(default)s; a board's default: {PRESET_SETTING})",
    )
    profile.add_argument(
        "--threads",
        type=number(1, MAX_THREADS),
        default=os.environ.get(THREADS_SETTING) or 1,
        metavar="N",
        help=f"threads (%(default)s; a board's default: {THREADS_SETTING})",
    )
    profile.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        metavar="MODEL",
        help="model to run (standard, broad, hardened or a file); more of them are for --sweep",
    )
    profile.add_argument(
        "--provider",
        choices=PROVIDERS,
        default="cpu",
        help=PROVIDER_HELP,
    )
    profile.add_argument(
        "--sweep",
        type=_sweep,
        nargs="?",
        const=SWEEPS,
        default=(),
        metavar="WHAT",
        help="also measure all combinations of threads,runtimes,presets (or some: --sweep=threads,presets),"
        " each as long as the main run, 3 seconds by default",
    )
    profile.add_argument("--json", type=Path, metavar="FILE", help="write the report for programs and for --compare")
    profile.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page with plots")
    profile.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="compare two reports, measure nothing"
    )
    profile.set_defaults(run=_run, parser=profile)


def _preset_or_off(text: str) -> str:
    """An argparse type: a preset's name, or off."""
    return text if text == "off" else preset(text)


def _sweep(text: str) -> tuple[str, ...]:
    """An argparse type: some of threads, runtimes and presets, with commas between."""
    chosen = tuple(text.split(","))
    if not set(chosen) <= set(SWEEPS):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(SWEEPS)}, got {text!r}")
    return chosen


def _run(args: argparse.Namespace) -> int:
    if args.compare:
        return _run_compare(args)
    from edge_mdda.console import Progress
    from edge_mdda.profiling.report_text import print_report
    from edge_mdda.profiling.run import check_target, profile, write

    targets = [path for path in (args.json, args.html) if path]
    for path in targets:
        check_target(path)
    if len({path.absolute() for path in targets}) < len(targets):
        args.parser.error("--json and --html need a file each")
    progress = Progress(HUNDREDTHS)
    try:
        report = profile(_plan(args), lambda share: progress.at(int(share * HUNDREDTHS)))
    finally:
        progress.clear()
    try:
        if args.json:
            write(args.json, json.dumps(report, indent=1) + "\n")
        if args.html:
            from edge_mdda.profiling.report_html import to_html

            write(args.html, to_html(report))
    finally:  # a full disk must not cost the minutes of measuring
        print_report(report, sys.stdout)
    return 0


def _plan(args: argparse.Namespace) -> Plan:
    from edge_mdda.classifier import model_path
    from edge_mdda.models import DEMO_IMAGE
    from edge_mdda.profiling.case import Case
    from edge_mdda.profiling.run import SWEEP_SECONDS, Plan

    models = tuple(Path(model_path(model)) for model in args.model)
    seconds = args.minutes * 60 if args.minutes else args.seconds
    length = {"calls": args.calls, "seconds": seconds}
    of_sweep = {"calls": args.calls, "seconds": args.seconds}
    common = {
        "image": args.image or str(DEMO_IMAGE),
        "model": str(models[0]) if models else None,
        "preset": args.preset,
        "threads": args.threads,
        "provider": args.provider,
        "warmup": args.warmup,
    }
    if not any(length.values()):
        length["seconds"] = DEFAULT_SECONDS
    if not any(of_sweep.values()):
        of_sweep["seconds"] = SWEEP_SECONDS
    return Plan(Case(**common, **length, detail=True), models, args.sweep, Case(**common, **of_sweep))


def _run_compare(args: argparse.Namespace) -> int:
    if args.image or args.json or args.html or args.sweep:
        args.parser.error("--compare measures and writes nothing: give it two reports and no more")
    from edge_mdda.profiling.compare import compare, load, to_text

    first, second = args.compare
    print(to_text(str(first), str(second), compare(load(first), load(second))))
    return 0
