"""What can go wrong in an export; every message is one line that says what to do."""

from __future__ import annotations

from edge_mdda.errors import EdgeMddaError


class ExportError(EdgeMddaError):
    """A conversion that failed its own checks; nothing was written."""
