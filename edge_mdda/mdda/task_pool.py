"""A few threads that share tasks which wait for one another.

There is no barrier: a thread takes the first task whose needs are met, so that it works on one channel while
another thread still finishes the next. On two cores the barriers that stood here cost a quarter of the time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Tool = TypeVar("Tool")


class Task(NamedTuple):
    """A piece of work."""

    work: Callable[[Any, Any], None]
    """Called with the order, which is the same for all tasks of a run, and the tool of the thread that does it."""
    needs: tuple[int, ...]
    """Indices of the tasks that must be done before; all smaller than its own."""


class TaskPool(Generic[Tool]):
    """Runs tasks on one thread for each tool: the caller's and a pool's.

    Parameters
    ----------
    tools : sequence
        What a thread needs for itself, for example memory to work in.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools = tools
        self._pool: ThreadPoolExecutor | None = None
        if len(tools) > 1:
            from concurrent.futures import ThreadPoolExecutor  # here: a process with one thread saves its 1 MB

            self._pool = ThreadPoolExecutor(len(tools) - 1, "edge-mdda")

    def close(self) -> None:
        """Stop the pool's threads. A closed pool of one still works."""
        if self._pool:
            self._pool.shutdown()

    def run(self, tasks: Sequence[Task], order: Any) -> None:
        """Do all tasks; when one raises, no further one begins and its exception is raised here."""
        if not self._pool:
            for task in tasks:
                task.work(order, self.tools[0])
            return
        from concurrent.futures import wait

        board = _Board(tasks, order)
        helpers: list[Future[None]] = []
        try:
            helpers.extend(self._pool.submit(board.work, tool) for tool in self.tools[1:])
            board.work(self.tools[0])
        finally:
            if not board.finished:  # Ctrl-C, or no thread to be had
                board.give_up()
            wait(helpers)  # all of them: they write into memory that the next run uses
        for helper in helpers:
            helper.result()


class _Board:
    """Which tasks of one run are waiting, and which are done."""

    def __init__(self, tasks: Sequence[Task], order: Any) -> None:
        self._tasks, self._order = tasks, order
        self._waiting = list(range(len(tasks)))
        self._done = bytearray(len(tasks))
        self._changed = threading.Condition()

    @property
    def finished(self) -> bool:
        """Whether no task waits any more."""
        return not self._waiting

    def give_up(self) -> None:
        """Let no further task begin."""
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()

    def work(self, tool: object) -> None:
        """Take one task after another until none is left."""
        try:
            while (index := self._take()) is not None:
                self._tasks[index].work(self._order, tool)
                with self._changed:
                    self._done[index] = True
                    self._changed.notify_all()
        except BaseException:  # wherever it struck: a task that is never done would keep the others waiting
            self.give_up()
            raise

    def _take(self) -> int | None:
        with self._changed:
            while self._waiting:
                for index in self._waiting:
                    if all(self._done[need] for need in self._tasks[index].needs):
                        self._waiting.remove(index)
                        return index
                self._changed.wait()  # another thread is at work on what is needed
            return None
