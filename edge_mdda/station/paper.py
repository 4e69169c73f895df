"""The process that makes what a visit is handed on as: ``python -m edge_mdda.station.paper KIND``.

It reads a visit as JSON and writes one file to standard output: the report as PDF, or everything as a ZIP archive. Its
libraries are large; they leave memory with it.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from edge_mdda.errors import EdgeMddaError
from edge_mdda.station.visit import Visit

DICOM = ("pydicom", "highdicom")
EARLIEST = (1980, 1, 1, 0, 0, 0)  # a ZIP's first day; the same visit gives the same bytes


def archive(visit: Visit) -> bytes:
    """Every file of a visit in one archive; those of DICOM where the extra is installed."""
    from edge_mdda.station.hand_on import write

    content = io.BytesIO()
    with (
        tempfile.TemporaryDirectory(prefix="edge-mdda-paper-") as place,
        zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as packed,
    ):
        for path in write(visit, Path(place) / "visit", all(map(find_spec, DICOM))):
            packed.writestr(zipfile.ZipInfo(path.name, EARLIEST), path.read_bytes())
    return content.getvalue()


def main() -> int:
    """One visit in, one file out."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not break the file
    visit = Visit.from_json(sys.stdin.read())
    try:
        if sys.argv[1] == "pdf":
            from edge_mdda.station.report_pdf import report

            content = report(visit)
        else:
            content = archive(visit)
    except EdgeMddaError as error:
        print(error, file=sys.stderr)
        return 1
    with open(out, "wb") as stream:
        stream.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
