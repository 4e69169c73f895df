"""What can go wrong with a user's input; every message is one line that says what to do."""

from __future__ import annotations


class EdgeMddaError(ValueError):
    """Base of all errors that a command prints as one line instead of a traceback."""


class ImageError(EdgeMddaError):
    """An image that cannot be read, decoded or written."""


class ModelError(EdgeMddaError):
    """A model that cannot be used; the message names the file and the cause."""


class ParamsError(EdgeMddaError):
    """A parameter out of its range; the message begins with the field's name."""
