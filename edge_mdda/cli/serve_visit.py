"""``edge-mdda serve demo-visit``: a drawn visit as a clinic hands it on. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_action(actions: Any) -> None:
    """Add the action to ``serve``'s ``add_subparsers``."""
    visit = actions.add_parser("demo-visit", help="write a drawn visit as report, DICOM and FHIR")
    visit.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    visit.set_defaults(run=_run, parser=visit)


def _run(args: argparse.Namespace) -> int:
    raise NotImplementedError
