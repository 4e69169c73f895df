"""Whether a report of a visit is still what was made: its page is made again from the record in it and compared.

It shows every change of the file, whether by accident or by an editor. It does not show who made the report: whoever
has this program can make another from another record. That one has another hash than the printed code, the clinic's
records and the DICOM result: compare the record's hash with one of these.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from edge_mdda.digest import sha256
from edge_mdda.errors import StationError
from edge_mdda.files import MIB
from edge_mdda.station.report_pdf import code_text, report
from edge_mdda.station.visit import Visit

MAX_RECORD = 64 * MIB  # bytes of the attached record once unpacked; its two views have a few hundred kB
_STREAM = re.compile(rb"/Length (\d{1,10})[^>]*>>\s*stream\r?\n")
FOREIGN = "no record of edge-mdda in it: it was made by another program, printed to a new file, or altered"


@dataclass(frozen=True)
class Checked:
    """An unaltered report."""

    visit: Visit
    code: str
    """What its QR code says."""


def _streams(content: bytes) -> Iterator[bytes]:
    for found in _STREAM.finditer(content):
        yield content[found.end() : found.end() + int(found[1])]


def _record(content: bytes) -> dict[str, Any]:
    for stream in _streams(content):
        try:
            text = zlib.decompressobj().decompress(stream, MAX_RECORD)
        except zlib.error:
            continue
        if text.startswith(b'{"edge-mdda report": 1,'):
            try:
                record: dict[str, Any] = json.loads(text)
            except ValueError:
                continue
            return record
    raise StationError(FOREIGN)


def _visit(record: dict[str, Any], content: bytes) -> Visit:
    visit = Visit.from_json(json.dumps(record["visit"]))
    if visit.picture:
        return visit
    wanted = visit.answer["sha256"]
    return replace(visit, picture=next(s for s in _streams(content) if sha256(s).hexdigest() == wanted))


def check(content: bytes, record_sha256: str | None = None) -> Checked:
    """Check a report.

    Parameters
    ----------
    content : bytes
        The file.
    record_sha256 : str, optional
        The record's SHA-256 from elsewhere (or its beginning): the printed code, the clinic's records.

    Raises
    ------
    StationError
        It was altered, is another record than expected, or cannot be checked here; one line that says which.
    """
    record = _record(content)
    try:
        visit = _visit(record, content)
    except (StopIteration, LookupError, TypeError, ValueError, AttributeError):
        raise StationError("altered: the record in it is not whole, or is not that of its pictures") from None
    again = report(visit)
    if again != content:
        theirs, ours = (made["made_with"] for made in (record, _record(again)))
        if theirs != ours and isinstance(theirs, dict):
            versions = ", ".join(f"{name} {theirs.get(name)}" for name in ours if theirs.get(name) != ours[name])
            raise StationError(f"made with {versions}, and cannot be made again here: check it where that is installed")
        raise StationError("altered: its record gives another page")
    if record_sha256 is not None and not visit.sha256.startswith(record_sha256.lower()):
        raise StationError(f"whole, but another report than was expected: its record is {visit.sha256}")
    return Checked(visit, code_text(visit))
