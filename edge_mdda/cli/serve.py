"""``edge-mdda serve``: the clinic station and what goes with it. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.cli import serve_visit
from edge_mdda.cli.options import EXIT_FAILED, limits, number
from edge_mdda.console import complain

DEFAULT_PORT = 8080
MAX_PORT = 65535
DATA_SETTING = "EDGE_MDDA_STATION"
NEEDS = ("starlette", "uvicorn", "jinja2", "python_multipart", "nacl")
EXAMPLES = """\
examples:
  edge-mdda serve --demo                     look at it: drawn patients in a temporary folder
  edge-mdda serve --data /srv/station        the clinic's own records, for this machine's browser alone
  edge-mdda serve demo-visit OUT             write a drawn visit as report, DICOM and FHIR

exit status: 0 done, 1 failed, 2 wrong usage
"""


def data_folder() -> Path:
    """Where the records lie if nobody says otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(os.environ.get(DATA_SETTING) or os.path.join(base, "edge-mdda", "station"))


def add_command(commands: Any, parents: Sequence[argparse.ArgumentParser] = ()) -> None:
    """Add the command to the parser's ``add_subparsers``; ``parents`` hold the options that ``screen`` has, too."""
    serve = commands.add_parser(
        "serve",
        parents=list(parents),
        help="the clinic station: capture, screen, keep",
        description=f"The clinic station: a web page on this machine that captures, screens and keeps. {NOTICE}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--demo", action="store_true", help="drawn patients in a temporary folder")
    serve.add_argument(
        "--port", type=number(0, MAX_PORT), default=DEFAULT_PORT, metavar="N", help="port (%(default)s; 0: any free)"
    )
    serve.add_argument(
        "--data", type=Path, metavar="DIR", help=f"folder of the records ({DATA_SETTING}, or the user's own)"
    )
    actions = serve.add_subparsers(title="actions", metavar="ACTION")
    serve_visit.add_action(actions)
    serve.set_defaults(run=_run, parser=serve)


def require_packages() -> bool:
    """Whether the extra is installed; one line where it is not."""
    from importlib.util import find_spec

    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        complain("serve", f"{', '.join(missing)} not installed: pip install 'edge-mdda[station]'")
    return not missing


def _run(args: argparse.Namespace) -> int:
    if args.demo and args.data:
        args.parser.error("--demo keeps nothing: leave --data away")
    if not require_packages():
        return EXIT_FAILED
    from edge_mdda.station.server import Settings, run

    screener = {
        "model": None if args.model is None else str(args.model),
        "runtime": args.runtime,
        "purify": args.purify,
        "preset": args.preset,
        "threads": args.threads,
        "provider": args.provider,
        "draws": args.draws,
    }
    return run(Settings(args.data or data_folder(), args.port, args.demo, screener, limits(args)))
