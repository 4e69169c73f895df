"""The station's side of the worker: started when needed, stopped when idle, replaced when it dies."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edge_mdda.errors import StationError
from edge_mdda.hardware.child_process import environment
from edge_mdda.station.pipe import receive, send

ANSWER_S = 120.0  # seconds; the slowest board with the largest picture needs a tenth
IDLE_S = 300.0  # seconds without a picture until the worker's memory is given back


class Judge:
    """Asks the worker, one question at a time.

    Parameters
    ----------
    options : mapping
        Arguments of :class:`edge_mdda.Screener` as plain values, with ``max_pixels`` and ``max_bytes``.
    answer_s, idle_s : float
        Seconds until a worker that does not answer is killed, and until an idle one is stopped.
    """

    def __init__(self, options: Mapping[str, Any], answer_s: float = ANSWER_S, idle_s: float = IDLE_S) -> None:
        self._options, self._answer_s, self._idle_s = dict(options), answer_s, idle_s
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._used = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._stop_when_idle, daemon=True, name="idle").start()

    @property
    def pid(self) -> int | None:
        """Process ID of the worker; None where none runs."""
        child = self._child
        return child.pid if child and child.poll() is None else None

    def try_ask(
        self, request: dict[str, Any], blobs: Sequence[bytes] = ()
    ) -> tuple[dict[str, Any], list[bytes]] | None:
        """Like :meth:`ask`, but None at once where the worker is busy."""
        if not self._lock.acquire(blocking=False):
            return None
        self._lock.release()
        return self.ask(request, blobs)

    def ask(self, request: dict[str, Any], blobs: Sequence[bytes] = ()) -> tuple[dict[str, Any], list[bytes]]:
        """The worker's answer to one request.

        Raises
        ------
        StationError
            The picture cannot be judged, or the worker died or took too long; one line that says what to do.
        """
        with self._lock:
            if self._closed.is_set():
                raise StationError("the station is stopping: try again when it runs")
            child = self._running()
            header, answers = self._exchange(child, request, blobs)
            self._used = time.monotonic()
        if "error" in header:
            raise StationError(header["error"])
        return header, answers

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child and self._child.poll() is None:
            return self._child
        self._end()
        self._child = subprocess.Popen(
            [
                sys.executable,
                *(["-I"] if sys.flags.isolated else []),
                "-m",
                "edge_mdda.station.worker",
                json.dumps(self._options),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            start_new_session=True,  # Ctrl-C on the terminal stops the station, and the station its worker
        )
        header, _ = self._exchange(self._child, None, ())
        if "error" in header:
            self._end()
            raise StationError(header["error"])
        return self._child

    def _exchange(
        self, child: subprocess.Popen[bytes], request: dict[str, Any] | None, blobs: Sequence[bytes]
    ) -> tuple[dict[str, Any], list[bytes]]:
        """One request and its answer; None only waits for a message."""
        assert child.stdin and child.stdout
        late = threading.Event()

        def kill() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(self._answer_s, kill)
        timer.start()
        try:
            if request is not None:
                send(child.stdin, request, blobs)
            message = receive(child.stdout)
            if message is None:
                raise EOFError
            return message
        except (OSError, EOFError, ValueError, KeyError):
            child.kill()
            status = child.wait()
            self._end()
            if late.is_set():
                why = f"gave no answer within {self._answer_s:g} s"
            elif status == -signal.SIGKILL:
                why = "was killed, perhaps because the memory ran out"
            else:
                why = "stopped"
            raise StationError(f"the program that judges pictures {why}: the picture is kept, judge it again") from None
        finally:
            timer.cancel()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for stream in (child.stdin, child.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()  # the worker ends when its input does
        try:
            child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _stop_when_idle(self) -> None:
        while not self._closed.wait(min(self._idle_s, 10)):
            if self._child and time.monotonic() - self._used > self._idle_s and self._lock.acquire(blocking=False):
                try:
                    self._end()
                finally:
                    self._lock.release()

    def close(self) -> None:
        """Stop the worker."""
        self._closed.set()
        child = self._child
        if child and not self._lock.acquire(timeout=1):
            child.kill()  # whoever waits for it gets an answer
            return
        with contextlib.suppress(RuntimeError):
            self._end()
            self._lock.release()
