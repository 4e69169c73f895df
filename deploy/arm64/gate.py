"""The door into an emulated board: ``python gate.py ORDERS``, which are one JSON object.

Runs one ARM64 program under QEMU's user-mode emulation inside a Debian root, in namespaces of its own: its processes
end with it, its mounts are seen by nobody else, and its only network is a loopback that leads nowhere.  The kernel is
told about ARM64 programs inside the user namespace alone (Linux 6.7), so nothing is registered for the rest of the
machine.  A program of its own because threads forbid a user namespace; needs only the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

FAILED = 125  # exit status for "the gate itself failed", as in env(1) and chroot(1)
GATE_ERROR, START_ERROR = "gate: ", "start: "

# linux/sched.h
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
# linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h

DEVICES = ("null", "zero", "full", "random", "urandom")
STANDARD_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
BINFMT = "/proc/sys/fs/binfmt_misc"

ELF_MAGIC = b"\x7fELF\x02\x01\x01\x00" + bytes(8) + b"\x02\x00\xb7\x00"
"""64 bit, little endian, executable, EM_AARCH64 (ELF-64 object file format; machine number 183)."""
ELF_MASK = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + b"\xfe\xff\xff\xff"
"""Any operating system's ABI; executables (2) and shared objects (3) alike."""


class _GateError(Exception):
    """One line that says what could not be set up."""


_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> None:
    if result:
        raise _GateError(f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(source: str | None, target: Path, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    fields = [None if text is None else os.fsencode(text) for text in (source, str(target), kind, data)]
    result = _libc.mount(fields[0], fields[1], fields[2], ctypes.c_ulong(flags), fields[3])
    _call(f"cannot mount {kind or source or 'over'} on {target}", result)


def _bind(source: str, target: Path, read_only: bool = False) -> None:
    _mount(source, target, None, MS_BIND)
    if read_only:
        _mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def _identity_map(name: str) -> str:
    """This namespace's users or groups, each as itself; without root only the caller, who becomes root."""
    if os.geteuid():
        return f"0 {os.geteuid() if name == 'uid' else os.getegid()} 1"
    lines = (line.split() for line in Path(f"/proc/self/{name}_map").read_text().splitlines())
    return "\n".join(f"{inside} {inside} {count}" for inside, _, count in lines)


def _enter_namespaces() -> None:
    """New namespaces for this process; a helper outside of them writes its user map, which takes rights outside."""
    maps = {name: _identity_map(name) for name in ("uid", "gid")}
    me = os.getpid()
    wait_in, go_out = os.pipe()
    helper = os.fork()
    if helper == 0:
        status = 1
        with contextlib.suppress(OSError):
            os.close(go_out)
            if os.read(wait_in, 1):
                if os.geteuid():
                    Path(f"/proc/{me}/setgroups").write_text("deny")
                for name, text in maps.items():
                    Path(f"/proc/{me}/{name}_map").write_text(text)
                status = 0
        os._exit(status)
    os.close(wait_in)
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    try:
        _call("cannot make namespaces", _libc.unshare(flags))
        os.write(go_out, b"!")
    finally:
        os.close(go_out)
        _, status = os.waitpid(helper, 0)
    if status:
        raise _GateError("cannot map users into the namespace")


def _loopback_up() -> None:
    """A board without a network still has its loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _register_emulator(emulator: str) -> None:
    """ARM64 programs start in ``emulator``: opened now (F), so that it need not exist in the root."""
    escaped = ("".join(f"\\x{byte:02x}" for byte in field) for field in (ELF_MAGIC, ELF_MASK))
    _mount("binfmt_misc", Path(BINFMT), "binfmt_misc")
    magic, mask = escaped
    try:
        Path(BINFMT, "register").write_text(f":edge-mdda-aarch64:M::{magic}:{mask}:{emulator}:OF\n")
    except OSError as error:
        raise _GateError(f"cannot register {emulator} for ARM64 programs: {error.strerror}") from error


def _furnish(root: Path, orders: dict[str, Any]) -> None:
    """Mount what the board shows below ``root``: proc, dev, sys and the folders lent to it."""
    _mount(None, Path("/"), None, MS_REC | MS_PRIVATE)
    _mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV)
    _bind(orders["cpuinfo"], root / "proc/cpuinfo", read_only=True)

    _mount("tmpfs", root / "dev", "tmpfs", MS_NOSUID, "mode=755,size=1M")
    for name in DEVICES:
        (root / "dev" / name).touch()
        _bind(f"/dev/{name}", root / "dev" / name)
    for name, target in STANDARD_LINKS.items():
        (root / "dev" / name).symlink_to(target)
    (root / "dev/shm").mkdir()
    _mount("tmpfs", root / "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=256M")

    _mount("tmpfs", root / "sys", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1M")  # not this machine's hardware
    for name, text in orders["sysfs"].items():
        file = root / "sys" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    _mount(None, root / "sys", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    _mount("tmpfs", root / "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16M")

    for source, target in orders["lent"].items():
        place = root / target.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        _bind(source, place, read_only=True)


def _become_board(orders: dict[str, Any]) -> NoReturn:
    command = orders["command"]
    try:
        os.chroot(orders["root"])
        os.chdir(orders["folder"])
        os.umask(0o022)
        for number in (signal.SIGPIPE, signal.SIGINT):  # what Python changed
            signal.signal(number, signal.SIG_DFL)
        os.execve(command[0], command, orders["environment"])
    except OSError as error:
        print(f"{START_ERROR}{command[0]} in {orders['folder']}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(FAILED)


def _first_process(orders: dict[str, Any], report: int) -> NoReturn:
    """Process 1 of the board: starts the program, buries orphans, reports the program's end, and all end with it."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        socket.sethostname(orders["hostname"])
        _loopback_up()
        _furnish(Path(orders["root"]), orders)
        _register_emulator(orders["emulator"])
        program = os.fork()  # not process 1 itself: that one would ignore the signal that it dies of
        if program == 0:
            _become_board(orders)
        while True:
            ended, status = os.wait()
            if ended == program:
                os.write(report, struct.pack("i", status))
                os._exit(0)
    except (_GateError, OSError) as error:
        print(f"{GATE_ERROR}{error}", file=sys.stderr, flush=True)
        os._exit(FAILED)


def main() -> int:
    """Run the program as ordered, end as it ended (of the same signal, too)."""
    orders = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a program that dies of a signal is expected here
    try:
        _enter_namespaces()
    except _GateError as error:
        print(f"{GATE_ERROR}{error}", file=sys.stderr)
        return FAILED
    report_in, report_out = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(report_in)
        _first_process(orders, report_out)
    os.close(report_out)
    os.waitpid(first, 0)
    report = os.read(report_in, 4)
    if len(report) < 4:
        return FAILED
    status = os.waitstatus_to_exitcode(struct.unpack("i", report)[0])
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other handler anyway
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
