"""What can go wrong before anything is tested."""

from __future__ import annotations

from edge_mdda.errors import EdgeMddaError


class BenchError(EdgeMddaError):
    """The test bench itself failed; the message is one line that says what to do."""


class UnavailableError(BenchError):
    """This machine cannot emulate a board (no QEMU, no namespaces, no package source): nothing was tested."""
