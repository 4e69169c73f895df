"""Pictures, what the network said of them, and what a clinician decided."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from edge_mdda.errors import StationError
from edge_mdda.station.charts import FieldsError, text_of, visit_today
from edge_mdda.station.store import Store, new_id

ACTIONS = {
    "referred": "referred to a clinic or hospital",
    "biopsy": "biopsy taken or planned",
    "follow-up": "to be seen again here",
    "retake": "a new picture is needed",
    "none": "nothing further",
}
MAX_DECISION, MAX_CLINICIAN, MAX_DIAGNOSIS = 2000, 200, 500  # characters
BASES = {"histology": "histology", "follow-up": "seen again", "expert": "an expert's opinion"}
OPEN_AT_MOST = 50  # pictures of earlier days on the first page
URGENCY = "CASE s.advice WHEN 'refer' THEN 0 WHEN 'retake' THEN 1 WHEN 'routine' THEN 3 ELSE 2 END"
"""REFER first, then RETAKE, then what is not judged yet."""

_PICTURES = """
    SELECT p.id, p.lesion, p.visit, p.file, p.source, p.made_at, p.made_by, v.day, v.clock_sure,
        l.patient, l.site, l.number, t.own_id, t.name, s.id AS screening, s.advice, s.malignant, s.raw_view,
        s.purified_view, d.action, d.clinician, d.note AS decision_note, d.made_at AS decided_at,
        w.reason AS withdrawn, f.bytes, f.media_type
    FROM pictures p
    JOIN visits v ON v.id = p.visit
    JOIN lesions l ON l.id = p.lesion
    JOIN patients t ON t.id = l.patient
    JOIN files f ON f.sha256 = p.file
    LEFT JOIN withdrawals w ON w.picture = p.id
    LEFT JOIN screenings s ON s.rowid = (SELECT max(rowid) FROM screenings WHERE picture = p.id)
    LEFT JOIN decisions d ON d.rowid = (SELECT max(rowid) FROM decisions WHERE picture = p.id)
