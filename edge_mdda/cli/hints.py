"""What a misspelt name was probably meant to be. A hint is a question; nothing is done on its strength."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from itertools import islice

from edge_mdda.console import printable

MAX_NAMES = 20_000  # of a folder that are compared; more take longer than a person waits for an error
LIKENESS = 0.7  # of two names, difflib's ratio; below it a hint misleads more often than it helps


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, whatever their case; None where none is alike."""
    by_lower = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=LIKENESS)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], before: str = ": ") -> str:
    """``: did you mean 'screen'?``, or nothing."""
    found = closest(name, known)
    return f"{before}did you mean '{printable(found)}'?" if found else ""


def file_hint(path: str) -> str:
    """``; did you mean 'lesion.jpg'?`` for a file that is not there but has a neighbour of a like name, or nothing."""
    folder, name = os.path.split(path)
    if not name or os.path.lexists(path):
        return ""
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in islice(entries, MAX_NAMES) if not entry.name.startswith(".")]
    except (OSError, ValueError):
        return ""
    found = closest(name, names)
    return f"; did you mean '{printable(os.path.join(folder, found))}'?" if found else ""
