"""Programs in an emulated board: what this machine needs for it, and one call that runs one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.arm64 import gate
from deploy.arm64.cpus import Cpu
from deploy.arm64.errors import BenchError, UnavailableError
from edge_mdda.hardware.child_process import SIGNALS

EMULATOR = "qemu-aarch64-static"
INSTALL_EMULATOR = "install Debian's qemu-user-static"
COMMAND_TIMEOUT_S = 600.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TAIL_LINES = 8


@dataclass(frozen=True)
class Done:
    """One program's end."""

    command: tuple[str, ...]
    status: int
    """Exit status; negative: the signal that ended it."""
    stdout: str
    stderr: str

    @property
    def fate(self) -> str:
        """How it ended, in words; an illegal instruction that a shell reports counts as one, too."""
        number = -self.status if self.status < 0 else self.status - 128
        if number in SIGNALS:
            return SIGNALS[signal.Signals(number)]
        return f"it ended with status {self.status}"

    def tail(self, lines: int = TAIL_LINES) -> list[str]:
        """The last lines that it printed."""
        return [*self.stdout.splitlines(), *self.stderr.splitlines()][-lines:]


@dataclass(frozen=True)
class Board:
    """An emulated board: a root, a CPU and what the system shows of them.

    Attributes
    ----------
    root : Path
        Folder with an ARM64 Debian.
    cpu : Cpu
        What QEMU emulates: other instructions stop a program.
    cores : int
        Processors that the system shows.
    model : str
        What the device tree says.
    lent : mapping of str to str
        Folders of this machine and where the board sees them, read-only.
    """

    root: Path
    cpu: Cpu
    cores: int = 4
    model: str = ""
    lent: Mapping[str, str] = field(default_factory=dict)

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        folder: str = "/",
        timeout: float = COMMAND_TIMEOUT_S,
    ) -> Done:
        """Run a program of the root and wait for its end; no process outlives it.

        Parameters
        ----------
        command : sequence of str
            The program by its whole path, as the board sees it, and its arguments.
        stdin : bytes
            What it reads.
        environment : mapping of str to str, optional
            Beyond a login's. Nothing of this machine's environment reaches the board.
        folder : str
            Where it starts.
        timeout : float
            Seconds.

        Raises
        ------
        UnavailableError
            This machine lacks something that emulation needs.
        BenchError
            The program cannot be started at all, or took too long.
        """
        with tempfile.NamedTemporaryFile("w", prefix="cpuinfo-") as cpuinfo:
            cpuinfo.write(self.cpu.cpuinfo(self.cores))
            cpuinfo.flush()
            orders = {
                "root": str(self.root),
                "command": list(command),
                "environment": self._environment(environment or {}),
                "folder": folder,
                "emulator": find_emulator(),
                "cpuinfo": cpuinfo.name,
                "hostname": "board",
                "sysfs": self._sysfs(),
                "lent": dict(self.lent),
            }
            try:
                done = subprocess.run(
                    [sys.executable, "-I", gate.__file__, json.dumps(orders)],
                    input=stdin,
                    capture_output=True,
                    timeout=timeout,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise BenchError(f"{' '.join(command)}: no end within {timeout:g} s of emulation") from error
        stderr = done.stderr.decode(errors="replace")
        if done.returncode == gate.FAILED and stderr.startswith(gate.START_ERROR):
            raise BenchError(f"the board cannot start {stderr.removeprefix(gate.START_ERROR).strip()}")
        if done.returncode == gate.FAILED and stderr.startswith(gate.GATE_ERROR):
            raise UnavailableError(
                f"{stderr.removeprefix(gate.GATE_ERROR).strip()}: an ARM64 root needs Linux 6.7 with user namespaces"
                " and binfmt_misc, and the right to use them (root has it, where no container forbids it)"
            )
        return Done(tuple(command), done.returncode, done.stdout.decode(errors="replace"), stderr)

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        login = {"HOME": "/root", "PATH": PATH, "LANG": "C.UTF-8", "TMPDIR": "/tmp"}
        return {**login, **more, "QEMU_CPU": self.cpu.name}

    def _sysfs(self) -> dict[str, str]:
        """Files of /sys that runtimes and the doctor read; the rest of this machine's is none of the board's."""
        last = self.cores - 1
        span = f"0-{last}\n" if last else "0\n"
        files = {f"devices/system/cpu/{name}": span for name in ("possible", "present", "online")}
        if self.model:
            files["firmware/devicetree/base/model"] = f"{self.model}\0"
        return files


def find_emulator() -> str:
    """Path of QEMU's static user-mode emulator.

    Raises
    ------
    UnavailableError
        It is not installed.
    """
    found = shutil.which(EMULATOR)
    if not found:
        raise UnavailableError(f"no {EMULATOR} here: {INSTALL_EMULATOR}")
    return os.path.realpath(found)


def require_emulation(board: Board) -> None:
    """Start a program of the root, or say why this machine cannot.

    Raises
    ------
    UnavailableError
        As said there.
    """
    done = board.run(["/usr/bin/uname", "-m"])
    if done.stdout.strip() != "aarch64":
        raise UnavailableError(f"the emulator does not run ARM64 programs: {' '.join(done.tail(1)) or done.fate}")


def emulator_version() -> str:
    """``qemu-aarch64 version 7.2.22``.

    Raises
    ------
    UnavailableError
        It is not installed or does not run here.
    """
    try:
        done = subprocess.run([find_emulator(), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(f"{EMULATOR} does not run here ({error}): {INSTALL_EMULATOR}") from error
    return done.stdout.partition(" (")[0].splitlines()[0]
