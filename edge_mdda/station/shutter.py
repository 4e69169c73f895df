"""The button on a camera, where the kernel shows it as an input device with the key KEY_CAMERA."""

from __future__ import annotations

import os
import re
import select
import struct
import threading
from pathlib import Path

EVENT = struct.Struct("llHHi")  # struct input_event: seconds, microseconds, type, code, value
EV_KEY, KEY_CAMERA, PRESSED = 1, 212, 1  # linux/input-event-codes.h
WORD_BITS = struct.calcsize("l") * 8  # of a word in /proc/bus/input/devices
LOOK_AGAIN_S = 3.0  # seconds; a camera may be plugged in later


def buttons(root: Path = Path("/")) -> list[Path]:
    """Event devices that have a camera's button."""
    try:
        text = (root / "proc/bus/input/devices").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for block in text.split("\n\n"):
        keys = re.search(r"^B: KEY=([0-9a-f ]+)$", block, re.MULTILINE)
        handler = re.search(r"^H: Handlers=.*\b(event\d+)", block, re.MULTILINE)
        if keys and handler and _has(keys[1].split(), KEY_CAMERA):
            found.append(root / "dev/input" / handler[1])
    return found


def _has(words: list[str], key: int) -> bool:
    """Whether a bit is set in a bitmap whose last word holds the lowest bits."""
    word, bit = divmod(key, WORD_BITS)
    return word < len(words) and bool(int(words[-1 - word], 16) >> bit & 1)


class Shutter:
    """Counts how often a camera's button was pressed."""

    def __init__(self, root: Path = Path("/"), look_again_s: float = LOOK_AGAIN_S) -> None:
        self.pressed = 0
        self._root, self._look_again_s = root, look_again_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="shutter")
        self._thread.start()

    def close(self) -> None:
        """Listen no longer."""
        self._closed.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closed.is_set():
            opened = []
            for path in buttons(self._root):
                try:
                    opened.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                except OSError:
                    continue  # not permitted: the space bar and the page's button remain
            try:
                self._listen(opened)
            finally:
                for descriptor in opened:
                    os.close(descriptor)
            self._closed.wait(self._look_again_s)

    def _listen(self, opened: list[int]) -> None:
        """Until a device goes away."""
        while opened and not self._closed.is_set():
            ready, _, _ = select.select(opened, [], [], 0.2)
            for descriptor in ready:
                try:
                    content = os.read(descriptor, EVENT.size * 64)
                except OSError:  # unplugged
                    return
                if not content:
                    return
                for _, _, kind, code, value in EVENT.iter_unpack(content[: len(content) // EVENT.size * EVENT.size]):
                    self.pressed += (kind, code, value) == (EV_KEY, KEY_CAMERA, PRESSED)
