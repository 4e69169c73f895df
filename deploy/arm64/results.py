"""What a check found, as rows of a table for people and as plain values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from deploy.arm64.enter import Done
from edge_mdda.console import RESET, colour_wanted, printable
from edge_mdda.diagnostics.finding import FAILED, OK, UNKNOWN

COLOURS = {OK: "\033[32m", FAILED: "\033[1;31m", UNKNOWN: "\033[2m"}
TAIL_LINES = 6  # of a failed program's output
MAX_LINE = 400  # characters
NAME_WIDTH = 27  # columns; rows are printed as they come


@dataclass(frozen=True)
class Result:
    """One check on one board.

    Attributes
    ----------
    name : str
        What was checked.
    status : {'ok', 'failed', 'unknown'}
        ``unknown``: it could not be tried on this machine; the text says why.
    text : str
        What was seen.
    command : tuple of str
        What ran on the board; empty if nothing did.
    output : tuple of str
        The last lines that it printed, of a failed check.
    """

    name: str
    status: str
    text: str
    command: tuple[str, ...] = ()
    output: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def judged(name: str, good: bool, text: str, done: Done | None = None) -> Result:
    """A result; a failed one keeps command, end and last lines of the program that failed."""
    if good:
        return Result(name, OK, text, done.command if done else ())
    if done is None:
        return Result(name, FAILED, text)
    tail = tuple(printable(line)[:MAX_LINE] for line in done.tail(TAIL_LINES))
    return Result(name, FAILED, f"{text}: {done.fate}" if done.status else text, done.command, tail)


def all_passed(results: Sequence[Result]) -> bool:
    """Whether something was checked and nothing failed."""
    return bool(results) and all(result.status != FAILED for result in results)


def print_result(result: Result, stream: TextIO) -> None:
    """One row; below a failed one its command and the end of its output."""
    label = f"{result.status:<7}"
    if colour_wanted(stream):
        label = COLOURS[result.status] + label + RESET
    lines = [f"  {label}  {result.name:<{NAME_WIDTH}}  {printable(result.text)}"]
    if result.status == FAILED and result.command:
        lines.append(f"           $ {printable(' '.join(result.command))}")
        lines += [f"           | {line}" for line in result.output]
    print("\n".join(lines), file=stream, flush=True)
