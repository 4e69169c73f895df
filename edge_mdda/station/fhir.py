"""A visit as a FHIR R4 bundle of plain values: patient, device, picture, observations, report.

One file, no server: the resources refer to each other by ``urn:uuid``, which depends on the visit's identifiers alone.
"""

from __future__ import annotations

import base64
import html
import json
import uuid
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.station import sct
from edge_mdda.station.blobs import media_type
from edge_mdda.station.visit import NAMESPACE, Visit

UCUM = "http://unitsofmeasure.org"
UID_SYSTEM = "urn:dicom:uid"
OWN = "urn:uuid:" + str(NAMESPACE)
"""Code system of what only this program says; codes stand in :data:`CODES`."""
CODES = {
    "malignant-share": "Share of malignant classes, all classes taken as equally likely",
    "advice": "Advice of the screening",
    "class-share": "Share of a class, all classes taken as equally likely",
    "disagreement": "Jensen-Shannon divergence of the raw and the purified view in bits",
    "report": "Skin-lesion screening report",
}
BIT = "bit"  # UCUM's code of the unit


def bundle(visit: Visit, report: bytes | None = None) -> dict[str, Any]:
    """The bundle, as :func:`json.dumps` takes it; ``report`` is the PDF that goes along."""
    links = {name: f"urn:uuid:{_uuid(visit, name)}" for name in ("patient", "device", "media", "share", "advice")}
    resources = {
        "patient": _patient(visit),
        "device": _device(visit),
        "media": _media(visit, links),
        "share": _share(visit, links),
        "advice": _advice(visit, links),
        "report": _report(visit, links, report),
    }
    return {
        "resourceType": "Bundle",
        "id": _uuid(visit, "bundle"),
        "identifier": {"system": UID_SYSTEM, "value": f"urn:oid:{visit.study_uid}"},
        "type": "collection",
        "timestamp": visit.made_at,
        "entry": [
            {
                "fullUrl": f"urn:uuid:{_uuid(visit, name)}",
                "resource": {"id": _uuid(visit, name), **resource},
            }
            for name, resource in resources.items()
        ],
    }


def text(visit: Visit, report: bytes | None = None) -> str:
    """The bundle as JSON text; the same visit gives the same text."""
    return json.dumps(bundle(visit, report), indent=1, ensure_ascii=False) + "\n"


def _uuid(visit: Visit, name: str) -> str:
    # A patient and a device are the same in each bundle; the rest belongs to one visit and its answer.
    about = {"patient": [visit.patient.id], "device": [visit.station, visit.answer["version"], *_settings(visit)]}
    return str(uuid.uuid5(NAMESPACE, json.dumps(["fhir", name, about.get(name) or visit.result_uid])))


def _settings(visit: Visit) -> list[tuple[str, str]]:
    """What the device was, besides its version: name and value."""
    answer = visit.answer
    purify = answer["purify"]
    return [
        ("Model SHA-256", answer["model"]["sha256"]),
        ("Runtime", answer["model"]["runtime"]),
        ("Purifier", f"preset {purify['preset']}, draws {purify['draws']}" if purify else "off"),
    ]


def _concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def _own(code: str) -> dict[str, Any]:
    return _concept(OWN, code, CODES[code])


def _narrative(*lines: str) -> dict[str, str]:
    """What a person reads of a resource; the notice stands under each."""
    paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in (*lines, NOTICE))
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{paragraphs}</div>'}


def _patient(visit: Visit) -> dict[str, Any]:
    patient = visit.patient
    resource: dict[str, Any] = {
        "resourceType": "Patient",
        "text": _narrative(f"Patient {patient.own_id} {patient.name}".strip()),
        "identifier": [{"use": "usual", "type": {"text": "Number that the clinic gives"}, "value": patient.own_id}],
        "gender": patient.sex,
    }
    if patient.name:
        resource["name"] = [{"text": patient.name}]
    if patient.birth_year is not None:
        resource["birthDate"] = f"{patient.birth_year:04d}"
    return resource


def _device(visit: Visit) -> dict[str, Any]:
    answer = visit.answer
    return {
        "resourceType": "Device",
        "text": _narrative(f"edge-mdda {answer['version']}, model {answer['model']['name']}"),
        "identifier": [{"type": {"text": "Station"}, "value": visit.station}],
        "deviceName": [{"name": "edge-mdda", "type": "model-name"}],
        "version": [
            {"type": {"text": "program"}, "value": answer["version"]},
            {"type": {"text": "model"}, "value": answer["model"]["name"]},
        ],
        "property": [{"type": {"text": name}, "valueCode": [{"text": value}]} for name, value in _settings(visit)],
        "note": [{"text": NOTICE}],
    }


