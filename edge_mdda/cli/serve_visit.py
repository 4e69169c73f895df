"""``edge-mdda serve demo-visit`` and ``verify-report``: a visit as a clinic hands it on, and whether it was altered.

Nothing heavy is imported here.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.cli.options import EXIT_FAILED, EXIT_OK, open_screener
from edge_mdda.console import complain
from edge_mdda.errors import EdgeMddaError
from edge_mdda.files import MIB, Limits, read_bytes

NEEDS = {"report": ("reportlab", "segno"), "dicom": ("pydicom", "highdicom")}
"""Modules that each extra brings."""
MAX_REPORT = 256 * MIB  # bytes; its picture, and as text once more where that had to be turned


def add_action(actions: Any) -> None:
    """Add the action to ``serve``'s ``add_subparsers``."""
    visit = actions.add_parser(
        "demo-visit",
        help="write a drawn visit as report, DICOM and FHIR",
        description=f"Screen the built-in drawn picture and write the visit as a clinic hands it on. {NOTICE}",
    )
    visit.add_argument("out", type=Path, metavar="OUT", help="folder to write to; files of an earlier visit give way")
    visit.set_defaults(run=_demo_visit, parser=visit, json=False)
    check = actions.add_parser(
        "verify-report",
        help="check that a report was not altered",
        description=f"Make a report's page again from the record in it and compare. {NOTICE}",
    )
    check.add_argument("report", type=Path, metavar="REPORT.pdf")
    check.add_argument(
        "--record", type=_beginning, metavar="SHA256", help="what the printed code says after RECORD, or its beginning"
    )
    check.set_defaults(run=_verify_report, parser=check)


def _beginning(text: str) -> str:
    """An argparse type: 8 to 64 hexadecimal digits."""
    if not re.fullmatch(r"[0-9A-Fa-f]{8,64}", text):
        raise argparse.ArgumentTypeError(f"expected 8 to 64 hexadecimal digits, got {text!r}")
    return text


def _installed(subject: str, *extras: str) -> bool:
    """Whether these extras are installed; one line where they are not."""
    lacking = {name: extra for extra in extras for name in NEEDS[extra] if find_spec(name) is None}
    if lacking:
        wanted = ",".join(dict.fromkeys(lacking.values()))
        complain(subject, f"{', '.join(lacking)} not installed: pip install 'edge-mdda[{wanted}]'")
    return not lacking


def _demo_visit(args: argparse.Namespace) -> int:
    if not _installed("demo-visit", *NEEDS):
        return EXIT_FAILED
    from edge_mdda.station.demo_visit import demo_visit
    from edge_mdda.station.hand_on import write

    with open_screener(args) as screener:
        visit = demo_visit(screener)
    for path in write(visit, args.out):
        print(path)
    print(NOTICE, file=sys.stderr)
    return EXIT_OK


def _verify_report(args: argparse.Namespace) -> int:
    if not _installed("verify-report", "report"):
        return EXIT_FAILED
    from edge_mdda.station.report_check import check

    try:
        found = check(read_bytes(args.report, Limits(max_bytes=MAX_REPORT)), args.record)
    except EdgeMddaError as error:
        complain(str(args.report), error)
        return EXIT_FAILED
    print(f"{args.report}: not altered since it was made")
    print(f"Its code says: {found.code}")
    if args.record is None:
        print("Compare the end of the code with the printed one: a report that was made anew is whole, too.")
    print(NOTICE)
    return EXIT_OK
