"""What the tests of ``edge-mdda watch`` share: real processes on a folder, and the manager of a service."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT

from edge_mdda.models import DEMO_IMAGE

CHILD = Path(__file__).parent / "watch_child.py"
PATIENCE_S = 90.0  # for what must happen at some time; no test says how fast
WATCHDOG_S = 4.0
CHILDREN: list[subprocess.Popen[str]] = []


def options(folder: Path, model: Path, *more: object) -> list[str]:
    own = ["watch", "--model", model, "--purify", "off", "--settle", 0, "--poll", 0.05, "--json", *more, folder]
    return list(map(str, own))


def started(what: object, value: object, arguments: list[str], **more: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}  # type: ignore[dict-item]
    child: subprocess.Popen[str] = subprocess.Popen(
        [sys.executable, str(CHILD), str(what), str(value), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **more,  # type: ignore[call-overload]
    )
    CHILDREN.append(child)
    return child


def end_children() -> None:
    """Kill the processes that a failed test left behind."""
    while CHILDREN:
        child = CHILDREN.pop()
        if child.poll() is None:
            child.kill()
            child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def ended(child: subprocess.Popen[str]) -> tuple[int, str, list[str]]:
    """Status, standard output, and what the program itself said on standard error."""
    out, said = child.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("edge-mdda: ") and "watched," not in line]
    return child.returncode, out, lines


def once(folder: Path, model: Path, what: object = "none", value: object = 0) -> tuple[int, str, list[str]]:
    return ended(started(what, value, options(folder, model, "--once")))


def until(true: object, child: subprocess.Popen[str] | None = None) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + PATIENCE_S
    while not true():  # type: ignore[operator]
        assert time.monotonic() < ends, "it never happened"
        assert child is None or child.poll() is None, child.communicate()
        time.sleep(0.02)


def drop(folder: Path, name: str, content: bytes | None = None) -> bytes:
    """Put a file there at once."""
    content = DEMO_IMAGE.read_bytes() if content is None else content
    hidden = folder / ".being-written"
    hidden.write_bytes(content)
    hidden.rename(folder / name)
    return content


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def results(folder: Path) -> dict[str, dict]:
    """Every JSON by its place; each must be whole. One that was dropped as an image has a JSON of its own."""
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())
        for name in ("done", "failed")
        for path in (folder / name).glob("*.json")
        if not path.with_name(f"{path.name}.json").exists()
    }


class Manager:
    """What systemd is for a service: a socket for its messages, and a watchdog."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        self.said: list[str] = []

    def hear(self, seconds: float) -> str | None:
        """The next message, or None after so long a silence."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return None
        self.said.append(self.socket.recv(4096).decode())
        return self.said[-1]

    def wait_for(self, beginning: str) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not (self.hear(PATIENCE_S) or "").startswith(beginning):
            assert time.monotonic() < ends, self.said
