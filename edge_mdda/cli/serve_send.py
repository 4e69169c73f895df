"""``edge-mdda serve send``: DICOM files to an archive, through an outbox. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.cli.options import EXIT_FAILED, EXIT_OK
from edge_mdda.cli.serve_admin import data_folder
from edge_mdda.console import complain

NEEDS = ("pydicom", "pynetdicom")
OUTBOX = "outbox"  # in the folder of the records


def add_action(actions: Any) -> None:
    """Add the action to ``serve``'s ``add_subparsers``."""
    send = actions.add_parser(
        "send",
        help="send DICOM files to an archive; what cannot be sent waits",
        description="Put the DICOM files of visits into the outbox and send what waits there (C-STORE or STOW-RS);"
        " each object is asked for afterwards (C-FIND, QIDO-RS), and leaves the outbox when the archive has it."
        f" {NOTICE}",
    )
    send.add_argument("visits", nargs="*", type=Path, metavar="DIR", help="a folder with the .dcm files of one visit")
    send.add_argument(
        "--to", required=True, metavar="ARCHIVE", help="as PACS@192.168.1.20:104, or https://HOST/PATH for DICOMweb"
    )
    send.add_argument(
        "--tls", action="store_true", help="encrypt to PACS@HOST:PORT, too, with the system's authorities"
    )
    send.add_argument("--ca", type=Path, metavar="PEM", help="the authority that signed the archive's certificate")
    send.add_argument("--certificate", type=Path, metavar="PEM", help="our own certificate, where the archive asks")
    send.add_argument("--key", type=Path, metavar="PEM", help="its key, unless it is in the same file")
    send.add_argument("--own-title", default="EDGE-MDDA", metavar="TITLE", help="ours, as it knows us (%(default)s)")
    send.add_argument("--outbox", type=Path, metavar="BOX", help="folder of what waits (outbox in the records' folder)")
    send.add_argument("--now", action="store_true", help="try at once what failed a short while ago")
    send.add_argument("--check", action="store_true", help="only ask whether the archive answers; nothing is sent")
    send.add_argument("--json", action="store_true", help="one JSON object")
    send.add_argument("--data", type=Path, metavar="RECORDS", default=argparse.SUPPRESS, help="folder of the records")
    send.set_defaults(run=_run, parser=send)


def _run(args: argparse.Namespace) -> int:
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        complain("send", f"{', '.join(missing)} not installed: pip install 'edge-mdda[dicom]'")
        return EXIT_FAILED
    from edge_mdda.station import dicom_send
    from edge_mdda.station.outbox import Outbox

    named = {"authority": args.ca, "certificate": args.certificate, "key": args.key}
    pem = {name: str(path.absolute()) for name, path in named.items() if path}
    to = dicom_send.archive(args.to, args.own_title, args.tls, **pem)
    if args.check:
        dicom_send.send([], to)
        print(json.dumps({"answers": True}) if args.json else f"{args.to} answers")
        return EXIT_OK
    outbox = Outbox(args.outbox or data_folder(args) / OUTBOX)
    for visit in args.visits:
        outbox.add(sorted(visit.glob("*.dcm")), time.time())
    arrived, waiting = outbox.send(partial(dicom_send.send, to=to), time.time(), urgent=args.now)
    items = outbox.items()
    if args.json:
        waits = [{"name": i.name, "failures": i.failures, "next_try": i.next_try, "error": i.error} for i in items]
        print(json.dumps({"arrived": arrived, "waiting": waits, "notice": NOTICE}))
    else:
        print(f"{arrived} arrived, {waiting} wait in {outbox.folder}")
        print(NOTICE, file=sys.stderr)
    for item in items:
        complain(item.name, item.error or "not tried yet: the archive is away, or another process is sending")
    return EXIT_FAILED if items else EXIT_OK