def _body_site(visit: Visit) -> dict[str, Any]:
    code, meaning = sct.region(visit.lesion.site)
    site = _concept(sct.SYSTEM_FHIR, code, meaning)
    side = sct.side(visit.lesion.site)
    if side:
        site["coding"].append({"system": sct.SYSTEM_FHIR, "code": side[0], "display": side[1]})
    site["text"] = visit.lesion.place.label
    return site


def _media(visit: Visit, links: dict[str, str]) -> dict[str, Any]:
    width, height = visit.answer["size"]
    return {
        "resourceType": "Media",
        "text": _narrative(f"Picture of lesion {visit.lesion.number}: {visit.lesion.place.label}"),
        "identifier": [
            {"type": {"text": "DICOM image"}, "system": UID_SYSTEM, "value": f"urn:oid:{visit.image_uid}"},
            {"type": {"text": "SHA-256"}, "value": visit.picture_sha256},
        ],
        "status": "completed",
        "type": _concept("http://terminology.hl7.org/CodeSystem/media-type", "image", "Image"),
        "subject": {"reference": links["patient"]},
        "createdDateTime": visit.made_at,
        "bodySite": _body_site(visit),
        "width": width,
        "height": height,
        "content": {
            "contentType": media_type(visit.picture),
            "size": len(visit.picture),
            "data": base64.b64encode(visit.picture).decode(),
        },
        "note": [{"text": NOTICE}],
    }


def _observation(visit: Visit, links: dict[str, str], code: str, said: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "text": _narrative(said),
        "status": "preliminary",  # nobody has signed it
        "code": _own(code),
        "subject": {"reference": links["patient"]},
        "effectiveDateTime": visit.made_at,
        "issued": visit.answer["time"],
        "device": {"reference": links["device"]},
        "derivedFrom": [{"reference": links["media"]}],
        "bodySite": _body_site(visit),
        "note": [{"text": NOTICE}],
    }


def _quantity(value: float, code: str = "1") -> dict[str, Any]:
    return {"value": value, "unit": "1" if code == "1" else code, "system": UCUM, "code": code}


def _share(visit: Visit, links: dict[str, str]) -> dict[str, Any]:
    answer, names = visit.answer, visit.names
    components = []
    for label, share in answer["probabilities"].items():
        code = _own("class-share")
        code["coding"].append({"system": OWN, "code": f"class-{label}", "display": names["labels"].get(label, label)})
        code["text"] = names["labels"].get(label, label)
        components.append({"code": code, "valueQuantity": _quantity(share)})
    if answer["disagreement"] is not None:
        components.append({"code": _own("disagreement"), "valueQuantity": _quantity(answer["disagreement"], BIT)})
    said = f"Malignant share {answer['malignant']:.3f}, all classes taken as equally likely"
    return {
        **_observation(visit, links, "malignant-share", said),
        "valueQuantity": _quantity(answer["malignant"]),
        "referenceRange": [
            {
                "high": _quantity(answer["operating_point"]["refer_at"]),
                "text": f"Referred from {answer['operating_point']['refer_at']:.3f}",
            }
        ],
        "component": components,
    }


def _advice(visit: Visit, links: dict[str, str]) -> dict[str, Any]:
    answer = visit.answer
    concept = _concept(OWN, answer["advice"], visit.advice)
    return {
        **_observation(visit, links, "advice", f"{visit.advice}, because {answer['rule']}."),
        "valueCodeableConcept": concept,
        "component": [
            {
                "code": {"text": f"Quality: {check['name']}"},
                "valueString": "good" if check["ok"] else check["advice"] or "failed",
            }
            for check in answer["quality"]
        ],
    }


def _report(visit: Visit, links: dict[str, str], pdf: bytes | None) -> dict[str, Any]:
    answer = visit.answer
    conclusion = f"{visit.advice}, because {answer['rule']}. {NOTICE}"
    decided = []
    if visit.decision:
        note = f" ({visit.decision.note})" if visit.decision.note else ""
        decided = [f"Decision of {visit.decision.clinician}: {visit.decision.words}{note}."]
    resource: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "text": _narrative(f"Lesion {visit.lesion.number}, {visit.lesion.place.label}", conclusion, *decided),
        "identifier": [{"system": UID_SYSTEM, "value": f"urn:oid:{visit.result_uid}"}],
        "status": "preliminary",
        "code": {
            "coding": [
                {"system": OWN, "code": "report", "display": CODES["report"]},
            ],
            "text": CODES["report"],
        },
        "subject": {"reference": links["patient"]},
        "effectiveDateTime": visit.made_at,
        "issued": answer["time"],
        "result": [{"reference": links["advice"]}, {"reference": links["share"]}],
        "media": [{"comment": "The picture as taken", "link": {"reference": links["media"]}}],
        "conclusion": " ".join([conclusion, *decided]),
    }
    if pdf is not None:
        form = {"contentType": "application/pdf", "title": f"{CODES['report']}. {NOTICE}", "size": len(pdf)}
        resource["presentedForm"] = [{**form, "data": base64.b64encode(pdf).decode()}]
    return resource
