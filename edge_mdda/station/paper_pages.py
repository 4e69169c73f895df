"""A visit as files for others: the report for the referral letter, and all that other systems read."""

from __future__ import annotations

import socket
import subprocess
import sys
from importlib.util import find_spec

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_mdda.errors import StationError
from edge_mdda.hardware.child_process import environment
from edge_mdda.station import charts, findings
from edge_mdda.station.pages import found, station_of, who
from edge_mdda.station.store import Store
from edge_mdda.station.visit import Decision, Lesion, Patient, Visit

NEEDS = ("reportlab", "segno")
MAKE_S = 120  # seconds; the slowest board needs a tenth
KINDS = {"report.pdf": ("pdf", "application/pdf"), "visit.zip": ("zip", "application/zip")}


def can_be_made() -> bool:
    """Whether the extra that writes reports is installed."""
    return all(find_spec(name) is not None for name in NEEDS)


def visit_of(store: Store, picture: str) -> Visit:
    """A judged picture as it is handed on; the page that says so where there is none."""
    row = found(findings.picture_of(store, picture), "picture")
    found(row["screening"], "answer")
    patient, lesion = charts.patient_of(store, row["patient"]), charts.lesion_of(store, row["lesion"])
    assert patient is not None and lesion is not None
    answer, names = findings.answer_of(store, row["screening"])
    decision = Decision(row["action"], row["clinician"], row["decision_note"]) if row["action"] else None
    blobs = store.blobs
    try:
        views = [blobs.get(row[name]) if row[name] else b"" for name in ("file", "raw_view", "purified_view")]
    except OSError:
        raise StationError("a file of this picture is missing from the disk: restore a backup") from None
    return Visit(
        id=row["visit"],
        made_at=row["made_at"],
        station=socket.gethostname(),
        patient=Patient(*(patient[name] for name in ("id", "own_id", "name", "birth_year", "sex"))),
        lesion=Lesion(lesion["id"], lesion["number"], lesion["site"]),
        picture=views[0],
        raw_view=views[1],
        purified_view=views[2],
        answer=answer,
        names=names,
        decision=decision,
    )


def make(visit: Visit, kind: str) -> bytes:
    """The file, made by a child; StationError with its line where it cannot be made."""
    words = [sys.executable, *(["-I"] if sys.flags.isolated else []), "-m", "edge_mdda.station.paper", kind]
    try:
        done = subprocess.run(
            words, input=visit.to_json().encode(), capture_output=True, env=environment(), timeout=MAKE_S
        )
    except subprocess.TimeoutExpired:
        raise StationError(f"this could not be made within {MAKE_S} s: try again") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it stopped"]
        raise StationError(f"this could not be made: {lines[-1]}")
    return done.stdout


def paper(request: Request) -> Response:
    """The report, or everything; the file's name says nothing of the patient."""
    store, name = station_of(request).store, request.path_params["name"]
    kind, media_type = found(KINDS.get(name), "file")
    if not can_be_made():
        raise StationError("reports need more packages: pip install 'edge-mdda[report]'")
    content = make(visit_of(store, request.path_params["picture"]), kind)
    with store.writing() as w:
        w.log(who(request), f"{name} made", request.path_params["picture"])
    return Response(content, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'})


ROUTES = [Route("/pictures/{picture}/files/{name}", paper)]
