"""What ``install.sh`` cannot do in a portable shell: verify, lock, switch links atomically, tell the state.

``python3 -E -s -S helper.py COMMAND ...``: each prints what it found, or one line on standard error and exits 1.
"""

from __future__ import annotations

import argparse
import fcntl
import glob
import json
import os
import platform
import re
import shutil
import sys
from typing import Any

import standing
from unpack import MANIFEST, BundleError, Trust, fingerprint, read_keys, sums_id, unpack

NOTICE = "A referral aid, never a diagnosis: a clinician decides."
MB = 10**6  # bytes
BYTECODE_SHARE = 1.1  # of the installed size: compiled modules, and what the file system rounds up to
SHELL_FIELDS = ("version", "board", "os", "python")


def cpu_parts(path: str = "/proc/cpuinfo") -> list[str]:
    """``CPU part`` of every core, without repetition."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return sorted(set(re.findall(r"^CPU part\s*:\s*(\S+)", file.read(), re.MULTILINE)))
    except OSError:
        return []


def check_board(manifest: dict[str, Any], forced: bool) -> None:
    """Refuse a bundle for another board, Python or C library; ``forced`` lets another CPU pass, nothing else."""
    machine, here = os.uname().machine, f"{sys.version_info[0]}.{sys.version_info[1]}"
    made_for = f"the bundle is for {manifest['board_title']} with {manifest['os_title']}"
    if manifest["arch"] != machine:
        raise BundleError(f"{made_for} ({manifest['arch']}); this machine is {machine}: make the bundle for this board")
    wanted, found = manifest["cpu_parts"], cpu_parts()
    if wanted and not set(wanted) & set(found) and not forced:
        raise BundleError(
            f"{made_for}, whose CPU is a {manifest['cpu']} (part {', '.join(wanted)}); this one has part "
            f"{', '.join(found) or 'unknown'}: make the bundle for this board, or add --force-board"
        )
    if manifest["python"] != here:
        raise BundleError(
            f"{made_for} and needs Python {manifest['python']}; {sys.executable} is {here}: "
            "name another with --python FILE, or make the bundle for this system"
        )
    name, version = platform.libc_ver()
    if name == "glibc" and _numbers(version) < _numbers(manifest["glibc"]):
        raise BundleError(f"{made_for} and needs glibc {manifest['glibc']}; here is {version}: update the system")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]


def check_space(manifest: dict[str, Any], folder: str) -> None:
    """Refuse while the disk has less room than bundle and release take together."""
    needed = int(manifest["bundle_bytes"] + manifest["installed_bytes"] * BYTECODE_SHARE)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BundleError(
            f"{folder}: {free // MB} MB are free, {needed // MB} MB are needed: free some space "
            "(--no-space-check skips this, for file systems that compress)"
        )


def _unpack(args: argparse.Namespace) -> None:
    keys = [key for path in args.keys for key in read_keys(path)]
    sums = ""

    def check(manifest: dict[str, Any], text: bytes, signer: bytes) -> None:
        nonlocal sums
        sums = sums_id(text)
        check_board(manifest, args.force_board)
        standing.check(args.prefix, manifest, f"{manifest['version']}-{sums}", signer, set(args.allow))
        if not args.no_space_check:
            check_space(manifest, os.path.dirname(args.target))

    accepted = args.fingerprint.lower().replace("sha256", "SHA256")
    manifest = unpack(args.source, args.target, Trust(keys, accepted, standing.revoked(args.prefix)), check)
    for name in SHELL_FIELDS:
        print(f"{name}={manifest[name]}")
    print(f"runtimes={'+'.join(manifest['runtimes'])}\nsums={sums}")


def _keys_agree(args: argparse.Namespace) -> None:
    given, pinned = set(read_keys(args.given)), set(read_keys(args.pinned))
    if given & set(standing.revoked(args.prefix)):
        raise BundleError(f"{args.given}: this key was revoked; nothing was changed")
    if not given <= pinned:
        raise BundleError(
            f"{args.given}: is another key than the one trusted since the first installation ({args.pinned}): "
            "nothing was changed. To trust another maker, add the key to that file yourself"
        )


def _adopt(args: argparse.Namespace) -> None:
    standing.adopt(args.prefix)


def _require_signer(args: argparse.Namespace) -> None:
    standing.require_signer(args.prefix, args.release)


def _lock(args: argparse.Namespace) -> None:
    """Lock the shell's open file; the lock lives as long as the shell and its children, and dies with them."""
    try:
        fcntl.flock(args.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BundleError("another installation is running: wait until it has ended, then try again") from None


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(args: argparse.Namespace) -> None:
    """Point a symbolic link elsewhere: at no time is there none."""
    temporary = f"{args.name}.new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(args.target, temporary)
    os.replace(temporary, args.name)
    _sync_folder(os.path.dirname(args.name))


def _place(args: argparse.Namespace) -> None:
    """A new file takes the place of an old one, after its content has reached the disk."""
    with open(args.source, "rb") as file:
        os.fsync(file.fileno())
    os.replace(args.source, args.target)
    _sync_folder(os.path.dirname(args.target))


def _rename(args: argparse.Namespace) -> None:
    """Rename a folder for good, after all that was written below it, and anywhere else, has reached the disk."""
    os.sync()
    os.rename(args.source, args.target)
    _sync_folder(os.path.dirname(args.target))


def _trim(args: argparse.Namespace) -> None:
    """Remove what screening never loads, as the manifest lists it."""
    with open(args.manifest, encoding="utf-8") as file:
        patterns = json.load(file)["trim"]
    for pattern in patterns:
        for path in glob.glob(os.path.join(glob.escape(args.folder), pattern), recursive=True):
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


def _wheels(args: argparse.Namespace) -> None:
    """Unpack the wheels into the environment of the running Python, with the tool that the bundle brings."""
    import runpy

    with open(os.path.join(args.bundle, MANIFEST), encoding="utf-8") as file:
        wheels = json.load(file)["wheels"]
    paths = {
        kind: [os.path.join(args.bundle, "wheels", w["file"]) for w in wheels if w["installed"] == kind]
        for kind in (True, False)
    }
    sys.path[:0] = paths[False]
    sys.argv = ["installer", "--no-compile-bytecode", "--validate-record", "entries", *paths[True]]
    runpy.run_module("installer", run_name="__main__")


def state(prefix: str) -> dict[str, Any]:
    """What is installed below a prefix."""

    def release(link: str) -> str | None:
        try:
            return os.path.basename(os.readlink(os.path.join(prefix, link)))
        except OSError:
            return None

    current = release("current")
    found: dict[str, Any] = {"prefix": prefix, "current": current, "previous": release("previous")}
    try:
        with open(os.path.join(prefix, "current", MANIFEST), encoding="utf-8") as file:
            manifest = json.load(file)
        found |= {name: manifest[name] for name in ("version", "board", "os", "commit", "runtimes")}
        found |= {"release": manifest.get("release", 0), "expires": manifest.get("expires")}
    except (OSError, ValueError, KeyError):
        found |= {"version": None}
    try:
        found["trusted"] = [fingerprint(key) for key in read_keys(os.path.join(prefix, "etc", "trusted.pub"))]
    except BundleError:
        found["trusted"] = []
    try:
        found["highest"] = standing.highest(prefix)
        found["revoked"] = [fingerprint(key) for key in standing.revoked(prefix)]
    except BundleError:
        found |= {"highest": None, "revoked": None}
    found["confirmed"] = bool(current) and not os.path.lexists(os.path.join(prefix, "pending"))
    try:
        found["releases"] = sorted(n for n in os.listdir(os.path.join(prefix, "releases")) if not n.startswith("."))
    except OSError:
        found["releases"] = []
    return {**found, "notice": NOTICE}


def _status(args: argparse.Namespace) -> None:
    found = state(args.prefix)
    if args.json:
        print(json.dumps(found))
    elif found["current"] is None:
        print(f"nothing is installed in {args.prefix}")
    else:
        print(f"current:   {found['current']}" + ("" if found["confirmed"] else " (its health check has not ended)"))
        print(f"previous:  {found['previous'] or 'none'}")
        print(f"for:       {found.get('board')} with {found.get('os')}, from commit {found.get('commit')}")
        until = f"until {found['expires']}" if found.get("expires") else "for good"
        print(f"number:    {found.get('release')}, valid {until}")
        print(f"highest:   {found['highest']}: an older bundle is refused")
        print(f"trusts:    {', '.join(found['trusted']) or 'no key'}")
        if found["revoked"]:
            print(f"revoked:   {', '.join(found['revoked'])}")
        print(f"in:        {args.prefix}\n{NOTICE}")
    if found["current"] is None:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="helper.py", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: Any, *names: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name)
        made.set_defaults(run=run)
        for argument in names:
            made.add_argument(argument)
        return made

    made = command("unpack", _unpack, "source", "target")
    made.add_argument("--keys", action="append", default=[])
    made.add_argument("--fingerprint", default="")
    made.add_argument("--force-board", action="store_true")
    made.add_argument("--no-space-check", action="store_true")
    made.add_argument("--prefix", required=True)
    made.add_argument("--allow", action="append", default=[], choices=("downgrade", "expired"))
    command("keys-agree", _keys_agree, "given", "pinned", "prefix")
    command("adopt", _adopt, "prefix")
    command("require-signer", _require_signer, "prefix", "release")
    commands.add_parser("lock").set_defaults(run=_lock)
    commands.choices["lock"].add_argument("descriptor", type=int)
    command("link", _link, "target", "name")
    command("place", _place, "source", "target")
    command("rename", _rename, "source", "target")
    command("trim", _trim, "manifest", "folder")
    command("wheels", _wheels, "bundle")
    command("status", _status, "prefix").add_argument("--json", action="store_true")
    return parser


def _refuse(text: str) -> int:
    """One line, whatever a hostile bundle has for names."""
    print("edge-mdda:", "".join(c if c.isprintable() else "?" for c in text), file=sys.stderr)
    return 1


def main() -> int:
    args = _parser().parse_args()
    try:
        args.run(args)
    except BundleError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename or 'error'}: {error.strerror or error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
