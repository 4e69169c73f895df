"""What can go wrong with a user's input; every message is one line that says what to do."""

from __future__ import annotations


class EdgeMddaError(ValueError):
    """Base of all errors that a command prints as one line instead of a traceback."""


class ImageError(EdgeMddaError):
    """An image that cannot be read, decoded or written; the caller names the file, the message does not."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class UnreadableImageError(ImageError):
    """The bytes cannot be had (missing, no permission, not a file), or a file cannot be written."""


class ImageTooLargeError(ImageError):
    """More bytes or more pixels than the limits allow."""


class UnsupportedImageError(ImageError):
    """A file type or variant that is not read here."""


class DamagedImageError(ImageError):
    """A file that is cut off or contradicts itself."""


class ModelError(EdgeMddaError):
    """A model that cannot be used; the message names the file and the cause."""


class ParamsError(EdgeMddaError):
    """A parameter out of its range; the message begins with the field's name."""


class KernelError(EdgeMddaError):
    """No machine code for the purifier: none was found, or none that fits this machine."""


class WatchError(EdgeMddaError):
    """A folder that cannot be watched, or not any more; the message names it and the cause."""


class ProfileError(EdgeMddaError):
    """A latency report that cannot be made, read or written; the message names the file and the cause."""


class StationError(EdgeMddaError):
    """What the clinic station cannot do, and what to do about it; the message names the cause."""
