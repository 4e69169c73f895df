"""A cluster to work on: processes of this machine, or one that is there already."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from export.errors import ExportError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 10  # seconds to find a scheduler
WORKERS_S = 60  # seconds until the first worker is there
PROJECT = "export"  # what each worker must be able to import
LOOPBACK = "127.0.0.1"


@contextmanager
def connected(address: str | None, workers: int) -> Iterator[Client]:
    """A client of the scheduler at ``address``, or of as many new processes on this machine.

    Raises
    ------
    ExportError
        Workers here do not start; or no scheduler there, no workers, or one of them lacks this program.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # what goes wrong is told in one line, without Dask's tracebacks
    try:
        yield from _connected(address, workers)
    finally:
        logging.disable(before)


def _connected(address: str | None, workers: int) -> Iterator[Client]:
    from distributed import Client, LocalCluster

    if address is None:
        try:
            # One thread each: a screening uses one core. No dashboard: nothing listens beyond this machine.
            local = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host=LOOPBACK,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            raise ExportError(
                f"the workers do not start ({error}): is there memory for {workers}? Try again"
            ) from error
        with local, Client(local) as client:
            yield client
        return
    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise ExportError(
            f"no Dask scheduler answers at {address}: check the address, or start one: PYTHONPATH=. dask scheduler"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, WORKERS_S)
        except TimeoutError as error:
            raise ExportError(
                f"{address} has no workers: start some in the project's folder: PYTHONPATH=. dask worker {address}"
            ) from error
        # Told now: a task that cannot be loaded ends the worker. The scheduler loads tasks as well.
        there = client.run(find_spec, PROJECT) | {address: client.run_on_scheduler(find_spec, PROJECT)}
        lacking = [name for name, found in there.items() if found is None]
        if lacking:
            raise ExportError(f"{lacking[0]} lacks this program: start it in the project's folder, with PYTHONPATH=.")
        yield client
