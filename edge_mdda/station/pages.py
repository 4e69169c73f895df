"""What every page needs: the station behind it, the templates, and forms with their token."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from edge_mdda import NOTICE, __version__
from edge_mdda.files import Limits
from edge_mdda.station import charts, findings
from edge_mdda.station.judge import Judge
from edge_mdda.station.security import csrf_token
from edge_mdda.station.sites import FACES, HEIGHT, SITES, WIDTH
from edge_mdda.station.store import Store, day_of, local

HERE = Path(__file__).parent
SEE_OTHER = 303
MAX_FIELDS, MAX_FILES = 40, 8
ADVICE = {"refer": "REFER", "retake": "RETAKE", "routine": "no sign that asks for referral"}
LIMITS_TEXT = (
    "In other clinics it misses more: of 307 malignant lesions of the official ISIC 2018 test set 15 got no sign"
    " (5 %), of 519 melanomas of an older ISIC archive 127 (24 %). Darker skin is hardly in its training data."
    " A lesion that changes is referred whatever this says."
)


@dataclass
class Station:
    """What the pages work with."""

    store: Store
    judge: Judge
    limits: Limits
    secret: bytes
    demo: bool = False
    tls: bool = False
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
        BASES=findings.BASES, SEXES=charts.SEXES, SITES=SITES, FACES=FACES, MAP=(WIDTH, HEIGHT),
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
    user = request.state.user
    return str(user["name"]) if user else "this board"


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


Handler = Callable[[Request, FormData], Response]


def posted(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint of a function that takes a form: read in bounds, its token checked, run in a thread."""

    async def endpoint(request: Request) -> Response:
        station = station_of(request)
        # Pictures stay in memory and are never spilled to a temporary folder.
        MultiPartParser.spool_max_size = max(MultiPartParser.spool_max_size, station.limits.max_bytes + 1)
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS) as form:
            token = form.get("csrf")
            wanted = csrf_token(station.secret, request.state.sid)
            if not isinstance(token, str) or not hmac.compare_digest(token.encode(), wanted.encode()):
                raise HTTPException(403, "This page was open too long. Go back, reload it, and send it again.")
            return await run_in_threadpool(handler, request, form)

    endpoint.__name__ = handler.__name__
    return endpoint


def texts(form: FormData) -> Mapping[str, str]:
    """The text fields of a form, to be shown again where one is wrong."""
    return {name: value for name, value in form.items() if isinstance(value, str) and name != "csrf"}
