"""What ``edge-mdda doctor`` thinks of the disk that a clinic's records lie on."""

from __future__ import annotations

from pathlib import Path

from edge_mdda.diagnostics.finding import FAILED, OK, UNKNOWN, WARNING, Finding
from edge_mdda.hardware.inventory import ROOT
from edge_mdda.hardware.storage import LOW_VISITS, MIN_VISITS, is_encrypted, records_folder, room_for_visits


def records(root: Path = ROOT, folder: Path | None = None) -> list[Finding]:
    """Room and encryption; nothing where no station has kept records."""
    folder = folder or records_folder()
    if not folder.is_dir():
        return []
    try:
        visits = room_for_visits(folder)
    except OSError as error:
        return [Finding("records", FAILED, f"{folder}: {error.strerror}", "check the disk and its permissions")]
    status = OK if visits >= LOW_VISITS else WARNING if visits >= MIN_VISITS else FAILED
    advice = "" if status == OK else "back the records up, then make room: a full disk keeps no picture"
    encrypted = is_encrypted(folder, root)
    words = {True: "encrypted", False: "not encrypted", None: "it cannot be told whether it is encrypted"}
    secret = Finding(
        "records' disk",
        {True: OK, False: WARNING, None: UNKNOWN}[encrypted],
        words[encrypted],
        "" if encrypted else "put the records on an encrypted partition (LUKS): a board is easily stolen",
    )
    return [Finding("records", status, f"{folder}: room for about {visits} visits", advice), secret]
