"""Writes visits and says which are acknowledged: ``python -m benchmarks.station.writer FOLDER COUNT``."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_mdda.station import charts, findings
from edge_mdda.station.store import Store

PICTURE_BYTES, VIEW_BYTES = 6000, 2500  # small, so that many fit into a trace
YEAR = 2026
ANSWER: dict[str, Any] = {
    "advice": "refer", "malignant": 0.5, "purify": {"seed": 1}, "version": "0", "model": {"name": "m", "sha256": "0"},
}  # fmt: skip


def write_visits(store: Store, announce: Callable[[str], None], count: int | None = None) -> None:
    """Keep visits, each a patient, a lesion, a picture, an answer and a decision.

    ``announce`` is called with ``KIND ID`` once a write is acknowledged, never before.
    """
    for number in itertools.count() if count is None else range(count):
        patient = charts.add_patient(store, "w", {"own_id": f"{os.getpid()}-{number}"}, YEAR)
        announce(f"patients {patient}")
        lesion_id = charts.add_lesion(store, "w", patient, {"site": "face-front"})
        announce(f"lesions {lesion_id}")
        lesion = charts.lesion_of(store, lesion_id)
        assert lesion is not None
        picture = findings.add_picture(store, "w", lesion, os.urandom(PICTURE_BYTES), "drawn")
        announce(f"pictures {picture}")
        views = os.urandom(VIEW_BYTES), os.urandom(VIEW_BYTES)
        announce(f"screenings {findings.add_screening(store, 'w', picture, ANSWER, {}, *views)}")
        decision = findings.add_decision(store, "w", picture, {"action": "none", "clinician": "w"})
        announce(f"decisions {decision}")


def announce_on(descriptor: int) -> Callable[[str], None]:
    """Announce through one unbuffered write a line."""
    return lambda text: void(os.write(descriptor, f"{text}\n".encode()))


def void(_: object) -> None:
    """Throw a result away."""


if __name__ == "__main__":
    records = Store(Path(sys.argv[1]))
    write_visits(records, announce_on(1), int(sys.argv[2]))
    records.close()
