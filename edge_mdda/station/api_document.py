"""The OpenAPI document of ``/api/v1``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_mdda.station.charts import MAX_NAME, MAX_NOTE, MAX_OWN_ID, SEXES
from edge_mdda.station.picture_pages import VIEWS
from edge_mdda.station.sites import SITES

SCREENING_SCHEMA = Path(__file__).parents[1] / "screening.schema.json"
PICTURE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff")
CREATED = ("add_patient", "add_lesion", "add_picture")
ID = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
TEXT = {"type": "string"}
BODIES: dict[str, dict[str, Any]] = {
    "patient": {
        "type": "object",
        "required": ["own_id"],
        "properties": {
            "own_id": {"type": "string", "minLength": 1, "maxLength": MAX_OWN_ID},
            "name": {"type": "string", "maxLength": MAX_NAME},
            "birth_year": {"type": ["integer", "null"]},
            "sex": {"enum": list(SEXES)},
        },
    },
    "lesion": {
        "type": "object",
        "required": ["site"],
        "properties": {"site": {"enum": list(SITES)}, "note": {"type": "string", "maxLength": MAX_NOTE}},
    },
    "words": {"type": "object", "required": ["words"], "properties": {"words": {"type": "string"}}},
}
REFUSALS = {
    "400": "The request makes no sense", "401": "No token, or not one of a device", "404": "There is none here",
    "413": "Too large", "415": "Another kind of body is wanted", "422": "A field or the picture cannot be used",
    "503": "The records cannot be read or written now", "507": "The disk is full",
}  # fmt: skip


def _schemas() -> dict[str, Any]:
    screening = json.loads(SCREENING_SCHEMA.read_text(encoding="utf-8"))
    screening.pop("$schema", None)
    # Its references point into itself, and it now lies inside this document.
    text = json.dumps(screening).replace("#/$defs/", "#/components/schemas/Screening/$defs/")
    picture = {
        "type": "object",
        "required": ["id", "lesion", "patient", "sha256", "made_at", "screening", "decision"],
        "properties": {
            "id": ID, "lesion": ID, "patient": ID, "sha256": TEXT, "made_at": TEXT,
            "not_judged": {"type": ["string", "null"]},
            "screening": {"anyOf": [{"$ref": "#/components/schemas/Screening"}, {"type": "null"}]},
            "decision": {"type": ["object", "null"]},
        },
    }  # fmt: skip
    error = {"type": "object", "required": ["error"], "properties": {"error": TEXT, "fields": {"type": "object"}}}
    patient = {"type": "object", "required": ["id", "own_id"], "properties": {"id": ID, "own_id": TEXT, "name": TEXT}}
    return {"Screening": json.loads(text), "Picture": picture, "Patient": patient, "Error": error}


def _answer(name: str) -> dict[str, Any]:
    """The content of a good answer."""

    def ref(schema: str) -> dict[str, Any]:
        return {"$ref": f"#/components/schemas/{schema}"}

    created = {"type": "object", "required": ["id"], "properties": {"id": ID}}
    schemas: dict[str, dict[str, Any]] = {
        "screen": ref("Screening"),
        "add_patient": created,
        "add_lesion": created,
        "search": {
            "type": "object",
            "required": ["patients"],
            "properties": {"patients": {"type": "array", "items": ref("Patient")}},
        },
        "patient": ref("Patient"),
        "lesion": {"type": "object", "required": ["id", "site", "pictures"], "properties": {"id": ID, "site": TEXT}},
        "add_picture": ref("Picture"),
        "picture": ref("Picture"),
    }
    if name == "view":
        return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURE_TYPES[:4]}
    if name == "export":
        return {"application/x-ndjson": {"schema": TEXT}}
    return {"application/json": {"schema": schemas[name]}}


def _operation(path: str, answer: Callable[..., Any], body: str) -> dict[str, Any]:
    name = answer.__name__
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": (answer.__doc__ or "").strip().splitlines()[0],
        "security": [{"device": []}],
        "parameters": [
            {
                "name": part,
                "in": "path",
                "required": True,
                "schema": {"enum": list(VIEWS)} if part == "view" else ID,
            }
            for part in re.findall(r"{(\w+)}", path)
        ],
        "responses": {
            "201" if name in CREATED else "200": {"description": "Done", "content": _answer(name)},
            **{status: {"description": words, "content": error} for status, words in REFUSALS.items()},
        },
    }
    if body == "picture":
        content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURE_TYPES}
        operation["requestBody"] = {"required": True, "content": content}
    elif body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": BODIES[body]}}}
    return operation


def describe(
    summaries: Sequence[tuple[str, str, Callable[..., Any], str]], root: str, version: str, notice: str
) -> dict[str, Any]:
    """The document of these operations: method, path, what answers, kind of body."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, answer, body in summaries:
        paths.setdefault(path, {})[method] = _operation(path, answer, body)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edge-mdda station", "version": version, "description": notice},
        "servers": [{"url": root}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"device": {"type": "http", "scheme": "bearer"}},
        },
    }
