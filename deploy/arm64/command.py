"""``python -m deploy arm64-test``: the real bundle, installed and run on emulated boards."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE

EXIT_PASSED, EXIT_FAILED, EXIT_UNAVAILABLE = 0, 1, 77
"""The last as in Automake: it could not be tested here."""

DEBIAN_RELEASES = ("bookworm", "trixie")
EVERY_BOARD = ("rpi-zero2w", "rpi4", "rpi5")
"""What ``--all`` tests: a board of each CPU that QEMU emulates."""

MAX_JOBS = 2
EXAMPLES = """\
examples:
  python -m deploy arm64-test --board rpi4                    all its operating systems
  python -m deploy arm64-test --board rpi4 --os bookworm      one
  python -m deploy arm64-test --all --json > proof.json       every board that can be emulated
  python -m deploy arm64-test --board rpi5 --os trixie --bundle dist/edge-mdda-0.1.0-rpi5-trixie.tar.gz \\
      --pubkey release.key.pub                                the very archive that goes out

Nothing of this machine is changed: namespaces of its own, a copy of the root in the temporary folder. Debian's packages
and the wheels are downloaded once and kept in $XDG_CACHE_HOME/edge-mdda. Times in emulation are not shown: they tell
nothing about a board's. exit status: 0 all passed, 1 a check failed, 2 wrong usage, 77 this machine cannot emulate
"""


def add_command(commands: Any) -> None:
    """Add the command to the parser's ``add_subparsers``."""
    parser = commands.add_parser(
        "arm64-test",
        help="install and run a board's bundle in emulation",
        description="Install the real bundle on an emulated ARM64 board without a network, run it and compare "
        f"with this machine. {NOTICE}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--board", metavar="BOARD", help="name or .toml file")
    what.add_argument("--all", action="store_true", help=f"{', '.join(EVERY_BOARD)} with all their systems")
    parser.add_argument("--os", metavar="NAME", help="one of the board's systems (default: all)")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="test this archive (default: make one)")
    parser.add_argument("--pubkey", type=Path, metavar="FILE", help="the key that it is signed with")
    parser.add_argument(
        "--only", metavar="CHECKS", help="some checks, with commas between; those before install always run"
    )
    parser.add_argument(
        "--mirror", metavar="URL", help="Debian archive (default: as in this machine's package sources)"
    )
    parser.add_argument("--fresh", action="store_true", help="build the emulated root again")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    parser.set_defaults(run=run, parser=parser)


@dataclass(frozen=True)
class Case:
    """One board's profile with one of its systems."""

    board: Any
    system: Any

    @property
    def title(self) -> str:
        """``rpi4 with bookworm (cortex-a72, Python 3.11)``."""
        return f"{self.board.name} with {self.system.name} ({self.board.cpu}, Python {self.system.python})"


def cases(args: argparse.Namespace) -> list[Case]:
    """What to test.

    Raises
    ------
    EdgeMddaError
        A board or system is unknown or cannot be emulated.
    """
    from deploy.arm64.cpus import cpu_of
    from deploy.arm64.errors import BenchError
    from deploy.profiles import find_board

    boards = [find_board(name) for name in (EVERY_BOARD if args.all else [args.board])]
    found = [
        Case(board, system)
        for board in boards
        for system in ([board.system(args.os)] if args.os else board.systems.values())
    ]
    for case in found:
        cpu_of(case.board.cpu)
        if case.system.name not in DEBIAN_RELEASES:
            known = " and ".join(DEBIAN_RELEASES)
            raise BenchError(f"{case.system.title} is not emulated here: only Debian's {known} are")
    return found


def run(args: argparse.Namespace) -> int:
    """Test every case; the exit status says how it went."""
    from deploy.arm64.bench import chosen
    from deploy.arm64.errors import BenchError, UnavailableError
    from deploy.arm64.plan import AFTER
    from edge_mdda.errors import EdgeMddaError

    if (args.bundle is None) != (args.pubkey is None):
        args.parser.error("--bundle and --pubkey go together")
    try:
        todo, after = cases(args), chosen(AFTER, args.only.split(",")) if args.only else AFTER
        if args.bundle and len(todo) > 1:
            raise BenchError("--bundle is for one board with one system: add --board and --os")
        reports = [test(case, args, after) for case in todo]
    except UnavailableError as error:
        print(f"arm64-test skipped: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except EdgeMddaError as error:
        print(f"deploy: {error}", file=sys.stderr)
        return EXIT_FAILED
    passed = all(report["passed"] for report in reports)
    if args.json:
        print(json.dumps({"passed": passed, "boards": reports, "notice": NOTICE}, indent=2))
    else:
        failed = [report["board"] for report in reports if not report["passed"]]
        print(f"FAILED: {'; '.join(failed)}" if failed else f"passed: {len(reports)} of {len(reports)}")
        print(NOTICE)
    return EXIT_PASSED if passed else EXIT_FAILED


def test(case: Case, args: argparse.Namespace, after: dict[str, Any]) -> dict[str, Any]:
    """Build, install and check one case; plain values for JSON. Rows are printed as they come, unless it is JSON.

    Raises
    ------
    EdgeMddaError
        The bundle cannot be made, or this machine cannot emulate a board (``UnavailableError``).
    """
    from deploy.arm64 import rootfs
    from deploy.arm64.bench import Bench, run_checks
    from deploy.arm64.cpus import cpu_of
    from deploy.arm64.enter import Board, emulator_version, require_emulation
    from deploy.arm64.plan import FIRST
    from deploy.arm64.results import Result, all_passed, print_result
    from edge_mdda.digest import sha256

    def show(result: Result) -> None:
        if not args.json:
            print_result(result, sys.stdout)

    emulator = emulator_version()
    root = rootfs.prepared(case.system.name, case.system.python, args.mirror, args.fresh)
    packages = rootfs.packages_of(root)
    with rootfs.copy_of(root) as copy:
        board = Board(copy, cpu_of(case.board.cpu), case.board.cores, case.board.title)
        require_emulation(board)
        with _bundle(case, args) as (archive, public_key):
            bench = Bench(board, case.board.runtimes, archive, public_key)
            if not args.json:
                print(f"{case.title}: {len(packages)} packages of Debian, {emulator}", flush=True)
            results = run_checks(bench, FIRST, after, show, min(MAX_JOBS, os.cpu_count() or 1))
            digest = sha256(archive.read_bytes()).hexdigest()
    return {
        "board": case.title,
        "passed": all_passed(results),
        "bundle": {"file": archive.name, "sha256": digest},
        "emulator": emulator,
        "packages": packages,
        "checks": [result.to_dict() for result in results],
    }


@contextlib.contextmanager
def _bundle(case: Case, args: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """The named archive and its key, or a new one, signed with a key that nobody keeps."""
    if args.bundle:
        yield args.bundle, args.pubkey
        return
    from deploy.bundle import Request, make
    from export.signing import make_keys

    with tempfile.TemporaryDirectory(prefix="edge-mdda-bundle-") as name:
        key = Path(name) / "release.key"
        make_keys(key)
        yield make(Request(case.board, case.system, key), Path(name)), key.with_name("release.key.pub")
