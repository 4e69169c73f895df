"""``edge-mdda`` under what its unit takes away from it: ``python restricted.py HOW [UNIT] ARGUMENTS``.

``mdwe``: the kernel's own ban (prctl PR_SET_MDWE, Linux 6.3 and later), which newer versions of systemd use.
``seccomp``: the filter that systemd puts in its place elsewhere.
``unit UNIT``: that filter, and the unit's ``SystemCallFilter`` and ``RestrictAddressFamilies``, expanded by
``systemd-analyze``.
``nothing``: for comparison.
``UNAVAILABLE`` is the exit status where this machine has no such thing.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import socket
import subprocess
import sys
from pathlib import Path

PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1  # linux/prctl.h
PROT_WRITE, PROT_EXEC, SHM_EXEC = 2, 4, 0o100000
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # seccomp.h: SCMP_ACT_ALLOW, SCMP_ACT_ERRNO
NOT_EQUAL, MASKED = 1, 7  # SCMP_CMP_NE, SCMP_CMP_MASKED_EQ
UNAVAILABLE = 77


class Argument(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class Filter:
    """A seccomp filter by libseccomp."""

    def __init__(self, default: int) -> None:
        try:
            self.library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        except OSError:
            sys.exit(UNAVAILABLE)
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(default)))

    def rule(self, action: int, name: str, *arguments: Argument) -> None:
        number = self.library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return  # this architecture has no such call
        array = (Argument * len(arguments))(*arguments)
        code = self.library.seccomp_rule_add_array(
            self.context, ctypes.c_uint32(action), number, ctypes.c_uint(len(arguments)), array
        )
        assert code in (0, -errno.EACCES, -errno.EEXIST), (name, code)  # EACCES: the default action

    def load(self) -> None:
        assert self.library.seccomp_load(self.context) == 0


def no_new_code(found: Filter) -> None:
    """What systemd's MemoryDenyWriteExecute= filters: src/shared/seccomp-util.c, seccomp_memory_deny_write_execute."""
    refuse = REFUSE | errno.EPERM
    both = PROT_WRITE | PROT_EXEC
    found.rule(refuse, "mmap", Argument(2, MASKED, both, both))
    for name in ("mprotect", "pkey_mprotect"):
        found.rule(refuse, name, Argument(2, MASKED, PROT_EXEC, PROT_EXEC))
    found.rule(refuse, "shmat", Argument(2, MASKED, SHM_EXEC, SHM_EXEC))


def calls(name: str) -> set[str]:
    """The system calls of a set such as ``@system-service``."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter", name], capture_output=True, text=True)
    if done.returncode:
        sys.exit(UNAVAILABLE)
    words = (line.strip() for line in done.stdout.splitlines()[1:])
    return {call for word in words if word and not word.startswith("#") for call in calls(word)}


def allowed_by(unit: Path) -> set[str]:
    """What the unit's SystemCallFilter leaves."""
    allowed = calls("@default")
    for line in unit.read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "SystemCallFilter":
            named = {call for name in value.removeprefix("~").split() for call in calls(name)}
            allowed = allowed - named if value.startswith("~") else allowed | named
    return allowed | calls("@default")


def restrict(how: str, unit: Path | None) -> None:
    """Take it away from this process, and make sure that it is gone."""
    if how == "mdwe":
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
            sys.exit(UNAVAILABLE)
    else:
        if unit is not None:
            # One filter for each, as in systemd: the strictest answer counts.
            by_name = Filter(REFUSE | errno.EPERM)
            for name in allowed_by(unit) | {"seccomp", "prctl"}:  # to load the other one
                by_name.rule(ALLOW, name)
            families = Filter(ALLOW)
            families.rule(REFUSE | errno.EAFNOSUPPORT, "socket", Argument(0, NOT_EQUAL, socket.AF_UNIX, 0))
            families.load()
            by_name.load()
        memory = Filter(ALLOW)
        no_new_code(memory)
        memory.load()
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except PermissionError:
        pass
    else:
        raise AssertionError("memory that is writable and executable can still be had")
    if unit is not None:
        try:
            socket.socket(socket.AF_INET)
        except OSError:
            return
        raise AssertionError("the network can still be reached")


def main(how: str, *arguments: str) -> int:
    unit = Path(arguments[0]) if how == "unit" else None
    if how != "nothing":
        restrict(how, unit)
    from edge_mdda.cli.main import main as edge_mdda

    return edge_mdda(arguments[1:] if unit else arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
