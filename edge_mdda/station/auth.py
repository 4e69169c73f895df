"""Who is at the station: people with a role and a PIN, sessions that lock when idle, and devices with a token.

What it does not withstand: a PIN that was watched, and whoever may read the disk and has time (six digits are few; the
hash only makes each guess dear).
"""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nacl import exceptions, pwhash

from edge_mdda.digest import sha256
from edge_mdda.errors import StationError
from edge_mdda.station.charts import FieldsError, text_of
from edge_mdda.station.store import Store, new_id

ROLES = {
    "operator": "finds and adds patients, takes pictures",
    "clinician": "also decides",
    "admin": "also names who may do what",
}
"""Each may do what those before it may."""

MIN_PIN, MAX_PIN = 6, 128  # characters
MAX_USER_NAME = 64  # characters
OPERATIONS, MEMORY = 3, 32 << 20  # Argon2id: passes, bytes; a third of a second on a Raspberry Pi 4
FREE_TRIES = 3  # wrong PINs without a delay
MAX_DELAY_S = 900.0  # seconds; each wrong PIN doubles the delay up to here
IDLE_S = 600.0  # seconds without a request until the PIN is asked for again
TOKEN_BYTES = 32


@dataclass(frozen=True)
class User:
    """Somebody who has entered a PIN, or a device that has shown its token."""

    id: str
    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether this is somebody of that role or a higher one."""
        order = list(ROLES)
        return order.index(self.role) >= order.index(role)


BOARD = User("", "this board", "admin")
"""Whoever sits at the board while no PIN is set."""


@dataclass
class _Session:
    user: User
    seen: float


def hash_pin(pin: str) -> str:
    """Argon2id of a PIN, with its own salt."""
    return str(pwhash.argon2id.str(pin.encode(), OPERATIONS, MEMORY).decode())


def fits(pin: str, stored: str) -> bool:
    """Whether this is the PIN."""
    try:
        return bool(pwhash.verify(stored.encode(), pin.encode()))
    except exceptions.InvalidkeyError:
        return False


def hash_token(token: str) -> str:
    """SHA-256 of a token; it is random, so nothing slower is needed."""
    return sha256(token.encode()).hexdigest()


def checked_user(name: str, role: str, pin: str) -> str:
    """The name as it is kept; FieldsError where a field is wrong."""
    errors = {}
    try:
        name = text_of(name, MAX_USER_NAME)
        if not name:
            errors["name"] = "Name: write one"
    except ValueError as error:
        errors["name"] = f"Name: {error}"
    if role not in ROLES:
        errors["role"] = f"Role: one of {', '.join(ROLES)}"
    errors.update(_wrong_pin(pin))
    if errors:
        raise FieldsError(errors)
    return name


def _wrong_pin(pin: str) -> dict[str, str]:
    if not MIN_PIN <= len(pin) <= MAX_PIN:
        return {"pin": f"PIN: {MIN_PIN} to {MAX_PIN} digits or letters"}
    steps = {ord(b) - ord(a) for a, b in itertools.pairwise(pin)}
    if len(steps) == 1 and steps <= {-1, 0, 1}:
        return {"pin": "PIN: not one digit again and again, and not digits in a row"}
    return {}


def add_user(store: Store, who: str, name: str, role: str, pin: str) -> str:
    """Keep somebody with a PIN; the first one is an admin. FieldsError where a field is wrong."""
    name = checked_user(name, role, pin)
    if role != "admin" and not any(user["role"] == "admin" and user["active"] for user in users_of(store)):
        raise FieldsError({"role": "Role: the first one must be an admin"})
    stored = hash_pin(pin)
    with store.writing() as w:
        if w.connection.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone():
            raise FieldsError({"name": "Name: somebody has this name"})
        user = new_id()
        w.insert("users", id=user, name=name, role=role, pin=stored, made_at=w.at, made_by=who)
        w.log(who, "user added", user, role)
    return user


def set_pin(store: Store, who: str, user: str, pin: str) -> None:
    """Give somebody a new PIN and end the delay."""
    errors = _wrong_pin(pin)
    if errors:
        raise FieldsError(errors)
    stored = hash_pin(pin)
    with store.writing() as w:
        w.connection.execute("UPDATE users SET pin = ?, failures = 0, not_before = 0 WHERE id = ?", (stored, user))
        w.log(who, "PIN set", user)


def set_active(store: Store, who: str, user: str, active: bool) -> None:
    """Let somebody in again, or no more; the last admin stays."""
    with store.writing() as w:
        others = w.connection.execute(
            "SELECT count(*) FROM users WHERE role = 'admin' AND active = 1 AND id <> ?", (user,)
        ).fetchone()[0]
        if not active and not others:
            raise FieldsError({"name": "The last admin stays: name another admin first"})
        w.connection.execute("UPDATE users SET active = ? WHERE id = ?", (int(active), user))
        w.log(who, "user let in again" if active else "user shut out", user)


def users_of(store: Store) -> list[sqlite3.Row]:
    """Everybody, by name."""
    return store.rows("SELECT * FROM users ORDER BY name COLLATE NOCASE")


def add_device(store: Store, who: str, name: str) -> str:
    """Keep a device; returns its token, which is shown this once and nowhere kept."""
    try:
        name = text_of(name, MAX_USER_NAME)
    except ValueError as error:
        raise FieldsError({"device": f"Device: {error}"}) from None
    if not name:
        raise FieldsError({"device": "Device: write a name for it"})
    token = os.urandom(TOKEN_BYTES).hex()
    with store.writing() as w:
        if w.connection.execute("SELECT 1 FROM devices WHERE name = ?", (name,)).fetchone():
            raise FieldsError({"device": "Device: another has this name"})
        device = new_id()
        w.insert("devices", id=device, name=name, token=hash_token(token), made_at=w.at, made_by=who)
        w.log(who, "device added", device)
    return token


def stop_device(store: Store, who: str, device: str) -> None:
    """Take a device's token back."""
    with store.writing() as w:
        w.connection.execute("UPDATE devices SET active = 0 WHERE id = ?", (device,))
        w.log(who, "device shut out", device)


