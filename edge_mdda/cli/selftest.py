"""``edge-mdda selftest``: its options. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE

EXAMPLES = """\
examples:
  edge-mdda selftest                     every installed runtime
  edge-mdda selftest --runtime tflite    this one, and it has to be there
  edge-mdda selftest --json              for a program
  edge-mdda selftest --record DIR        on the workstation: write the golden values of the models in use

exit status: 0 all as on the reference machine, 1 something differs or fails, 2 wrong usage
"""


def add_command(commands: Any) -> None:
    """Add the command to the parser's ``add_subparsers``."""
    selftest = commands.add_parser(
        "selftest",
        help="does this board compute what the reference machine did?",
        description=f"Screen the built-in picture with each runtime and compare with golden values. {NOTICE}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    selftest.add_argument(
        "--runtime", action="append", choices=("onnx", "tflite"), help="one that must work; may be repeated"
    )
    selftest.add_argument("--json", action="store_true", help="one JSON object")
    selftest.add_argument("--record", type=Path, metavar="DIR", help="write golden values in place of comparing")
    selftest.set_defaults(run=_run_selftest)


def _run_selftest(args: argparse.Namespace) -> int:
    from edge_mdda.classifier import RUNTIMES, built_in, models_here
    from edge_mdda.diagnostics.finding import is_fit, print_table
    from edge_mdda.diagnostics.selftest import examine, record

    if args.record:
        runtimes = args.runtime or RUNTIMES
        for path in record(
            args.record, [built_in(runtime, name) for runtime in runtimes for name in models_here(runtime)]
        ):
            print(path)
        return 0
    findings = examine(args.runtime)
    if args.json:
        answer = {"ok": is_fit(findings), "findings": [found.to_dict() for found in findings], "notice": NOTICE}
        print(json.dumps(answer))
    else:
        print_table(findings, sys.stdout)
    return 0 if is_fit(findings) else 1
