"""A visit as files for others: all of them, or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from edge_mdda.errors import StationError
from edge_mdda.files import replace_file
from edge_mdda.hardware.child_process import ChildError, run_module
from edge_mdda.station import fhir
from edge_mdda.station.report_pdf import report
from edge_mdda.station.visit import Visit

REPORT, BUNDLE = "report.pdf", "visit.fhir.json"
DICOM_S = 300.0  # seconds for the child that writes DICOM; one busy x86-64 core takes 5


def write(visit: Visit, folder: Path, dicom: bool = True) -> list[Path]:
    """Write the files into a folder, which is made where it is missing; those of DICOM if so wanted.

    They are made in a temporary folder beside it and renamed at the end, so that a failure leaves nothing behind.

    Raises
    ------
    StationError
        The folder cannot be made or written to, or a file cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise StationError(f"{folder}: this is not a folder: name another")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".visit-", dir=folder.parent))
    except OSError as error:
        raise StationError(f"{folder}: cannot be made ({error.strerror}): choose another folder") from None
    try:
        names = _make(visit, scratch, dicom)
        folder.mkdir(exist_ok=True)
        for name in names:
            os.replace(scratch / name, folder / name)
    except OSError as error:
        raise StationError(f"{folder}: cannot be written ({error.strerror}): choose another folder") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [folder / name for name in names]


def _make(visit: Visit, scratch: Path, dicom: bool) -> list[str]:
    """Make the files and return their names."""
    page = report(visit)
    for name, content in ((REPORT, page), (BUNDLE, fhir.text(visit, page).encode())):
        replace_file(str(scratch / name), content)
    if not dicom:
        return [REPORT, BUNDLE]
    handed = scratch / "visit.json"
    handed.write_text(visit.to_json(), encoding="utf-8")
    try:
        made = run_module("edge_mdda.station.dicom_report", [str(handed), str(scratch)], DICOM_S)
    except ChildError as error:
        raise StationError(f"the DICOM files cannot be made: {error}") from None
    return [REPORT, *made["files"], BUNDLE]
