"""Pages of the board's own camera: the live view, the checks' verdict, and the shot."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edge_mdda.errors import StationError
from edge_mdda.station import charts, findings
from edge_mdda.station.camera import Camera
from edge_mdda.station.pages import found, posted, render, station_of, to, who
from edge_mdda.station.picture_pages import advice_of, judge, picture_page

SHOT_S = 5.0  # seconds to wait for a frame
BOUNDARY = "frame"


def camera_of(request: Request) -> Camera:
    """The board's camera, or the page that says that there is none."""
    camera = station_of(request).camera
    if camera is None:
        raise HTTPException(404, "This station has no camera of its own: start it with --camera.")
    return camera


def page(request: Request, status: int = 200, errors: object = None) -> Response:
    """The live view of the board's camera, for one lesion."""
    store = station_of(request).store
    camera_of(request)
    lesion = found(charts.lesion_of(store, request.path_params["lesion"]), "lesion")
    patient = charts.patient_of(store, lesion["patient"])
    return render(request, "camera.html", status, lesion=lesion, patient=patient, errors=errors or {})


def camera_page(request: Request) -> Response:
    """The live view."""
    return page(request)


def shoot(request: Request, form: FormData) -> Response:
    """Keep the next frame, the sensor's own bytes, and judge it."""
    station, camera = station_of(request), camera_of(request)
    lesion = found(charts.lesion_of(station.store, request.path_params["lesion"]), "lesion")
    frame = camera.after(camera.latest(), SHOT_S)
    if frame is None:
        return page(request, 422, {"camera": f"No picture: {camera.problem or 'the camera does not answer'}"})
    picture = findings.add_picture(station.store, who(request), lesion, frame.jpeg, "camera")
    try:
        judge(station, who(request), picture)
    except StationError as error:
        return picture_page(request, picture, 422, errors={"judge": f"Not judged: {error}"})
    return to(f"/pictures/{picture}")


async def live(request: Request) -> Response:
    """JPEGs one after the other, as browsers show them in an image."""
    camera = camera_of(request)

    async def frames() -> AsyncIterator[bytes]:
        number = 0
        while not await request.is_disconnected():
            frame = await run_in_threadpool(camera.after, number, 1.0)
            if frame is None:
                if camera.closed:
                    return
                continue
            number = frame.number
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame.jpeg)}\r\n\r\n"
            yield head.encode() + frame.jpeg + b"\r\n"

    return StreamingResponse(frames(), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")


def state(request: Request) -> Response:
    """What the checks say of the last frame, in one sentence."""
    station, camera = station_of(request), camera_of(request)
    frame = camera.after(camera.latest() - 1, SHOT_S)
    said = {"ok": False, "says": camera.problem or "waiting for the camera"}
    if frame is not None and not camera.problem:
        said = advice_of(station, frame.jpeg)
    return JSONResponse({**said, "pressed": station.shutter.pressed if station.shutter else 0})


ROUTES = [
    Route("/lesions/{lesion}/camera", camera_page),
    Route("/lesions/{lesion}/camera", posted(shoot), methods=["POST"]),
    Route("/camera/live", live),
    Route("/camera/state", state),
]
