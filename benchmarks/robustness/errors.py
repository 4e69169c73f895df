"""What can be missing or unusable here; every message is one line that says what to do."""

from __future__ import annotations

from edge_mdda.errors import EdgeMddaError


class RobustnessError(EdgeMddaError):
    """Something that the benchmark needs is missing, unusable or out of range."""
