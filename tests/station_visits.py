"""A drawn visit for the tests, really screened, once."""

from __future__ import annotations

import functools

from edge_mdda import Screener
from edge_mdda.station.demo_visit import demo_visit
from edge_mdda.station.visit import Visit


@functools.cache
def drawn_visit() -> Visit:
    with Screener() as screener:
        return demo_visit(screener)
