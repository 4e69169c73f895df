"""What stands before every page: host, origin, size and method are checked, and every answer carries strict headers.

What it does not withstand: whoever may read the board's disk or sit down at an unlocked station.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SAFE_METHODS = ("GET", "HEAD")
METHODS = (*SAFE_METHODS, "POST")
MAX_FORM = 1 << 16  # bytes of a request without a picture
ENVELOPE = 1 << 16  # bytes of a form around a picture
COOKIE = "station"
SMALL_KINDS = ("application/x-www-form-urlencoded", "application/json")
SID = re.compile(r"[0-9a-f]{64}")
API = "/api/"
HEADERS = {
    # blob: is the live view's still before it is sent; there is no inline script or style anywhere.
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none';"
        " form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # "no-referrer" would make browsers send "Origin: null" with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


class TooLargeError(Exception):
    """The body has more bytes than a request may have."""


def csrf_token(secret: bytes, sid: str) -> str:
    """The token that forms of this browser carry."""
    return hmac.new(secret, sid.encode(), "sha256").hexdigest()


class Guard:
    """Middleware around the whole application.

    Parameters
    ----------
    app : ASGI application
    hosts : set of str
        ``Host`` headers that are answered, with port. A page of another name (DNS rebinding) gets nothing.
    max_bytes : int
        Largest picture.
    tls : bool
        Whether this is HTTPS: cookies then travel over nothing else.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: set[str], max_bytes: int, tls: bool) -> None:
        self.app, self.hosts, self.max_bytes, self.tls = app, hosts, max_bytes, tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no page of ours opens a web socket
            return
        headers = Headers(scope=scope)
        sid = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        fresh = SID.fullmatch(sid) is None
        scope.setdefault("state", {})["sid"] = sid = os.urandom(32).hex() if fresh else sid
        api = scope["path"].startswith(API)

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out[name] = value
                if "cache-control" not in out:
                    out["cache-control"] = "no-store"
                new = scope["state"].get("new_sid") or (sid if fresh and scope["path"] != "/healthz" else None)
                if new and not api:
                    out.append("set-cookie", self._cookie(new))
            await send(message)

        refusal = self._refusal(scope, headers, api)
        if refusal:
            status, text = refusal
            await PlainTextResponse(text + "\n", status)(scope, receive, answer)
            return
        await self.app(scope, self._limited(scope, receive), answer)

    def _cookie(self, sid: str) -> str:
        return f"{COOKIE}={sid}; Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if self.tls else "")

    def _refusal(self, scope: Scope, headers: Headers, api: bool) -> tuple[int, str] | None:
        """Status and one line for a request that goes no further."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return 421, "This station does not answer to that name: open the address that it printed at its start."
        if scope["method"] not in METHODS:
            return 405, "This method is not used here."
        if scope["method"] not in SAFE_METHODS and not api:  # there, no cookie counts
            own = f"{'https' if self.tls else 'http'}://{hosts[0].lower()}"
            if headers.get("origin", "").lower() != own:
                return 403, "This request came from another page: use the station's own pages."
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > 15:
            return 400, "The request's length makes no sense."
        if int(length) > self._limit(headers):
            return 413, f"Too large: a picture may have {self.max_bytes / 2**20:.4g} MiB."
        return None

    def _limit(self, headers: Headers) -> int:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return MAX_FORM if kind in SMALL_KINDS else self.max_bytes + ENVELOPE

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """``receive`` that stops a body which has no length or lies about it."""
        left = self._limit(Headers(scope=scope))

        async def limited() -> MutableMapping[str, Any]:
            nonlocal left
            message = await receive()
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                if left < 0:
                    raise TooLargeError
            return message

        return limited
