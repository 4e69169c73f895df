"""The page *This board*: room, encryption, clock, model, missing files, and the head of the audit log."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_mdda.errors import StationError
from edge_mdda.hardware import inventory, storage
from edge_mdda.station.pages import Station, render, station_of
from edge_mdda.station.store import local


@dataclass(frozen=True)
class Row:
    """One thing that was looked at; ``good`` is None where it cannot be told."""

    name: str
    good: bool | None
    text: str


def room(station: Station) -> Row:
    """For how many visits the disk has room."""
    visits = storage.room_for_visits(station.store.folder)
    advice = "" if visits >= storage.LOW_VISITS else ": back the records up, then make room"
    return Row("Disk", visits >= storage.LOW_VISITS, f"room for about {visits} visits{advice}")


def encryption(station: Station) -> Row:
    """Whether the records' partition is encrypted."""
    encrypted = storage.is_encrypted(station.store.folder)
    words = {
        True: "encrypted",
        False: "not encrypted: whoever takes the board can read it; put the records on an encrypted partition",
        None: "it cannot be told here",
    }
    return Row("Encryption", encrypted, words[encrypted])


def board_clock(station: Station) -> Row:
    """The time, and what keeps it."""
    at, sure = station.store.now()
    keeps = "set by the network" if inventory.clock_synchronised() else "not set by a network"
    chips = inventory.clock_chips()
    text = f"{local(at):%Y-%m-%d %H:%M}, {keeps}, {'kept by a clock chip' if chips else 'no clock chip'}"
    if not sure:
        text += "; it runs behind what is written: an administrator must set it"
    return Row("Clock", sure and bool(chips or inventory.clock_synchronised()), text)


def judging(station: Station) -> Row:
    """Whether pictures can be judged."""
    try:
        said, _ = station.judge.ask({"do": "model"})
    except StationError as error:
        return Row("Judging", False, str(error))
    return Row("Judging", True, f"model {said['name']} ({said['sha256'][:12]})")


def files(station: Station) -> Row:
    """Whether every picture's file is there."""
    count = station.store.rows("SELECT count(*) FROM pictures")[0][0]
    lost = len(station.store.missing)
    text = f"{count} pictures"
    return Row("Pictures", not lost, f"{text}, {lost} files missing: restore a backup" if lost else text)


def audit_log(station: Station) -> Row:
    """Whether the audit log is whole, and its head."""
    found = station.store.audit()
    if found.broken is not None:
        return Row("Audit log", False, f"broken: {found.why}")
    return Row("Audit log", True, f"{found.entries} entries, unbroken; write its head down: {found.head}")


def board(request: Request) -> Response:
    """Everything at once."""
    station = station_of(request)
    looks = (room, encryption, board_clock, judging, files, audit_log)
    return render(request, "board.html", rows=[look(station) for look in looks])


ROUTES = [Route("/board", board)]
