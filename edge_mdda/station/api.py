"""The interface for programs, ``/api/v1``: JSON in and out, a token for each device, its document at ``openapi.json``.

Cookies count for nothing here, so that no page of another site can use it through somebody's browser.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edge_mdda import NOTICE, __version__
from edge_mdda.errors import ImageError, StationError
from edge_mdda.picture.decode import check_header
from edge_mdda.station import auth, charts, findings
from edge_mdda.station.pages import found, station_of, uploads, who, year
from edge_mdda.station.picture_pages import judge, stored_view

ROOT = "/api/v1"
PICTURE_FIELDS = ("id", "lesion", "visit", "patient", "site", "source", "made_at", "made_by", "day", "withdrawn")
EXPORTED = (
    "patients",
    "patient_changes",
    "lesions",
    "visits",
    "pictures",
    "screenings",
    "decisions",
    "outcomes",
    "withdrawals",
)
PAGE_ROWS = 500  # rows of an export read at a time
Answer = Callable[[Request, bytes], Response]


def endpoint(handler: Answer) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint: the device's token is checked before the body is read, and the handler runs in a thread."""

    async def answer(request: Request) -> Response:
        header = request.headers.get("authorization", "")
        user = await run_in_threadpool(auth.device_of, station_of(request).store, header)
        if user is None:
            return JSONResponse(
                {"error": "send «Authorization: Bearer TOKEN» with a device's token; an admin makes one under Staff"},
                401,
                {"www-authenticate": "Bearer"},
            )
        request.state.user = user
        body = b""
        if request.method == "POST":
            async with uploads(station_of(request)):
                body = await request.body()
        return await run_in_threadpool(handler, request, body)

    return answer


