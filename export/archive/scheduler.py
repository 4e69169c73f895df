"""Batches of pictures over the workers of a Dask cluster, a bounded number at a time, and parts as they come whole.

The process that calls this is the only one that writes. A worker that dies loses nothing: the scheduler gives its
batches to another. The pictures of a batch whose workers die again and again are tried one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_mdda.errors import EdgeMddaError
from export.archive.rows import KILLED, Settings, refused, screen_batch
from export.errors import ExportError

if TYPE_CHECKING:
    from distributed import Client, Future

WINDOW = 4  # batches in the cluster for each thread of it: enough that none waits for this process
LEAST_WINDOW = 8
TRIES_ALONE = 2  # of a picture whose worker ends; in each the scheduler tries it on several workers
LOOK_S = 10.0  # seconds without a result, after which it is asked whether there are workers at all
LOOKS = 12  # without any worker, after which nothing more is waited for: two minutes
GOES_ON = "the same command goes on where this one stopped"
GONE = f"the cluster is gone: start it; {GOES_ON}"


@contextmanager
def _asking() -> Iterator[None]:
    """Around a question to the cluster: one that is gone is told of in one line."""
    from concurrent.futures import CancelledError

    try:
        yield
    except TimeoutError:
        raise
    except (CancelledError, OSError) as error:
        raise ExportError(GONE) from error


@dataclass(frozen=True)
class Batch:
    """Some neighbouring pictures of a part."""

    part: int
    first: int
    """Place of the first of them in the part."""
    names: list[str]

    tries: int = 1

    def singly(self) -> list[Batch]:
        """Each picture by itself; one that is alone already, once more."""
        tries = self.tries + (len(self.names) == 1)
        return [Batch(self.part, self.first + k, [name], tries) for k, name in enumerate(self.names)]


@dataclass
class Open:
    """A part of which some rows are there."""

    size: int
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, batch: Batch, rows: list[dict[str, Any]]) -> bool:
        """Keep the rows of a batch; whether the part is whole now."""
        self.rows.update(zip(range(batch.first, batch.first + len(rows)), rows, strict=True))
        return len(self.rows) == self.size


def batches(parts: Iterable[tuple[int, list[str]]], size: int) -> Iterator[Batch]:
    """Cut parts into batches."""
    for part, names in parts:
        for first in range(0, len(names), size):
            yield Batch(part, first, names[first : first + size])


def run(
    client: Client,
    settings: Settings,
    parts: Iterable[tuple[int, list[str]]],
    rows_of: Callable[[int], int],
    batch: int,
    write: Callable[[int, list[dict[str, Any]]], None],
    progress: Callable[[int], None],
) -> None:
    """Screen the pictures of some parts.

    Parameters
    ----------
    client : Client
        Of a cluster with workers.
    parts : iterable of (part, names)
        Read as far as the window needs.
    rows_of : callable
        How many rows a part has.
    batch : int
        Pictures in one task.
    write : callable
        Gets each part once, whole, in the order of its pictures.
    progress : callable
        Gets the number of rows that are new.

    Raises
    ------
    ExportError
        The cluster went away, has no workers left, or they cannot work.
    """
    from distributed import wait

    waiting, again = batches(parts, batch), deque[Batch]()
    open_parts: dict[int, Open] = {}
    under_way: dict[Future, Batch] = {}
    empty = 0  # looks in a row that found no worker
    while True:
        with _asking():
            window = max(LEAST_WINDOW, WINDOW * sum(client.nthreads().values()))
        while len(under_way) < window:
            item = again.popleft() if again else next(waiting, None)
            if item is None:
                break
            under_way[client.submit(screen_batch, settings, item.names, pure=False)] = item
        if not under_way:
            return
        try:
            with _asking():
                done = wait(list(under_way), timeout=LOOK_S, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            with _asking():
                empty = 0 if client.nthreads() else empty + 1
            if empty == LOOKS:
                raise ExportError(f"the cluster has no workers left: start some; {GOES_ON}") from None
            if empty and client.cluster is not None:  # ours; one that dies while it starts is not started again by Dask
                client.cluster.scale(len(client.cluster.worker_spec))
            continue
        for future in done:
            item = under_way.pop(future)
            rows = _rows(future, item)
            if rows is None:
                again.extend(item.singly())
                continue
            progress(len(rows))
            part = open_parts.setdefault(item.part, Open(rows_of(item.part)))
            if part.add(item, rows):
                del open_parts[item.part]
                write(item.part, [part.rows[place] for place in range(part.size)])


def _rows(future: Future, item: Batch) -> list[dict[str, Any]] | None:
    """What a finished task brings; None where its workers died and its pictures are to be tried singly."""
    from distributed.scheduler import KilledWorker

    if future.status == "finished":
        with _asking():
            return future.result()
    if future.status != "error":  # cancelled or lost
        raise ExportError(GONE)
    error = future.exception()
    if isinstance(error, KilledWorker):
        # Another picture on the same worker may have ended it, so one try alone does not tell.
        alone = len(item.names) == 1 and item.tries >= TRIES_ALONE
        return [refused(item.names[0], KILLED)] if alone else None
    if isinstance(error, EdgeMddaError):
        raise error
    if isinstance(error, ImportError):
        raise ExportError(f"a worker lacks {error.name}: start the workers in the project's folder and environment")
    raise ExportError(f"a worker failed ({type(error).__name__}: {' '.join(str(error).split())}); {GOES_ON}")
