"""A visit as a FHIR bundle: valid by an independent validator, whole, and the same text for the same visit."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from station_visits import drawn_visit

from edge_mdda import NOTICE
from edge_mdda.station import fhir, sct
from edge_mdda.station.sites import SITES
from edge_mdda.station.visit import Patient


def resources(bundle: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Resources by their full URL."""
    return {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}


def of_type(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [resource for resource in resources(bundle).values() if resource["resourceType"] == kind]


def references(value: Any) -> Iterator[str]:
    """Every reference in a resource."""
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def bare(visit: Any) -> Any:
    """A visit with as little in it as the records allow."""
    answer = {**visit.answer, "purify": None, "raw_probabilities": None, "disagreement": None}
    return dataclasses.replace(
        visit, answer=answer, patient=Patient("0" * 16, "7", "", None, "unknown"), decision=None, purified_view=b""
    )


@pytest.mark.parametrize("change", [lambda visit: visit, bare], ids=["whole", "bare"])
def test_an_independent_validator_accepts_it(change):
    models = pytest.importorskip("fhir.resources.R4B.bundle", reason="fhir.resources is not installed")
    visit = change(drawn_visit())
    for text in (fhir.text(visit), fhir.text(visit, b"%PDF-")):
        read = models.Bundle.model_validate_json(text)
        assert [entry.resource.get_resource_type() for entry in read.entry] == [
            "Patient", "Device", "Media", "Observation", "Observation", "DiagnosticReport",
        ]  # fmt: skip


def test_the_validator_finds_a_fault():
    models = pytest.importorskip("fhir.resources.R4B.bundle", reason="fhir.resources is not installed")
    broken = fhir.bundle(drawn_visit())
    del of_type(broken, "DiagnosticReport")[0]["status"]
    with pytest.raises(ValueError, match="status"):
        models.Bundle.model_validate_json(json.dumps(broken))


def test_every_reference_leads_to_a_resource():
    bundle = fhir.bundle(drawn_visit())
    found = resources(bundle)
    assert len(found) == len(bundle["entry"]) == 6
    for url, resource in found.items():
        assert url == f"urn:uuid:{resource['id']}"
        assert set(references(resource)) <= set(found)
    assert len(set(references(bundle))) == 5  # all but the report itself


def test_it_holds_what_the_program_said():
    visit = drawn_visit()
    bundle = fhir.bundle(visit, b"%PDF-1.4 page")
    (media,), (report,) = of_type(bundle, "Media"), of_type(bundle, "DiagnosticReport")
    assert base64.b64decode(media["content"]["data"]) == visit.picture
    assert media["content"]["size"] == len(visit.picture)
    assert (media["width"], media["height"]) == tuple(visit.answer["size"])
    assert base64.b64decode(report["presentedForm"][0]["data"]) == b"%PDF-1.4 page"
    assert visit.answer["rule"] in report["conclusion"]
    assert "Drawn Dr. Doe" in report["conclusion"]
    share, advice = of_type(bundle, "Observation")
    assert share["valueQuantity"]["value"] == visit.answer["malignant"]
    shares = [part["valueQuantity"]["value"] for part in share["component"]]
    assert shares == [*visit.answer["probabilities"].values(), visit.answer["disagreement"]]
    assert advice["valueCodeableConcept"]["coding"][0]["code"] == visit.answer["advice"]
    assert len(advice["component"]) == len(visit.answer["quality"])
    (patient,) = of_type(bundle, "Patient")
    assert (patient["birthDate"], patient["gender"]) == ("1961", "female")


def test_every_text_that_a_person_reads_has_the_notice():
    for resource in resources(fhir.bundle(drawn_visit())).values():
        assert NOTICE in resource["text"]["div"]
    (report,) = of_type(fhir.bundle(drawn_visit()), "DiagnosticReport")
    assert NOTICE in report["conclusion"]


def test_a_name_cannot_become_markup():
    visit = drawn_visit()
    patient = dataclasses.replace(visit.patient, name="<script>Robert'); DROP & more</script>")
    (resource,) = of_type(fhir.bundle(dataclasses.replace(visit, patient=patient)), "Patient")
    assert "<script>" not in resource["text"]["div"]
    assert resource["name"][0]["text"] == patient.name


def test_same_visit_same_text_and_another_visit_other_identifiers():
    visit = drawn_visit()
    assert fhir.text(visit) == fhir.text(type(visit).from_json(visit.to_json()))
    mine, others = fhir.bundle(visit), fhir.bundle(dataclasses.replace(visit, id="f" * 16))
    same = set(resources(mine)) & set(resources(others))
    kinds = {resources(mine)[url]["resourceType"] for url in same}
    assert kinds == {"Patient", "Device"}


def test_every_site_has_a_code_and_its_side():
    assert {re.match(r"\d{6,18}$", sct.region(code)[0]) is not None for code in SITES} == {True}
    for code, site in SITES.items():
        side = sct.side(code)
        assert (side is None) == (site.side == "middle")
        assert side is None or side[1].lower() == site.side


def test_the_codes_are_those_of_the_standard():
    codes = pytest.importorskip("pydicom.sr.codedict", reason="the extra dicom is not installed")
    known = {code.value: code.meaning for code in codes.Collection("CID4029").concepts.values()}
    for code in SITES:
        value, meaning = sct.region(code)
        assert known[value] == meaning
    sides = {code.value: code.meaning for code in codes.Collection("CID244").concepts.values()}
    assert set(sct.SIDES.values()) <= set(sides.items())
