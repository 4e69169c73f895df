"""Patients, their lesions and visits. Every function writes its own line to the audit log."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

from edge_mdda.errors import StationError
from edge_mdda.station.sites import SITES
from edge_mdda.station.store import Store, Writing, day_of, new_id

SEXES = {"unknown": "not known", "female": "female", "male": "male", "other": "other"}
FOUND_AT_MOST = 50  # patients shown by a search
MIN_BIRTH_YEAR = 1880  # nobody alive is older
MAX_OWN_ID, MAX_NAME, MAX_NOTE = 64, 200, 1000  # characters


class FieldsError(StationError):
    """Fields of a form that cannot be kept: a sentence for each."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = dict(errors)


def text_of(value: object, most: int) -> str:
    """One line without control characters, or a FieldsError-worthy ValueError where it is too long."""
    text = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", str(value or "")).split())
    if len(text) > most:
        raise ValueError(f"at most {most} characters; these are {len(text)}")
    return text


def checked_patient(form: Mapping[str, Any], year: int) -> dict[str, Any]:
    """The fields of a patient, or FieldsError. ``year`` is the current one."""
    errors: dict[str, str] = {}
    values: dict[str, Any] = {}
    for field, label, most in (("own_id", "Patient's number", MAX_OWN_ID), ("name", "Name", MAX_NAME)):
        try:
            values[field] = text_of(form.get(field), most)
        except ValueError as error:
            errors[field] = f"{label}: {error}"
    if not errors.get("own_id") and not values["own_id"]:
        errors["own_id"] = "Patient's number: write the number that your clinic gives this patient"
    birth = str(form.get("birth_year") or "").strip()
    values["birth_year"] = None
    if birth:
        # The clock may run behind, but nobody was born in the far future of it either.
        if re.fullmatch(r"[0-9]{4}", birth) and MIN_BIRTH_YEAR <= int(birth) <= max(year, MIN_BIRTH_YEAR):
            values["birth_year"] = int(birth)
        else:
            errors["birth_year"] = f"Year of birth: four digits from {MIN_BIRTH_YEAR} to {year}, or leave it empty"
    values["sex"] = str(form.get("sex") or "unknown")
    if values["sex"] not in SEXES:
        errors["sex"] = f"Sex: one of {', '.join(SEXES.values())}"
    if errors:
        raise FieldsError(errors)
    return values


def add_patient(store: Store, who: str, form: Mapping[str, Any], year: int) -> str:
    """Keep a new patient; returns its ID. FieldsError where a field is wrong or the number is taken."""
    values = checked_patient(form, year)
    with store.writing() as w:
        if w.connection.execute("SELECT 1 FROM patients WHERE own_id = ?", (values["own_id"],)).fetchone():
            raise FieldsError({"own_id": "Patient's number: there is a patient with this number; search for it"})
        patient = new_id()
        w.insert("patients", id=patient, **values, made_at=w.at, made_by=who)
        w.log(who, "patient added", patient)
    return patient


def change_patient(store: Store, who: str, patient: str, form: Mapping[str, Any], year: int) -> bool:
    """Correct a patient's fields and keep what they were; whether anything changed. FieldsError as above."""
    values = checked_patient(form, year)
    with store.writing() as w:
        row = w.connection.execute("SELECT * FROM patients WHERE id = ?", (patient,)).fetchone()
        before = {name: row[name] for name in values if row[name] != values[name]}
        if not before:
            return False
        taken = "SELECT 1 FROM patients WHERE own_id = ? AND id <> ?"
        if w.connection.execute(taken, (values["own_id"], patient)).fetchone():
            raise FieldsError({"own_id": "Patient's number: another patient has this number"})
        w.connection.execute(
            "UPDATE patients SET own_id = ?, name = ?, birth_year = ?, sex = ? WHERE id = ?",
            (*(values[name] for name in ("own_id", "name", "birth_year", "sex")), patient),
        )
        w.insert("patient_changes", id=new_id(), patient=patient, before=json.dumps(before), made_at=w.at, made_by=who)
        w.log(who, "patient changed", patient, ", ".join(before))
    return True


def find_patients(store: Store, words: str) -> list[sqlite3.Row]:
    """Patients whose number or name begins with these words, and then those whose name holds them."""
    start = re.sub(r"([\\%_])", r"\\\1", words) + "%"
    query = "SELECT * FROM patients WHERE {} ORDER BY own_id COLLATE NOCASE LIMIT ?"
    found = store.rows(
        query.format("own_id LIKE ? ESCAPE '\\' OR name LIKE ? ESCAPE '\\'"), (start, start, FOUND_AT_MOST)
    )
    if len(found) < FOUND_AT_MOST and words:
        ids = {row["id"] for row in found}
        more = store.rows(query.format("name LIKE ? ESCAPE '\\'"), ("% " + start, FOUND_AT_MOST))
        found += [row for row in more if row["id"] not in ids][: FOUND_AT_MOST - len(found)]
    return found


def patient_of(store: Store, patient: str) -> sqlite3.Row | None:
    """One patient."""
    return store.row("SELECT * FROM patients WHERE id = ?", (patient,))


def lesions_of(store: Store, patient: str) -> list[sqlite3.Row]:
    """A patient's lesions with the number of their pictures, in the order in which they were added."""
    return store.rows(
        "SELECT l.*, (SELECT count(*) FROM pictures p WHERE p.lesion = l.id) AS pictures"
        " FROM lesions l WHERE l.patient = ? ORDER BY l.number",
        (patient,),
    )


def lesion_of(store: Store, lesion: str) -> sqlite3.Row | None:
    """One lesion."""
    return store.row("SELECT * FROM lesions WHERE id = ?", (lesion,))


def add_lesion(store: Store, who: str, patient: str, form: Mapping[str, Any]) -> str:
    """Keep a new lesion of a patient; returns its ID."""
    site = str(form.get("site") or "")
    errors = {} if site in SITES else {"site": "Body site: choose where the lesion is"}
    try:
        note = text_of(form.get("note"), MAX_NOTE)
    except ValueError as error:
        errors["note"] = f"Note: {error}"
    if errors:
        raise FieldsError(errors)
    with store.writing() as w:
        number = w.connection.execute(
            "SELECT coalesce(max(number), 0) + 1 FROM lesions WHERE patient = ?", (patient,)
        ).fetchone()[0]
        lesion = new_id()
        w.insert("lesions", id=lesion, patient=patient, number=number, site=site, note=note, made_at=w.at, made_by=who)
        w.log(who, "lesion added", lesion)
    return lesion


def visit_today(w: Writing, who: str, patient: str) -> str:
    """The patient's visit of this day, made where there is none."""
    day = day_of(w.at)
    found = w.connection.execute("SELECT id FROM visits WHERE patient = ? AND day = ?", (patient, day)).fetchone()
    if found:
        return str(found[0])
    visit = new_id()
    w.insert("visits", id=visit, patient=patient, day=day, clock_sure=w.clock_sure, made_at=w.at, made_by=who)
    w.log(who, "visit begun", visit)
    return visit
