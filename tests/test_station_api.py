"""The interface for programs: tokens, JSON, its document, and hostile requests."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nacl")
import jsonschema
from station_site import ORIGIN, Browser, TestClient, application, station_in

from edge_mdda.models import DEMO_IMAGE
from edge_mdda.station import api, auth

DRAWN = DEMO_IMAGE.read_bytes()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with station_in(tmp_path_factory.mktemp("station") / "data") as station:
        yield station, application(station), auth.add_device(station.store, "test", "Tablet")


@pytest.fixture()
def client(site):
    headers = {"authorization": f"Bearer {site[2]}"}
    return TestClient(site[1], base_url=f"{ORIGIN}{api.ROOT}/", headers=headers, raise_server_exceptions=False)


def new_lesion(client, own_id: str) -> str:
    patient = client.post("patients", json={"own_id": own_id}).json()["id"]
    return client.post(f"patients/{patient}/lesions", json={"site": "calf-left-back"}).json()["id"]


def test_a_visit_by_a_program(client):
    made = client.post("patients", json={"own_id": "A-1", "name": "Ann", "birth_year": 1970, "sex": "female"})
    assert made.status_code == 201
    patient = made.json()["id"]
    assert client.post("patients/search", json={"words": "a-1"}).json()["patients"][0]["id"] == patient
    lesion = client.post(f"patients/{patient}/lesions", json={"site": "calf-left-back", "note": "n"}).json()["id"]
    picture = client.post(f"lesions/{lesion}/pictures", content=DRAWN)
    assert picture.status_code == 201 and picture.json()["screening"]["advice"] == "routine"
    assert picture.json()["not_judged"] is None and picture.json()["source"] == "api"
    here = picture.json()["id"]
    assert client.get(f"pictures/{here}/views/stored").content == DRAWN
    assert client.get(f"pictures/{here}").json()["sha256"] == picture.json()["sha256"]
    assert client.get(f"lesions/{lesion}").json()["pictures"][0]["id"] == here
    assert client.get(f"patients/{patient}").json()["lesions"][0]["id"] == lesion
    rows = [json.loads(line) for line in client.get("export").text.splitlines()]
    assert {row["table"] for row in rows} >= {"patients", "lesions", "visits", "pictures", "screenings"}
    assert not any({"pin", "token"} & set(row) for row in rows)


def test_screen_keeps_nothing_and_answers_as_the_command_does(site, client):
    before = sorted(site[0].store.blobs.names())
    answer = client.post("screen", content=DRAWN).json()
    schema = api.openapi()["components"]["schemas"]["Screening"]
    jsonschema.validate(answer, {"$ref": "#/components/schemas/Screening", "components": api.openapi()["components"]})
    assert schema["title"].startswith("One screening") and sorted(site[0].store.blobs.names()) == before


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Bearer " + "0" * 64, "Basic YTpi"])
def test_without_a_good_token_nothing_is_answered(site, header):
    other = TestClient(site[1], base_url=ORIGIN, raise_server_exceptions=False)
    for method, path, _, _ in api.SUMMARIES:
        place = api.ROOT + re.sub(r"{\w+}", "0123456789abcdef", path)
        answer = other.request(method, place, headers={"authorization": header} if header else {})
        assert answer.status_code == 401 and "error" in answer.json(), place


def test_a_cookie_opens_nothing(site):
    browser = Browser(site[1])
    assert (
        browser.client.post(f"{api.ROOT}/patients", json={"own_id": "c"}, headers={"origin": ORIGIN}).status_code == 401
    )


def test_wrong_fields_and_pictures_are_told(client):
    answer = client.post("patients", json={"own_id": "", "birth_year": 3000})
    assert answer.status_code == 422 and set(answer.json()["fields"]) == {"own_id", "birth_year"}
    assert client.post("patients", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.post("patients", content=b"own_id=1").status_code == 415
    for body in (b"[]", b'{"own_id": {}}', b'{"own_id": true}', b'"x"', b'{"own_id": "\\ud800"}'):
        answer = client.post("patients", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422, body
    deep = b"[" * 50_000
    assert client.post("patients", content=deep, headers={"content-type": "application/json"}).status_code == 400
    lesion = new_lesion(client, "W-1")
    for path in ("screen", f"lesions/{lesion}/pictures"):
        answer = client.post(path, content=b"no picture")
        assert answer.status_code == 422 and "Not a picture" in answer.json()["error"]
    for path in ("patients/0123456789abcdef", "lesions/x", "pictures/x", "pictures/x/views/raw", "nothing"):
        assert client.get(path).status_code == 404 and "error" in client.get(path).json()


def test_a_picture_that_cannot_be_judged_is_kept_and_told(client):
    lesion = new_lesion(client, "D-1")
    answer = client.post(f"lesions/{lesion}/pictures", content=DRAWN[: len(DRAWN) // 2] + b"\xff\xd9")
    assert answer.status_code == 201 and answer.json()["screening"] is None and answer.json()["not_judged"]


def test_the_document_names_every_route(client):
    document = client.get("openapi.json").json()
    assert document["openapi"].startswith("3.1")
    named = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert named == {(method, path) for method, path, _, _ in api.SUMMARIES}
    jsonschema.Draft202012Validator.check_schema(document["components"]["schemas"]["Screening"])


def test_schemathesis_finds_nothing(site):
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance  # random bytes are no picture

    schema = schemathesis.openapi.from_asgi(f"{api.ROOT}/openapi.json", site[1], headers={"host": ORIGIN[7:]})
    headers = {"Authorization": f"Bearer {site[2]}", "Host": ORIGIN[7:]}
    checked = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def one(case):
            nonlocal checked
            checked += 1
            case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

        one()
    assert checked > 100
