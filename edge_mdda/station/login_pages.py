"""Pages for entering a PIN, and for naming who may do what."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_mdda.station import auth
from edge_mdda.station.charts import FieldsError
from edge_mdda.station.pages import KEPT, login_page, needs, own_path, posted, render, station_of, to, who


def login(request: Request) -> Response:
    """The page, for whoever asks for it."""
    return login_page(request)


def enter(request: Request, form: FormData) -> Response:
    """Check the PIN and go on to where one wanted to go."""
    gate = station_of(request).gate
    if gate.is_open():
        return to("/")
    try:
        sid = gate.enter(str(form.get("name") or ""), str(form.get("pin") or ""))
    except FieldsError as problem:
        return login_page(request, form, problem.errors)
    request.state.sid = request.state.new_sid = sid
    request.state.user = gate.user(sid)
    after = own_path(form.get("next"))
    kept = {k[len(KEPT) :]: v for k, v in form.items() if k.startswith(KEPT) and isinstance(v, str)}
    if kept:
        return render(request, "go_on.html", after=after, kept=kept)
    return to(after)


def leave(request: Request, form: FormData) -> Response:
    """Lock the station."""
    station_of(request).gate.leave(request.state.sid)
    response = to("/login")
    response.headers["clear-site-data"] = '"cache"'  # or the back button shows the last patient's page
    return response


def staff_page(
    request: Request, status: int = 200, values: object = None, errors: object = None, token: str = ""
) -> Response:
    """Who may do what, and which devices."""
    store = station_of(request).store
    return render(
        request,
        "staff.html",
        status,
        users=auth.users_of(store),
        devices=auth.devices_of(store),
        roles=auth.ROLES,
        values=values or {},
        errors=errors or {},
        token_shown=token,
    )


@needs("admin")
def staff(request: Request) -> Response:
    """Who may do what."""
    return staff_page(request)


@needs("admin")
def add_user(request: Request, form: FormData) -> Response:
    """Name somebody."""
    name, role = str(form.get("name") or ""), str(form.get("role") or "")
    try:
        auth.add_user(station_of(request).store, who(request), name, role, str(form.get("pin") or ""))
    except FieldsError as problem:
        return staff_page(request, 422, {"name": name, "role": role}, problem.errors)
    return to("/staff")


@needs("admin")
def change_user(request: Request, form: FormData) -> Response:
    """A new PIN, or in or out."""
    store, user = station_of(request).store, request.path_params["user"]
    try:
        if form.get("pin"):
            auth.set_pin(store, who(request), user, str(form["pin"]))
        else:
            auth.set_active(store, who(request), user, form.get("active") == "yes")
    except FieldsError as problem:
        return staff_page(request, 422, errors=problem.errors)
    return to("/staff")


@needs("admin")
def add_device(request: Request, form: FormData) -> Response:
    """Name a device and show its token, this once."""
    try:
        token = auth.add_device(station_of(request).store, who(request), str(form.get("device") or ""))
    except FieldsError as problem:
        return staff_page(request, 422, {"device": str(form.get("device") or "")}, problem.errors)
    return staff_page(request, token=token)


@needs("admin")
def stop_device(request: Request, form: FormData) -> Response:
    """Take a token back."""
    auth.stop_device(station_of(request).store, who(request), request.path_params["device"])
    return to("/staff")


ROUTES = [
    Route("/login", login),
    Route("/login", posted(enter, locked=False), methods=["POST"]),
    Route("/logout", posted(leave, locked=False), methods=["POST"]),
    Route("/staff", staff),
    Route("/staff/users", posted(add_user), methods=["POST"]),
    Route("/staff/users/{user}", posted(change_user), methods=["POST"]),
    Route("/staff/devices", posted(add_device), methods=["POST"]),
    Route("/staff/devices/{device}/stop", posted(stop_device), methods=["POST"]),
]
