"""Actions of ``edge-mdda serve`` for whoever looks after a station. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mdda.cli.options import EXIT_FAILED, EXIT_OK
from edge_mdda.console import complain

if TYPE_CHECKING:
    from edge_mdda.station.backups import Copied

ROLES = ("operator", "clinician", "admin")
NEEDS = ("starlette", "uvicorn", "jinja2", "python_multipart", "nacl")


def data_folder(args: argparse.Namespace) -> Path:
    """Where the records lie: as named, or in the user's own folder."""
    named: Path | None = args.data
    from edge_mdda.hardware.storage import records_folder

    return named or records_folder()


def require_packages() -> bool:
    """Whether the extra is installed; one line where it is not."""
    from importlib.util import find_spec

    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        complain("serve", f"{', '.join(missing)} not installed: pip install 'edge-mdda[station]'")
    return not missing


def add_actions(actions: Any) -> None:
    """Add the actions to ``serve``'s ``add_subparsers``."""
    where = argparse.ArgumentParser(add_help=False)
    # SUPPRESS: --data may stand before the action, too, and must not be forgotten then.
    where.add_argument("--data", type=Path, metavar="DIR", default=argparse.SUPPRESS, help="folder of the records")
    audit = actions.add_parser("audit", parents=[where], help="verify the audit log")
    audit.add_argument("--json", action="store_true", help="one JSON object")
    audit.set_defaults(run=_audit, parser=audit)
    user = actions.add_parser(
        "add-user", parents=[where], help="name somebody, with a PIN (asked for, or on standard input)"
    )
    user.add_argument("name", metavar="NAME")
    user.add_argument("--role", choices=ROLES, required=True)
    user.set_defaults(run=_add_user, parser=user)
    tls = actions.add_parser("certificate", parents=[where], help="make a certificate for --lan")
    tls.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="one more name or address of this machine"
    )
    tls.set_defaults(run=_certificate, parser=tls)
    copy = actions.add_parser("backup", parents=[where], help="copy the records, while the station runs")
    copy.add_argument("folder", type=Path, metavar="TO", help="a folder on another disk; only what is new is copied")
    copy.set_defaults(run=_backup, parser=copy)
    back = actions.add_parser("restore", parents=[where], help="make the records from a backup")
    back.add_argument("folder", type=Path, metavar="FROM", help="a folder that 'backup' wrote")
    back.set_defaults(run=_restore, parser=back)
    unit = actions.add_parser("unit", help="print a systemd unit for the station")
    unit.set_defaults(run=_unit, parser=unit)


def _backup(args: argparse.Namespace) -> int:
    from edge_mdda.station import backups

    return _tell_copied(backups.back_up(data_folder(args), args.folder), args.folder)


def _restore(args: argparse.Namespace) -> int:
    from edge_mdda.station import backups

    target = data_folder(args)
    return _tell_copied(backups.restore(args.folder, target), target)


def _tell_copied(copied: Copied, place: Path) -> int:
    print(
        f"{place}: {copied.pictures} picture files, {copied.new} of them new; audit log of {copied.log.entries} entries"
    )
    print(f"Head of the audit log: {copied.log.head}")
    if copied.damaged:
        complain(
            str(place), f"{len(copied.damaged)} picture files are missing or damaged, {copied.damaged[0][:12]}… first"
        )
    if copied.log.broken is not None:
        complain(str(place), f"the audit log is broken: {copied.log.why}")
    return EXIT_FAILED if copied.damaged or copied.log.broken is not None else EXIT_OK


def _unit(args: argparse.Namespace) -> int:
    from shutil import which

    template = Path(__file__).parents[1] / "station" / "edge-mdda-station.service"
    # A link to Python's own script is what "which" finds; without one, this very interpreter runs the package.
    here = which("edge-mdda") or f"{sys.executable} -m edge_mdda"
    print(template.read_text(encoding="utf-8").replace("/opt/edge-mdda/bin/edge-mdda serve", f"{here} serve"), end="")
    return EXIT_OK


def _audit(args: argparse.Namespace) -> int:
    import sqlite3

    from edge_mdda.station import audit

    path = data_folder(args) / "station.sqlite"
    if not path.is_file():
        complain(str(path), "no such records: name their folder with --data")
        return EXIT_FAILED
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            found = audit.verify(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        complain(str(path), f"the audit log cannot be read ({error}): restore a backup")
        return EXIT_FAILED
    if args.json:
        print(json.dumps({"entries": found.entries, "head": found.head, "broken": found.broken, "why": found.why}))
    elif found.broken is None:
        print(f"{found.entries} entries, unbroken. Head: {found.head}")
        print("Compare the head with one that was written down: a log that was cut off at its end is unbroken, too.")
    if found.broken is not None:
        complain(str(path), f"the audit log is broken: {found.why}; {found.entries} entries before it are whole")
        return EXIT_FAILED
    return EXIT_OK


def _add_user(args: argparse.Namespace) -> int:
    if not require_packages():
        return EXIT_FAILED
    from edge_mdda.station import auth
    from edge_mdda.station.store import Store

    if sys.stdin is not None and sys.stdin.isatty():
        from getpass import getpass

        pin = getpass("PIN: ")
        if pin != getpass("The same PIN again: "):
            complain("PIN", "the two differ: try again")
            return EXIT_FAILED
    else:
        pin = (sys.stdin.readline() if sys.stdin else "").rstrip("\n")
    store = Store(data_folder(args))
    try:
        auth.add_user(store, "command line", args.name, args.role, pin)
    finally:
        store.close()
    print(f"edge-mdda: {args.role} added")
    return EXIT_OK


def _certificate(args: argparse.Namespace) -> int:
    from edge_mdda.station import network

    names = network.names_of(args.name)
    certificate, key = network.make_certificate(data_folder(args), names)
    print(f"{certificate}\n{key}\nfor {', '.join(names)}")
    print(f"SHA-256 fingerprint, to compare in each browser once: {network.fingerprint(certificate)}")
    return EXIT_OK
