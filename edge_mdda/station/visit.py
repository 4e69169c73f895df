"""One visit as it is handed on: who, which lesion, the picture, what the program said, what a clinician decided."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edge_mdda.digest import sha256
from edge_mdda.station.findings import ACTIONS
from edge_mdda.station.sites import SITES, Site
from edge_mdda.station.words import ADVICE

if TYPE_CHECKING:
    from edge_mdda.screening import Screener

NAMESPACE = uuid.UUID("5b0f3a51-0f5c-4f63-9d3c-6b1f6d0d6a0e")
"""Drawn once for this project; RFC 9562 (version 5) makes a UUID from it and a name."""


BLOBS = ("picture", "raw_view", "purified_view")
"""Fields of a visit that are bytes; base64 in JSON."""


@dataclass(frozen=True)
class Patient:
    """Who it is; ``id`` is the station's own, ``own_id`` the clinic's number."""

    id: str
    own_id: str
    name: str
    birth_year: int | None
    sex: str
    """``female``, ``male``, ``other`` or ``unknown``."""


@dataclass(frozen=True)
class Lesion:
    """One lesion of a patient; ``site`` is a code of :data:`edge_mdda.station.sites.SITES`."""

    id: str
    number: int
    site: str

    @property
    def place(self) -> Site:
        return SITES[self.site]

    @property
    def tracking_uid(self) -> str:
        """One UID for all pictures of this lesion, for life."""
        return uid("lesion", self.id)


@dataclass(frozen=True)
class Decision:
    """What a clinician decided; ``action`` is a key of :data:`edge_mdda.station.findings.ACTIONS`."""

    action: str
    clinician: str
    note: str

    @property
    def words(self) -> str:
        return ACTIONS[self.action]


@dataclass(frozen=True)
class Visit:
    """One picture of one lesion on one day, and its answer.

    Attributes
    ----------
    id : str
        The station's own.
    made_at : str
        When the picture was taken, UTC, as RFC 3339 writes it.
    station : str
        Name or serial number of the board.
    picture : bytes
        The JPEG as it came.
    raw_view, purified_view : bytes
        PNG files of what the network saw; ``purified_view`` is empty where nothing was purified.
    answer : mapping
        :meth:`edge_mdda.screening.Screening.to_dict`.
    names : mapping
        ``labels`` (label to full name) and ``malignant`` (labels) of the model.
    """

    id: str
    made_at: str
    station: str
    patient: Patient
    lesion: Lesion
    picture: bytes
    raw_view: bytes
    purified_view: bytes
    answer: Mapping[str, Any]
    names: Mapping[str, Any]
    decision: Decision | None

    @property
    def picture_sha256(self) -> str:
        return sha256(self.picture).hexdigest()

    @property
    def answer_sha256(self) -> str:
        """SHA-256 of the answer as JSON with sorted keys and no spaces: what a receiver can compute again."""
        return sha256(_canonical(self.answer)).hexdigest()

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole visit: JSON with sorted keys and no spaces, each picture by its own SHA-256."""
        values = asdict(self)
        for name in BLOBS:
            values[name] = sha256(values[name]).hexdigest()
        return sha256(_canonical(values)).hexdigest()

    @property
    def study_uid(self) -> str:
        return uid("study", self.id)

    @property
    def image_uid(self) -> str:
        return uid("image", self.id, self.lesion.id, self.made_at, self.picture_sha256)

    @property
    def result_uid(self) -> str:
        return uid("result", self.id, self.sha256)

    @property
    def advice(self) -> str:
        """The advice in words."""
        return ADVICE[self.answer["advice"]]

    def to_json(self) -> str:
        """The whole visit as text, for a child process."""
        values = asdict(self)
        for name in BLOBS:
            values[name] = base64.b64encode(values[name]).decode()
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Visit:
        """The visit that :meth:`to_json` wrote."""
        values = json.loads(text)
        for name in BLOBS:
            values[name] = base64.b64decode(values[name])
        values["patient"], values["lesion"] = Patient(**values["patient"]), Lesion(**values["lesion"])
        values["decision"] = values["decision"] and Decision(**values["decision"])
        return cls(**values)


def _canonical(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def uid(kind: str, *names: str) -> str:
    """A DICOM UID that depends on nothing but these names (PS3.5 B.2: ``2.25.`` and a UUID as a number)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, json.dumps([kind, *names])).int}"


def screened(
    screener: Screener,
    picture: bytes,
    patient: Patient,
    lesion: Lesion,
    decision: Decision | None = None,
    seed: int | None = None,
    station: str = "edge-mdda",
) -> Visit:
    """The visit of a picture that is screened now.

    Raises
    ------
    ImageError, ModelError
        As :meth:`edge_mdda.screening.Screener.screen`.
    """
    from edge_mdda.station.worker import answer

    # Stored as text between a station and what it hands on: a float must be the same on both sides.
    header, (raw, purified) = answer(screener, {"do": "screen", "seed": seed}, [picture])
    header = json.loads(json.dumps(header))
    said = header["answer"]
    visit = sha256(json.dumps([patient.id, lesion.id, said["time"], said["sha256"]]).encode()).hexdigest()[:16]
    return Visit(visit, said["time"], station, patient, lesion, picture, raw, purified, said, header["names"], decision)
