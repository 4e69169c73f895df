"""The station as an ASGI application: routes, static files, and a page for everything that goes wrong."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edge_mdda import __version__
from edge_mdda.errors import StationError
from edge_mdda.station import api, board_page, camera_pages, login_pages, paper_pages, picture_pages, visit_pages
from edge_mdda.station.auth import BOARD, User
from edge_mdda.station.pages import HERE, Station, login_page, render, station_of
from edge_mdda.station.security import SAFE_METHODS, Guard, TooLargeError
from edge_mdda.station.store import says

OUT_OF_ORDER, NO_ROOM = 503, 507
BY_ITSELF = ("/look", "/camera/live", "/camera/state")  # what a live view asks; it keeps nothing unlocked
OPEN_TO_ALL = ("/login", "/healthz")  # without a PIN; and static files


def healthz(request: Request) -> Response:
    """Whether the station can read its records."""
    request.app.state.station.store.row("SELECT 1")
    return JSONResponse({"status": "ok", "version": __version__})


def _page(request: Request, status: int, text: str) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": text}, status)
    if not hasattr(request.state, "user"):  # refused before it was known who asks
        request.state.user = None
    try:
        return render(request, "error.html", status, code=status, text=text, typed=getattr(request.state, "typed", {}))
    except (sqlite3.Error, OSError):  # the page reads the records, too
        return PlainTextResponse(f"{text}\n", status)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: "There is no such page here.", 405: "This page does not take that."}.get(error.status_code, "")
    own_words = error.detail if error.detail and error.detail not in ("Not Found", "Method Not Allowed") else ""
    return _page(request, error.status_code, own_words or text or "This request cannot be answered.")


async def _too_large(request: Request, error: Exception) -> Response:
    return _page(request, 413, "Too large.")


async def _station_problem(request: Request, error: Exception) -> Response:
    return _page(request, OUT_OF_ORDER, f"{str(error)[:1].upper()}{str(error)[1:]}.")


async def _storage_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, sqlite3.Error | OSError)
    text = says(error)
    return _page(request, NO_ROOM if "full" in text else OUT_OF_ORDER, f"{text[:1].upper()}{text[1:]}.")


async def _fault(request: Request, error: Exception) -> Response:
    """A fault of the program: where it happened goes to the log, what the values were does not."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    print(f"edge-mdda: fault: {type(error).__name__} in {last.name}, line {last.lineno}", flush=True)
    return _page(request, 500, "Something went wrong in the program. Go back and try again.")


class _WhoAsks:
    """Middleware: who is at the station."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        request = Request(scope)
        user = await run_in_threadpool(self._user, request)
        scope["state"]["user"] = user
        path = scope["path"]
        away = user is None and path not in OPEN_TO_ALL and not path.startswith(("/static/", "/api/"))
        if away and scope["method"] in SAFE_METHODS:  # the others are asked once their form has been read
            response = await run_in_threadpool(login_page, request)
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _user(self, request: Request) -> User | None:
        gate = station_of(request).gate
        return BOARD if gate.is_open() else gate.user(request.state.sid, request.url.path not in BY_ITSELF)


def make_app(station: Station, hosts: set[str]) -> Guard:
    """The whole application; ``hosts`` are the names that it answers to, with port."""
    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            *visit_pages.ROUTES,
            *picture_pages.ROUTES,
            *paper_pages.ROUTES,
            *login_pages.ROUTES,
            *camera_pages.ROUTES,
            *board_page.ROUTES,
            *api.ROUTES,
            Mount("/static", StaticFiles(directory=HERE / "static"), name="static"),
        ],
        middleware=[Middleware(_WhoAsks)],
        exception_handlers={
            HTTPException: _http_problem,
            TooLargeError: _too_large,
            StationError: _station_problem,
            sqlite3.Error: _storage_problem,
            OSError: _storage_problem,
            Exception: _fault,
        },
    )
    app.state.station = station
    return Guard(app, hosts, station.limits.max_bytes, station.tls)
