"""``edge-mdda serve demo-visit``: a drawn visit as a clinic hands it on. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.cli.options import EXIT_FAILED, EXIT_OK, open_screener
from edge_mdda.console import complain

NEEDS = {"report": ("reportlab", "segno")}
"""Modules that each extra brings."""


def add_action(actions: Any) -> None:
    """Add the action to ``serve``'s ``add_subparsers``."""
    visit = actions.add_parser(
        "demo-visit",
        help="write a drawn visit as report, DICOM and FHIR",
        description=f"Screen the built-in drawn picture and write the visit as a clinic hands it on. {NOTICE}",
    )
    visit.add_argument("out", type=Path, metavar="OUT", help="folder to write to; files of an earlier visit give way")
    visit.set_defaults(run=_run, parser=visit, json=False)


def _run(args: argparse.Namespace) -> int:
    from importlib.util import find_spec

    missing = {extra: [name for name in names if find_spec(name) is None] for extra, names in NEEDS.items()}
    names = [name for lacking in missing.values() for name in lacking]
    if names:
        extras = ",".join(extra for extra, lacking in missing.items() if lacking)
        complain("demo-visit", f"{', '.join(names)} not installed: pip install 'edge-mdda[{extras}]'")
        return EXIT_FAILED
    from edge_mdda.station.demo_visit import demo_visit
    from edge_mdda.station.hand_on import write

    with open_screener(args) as screener:
        visit = demo_visit(screener)
    for path in write(visit, args.out):
        print(path)
    print(NOTICE, file=sys.stderr)
    return EXIT_OK
