"""The audit log: it only grows, and each entry is hashed over the one before.

What it does not withstand: who can write the database can write a whole new chain, or cut its end off. Keep the last
hash (``edge-mdda serve audit`` prints it) somewhere else, on paper for instance, and compare.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from edge_mdda.digest import sha256

START = "0" * 64
"""What the first entry is hashed over."""
COLUMNS = "number, at, who, what, about, detail, before, hash"


@dataclass(frozen=True)
class Check:
    """What a look at the whole log found."""

    entries: int
    head: str
    """Hash of the last entry."""
    broken: int | None
    """Number of the first entry that does not fit; None where all do."""
    why: str = ""


def hash_of(number: int, at: str, who: str, what: str, about: str, detail: str, before: str) -> str:
    """SHA-256, in hexadecimal digits, of one entry and the hash of the one before it."""
    fields = [number, at, who, what, about, detail, before]
    return sha256(json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def append(connection: sqlite3.Connection, at: str, who: str, what: str, about: str = "", detail: str = "") -> str:
    """Add an entry inside the transaction of what it tells of; returns its hash.

    ``about`` is an opaque ID; ``detail`` names no patient.
    """
    last = connection.execute("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    number, before = (last[0] + 1, last[1]) if last else (1, START)
    digest = hash_of(number, at, who, what, about, detail, before)
    connection.execute(
        f"INSERT INTO audit ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (number, at, who, what, about, detail, before, digest),
    )
    return digest


def verify(connection: sqlite3.Connection) -> Check:
    """Hash the whole log again and name the first entry that does not fit."""
    count, head = 0, START
    for row in connection.execute(f"SELECT {COLUMNS} FROM audit ORDER BY number"):
        number, at, who, what, about, detail, before, digest = row
        if number != count + 1:
            return Check(count, head, count + 1, f"entry {count + 1} is missing")
        if before != head:
            return Check(count, head, number, f"entry {number} does not follow on the one before it")
        if hash_of(number, at, who, what, about, detail, before) != digest:
            return Check(count, head, number, f"entry {number} was changed")
        count, head = number, digest
    return Check(count, head, None)
