"""A station for tests: a client that behaves like one browser, and the command itself in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from edge_mdda.files import Limits
from edge_mdda.station.app import make_app
from edge_mdda.station.auth import Gate
from edge_mdda.station.judge import Judge
from edge_mdda.station.pages import Station
from edge_mdda.station.store import Store

with warnings.catch_warnings():
    # Starlette would rather have httpx2, which needs a newer idna than the robustness extra's packages allow.
    warnings.simplefilter("ignore", UserWarning)
    from starlette.testclient import TestClient

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1:8080"
ORIGIN = f"http://{HOST}"
LIMITS = Limits(4_000_000, 2 << 20)
OPTIONS = {"purify": "both", "preset": "balanced", "max_pixels": LIMITS.max_pixels, "max_bytes": LIMITS.max_bytes}
PATIENT = {"own_id": "P-1", "name": "Ann Example", "birth_year": "1970", "sex": "female"}


class Browser:
    """Follows forms as a browser would: cookie, origin and token come from the pages."""

    def __init__(self, app) -> None:
        self.client = TestClient(app, base_url=ORIGIN, raise_server_exceptions=False)
        self.page = self.get("/")

    def get(self, path: str):
        self.page = self.client.get(path)
        return self.page

    def token(self) -> str:
        return re.search(r'name="csrf" value="([0-9a-f]{64})"', self.client.get("/").text)[1]

    def post(self, path: str, data: dict | None = None, files=None, token: str | None = None, **headers: str):
        form = {"csrf": self.token() if token is None else token, **(data or {})}
        self.page = self.client.post(path, data=form, files=files, headers={"origin": ORIGIN, **headers})
        return self.page

    def here(self) -> str:
        """The path at which redirects have ended."""
        return self.page.url.path

    def new_patient(self, **fields: str) -> str:
        """Add a patient; the path of the page."""
        assert self.post("/patients", {**PATIENT, **fields}).status_code == 200
        return self.here()

    def new_lesion(self, site: str = "upper-back-left-back", **fields: str) -> str:
        """Add a patient with a lesion; the path of the lesion's page."""
        assert self.post(f"{self.new_patient(**fields)}/lesions", {"site": site}).status_code == 200
        return self.here()

    def new_picture(self, content: bytes, **fields: str) -> str:
        """Add a patient, a lesion and a picture; the path of the picture's page."""
        files = {"pictures": ("x.jpg", content, "image/jpeg")}
        self.post(f"{self.new_lesion(**fields)}/pictures", files=files)
        return self.here()


@contextlib.contextmanager
def station_in(folder: Path) -> Iterator[Station]:
    """A station on this folder, without a socket."""
    store, judge = Store(folder), Judge(OPTIONS)
    try:
        yield Station(store, judge, LIMITS, b"secret" * 6, Gate(store))
    finally:
        judge.close()
        store.close()


def application(station: Station):
    """The ASGI application of a station."""
    return make_app(station, {HOST})


@contextlib.contextmanager
def command(*arguments: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``edge-mdda serve`` with these arguments on a free port: the process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_mdda", "serve", "--port", "0", *arguments],
        cwd=ROOT, env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        found = re.search(r"https?://[\w.:-]+", line)
        assert found, f"{line!r} {process.stderr.read() if process.poll() is not None else ''}"
        yield process, found[0]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
