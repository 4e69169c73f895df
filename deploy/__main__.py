"""``python -m deploy``: board profiles, lock files and the signed offline bundle; on a workstation.

A referral aid is packed here, never a diagnosis.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from deploy.arm64.command import add_command as add_arm64_test
from deploy.errors import DeployError
from export import command_line

EXAMPLES = """\
examples:
  python -m deploy boards
  python -m deploy lock --os bookworm
  python -m export keygen --out release.key
  python -m deploy bundle --board rpi4 --os bookworm --key release.key --out dist/
"""
BUNDLE_EXAMPLES = """\
examples:
  python -m deploy bundle --board rpi4 --os bookworm --key release.key --out dist/
  python -m deploy bundle --board rpi5 --os trixie --model lesion.tflite --model lesion.onnx --out dist/
  python -m deploy bundle --board my-board.toml --os bookworm --key release.key --out dist/
  python -m deploy bundle --board rpi4 --os bookworm --key new.key --revoke release.key.pub --out dist/

The key is one of 'python -m export keygen'; without --key it is edge-mdda/release.key in $XDG_CONFIG_HOME or
~/.config, made the first time. On the board:
  tar xf edge-mdda-...tar.gz && sudo sh edge-mdda-.../install.sh --pubkey release.key.pub
"""
KEY_NAME = Path("edge-mdda") / "release.key"


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__, epilog=EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    boards = commands.add_parser("boards", help="list the boards, or check and show one")
    boards.add_argument("board", nargs="?", metavar="BOARD", help="name or .toml file")
    boards.add_argument("--json", action="store_true", help="for programs")
    boards.set_defaults(run=_boards)

    lock = commands.add_parser("lock", help="choose the newest wheels for a board's system and write them down")
    lock.add_argument("--board", metavar="BOARD", help="name or .toml file (default: all)")
    lock.add_argument("--os", metavar="NAME", help="one of the board's systems (default: all)")
    lock.add_argument("--locks", type=Path, metavar="DIR", help="where the lock files go (default: the repository's)")
    lock.set_defaults(run=_lock)

    bundle = commands.add_parser(
        "bundle", help="pack one signed archive for a board", epilog=BUNDLE_EXAMPLES, formatter_class=raw
    )
    bundle.add_argument("--board", required=True, metavar="BOARD", help="name or .toml file")
    bundle.add_argument("--os", required=True, metavar="NAME", help="one of the board's systems")
    bundle.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR", help="(%(default)s)")
    bundle.add_argument(
        "--key", type=Path, metavar="FILE", help="private key to sign with (default: your own, see below)"
    )
    bundle.add_argument(
        "--model", type=Path, action="append", default=[], metavar="FILE", help="in place of the built-in ones"
    )
    bundle.add_argument(
        "--hardened", action="store_true", help="pack the built-in model 'hardened' too (4 MB for each runtime)"
    )
    bundle.add_argument("--broad", action="store_true", help="pack the built-in model 'broad' too, likewise")
    bundle.add_argument(
        "--release",
        type=int,
        metavar="N",
        help="release number; boards refuse a smaller one than they had (default: the time of the source)",
    )
    bundle.add_argument(
        "--valid-days",
        type=int,
        metavar="D",
        help="it may be installed for so long, counted from the time of its source (default: for good)",
    )
    bundle.add_argument(
        "--trust", type=Path, action="append", default=[], metavar="PUB", help="a further key for boards to trust"
    )
    bundle.add_argument(
        "--revoke", type=Path, action="append", default=[], metavar="PUB", help="a key for boards never to trust again"
    )
    bundle.add_argument("--locks", type=Path, metavar="DIR", help="folder of lock files (default: the repository's)")
    bundle.set_defaults(run=_bundle)
    # Other commands of this package register here, one line each: add_command(commands)
    add_arm64_test(commands)
    return parser


def default_key() -> Path:
    """``release.key`` in the user's configuration folder."""
    import os

    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / KEY_NAME


def _own_key() -> Path:
    """The default key; made where there is none yet: it is worth nothing until its public half lies on a board."""
    from export.signing import make_keys

    path = default_key()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        make_keys(path)
        print(f"deploy: made a signing key, {path}: keep it secret, and give {path}.pub to the boards", file=sys.stderr)
    return path


def _boards(args: argparse.Namespace) -> int:
    from deploy.profiles import board_names, find_board

    boards = [find_board(name) for name in ([args.board] if args.board else board_names())]
    if args.json:
        print(json.dumps([asdict(board) for board in boards], indent=2))
        return 0
    for board in boards:
        print(
            f"{board.name:<18} {board.title}: {board.cpu}, {board.cores} cores, {board.memory_mb} MB; "
            f"{' and '.join(board.runtimes)}, {board.threads} threads, {board.preset}"
        )
        for system in board.systems.values():
            print(f"  --os {system.name:<11} {system.title}, Python {system.python}, glibc {system.glibc}")
    return 0


def _lock(args: argparse.Namespace) -> int:
    from deploy.lock import LOCKS, lock_path, write_lock
    from deploy.profiles import board_names, find_board

    boards = [find_board(name) for name in ([args.board] if args.board else board_names())]
    folder = args.locks or LOCKS
    chosen = {
        lock_path(system, board.arch, folder): (system, board.arch)
        for board in boards
        for system in ([board.system(args.os)] if args.os and args.board else board.systems.values())
        if args.os in (None, system.name)
    }
    if not chosen:
        raise DeployError(f"no board has an operating system '{args.os}'; see: python -m deploy boards")
    for system, arch in chosen.values():
        print(write_lock(system, arch, folder))
    return 0


def _bundle(args: argparse.Namespace) -> int:
    from deploy.bundle import Request, make
    from deploy.lock import LOCKS
    from deploy.profiles import find_board

    board = find_board(args.board)
    system = board.system(args.os)
    key, locks = args.key or _own_key(), args.locks or LOCKS
    request = Request(
        board,
        system,
        key,
        tuple(args.model),
        locks,
        hardened=args.hardened,
        broad=args.broad,
        release=args.release,
        valid_days=args.valid_days,
        trust=tuple(args.trust),
        revoke=tuple(args.revoke),
    )
    archive = make(request, args.out)
    print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB for {board.title} with {system.title}")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    print(f"sha256sum {digest}, to compare on the board before it is unpacked")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return command_line.run("deploy", build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
