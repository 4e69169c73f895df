"""What a person sees: the printed screening, colours and a progress bar, each only where it fits."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from edge_mdda import NOTICE

if TYPE_CHECKING:
    from edge_mdda.screening import Screening

BAR_CELLS = 24
PROGRESS_FROM = 4  # images; fewer are done before a bar is read
ADVICE_TEXT = {"refer": "REFER", "retake": "RETAKE", "routine": "no sign that asks for referral"}
COLOURS = {"refer": "\033[1;31m", "retake": "\033[1;33m", "routine": "\033[1;32m"}
RESET = "\033[0m"


def colour_wanted(stream: TextIO) -> bool:
    """Whether to colour: a terminal, and neither ``NO_COLOR`` nor ``TERM=dumb`` is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def bar(share: float, stream: TextIO, empty: bool = True) -> str:
    """A bar of ``BAR_CELLS`` cells, without its empty part if so wanted; ASCII where the stream knows no blocks."""
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    full, blank = ("█", "·") if encoding.startswith("utf") else ("#", ".")
    cells = round(share * BAR_CELLS)
    return full * cells + (blank * (BAR_CELLS - cells) if empty else "")


def print_screening(result: Screening, names: Mapping[str, str], malignant: tuple[str, ...], stream: TextIO) -> None:
    """Print one screening as text.

    ``names`` maps a label to its full name; ``malignant`` are the labels in the malignant share.
    """
    lines = [printable(result.image)]
    raw = result.raw_probabilities if result.purify else None
    width = max(len(f"{name} ({label})") for label, name in names.items())
    for label, share in sorted(result.probabilities.items(), key=lambda item: -item[1]):
        line = f"  {f'{names[label]} ({label})':<{width}} {share:6.1%} {bar(share, stream)}"
        lines.append(line + (f"  raw {raw[label]:6.1%}" if raw else ""))
    title = f"malignant share ({' + '.join(malignant)})"
    lines.append(f"  {title:<{width}} {result.malignant:6.1%}")
    if result.disagreement is None:
        view = "purified" if result.purify else "raw"
        lines.append(f"  only the {view} view was classified: tampering cannot be noticed")
    else:
        change = "another top class" if result.top_changed else "same top class"
        lines.append(f"  disagreement of raw and purified view: {result.disagreement:.3f} bit, {change}")
    if result.spread is not None and result.purify:
        spread, draws = result.spread, result.purify["draws"]
        same = round(spread["agreement"] * draws)
        lines.append(
            f"  {draws} draws of the purifier: malignant share +/- {spread['malignant']:.1%}, {same} say the same class"
        )
    action = ADVICE_TEXT[result.advice.action]
    if colour_wanted(stream):
        action = COLOURS[result.advice.action] + action + RESET
    lines.append(f"  advice: {action}, because {result.advice.rule}")
    measured = result.operating_point.get("test", {})
    if "sensitivity" in measured and "specificity" in measured:
        lines.append(
            f"  on its own test split this advice finds {measured['sensitivity']:.0%} of malignant lesions"
            f" and refers {1 - measured['specificity']:.0%} of the benign ones;"
        )
        lines.append("  in other clinics it misses more: see 'edge-mdda screen --help'")
    times = ", ".join(f"{stage} {value:.1f} ms" for stage, value in result.timings_ms.items())
    seed = f"; preset {result.purify['preset']}, seed {result.purify['seed']}" if result.purify else ""
    lines.append(f"  {times}{seed}")
    lines.append(f"  {NOTICE}")
    print("\n".join(lines), file=stream)


def print_summary(said: Mapping[str, int], not_judged: int, stream: TextIO) -> None:
    """One line that says how many pictures got which advice, and how many none."""
    parts = [f"{said.get(action, 0)} {text}" for action, text in ADVICE_TEXT.items()]
    print(f"edge-mdda: {', '.join(parts)}; {not_judged} not judged", file=stream)


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
