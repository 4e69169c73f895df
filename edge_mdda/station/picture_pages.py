"""Pages of a picture: it is kept, judged, shown, and decided upon."""

from __future__ import annotations

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_mdda.errors import ImageError, StationError
from edge_mdda.picture.decode import check_header
from edge_mdda.station import charts, findings
from edge_mdda.station.pages import Station, found, needs, posted, render, station_of, texts, to, who
from edge_mdda.station.paper_pages import can_be_made
from edge_mdda.station.visit_pages import lesion_page

SOURCES = ("file", "browser", "camera")
SHOWN = ("image/jpeg", "image/png", "image/webp", "image/bmp")  # what a browser may be handed
VIEWS = {"stored": "file", "raw": "raw_view", "purified": "purified_view"}


def judge(station: Station, name: str, picture: str) -> None:
    """Judge a kept picture and keep the answer; StationError where it cannot be judged."""
    row = found(findings.picture_of(station.store, picture), "picture")
    try:
        content = station.store.blobs.get(row["file"])
    except OSError:
        raise StationError("the picture's file is missing from the disk: take the picture again") from None
    header, (raw, purified) = station.judge.ask({"do": "screen"}, [content])
    findings.add_screening(station.store, name, picture, header["answer"], header["names"], raw, purified)


def add_pictures(request: Request, form: FormData) -> Response:
    """Keep pictures of a lesion, then judge each. One that is no picture is refused before it is kept."""
    station, lesion_id = station_of(request), request.path_params["lesion"]
    lesion = found(charts.lesion_of(station.store, lesion_id), "lesion")
    source = form.get("source")
    source = source if source in SOURCES else "file"
    files = [item for item in form.getlist("pictures") if isinstance(item, UploadFile) and item.size]
    errors = {} if files else {"pictures": "Picture: choose a file or take a picture"}
    contents = []
    for number, item in enumerate(files, start=1):
        content = item.file.read()
        try:
            check_header(content, station.limits)
            contents.append(content)
        except ImageError as error:
            errors["pictures"] = f"Picture {number}: {error}"
    if errors:
        return lesion_page(request, lesion_id, 422, texts(form), errors)
    kept = [findings.add_picture(station.store, who(request), lesion, content, str(source)) for content in contents]
    for picture in kept:
        row = found(findings.picture_of(station.store, picture), "picture")
        if row["screening"] is None:
            try:
                judge(station, who(request), picture)
            except StationError as error:
                if len(kept) == 1:
                    return picture_page(request, picture, 422, errors={"judge": f"Not judged: {error}"})
    return to(f"/pictures/{kept[0]}" if len(kept) == 1 else f"/lesions/{lesion_id}")


def picture_page(
    request: Request, picture: str, status: int = 200, values: object = None, errors: object = None
) -> Response:
    """What is known of a picture, and the form for the decision."""
    store = station_of(request).store
    row = found(findings.picture_of(store, picture), "picture")
    answer, names = findings.answer_of(store, row["screening"]) if row["screening"] else (None, None)
    return render(
        request,
        "picture.html",
        status,
        picture=row,
        answer=answer,
        names=names,
        reports=can_be_made(),
        decisions=findings.decisions_of(store, picture),
        values=values or {},
        errors=errors or {},
    )


def picture(request: Request) -> Response:
    """A picture and its answer."""
    return picture_page(request, request.path_params["picture"])


def judge_again(request: Request, form: FormData) -> Response:
    """Judge a picture once more, for instance after the worker had died."""
    picture_id = request.path_params["picture"]
    try:
        judge(station_of(request), who(request), picture_id)
    except StationError as error:
        return picture_page(request, picture_id, 422, errors={"judge": f"Not judged: {error}"})
    return to(f"/pictures/{picture_id}")


@needs("clinician")
def decide(request: Request, form: FormData) -> Response:
    """Keep a decision, or show the page again with what was typed."""
    picture_id = request.path_params["picture"]
    found(findings.picture_of(station_of(request).store, picture_id), "picture")
    try:
        findings.add_decision(station_of(request).store, who(request), picture_id, texts(form))
    except charts.FieldsError as problem:
        return picture_page(request, picture_id, 422, texts(form), problem.errors)
    return to(f"/pictures/{picture_id}")


@needs("clinician")
def withdraw(request: Request, form: FormData) -> Response:
    """Take a picture out of the lists, with a reason."""
    picture_id = request.path_params["picture"]
    found(findings.picture_of(station_of(request).store, picture_id), "picture")
    try:
        findings.withdraw_picture(station_of(request).store, who(request), picture_id, str(form.get("reason") or ""))
    except charts.FieldsError as problem:
        return picture_page(request, picture_id, 422, texts(form), problem.errors)
    return to(f"/pictures/{picture_id}")


def view(request: Request) -> Response:
    """One view of a picture."""
    return stored_view(request)


def stored_view(request: Request) -> Response:
    """One view of a picture: as it was stored, or as the network saw it."""
    store = station_of(request).store
    row = found(findings.picture_of(store, request.path_params["picture"]), "picture")
    column = VIEWS.get(request.path_params["view"])
    digest = found(row[column] if column else None, "view")
    kind = row["media_type"] if column == "file" else "image/png"
    try:
        content = store.blobs.get(digest)
    except OSError:
        raise HTTPException(404, "The picture's file is missing from the disk.") from None
    shown = kind in SHOWN
    return Response(
        content,
        media_type=kind if shown else "application/octet-stream",
        headers={} if shown else {"content-disposition": 'attachment; filename="picture.tif"'},
    )


def look(request: Request, form: FormData) -> Response:
    """What the checks say of a frame of the live view, in one sentence; the frame is not kept."""
    frame = form.get("frame")
    if not isinstance(frame, UploadFile):
        raise HTTPException(400, "There is no frame in this request.")
    return JSONResponse(advice_of(station_of(request), frame.file.read()))


def advice_of(station: Station, frame: bytes) -> dict[str, object]:
    """What the checks say of a frame: whether it is good (None where nobody could look), and a sentence."""
    try:
        said = station.judge.try_ask({"do": "look"}, [frame])
    except StationError as error:
        return {"ok": False, "says": str(error)}
    if said is None:
        return {"ok": None, "says": ""}
    advice = next((check["advice"] for check in said[0]["quality"] if not check["ok"]), "")
    return {"ok": not advice, "says": advice or "good: take the picture"}


ROUTES = [
    Route("/look", posted(look), methods=["POST"]),
    Route("/lesions/{lesion}/pictures", posted(add_pictures), methods=["POST"]),
    Route("/pictures/{picture}", picture),
    Route("/pictures/{picture}/judge", posted(judge_again), methods=["POST"]),
    Route("/pictures/{picture}/decision", posted(decide), methods=["POST"]),
    Route("/pictures/{picture}/withdraw", posted(withdraw), methods=["POST"]),
    Route("/pictures/{picture}/view/{view}", view),
]