def fields_of(request: Request, body: bytes) -> dict[str, Any]:
    """The JSON object of a request, its values texts or numbers."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send application/json.")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body is no JSON.") from None
    if not isinstance(fields, dict) or not all(
        value is None or (isinstance(value, str | int) and not isinstance(value, bool)) for value in fields.values()
    ):
        raise HTTPException(422, "Send a JSON object whose values are texts or whole numbers.")
    if any("\ud800" <= letter <= "\udfff" for value in fields.values() for letter in str(value)):
        raise HTTPException(422, "A text holds half a character.")
    return fields


def _picture(request: Request, body: bytes) -> bytes:
    try:
        check_header(body, station_of(request).limits)
    except ImageError as error:
        raise HTTPException(422, f"Not a picture that can be judged: {error}") from None
    return body


def _wrong(problem: charts.FieldsError) -> Response:
    return JSONResponse({"error": str(problem), "fields": problem.errors}, 422)


def _described(request: Request, row: Any) -> dict[str, Any]:
    picture = {name: row[name] for name in PICTURE_FIELDS}
    picture["sha256"] = row["file"]
    screening = row["screening"]
    picture["screening"] = findings.answer_of(station_of(request).store, screening)[0] if screening else None
    picture["decision"] = (
        {"action": row["action"], "clinician": row["clinician"], "note": row["decision_note"], "at": row["decided_at"]}
        if row["action"]
        else None
    )
    return picture


def screen(request: Request, body: bytes) -> Response:
    """Judge a picture; nothing is kept."""
    try:
        header, _ = station_of(request).judge.ask({"do": "screen"}, [_picture(request, body)])
    except StationError as error:
        raise HTTPException(422, str(error)) from None
    return JSONResponse(header["answer"])


def add_patient(request: Request, body: bytes) -> Response:
    """Keep a patient."""
    store = station_of(request).store
    try:
        patient = charts.add_patient(store, who(request), fields_of(request, body), year(store))
    except charts.FieldsError as problem:
        return _wrong(problem)
    return JSONResponse({"id": patient}, 201)


def search(request: Request, body: bytes) -> Response:
    """Patients by number or name; a POST, so that what is looked for stands in no URL."""
    words = str(fields_of(request, body).get("words") or "")[: charts.MAX_NAME]
    return JSONResponse({"patients": [dict(row) for row in charts.find_patients(station_of(request).store, words)]})


def patient(request: Request, _: bytes) -> Response:
    """A patient with the lesions."""
    store, patient_id = station_of(request).store, request.path_params["patient"]
    row = found(charts.patient_of(store, patient_id), "patient")
    return JSONResponse({**dict(row), "lesions": [dict(lesion) for lesion in charts.lesions_of(store, patient_id)]})


def add_lesion(request: Request, body: bytes) -> Response:
    """Keep a lesion of a patient."""
    store, patient_id = station_of(request).store, request.path_params["patient"]
    found(charts.patient_of(store, patient_id), "patient")
    try:
        lesion = charts.add_lesion(store, who(request), patient_id, fields_of(request, body))
    except charts.FieldsError as problem:
        return _wrong(problem)
    return JSONResponse({"id": lesion}, 201)


def lesion(request: Request, _: bytes) -> Response:
    """A lesion with its pictures and what was said of them, latest first."""
    store, lesion_id = station_of(request).store, request.path_params["lesion"]
    row = found(charts.lesion_of(store, lesion_id), "lesion")
    pictures = [_described(request, picture) for picture in findings.pictures_of(store, lesion_id)]
    return JSONResponse({**dict(row), "pictures": pictures})


def add_picture(request: Request, body: bytes) -> Response:
    """Keep a picture of a lesion and judge it; the body is the file."""
    station, lesion_id = station_of(request), request.path_params["lesion"]
    row = found(charts.lesion_of(station.store, lesion_id), "lesion")
    kept = findings.add_picture(station.store, who(request), row, _picture(request, body), "api")
    problem = None
    if found(findings.picture_of(station.store, kept), "picture")["screening"] is None:
        try:
            judge(station, who(request), kept)
        except StationError as error:
            problem = str(error)
    picture = _described(request, found(findings.picture_of(station.store, kept), "picture"))
    return JSONResponse({**picture, "not_judged": problem}, 201)


def picture(request: Request, _: bytes) -> Response:
    """A picture with its last answer and decision."""
    row = findings.picture_of(station_of(request).store, request.path_params["picture"])
    return JSONResponse(_described(request, found(row, "picture")))


def view(request: Request, _: bytes) -> Response:
    """One view of a picture: stored, raw or purified."""
    return stored_view(request)


def export(request: Request, _: bytes) -> Response:
    """Every record, one JSON object a line; the pictures' files are fetched one by one."""
    store = station_of(request).store

    def lines() -> Iterator[str]:
        for table in EXPORTED:
            last = 0
            while rows := store.rows(
                f"SELECT rowid AS number, * FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT ?", (last, PAGE_ROWS)
            ):
                for row in rows:
                    record = dict(row)
                    last = record.pop("number")
                    for name in ("answer", "names", "before"):
                        if name in record:
                            record[name] = json.loads(record[name])
                    yield json.dumps({"table": table, **record}) + "\n"

    with store.writing() as w:
        w.log(who(request), "records exported")
    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def document(_: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(openapi())


SUMMARIES: tuple[tuple[str, str, Answer, str], ...] = (
    ("post", "/screen", screen, "picture"),
    ("post", "/patients", add_patient, "patient"),
    ("post", "/patients/search", search, "words"),
    ("get", "/patients/{patient}", patient, ""),
    ("post", "/patients/{patient}/lesions", add_lesion, "lesion"),
    ("get", "/lesions/{lesion}", lesion, ""),
    ("post", "/lesions/{lesion}/pictures", add_picture, "picture"),
    ("get", "/pictures/{picture}", picture, ""),
    ("get", "/pictures/{picture}/views/{view}", view, ""),
    ("get", "/export", export, ""),
)
"""Method, path, what answers, and the kind of body."""


@cache
def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document of what stands in ``SUMMARIES``."""
    from edge_mdda.station.api_document import describe

    return describe(SUMMARIES, ROOT, __version__, NOTICE)


ROUTES = [
    Route(f"{ROOT}/openapi.json", document),
    *(Route(ROOT + path, endpoint(answer), methods=[method.upper()]) for method, path, answer, _ in SUMMARIES),
]
