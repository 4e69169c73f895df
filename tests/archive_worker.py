"""Loaded by each Dask worker of tests/test_archive.py: leaves its process id, works slowly, and dies of one picture."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from export.archive import rows

NOTES, KILLER, PAUSE_S = "ARCHIVE_TEST_NOTES", "killer", 0.05


def dask_setup(worker: object) -> None:
    """Called by Dask when the worker starts."""
    (Path(os.environ[NOTES]) / str(os.getpid())).touch()
    real = rows.row_of

    def slowly(screener, name, limits):
        if KILLER in name:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(PAUSE_S)
        return real(screener, name, limits)

    rows.row_of = slowly
