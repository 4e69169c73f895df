"""Python child processes: what may crash (a runtime, a kernel) runs in one, and its death becomes one line of text."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MAX_ERRORS = 1 << 16  # bytes of a child's standard error that are looked at, from its end
MAX_LINE = 300  # characters of it that are shown
SIGNALS = {
    signal.SIGILL: "it uses an instruction that this CPU lacks (SIGILL)",
    signal.SIGSEGV: "it crashed (SIGSEGV)",
    signal.SIGBUS: "it crashed (SIGBUS)",
    signal.SIGABRT: "it aborted (SIGABRT)",
    signal.SIGFPE: "it crashed (SIGFPE)",
    signal.SIGKILL: "it was killed (SIGKILL): perhaps the memory ran out",
}


class ChildError(Exception):
    """A child process gave no answer; the message is one line that says what became of it."""


def environment() -> dict[str, str]:
    """The environment for a child: this package can be imported, and whatever came first on the path still does."""
    package = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{package}" if path else package}


def no_core_dump() -> None:
    """For a child that may crash: its memory image must not fill an SD card."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _Watch:
    """Kills a child that takes too long or falls silent; either limit may be None."""

    def __init__(self, kill: Callable[[], None], timeout: float | None, silence: float | None) -> None:
        self.expired = ""
        """Why the child was killed, in words; empty while it was not."""
        self._kill, self._timeout, self._silence = kill, timeout, silence
        self._began = self._heard = time.monotonic()
        self._ended = threading.Event()
        if timeout is not None or silence is not None:
            threading.Thread(target=self._run, daemon=True).start()

    def heard(self) -> None:
        """The child is alive."""
        self._heard = time.monotonic()

    def end(self) -> None:
        """Watch no longer."""
        self._ended.set()

    def _deadline(self) -> tuple[float, str]:
        limits = []
        if self._timeout is not None:
            limits.append((self._began + self._timeout, f"no answer within {self._timeout:g} s"))
        if self._silence is not None:
            limits.append((self._heard + self._silence, f"no sign of life for {self._silence:g} s"))
        return min(limits)

    def _run(self) -> None:
        while not self._ended.wait(max(0.0, self._deadline()[0] - time.monotonic())):
            when, why = self._deadline()  # it may have moved meanwhile
            if when <= time.monotonic():
                self.expired = why
                self._kill()
                return


def run_module(
    module: str,
    arguments: Sequence[str] = (),
    timeout: float | None = None,
    on_line: Callable[[dict[str, Any]], None] | None = None,
    silence: float | None = None,
) -> dict[str, Any]:
    """Run ``python -m module`` and return the last JSON object that it prints.

    Parameters
    ----------
    module : str
        A module with a ``__main__`` part.
    arguments : sequence of str
        Its command line.
    timeout : float, optional
        Seconds after which the child is killed.
    on_line : callable, optional
        Called with every JSON object, as they arrive, the last one included.
    silence : float, optional
        Seconds without a line after which the child is killed.

    Raises
    ------
    ChildError
        It crashed, failed, took too long or printed no JSON object.
    """
    answer: dict[str, Any] | None = None
    with (
        tempfile.TemporaryFile() as errors,  # not a pipe: a chatty library would fill it while its other end is unread
        subprocess.Popen(
            # Isolated like this process: `-m` would look into the current folder first, whoever may write there.
            [sys.executable, *(["-I"] if sys.flags.isolated else []), "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(),
            text=True,
            errors="replace",
        ) as child,
    ):
        watch = _Watch(child.kill, timeout, silence)
        try:
            assert child.stdout is not None
            for line in child.stdout:
                watch.heard()
                if line.startswith("{"):
                    with contextlib.suppress(ValueError):  # a library may print to standard output, too
                        answer = json.loads(line)
                        if on_line:
                            on_line(answer)
            status = child.wait()
        finally:
            watch.end()
            child.kill()  # an interrupted parent leaves no child behind; one that has ended is not touched
        if watch.expired:
            raise ChildError(watch.expired)
        if status:
            raise ChildError(_fate(status, _tail(errors)))
    if answer is None:
        raise ChildError("it ended without an answer")
    return answer


def _tail(errors: Any) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - MAX_ERRORS))
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:MAX_LINE] if lines else ""


def _fate(status: int, last_line: str) -> str:
    """What an exit status and the last line on standard error say."""
    if status >= 0:
        return last_line or f"it ended with status {status}"
    try:
        name = SIGNALS.get(signal.Signals(-status)) or f"it was ended by {signal.Signals(-status).name}"
    except ValueError:
        name = f"it was ended by signal {-status}"
    return name
