"""``edge-mdda doctor``: is this board fit to screen? Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE

EXAMPLES = """\
examples:
  edge-mdda doctor                          is this board fit to screen?
  edge-mdda doctor --json > doctor.json     the same for a program
  edge-mdda doctor --model my-model.tflite  with the model that will be used

exit status: 0 fit, 1 something failed, 2 wrong usage
"""


def add_command(commands: Any) -> None:
    """Add the command to the parser's ``add_subparsers``."""
    doctor = commands.add_parser(
        "doctor",
        help="is this board fit to screen?",
        description=f"Look at board, system, packages, runtimes, kernels and model. {NOTICE}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument(
        "--model", type=Path, metavar="MODEL", help="the model to screen with (standard, broad, hardened or a file)"
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object")
    doctor.set_defaults(run=_run, parser=doctor)


def _run(args: argparse.Namespace) -> int:
    from edge_mdda.classifier import model_path
    from edge_mdda.console import Progress
    from edge_mdda.diagnostics.doctor import Examination, to_dict
    from edge_mdda.diagnostics.finding import is_fit, print_table

    examination = Examination(model=None if args.model is None else Path(model_path(args.model)))
    progress = Progress(len(examination.steps()))
    try:
        findings = examination.run(progress.step)
    finally:
        progress.clear()
    if args.json:
        print(json.dumps(to_dict(findings), indent=2))
    else:
        print_table(findings, sys.stdout)
    return 0 if is_fit(findings) else 1
