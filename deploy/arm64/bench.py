"""One board under test: what the checks share, and the order in which they run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deploy.arm64.enter import Board, Done
from deploy.arm64.errors import BenchError, UnavailableError
from deploy.arm64.results import Result, judged
from edge_mdda.diagnostics.finding import UNKNOWN
from edge_mdda.errors import EdgeMddaError

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
    bundle, public_key : Path
        The archive to install and the key that it must be signed with.
    program : str
        Path of ``edge-mdda`` on the board; empty until it is installed.
    """

    board: Board
    runtimes: tuple[str, ...]
    bundle: Path
    public_key: Path
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
    bench: Bench,
    first: dict[str, Check],
    then: dict[str, Check],
    on_result: Callable[[Result], None] = lambda result: None,
    jobs: int = 1,
) -> list[Result]:
    """Run checks; one that cannot go on is a failed result, and the others are still tried.

    Parameters
    ----------
    bench : Bench
    first : dict of str to check
        Run in this order; one of them installs the program.
    then : dict of str to check
        Those that need it and do not need each other.
    on_result : callable
        Called with each result as it comes, never by two threads at once.
    jobs : int
        How many of the latter run at a time.

    Returns
    -------
    list of Result
        In the order of the checks.

    Raises
    ------
    UnavailableError
        This machine cannot emulate a board.
    """
    announcing = threading.Lock()

    def run(item: tuple[str, Check]) -> list[Result]:
        name, check = item
        found: list[Result] = []

        def add(result: Result) -> None:
            found.append(result)
            with announcing:
                on_result(result)

        try:
            for result in check(bench):
                add(result)
        except UnavailableError:
            raise
        except (EdgeMddaError, OSError, ValueError, KeyError, TypeError) as error:  # an answer of another form, too
            add(judged(name, False, f"{type(error).__name__}: {' '.join(str(error).split())}"))
        return found

    results = [result for item in first.items() for result in run(item)]
    if then and not bench.program:
        results.append(Result("the rest", UNKNOWN, f"not tried without the program: {', '.join(then)}"))
        on_result(results[-1])
        return results
    with ThreadPoolExecutor(jobs) as pool:
        return results + [result for found in pool.map(run, then.items()) for result in found]


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
