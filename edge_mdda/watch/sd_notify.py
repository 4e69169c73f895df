"""Messages to the service manager: ready, alive, what is going on. sd_notify(3) without its library.

By hand, because the protocol is one datagram, and python-systemd needs a C compiler and headers on the board.

A watchdog that a thread of its own keeps quiet says nothing about the work. This one is fed by the loop that does it:
a classifier that hangs stops the feeding, and the service manager starts the service again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socket import socket

FEEDS = 4  # in the time that the watchdog allows; sd_watchdog_enabled(3) asks for at least 2


class Notifier:
    """Speaks to the service manager; silent where there is none.

    Parameters
    ----------
    environ : mapping
        ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are read, as systemd sets them.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._socket: socket | None = None
        self._status = ""
        self._fed = 0.0
        self._interval = self._watchdog(environ) / FEEDS
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]  # an abstract socket

    @staticmethod
    def _watchdog(environ: Mapping[str, str]) -> float:
        """Seconds that the watchdog allows; 0 without one."""
        try:
            if int(environ.get("WATCHDOG_PID") or os.getpid()) != os.getpid():
                return 0.0
            return max(0, int(environ.get("WATCHDOG_USEC") or 0)) / 1e6
        except ValueError:
            return 0.0

    def _send(self, message: str) -> None:
        if not self._address:
            return
        import socket  # here: without a service manager nobody needs it

        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.connect(self._address)
            self._socket.send(message.encode(errors="replace"))
        except OSError:  # the service manager restarts itself now and then: the next message tries anew
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def ready(self) -> None:
        """The model is open and the folder is watched."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The current image is finished, then comes the end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; sent when it changes."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={' '.join(text.split())}")

    def alive(self) -> None:
        """The loop has got on; call it often, it sends as seldom as it may."""
        now = time.monotonic()
        if self._interval and now - self._fed >= self._interval:
            self._fed = now
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
