"""The drawn visit of ``edge-mdda serve demo-visit``: a made-up patient and the built-in drawn picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mdda.models import DEMO_IMAGE
from edge_mdda.station.visit import Decision, Lesion, Patient, Visit, screened

if TYPE_CHECKING:
    from edge_mdda.screening import Screener

PATIENT = Patient("d0a0000000000001", "D-001", "Drawn Dora", 1961, "female")
LESION = Lesion("d0a0000000000011", 1, "upper-back-left-back")
DECISION = Decision("follow-up", "Drawn Dr. Doe", "Drawn visit, no patient. Picture again in three months.")
SEED = 21  # of the purifier; any would do, a fixed one can be repeated
STATION = "demo"


def demo_visit(screener: Screener) -> Visit:
    """The built-in picture, really screened."""
    return screened(screener, DEMO_IMAGE.read_bytes(), PATIENT, LESION, DECISION, SEED, STATION)