def devices_of(store: Store) -> list[sqlite3.Row]:
    """Every device, by name."""
    return store.rows("SELECT * FROM devices ORDER BY name COLLATE NOCASE")


def device_of(store: Store, header: str) -> User | None:
    """The device that an ``Authorization: Bearer`` header speaks for."""
    found = re.fullmatch(r"Bearer ([0-9a-f]{64})", header)
    if not found:
        return None
    row = store.row("SELECT * FROM devices WHERE token = ? AND active = 1", (hash_token(found[1]),))
    return User(row["id"], f"device {row['name']}", "operator") if row else None


@dataclass
class Gate:
    """Sessions, kept in memory: a restart locks everything.

    Parameters
    ----------
    store : Store
    idle_s : float
        Seconds without a request until a session is locked.
    now, wall : callable
        Monotonic seconds, and seconds since 1970.
    """

    store: Store
    idle_s: float = IDLE_S
    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    _sessions: dict[str, _Session] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _guess: threading.Lock = field(default_factory=threading.Lock)
    _nobody: str = ""
    _unknown_failures: int = 0
    _unknown_until: float = 0.0

    def is_open(self) -> bool:
        """Whether no PIN was ever set: whoever sits at the board may do everything."""
        return self.store.row("SELECT 1 FROM users LIMIT 1") is None

    def user(self, sid: str, awake: bool = True) -> User | None:
        """Who this browser's session is of; None where it is locked or there is none.

        ``awake`` says that somebody did something: a live view that asks by itself keeps nothing unlocked.
        """
        key = hash_token(sid)
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return None
            if self.now() - session.seen > self.idle_s:
                del self._sessions[key]
                return None
            if awake:
                session.seen = self.now()
            user = session.user
        row = self.store.row("SELECT name, role FROM users WHERE id = ? AND active = 1", (user.id,))
        return User(user.id, row["name"], row["role"]) if row else None

    def enter(self, name: str, pin: str) -> str:
        """Check a PIN; returns the ID of a new session. FieldsError where it is wrong or came too early.

        One guess at a time is looked at, so that many at once cannot outrun the delay.
        """
        with self._guess:
            row = self.store.row("SELECT * FROM users WHERE name = ? AND active = 1", (" ".join(name.split()),))
            until = row["not_before"] if row else self._unknown_until
            # A clock that was set back must not lock anybody out for longer than the longest delay.
            wait = min(until - self.wall(), MAX_DELAY_S)
            if wait > 0:
                raise FieldsError({"pin": f"Too many wrong PINs: wait {wait:.0f} s, or ask an admin for a new PIN"})
            if not self._nobody:
                self._nobody = hash_pin(os.urandom(8).hex())
            # A name that nobody has takes as long as a wrong PIN, and gets the same answer.
            right = fits(pin[:MAX_PIN], row["pin"] if row else self._nobody)
            if not row or not right:
                self._failed(row["id"] if row else None, row["failures"] + 1 if row else 0)
                raise FieldsError({"pin": "The name or the PIN is wrong"})
            with self.store.writing() as w:
                w.connection.execute("UPDATE users SET failures = 0, not_before = 0 WHERE id = ?", (row["id"],))
                w.log(row["name"], "entered", row["id"])
        sid = os.urandom(TOKEN_BYTES).hex()
        with self._lock:
            user = User(row["id"], row["name"], row["role"])
            self._sessions[hash_token(sid)] = _Session(user, self.now())
        return sid

    def _failed(self, user: str | None, failures: int) -> None:
        if user is None:
            self._unknown_failures += 1
            self._unknown_until = self.wall() + delay(self._unknown_failures)
            return
        with self.store.writing() as w:
            w.connection.execute(
                "UPDATE users SET failures = ?, not_before = ? WHERE id = ?",
                (failures, self.wall() + delay(failures), user),
            )
            w.log("station", "wrong PIN", user, f"{failures} in a row")

    def leave(self, sid: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(hash_token(sid), None)


def delay(failures: int) -> float:
    """Seconds to wait after so many wrong PINs in a row."""
    over = failures - FREE_TRIES
    return 0.0 if over < 0 else min(2.0 ** min(over, 16), MAX_DELAY_S)


def require_admin(store: Store) -> None:
    """StationError where there is no admin with a PIN."""
    if not any(user["role"] == "admin" and user["active"] for user in users_of(store)):
        raise StationError("no admin has a PIN: run 'edge-mdda serve add-user NAME --role admin' first")
