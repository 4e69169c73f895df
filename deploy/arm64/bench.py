"""One board under test: what the checks share, and the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.arm64.enter import Board, Done
from deploy.arm64.errors import BenchError, UnavailableError
from deploy.arm64.results import Result, judged

EXCHANGE = "/root/bench"
"""Folder on the board for pictures that go in and out."""


@dataclass
class Bench:
    """An emulated board with, once installed, the program on it.

    Attributes
    ----------
    board : Board
    runtimes : tuple of str
        That the bundle carries: each has to work.
    bundle : Path
        The archive to install.
    program : str
        Path of ``edge-mdda`` on the board; empty until it is installed.
    """

    board: Board
    runtimes: tuple[str, ...]
    bundle: Path
    program: str = ""

    def edge_mdda(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Run the installed program on the board."""
        if not self.program:
            raise BenchError("not tried: the program is not installed")
        folder = Path("/") / self.exchange.relative_to(self.board.root)
        return self.board.run([self.program, *arguments], stdin=stdin, folder=str(folder))

    @property
    def exchange(self) -> Path:
        """The exchange folder as this machine sees it."""
        folder = self.board.root / EXCHANGE.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        return folder


Check = Callable[[Bench], Iterator[Result]]


def run_checks(
    bench: Bench, checks: dict[str, Check], on_result: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Run checks in order; one that cannot go on is a failed result, and the next is tried.

    Raises
    ------
    UnavailableError
        This machine cannot emulate a board.
    """
    results: list[Result] = []
    for name, check in checks.items():
        try:
            for result in check(bench):
                results.append(result)
                on_result(result)
        except UnavailableError:
            raise
        except (BenchError, OSError) as error:
            results.append(judged(name, False, " ".join(str(error).split())))
            on_result(results[-1])
    return results


def chosen(checks: dict[str, Check], names: Sequence[str]) -> dict[str, Check]:
    """Those checks, in their own order.

    Raises
    ------
    BenchError
        There is none of that name.
    """
    unknown = [name for name in names if name not in checks]
    if unknown:
        raise BenchError(f"no check {unknown[0]!r}: choose from {', '.join(checks)}")
    return {name: check for name, check in checks.items() if name in names}
