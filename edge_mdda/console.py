"""Colours, bars, progress and complaints on a terminal, each only where it fits."""

from __future__ import annotations

import os
import sys
from typing import TextIO

BAR_CELLS = 24
PROGRESS_FROM = 4  # images; fewer are done before a bar is read
RESET = "\033[0m"


def colour_wanted(stream: TextIO) -> bool:
    """Whether to colour: a terminal, and neither ``NO_COLOR`` nor ``TERM=dumb`` is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def bar(share: float, stream: TextIO, empty: bool = True, most: int = BAR_CELLS) -> str:
    """A bar of ``most`` cells, without its empty part if so wanted; ASCII where the stream knows no blocks."""
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    full, blank = ("█", "·") if encoding.startswith("utf") else ("#", ".")
    cells = round(share * most)
    return full * cells + (blank * (most - cells) if empty else "")


def printable(text: str) -> str:
    """A file name without control characters or lone surrogates, so that it cannot steer the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Progress:
    """A bar on standard error while several images are screened; silent unless that is a terminal."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.active = total >= PROGRESS_FROM and sys.stderr.isatty()

    def step(self) -> None:
        """One more image is done."""
        self.done += 1
        self._draw()

    def at(self, done: int) -> None:
        """So many are done; draws only what has changed."""
        if done != self.done:
            self.done = done
            self._draw()

    def _draw(self) -> None:
        if self.active:
            cells = bar(self.done / self.total, sys.stderr)
            print(f"\r{cells} {self.done}/{self.total}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the bar, before something else is printed or at the end."""
        if self.active:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def complain(subject: str, cause: object) -> None:
    """One line on standard error, whatever the message holds."""
    print(f"edge-mdda: {printable(subject)}: {printable(' '.join(str(cause).split()))}", file=sys.stderr)