"""


def add_picture(store: Store, who: str, lesion: sqlite3.Row, content: bytes, source: str) -> str:
    """Keep a picture of a lesion, the bytes as they came; the same bytes twice in a visit are one picture."""
    with store.writing() as w:
        visit = visit_today(w, who, lesion["patient"])
        digest = w.keep(content)
        known = w.connection.execute(
            "SELECT id FROM pictures WHERE visit = ? AND lesion = ? AND file = ?", (visit, lesion["id"], digest)
        ).fetchone()
        if known:
            return str(known[0])
        picture = new_id()
        w.insert(
            "pictures", id=picture, lesion=lesion["id"], visit=visit, file=digest, source=source, made_at=w.at,
            made_by=who,
        )  # fmt: skip
        w.log(who, "picture added", picture, f"sha256 {digest}")
    return picture


def add_screening(
    store: Store,
    who: str,
    picture: str,
    answer: Mapping[str, Any],
    names: Mapping[str, Any],
    raw: bytes,
    purified: bytes,
) -> str:
    """Keep an answer, whole, with the two views that the network saw.

    Parameters
    ----------
    answer : mapping
        :meth:`edge_mdda.screening.Screening.to_dict`.
    names : mapping
        ``labels`` (label to full name) and ``malignant`` (labels) of the model.
    raw, purified : bytes
        PNG files; ``purified`` is empty where nothing was purified.
    """
    seed = (answer["purify"] or {}).get("seed")
    with store.writing() as w:
        screening = new_id()
        w.insert(
            "screenings",
            id=screening,
            picture=picture,
            answer=json.dumps(answer, sort_keys=True),
            advice=answer["advice"],
            malignant=answer["malignant"],
            model=answer["model"]["name"],
            model_sha256=answer["model"]["sha256"],
            version=answer["version"],
            seed=None if seed is None else str(seed),
            names=json.dumps(names),
            raw_view=w.keep(raw),
            purified_view=w.keep(purified) if purified else None,
            made_at=w.at,
            made_by=who,
        )
        w.log(who, "picture judged", picture, str(answer["advice"]))
    return screening


def add_decision(store: Store, who: str, picture: str, form: Mapping[str, Any]) -> str:
    """Keep what a clinician decided; an earlier decision stays beside it."""
    errors = {}
    values: dict[str, str] = {"action": str(form.get("action") or "")}
    if values["action"] not in ACTIONS:
        errors["action"] = "Decision: choose one"
    for field, label, most in (("note", "Note", MAX_DECISION), ("clinician", "Clinician", MAX_CLINICIAN)):
        try:
            values[field] = text_of(form.get(field), most)
        except ValueError as error:
            errors[field] = f"{label}: {error}"
    if "clinician" not in errors and not values["clinician"]:
        errors["clinician"] = "Clinician: write who decided"
    if errors:
        raise FieldsError(errors)
    with store.writing() as w:
        decision = new_id()
        w.insert("decisions", id=decision, picture=picture, **values, made_at=w.at, made_by=who)
        w.log(who, "decision written", picture, values["action"])
    return decision


def withdraw_picture(store: Store, who: str, picture: str, reason: str) -> None:
    """Take a picture out of the lists, with a reason; its file and its rows stay."""
    try:
        words = text_of(reason, MAX_DIAGNOSIS)
    except ValueError as error:
        raise FieldsError({"reason": f"Reason: {error}"}) from None
    if len(words) < 3:
        raise FieldsError({"reason": "Reason: write why this picture must not count"})
    with store.writing() as w:
        if w.connection.execute("SELECT 1 FROM withdrawals WHERE picture = ?", (picture,)).fetchone():
            raise StationError("this picture was already withdrawn")
        w.insert("withdrawals", picture=picture, reason=words, made_at=w.at, made_by=who)
        w.log(who, "picture withdrawn", picture)


def add_outcome(store: Store, who: str, lesion: str, form: Mapping[str, Any]) -> str:
    """Keep what a lesion turned out to be."""
    errors = {}
    diagnosis, basis = "", str(form.get("basis") or "")
    try:
        diagnosis = text_of(form.get("diagnosis"), MAX_DIAGNOSIS)
        if not diagnosis:
            errors["diagnosis"] = "Outcome: write what was found"
    except ValueError as error:
        errors["diagnosis"] = f"Outcome: {error}"
    if basis not in BASES:
        errors["basis"] = "Known from: choose one"
    if errors:
        raise FieldsError(errors)
    with store.writing() as w:
        outcome = new_id()
        w.insert("outcomes", id=outcome, lesion=lesion, diagnosis=diagnosis, basis=basis, made_at=w.at, made_by=who)
        w.log(who, "outcome written", lesion, basis)
    return outcome


def outcomes_of(store: Store, lesion: str) -> list[sqlite3.Row]:
    """What a lesion turned out to be, latest first."""
    return store.rows("SELECT * FROM outcomes WHERE lesion = ? ORDER BY rowid DESC", (lesion,))


def picture_of(store: Store, picture: str) -> sqlite3.Row | None:
    """One picture with its patient, its last answer and its last decision."""
    return store.row(_PICTURES + " WHERE p.id = ?", (picture,))


def pictures_of(store: Store, lesion: str) -> list[sqlite3.Row]:
    """A lesion's pictures, latest first."""
    return store.rows(_PICTURES + " WHERE p.lesion = ? ORDER BY p.made_at DESC, p.rowid DESC", (lesion,))


def pictures_on(store: Store, day: str) -> list[sqlite3.Row]:
    """A day's pictures, those that ask for a referral first; withdrawn ones are left out."""
    return store.rows(
        _PICTURES + f" WHERE v.day = ? AND w.picture IS NULL ORDER BY {URGENCY}, p.made_at DESC, p.rowid DESC", (day,)
    )


def left_open(store: Store, before: str) -> list[sqlite3.Row]:
    """Pictures of earlier days that ask for a referral and on which nobody has decided, latest first."""
    return store.rows(
        _PICTURES
        + """ WHERE p.id IN (
            SELECT o.picture FROM undecided o JOIN pictures q ON q.id = o.picture JOIN visits u ON u.id = q.visit
            WHERE u.day < ? ORDER BY o.number DESC LIMIT ?
        ) ORDER BY p.rowid DESC""",
        (before, OPEN_AT_MOST),
    )


def answer_of(store: Store, screening: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A screening's whole JSON, and the names that go with it."""
    row = store.row("SELECT answer, names FROM screenings WHERE id = ?", (screening,))
    if row is None:
        raise StationError("there is no such screening")
    return json.loads(row["answer"]), json.loads(row["names"])


def decisions_of(store: Store, picture: str) -> list[sqlite3.Row]:
    """Every decision on a picture, latest first."""
    return store.rows("SELECT * FROM decisions WHERE picture = ? ORDER BY rowid DESC", (picture,))
