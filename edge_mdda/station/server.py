"""The station as a process: its socket, its records, its worker, and an orderly end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from edge_mdda import NOTICE
from edge_mdda.console import complain
from edge_mdda.errors import StationError
from edge_mdda.files import Limits
from edge_mdda.station.app import make_app
from edge_mdda.station.auth import Gate, require_admin
from edge_mdda.station.camera import Camera
from edge_mdda.station.judge import Judge
from edge_mdda.station.network import EVERYWHERE, LOOPBACK, check_pair, fingerprint, hosts_of, names_of
from edge_mdda.station.pages import Station
from edge_mdda.station.shutter import Shutter
from edge_mdda.station.store import Store

BACKLOG = 64  # connections that wait
MAX_AT_ONCE = 256  # connections, idle ones too; more get 503 at once. A browser opens six
KEEP_ALIVE_S = 15  # seconds that an idle connection stays open
STOP_S = 10  # seconds that requests in work are given at the end
SECRET_BYTES = 32


@dataclass(frozen=True)
class Lan:
    """What the station needs to answer a network."""

    certificate: Path
    key: Path
    names: list[str]
    """More names and addresses of this machine than it knows itself."""


@dataclass(frozen=True)
class Settings:
    """How the station runs."""

    folder: Path
    port: int
    demo: bool
    screener: Mapping[str, Any]
    """Arguments of :class:`edge_mdda.Screener` as plain values."""
    limits: Limits
    lan: Lan | None = None
    """None: this machine alone."""
    camera: str | None = None
    """Device of the board's own camera, or a file of JPEGs."""


def secret_of(store: Store) -> bytes:
    """The secret behind the forms' tokens, made at the first start: a form survives a restart."""
    row = store.row("SELECT value FROM settings WHERE key = 'secret'")
    if row is None:
        with store.writing() as w:
            w.insert("settings", key="secret", value=os.urandom(SECRET_BYTES).hex())
            w.log("station", "records made")
        row = store.row("SELECT value FROM settings WHERE key = 'secret'")
        assert row is not None
    return bytes.fromhex(row["value"])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; StationError where the port cannot be had."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StationError(
            f"port {port} cannot be used ({error.strerror}): stop what uses it, or choose another with --port"
        ) from None
    return listener


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again at its end, before our files are tidied up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _end(server: uvicorn.Server, camera: Camera | None, number: int, frame: FrameType | None) -> None:
    if camera:  # or its live view would never end
        threading.Thread(target=camera.close).start()
    server.handle_exit(number, frame)


def _stop(*_: object) -> None:
    raise SystemExit(0)


def run(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM."""
    signal.signal(signal.SIGTERM, _stop)
    if settings.lan:
        check_pair(settings.lan.certificate, settings.lan.key)
    listener = listen(EVERYWHERE if settings.lan else LOOPBACK, settings.port)
    folder = Path(tempfile.mkdtemp(prefix="edge-mdda-demo-")) if settings.demo else settings.folder
    try:
        camera = Camera(settings.camera) if settings.camera else None
        store = Store(folder)
        judge = Judge({**settings.screener, "max_pixels": settings.limits.max_pixels,
                       "max_bytes": settings.limits.max_bytes})  # fmt: skip
        try:
            _serve(settings, store, judge, listener, camera)
        finally:
            if camera:
                camera.close()
            judge.close()
            store.close()
    finally:
        listener.close()
        if settings.demo:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _warm_up(judge: Judge) -> None:
    """Open the model now, so that the first picture need not wait, and a wrong model is told at the start."""
    try:
        judge.ask({"do": "model"})
    except StationError as error:
        complain("pictures cannot be judged", error)


def _serve(settings: Settings, store: Store, judge: Judge, listener: socket.socket, camera: Camera | None) -> None:
    port = listener.getsockname()[1]
    lan = settings.lan
    names = [LOOPBACK, "localhost", *(names_of(lan.names) if lan else [])]
    hosts = hosts_of(names, port, lan is not None)
    if lan:
        require_admin(store)
    station = Station(store, judge, settings.limits, secret_of(store), Gate(store), settings.demo, lan is not None)
    station.camera = camera
    station.shutter = Shutter() if camera else None
    if store.swept:
        print(f"edge-mdda: removed {len(store.swept)} file(s) of writes that were never completed", file=sys.stderr)
    if store.missing:
        print(
            f"edge-mdda: {len(store.missing)} picture file(s) are missing: check the disk, restore a backup",
            file=sys.stderr,
        )
    if settings.demo:
        from edge_mdda.station.demo import fill

        fill(station)
    else:
        threading.Thread(target=_warm_up, args=(judge,), daemon=True, name="warm up").start()
    config = uvicorn.Config(
        make_app(station, hosts),
        lifespan="off",
        ws="none",
        access_log=False,  # a log of addresses tells who was seen when
        log_config=None,
        log_level="critical",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_AT_ONCE,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
        ssl_certfile=lan.certificate if lan else None,
        ssl_keyfile=lan.key if lan else None,
    )
    address = f"https://{names[2]}" if lan else f"http://{LOOPBACK}"
    print(f"edge-mdda: the station is at {address}:{port}/ (Ctrl-C stops it)", flush=True)
    if lan:
        print(f"edge-mdda: also {', '.join(names[3:])}; certificate {fingerprint(lan.certificate)}", flush=True)
    print(f"edge-mdda: {NOTICE}", flush=True)
    server = _Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, partial(_end, server, camera))
    server.run(sockets=[listener])
