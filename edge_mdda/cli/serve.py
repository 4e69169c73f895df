"""``edge-mdda serve``: the clinic station and what goes with it. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.cli import serve_admin, serve_send, serve_visit
from edge_mdda.cli.options import EXIT_FAILED, limits, number
from edge_mdda.cli.serve_admin import data_folder, require_packages
from edge_mdda.hardware import DATA_SETTING

DEFAULT_PORT = 8080
MAX_PORT = 65535
EXAMPLES = """\
examples:
  edge-mdda serve --demo                     look at it: drawn patients in a temporary folder
  edge-mdda serve --data /srv/station        the clinic's own records, for this machine's browser alone
  edge-mdda serve add-user Ada --role admin  from then on everybody enters a PIN
  edge-mdda serve certificate                make a certificate; prints its fingerprint
  edge-mdda serve --lan                      for the phones and laptops of the clinic's own network
  edge-mdda serve audit                      verify the audit log
  edge-mdda serve backup /media/stick        copy the records, while the station runs; 'restore' is the way back
  edge-mdda serve unit                       print a systemd unit
  edge-mdda serve demo-visit OUT             write a drawn visit as report, DICOM and FHIR
  edge-mdda serve send OUT --to PACS@HOST:104   send its DICOM files to an archive; what cannot be sent waits
  edge-mdda serve verify-report REPORT.pdf   check that a report was not altered

exit status: 0 done, 1 failed, 2 wrong usage
"""


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
    serve.add_argument(
        "--camera", metavar="DEVICE", help="the board's own camera, as /dev/video0 (else each browser uses its own)"
    )
    serve.add_argument("--lan", action="store_true", help="answer the clinic's own network, too: needs TLS and PINs")
    serve.add_argument("--certificate", type=Path, metavar="PEM", help="TLS certificate (DIR/tls/certificate.pem)")
    serve.add_argument("--key", type=Path, metavar="PEM", help="its key (DIR/tls/key.pem)")
    serve.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="one more name or address of this machine"
    )
    actions = serve.add_subparsers(title="actions", metavar="ACTION")
    serve_admin.add_actions(actions)
    serve_visit.add_action(actions)
    serve_send.add_action(actions)
    serve.set_defaults(run=_run, parser=serve)


def _run(args: argparse.Namespace) -> int:
    if args.demo and (args.data or args.lan):
        args.parser.error("--demo keeps nothing and lets everybody in: leave --data and --lan away")
    if not args.lan and (args.certificate or args.key or args.name):
        args.parser.error("--certificate, --key and --name need --lan")
    if not require_packages():
        return EXIT_FAILED
    from edge_mdda.station.network import CERTIFICATE, KEY, TLS_FOLDER
    from edge_mdda.station.server import Lan, Settings, run

    screener = {
        "model": None if args.model is None else str(args.model),
        "runtime": args.runtime,
        "purify": args.purify,
        "preset": args.preset,
        "threads": args.threads,
        "provider": args.provider,
        "draws": args.draws,
    }
    lan = None
    folder = data_folder(args)
    if args.lan:
        lan = Lan(
            args.certificate or folder / TLS_FOLDER / CERTIFICATE, args.key or folder / TLS_FOLDER / KEY, args.name
        )
    return run(Settings(folder, args.port, args.demo, screener, limits(args), lan, args.camera))
