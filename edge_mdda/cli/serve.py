"""``edge-mdda serve``: the clinic station and what goes with it. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.cli import serve_visit

EXAMPLES = """\
examples:
  edge-mdda serve demo-visit OUT    write a drawn visit as report, DICOM and FHIR

exit status: 0 done, 1 failed, 2 wrong usage
"""


def add_command(commands: Any) -> None:
    """Add the command to the parser's ``add_subparsers``."""
    serve = commands.add_parser(
        "serve",
        help="the clinic station: capture, screen, keep",
        description=f"The clinic station and what goes with it. {NOTICE}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = serve.add_subparsers(title="actions", metavar="ACTION")
    serve_visit.add_action(actions)
    serve.set_defaults(run=_run, parser=serve)


def _run(args: argparse.Namespace) -> int:
    args.parser.error("name an action")
    return 2
