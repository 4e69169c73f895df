"""What every page needs: the station behind it, the templates, and forms with their token."""

from __future__ import annotations

import asyncio
import hmac
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from edge_mdda import NOTICE, __version__
from edge_mdda.errors import StationError
from edge_mdda.files import Limits
from edge_mdda.hardware.storage import MIN_VISITS, room_for_visits
from edge_mdda.station import charts, findings
from edge_mdda.station.auth import Gate
from edge_mdda.station.camera import Camera
from edge_mdda.station.judge import Judge
from edge_mdda.station.security import csrf_token
from edge_mdda.station.shutter import Shutter
from edge_mdda.station.sites import FACES, HEIGHT, SITES, WIDTH
from edge_mdda.station.store import Store, day_of, local
from edge_mdda.station.words import ADVICE, LIMITS_TEXT

HERE = Path(__file__).parent
SEE_OTHER = 303
MAX_FIELDS, MAX_FILES = 40, 8
MAX_UPLOADS = 4  # requests with pictures that are read at a time


@dataclass
class Station:
    """What the pages work with."""

    store: Store
    judge: Judge
    limits: Limits
    secret: bytes
    gate: Gate
    demo: bool = False
    tls: bool = False
    camera: Camera | None = None
    """The board's own camera."""
    shutter: Shutter | None = None
    """The button on it."""
    uploads: asyncio.Semaphore | None = None
    templates: Environment = field(default_factory=lambda: _environment())


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        NOTICE=NOTICE, VERSION=__version__, ADVICE=ADVICE, LIMITS_TEXT=LIMITS_TEXT, ACTIONS=findings.ACTIONS,
        BASES=findings.BASES, SEXES=charts.SEXES, SITES=SITES, FACES=FACES, MIN_VISITS=MIN_VISITS, MAP=(WIDTH, HEIGHT),
    )  # fmt: skip
    environment.filters["percent"] = lambda share: f"{share:.0%}"
    environment.filters["moment"] = lambda at: f"{local(at):%Y-%m-%d %H:%M}"
    environment.filters["day"] = day_of
    return environment


def station_of(request: Request) -> Station:
    """The station that a request came to."""
    station: Station = request.app.state.station
    return station


def who(request: Request) -> str:
    """Who is at the station, for the records."""
    return str(request.state.user.name)


def year(store: Store) -> int:
    """The current year."""
    return int(store.now()[0][:4])


def render(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """A page. The context's names are the template's."""
    station = station_of(request)
    user = request.state.user
    text = station.templates.get_template(template).render(
        csrf=csrf_token(station.secret, request.state.sid),
        user=user,
        demo=station.demo,
        room=room_for_visits(station.store.folder),
        board_camera=station.camera is not None,
        clock_unsure=not station.store.now()[1],
        path=request.url.path,
        **context,
    )
    return HTMLResponse(text, status)


def to(url: str) -> Response:
    """Go on to another page, so that reloading sends nothing twice."""
    return RedirectResponse(url, SEE_OTHER)


def found(value: Any, what: str) -> Any:
    """The value, or the page that says that there is none."""
    if value is None:
        raise HTTPException(404, f"There is no such {what} here.")
    return value


KEPT = "kept-"
"""Before the name of a field that was typed before the station locked itself."""


def own_path(text: object) -> str:
    """A path of this station; the start page for anything else."""
    parts = urlsplit(str(text or "/"))
    good = not parts.scheme and not parts.netloc and parts.path.startswith("/") and not parts.path.startswith("//")
    return parts.path if good and "\\" not in parts.path else "/"


def login_page(request: Request, form: FormData | None = None, errors: object = None) -> Response:
    """Ask for the PIN; what was typed elsewhere goes along."""
    kept, after = {}, request.url.path
    if form is not None and request.url.path == "/login":
        after = own_path(form.get("next"))
        kept = {k: v for k, v in form.items() if k.startswith(KEPT) and isinstance(v, str)}
    elif request.method == "POST" and form is None:
        after = request.url.path.rpartition("/")[0]  # pictures are not carried: back to the page that sends them
    elif form is not None:
        kept = {KEPT + k: v for k, v in form.items() if isinstance(v, str) and k not in ("csrf", "pin")}
    return render(
        request,
        "login.html",
        401,
        after="/" if after in ("/login", "/logout") else after,
        kept=kept,
        name=str(form.get("name") or "") if form and request.url.path == "/login" else "",
        errors=errors or {},
    )


Handler = Callable[[Request, FormData], Response]
Page = TypeVar("Page", bound=Callable[..., Response])


def needs(role: str) -> Callable[[Page], Page]:
    """Let only people of this role, or a higher one, to a page."""

    def decorate(page: Page) -> Page:
        @wraps(page)
        def checked(request: Request, *more: Any) -> Response:
            if not request.state.user.may(role):
                raise HTTPException(403, f"Only a person with the role {role} may do this: ask one to enter a PIN.")
            return page(request, *more)

        return cast(Page, checked)

    return decorate


def posted(handler: Handler, locked: bool = True) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint of a function that takes a form: read in bounds, its token checked, run in a thread.

    ``locked`` says whether a PIN must have been entered; what was typed before the station locked itself is kept.
    """

    async def endpoint(request: Request) -> Response:
        station = station_of(request)
        if locked and request.state.user is None and not is_text(request):
            async for _ in request.stream():
                pass  # a browser shows the answer only once it has sent everything; a stranger fills no memory
            return await run_in_threadpool(login_page, request)
        async with nullcontext() if is_text(request) else uploads(station):
            return await answered(request, station)

    async def answered(request: Request, station: Station) -> Response:
        # Pictures stay in memory and are never spilled to a temporary folder.
        MultiPartParser.spool_max_size = max(MultiPartParser.spool_max_size, station.limits.max_bytes + 1)
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS) as form:
            token = form.get("csrf")
            wanted = csrf_token(station.secret, request.state.sid)
            if not isinstance(token, str) or not hmac.compare_digest(token.encode(), wanted.encode()):
                raise HTTPException(403, "This page was open too long. Go back, reload it, and send it again.")
            if locked and request.state.user is None:
                return await run_in_threadpool(login_page, request, form)
            try:
                return await run_in_threadpool(handler, request, form)
            except (StationError, sqlite3.Error, OSError) as error:
                request.state.typed = texts(form)
                raise error from None

    endpoint.__name__ = handler.__name__
    return endpoint


def is_text(request: Request) -> bool:
    """Whether a request carries a small form without files, by what it says of itself; the guard holds it to that."""
    return request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")


def uploads(station: Station) -> asyncio.Semaphore:
    """Room for as many pictures at once as memory bears."""
    if station.uploads is None:  # made by the loop that uses it
        station.uploads = asyncio.Semaphore(MAX_UPLOADS)
    return station.uploads


def texts(form: FormData) -> Mapping[str, str]:
    """The text fields of a form, to be shown again where one is wrong."""
    return {name: value for name, value in form.items() if isinstance(value, str) and name != "csrf"}
