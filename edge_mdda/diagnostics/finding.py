"""One thing that ``edge-mdda doctor`` found, and a table of them."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TextIO

from edge_mdda import NOTICE
from edge_mdda.console import RESET, colour_wanted, printable

OK, WARNING, FAILED, UNKNOWN = "ok", "warning", "failed", "unknown"
STATUSES = (OK, WARNING, FAILED, UNKNOWN)
COLOURS = {OK: "\033[32m", WARNING: "\033[33m", FAILED: "\033[1;31m", UNKNOWN: "\033[2m"}
WIDEST, NARROWEST = 110, 60  # columns of the table


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was seen and what to do.

    Attributes
    ----------
    name : str
        What was looked at.
    status : {'ok', 'warning', 'failed', 'unknown'}
        ``failed``: this board is not fit to screen. ``unknown``: it cannot be told here.
    value : str
        What was seen.
    advice : str
        One line that says what to do; empty if all is well.
    """

    name: str
    status: str
    value: str
    advice: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status: expected one of {', '.join(STATUSES)}, got {self.status!r}")
        for field in ("value", "advice"):  # both may hold what a file or a library says
            object.__setattr__(self, field, printable(" ".join(getattr(self, field).split())))

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return asdict(self)


def is_fit(findings: Sequence[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.status != FAILED for finding in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """One line for people."""
    failed = [finding.name for finding in findings if finding.status == FAILED]
    warned = [finding.name for finding in findings if finding.status == WARNING]
    text = f"NOT fit to screen: {', '.join(failed)}" if failed else "fit to screen"
    return text + (f"; look at: {', '.join(warned)}" if warned else "")


def print_table(findings: Sequence[Finding], stream: TextIO) -> None:
    """Status, name and value, the advice below it, and the verdict."""
    width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))
    name_width = max((len(finding.name) for finding in findings), default=0)
    indent = " " * (len("unknown  ") + name_width + 2)
    coloured = colour_wanted(stream)
    lines = []
    for finding in findings:
        label = f"{finding.status:<7}"
        if coloured:
            label = COLOURS[finding.status] + label + RESET
        value = textwrap.wrap(finding.value, width - len(indent)) or [""]
        lines.append(f"{label}  {finding.name:<{name_width}}  {value[0]}")
        lines += [indent + part for part in value[1:]]
        lines += textwrap.wrap(finding.advice, width, initial_indent=indent + "-> ", subsequent_indent=indent + "   ")
    text = verdict(findings)
    if coloured:
        text = COLOURS[OK if is_fit(findings) else FAILED] + text + RESET
    print("\n".join([*lines, "", text, NOTICE]), file=stream)
