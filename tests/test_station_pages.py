"""A whole visit through the pages, with the real worker."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nacl")
import station_site
from station_site import Browser, application, station_in

from edge_mdda import NOTICE
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.station.drawn import variation
from edge_mdda.station.sites import SITES

DRAWN = DEMO_IMAGE.read_bytes()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with station_in(tmp_path_factory.mktemp("station") / "data") as station:
        yield station, application(station)


@pytest.fixture()
def browser(site):
    return Browser(site[1])


def test_a_whole_visit(site, browser):
    assert "No pictures today" in browser.get("/").text
    patient = browser.new_patient()
    assert "Ann Example" in browser.page.text and "1970" in browser.page.text
    browser.post(f"{patient}/lesions", {"site": "upper-back-left-back", "note": "near the spine"})
    lesion = browser.here()
    assert "Upper back, left" in browser.page.text
    page = browser.post(f"{lesion}/pictures", files={"pictures": ("mole.jpg", DRAWN, "image/jpeg")})
    picture = browser.here()
    assert picture.startswith("/pictures/") and page.status_code == 200
    assert "no sign that asks for referral" in page.text and "malignant share" in page.text
    assert "finds 95% of malignant lesions" in page.text and "In other clinics it misses more" in page.text
    assert browser.get(f"{picture}/view/stored").content == DRAWN
    for view in ("raw", "purified"):
        assert browser.get(f"{picture}/view/{view}").content.startswith(b"\x89PNG")
    raw, purified = (browser.get(f"{picture}/view/{view}").content for view in ("raw", "purified"))
    assert raw != purified
    decision = {"action": "follow-up", "clinician": "Dr Bo", "note": "in three months"}
    page = browser.post(f"{picture}/decision", decision)
    assert "to be seen again here" in page.text and "in three months" in page.text
    browser.post(f"{picture}/decision", {"action": "referred", "clinician": "Dr Bo"})
    assert "(earlier)" in browser.page.text
    browser.post(f"{lesion}/outcomes", {"diagnosis": "naevus", "basis": "histology"})
    assert "naevus (histology)" in browser.page.text
    store = site[0].store
    words = [row["what"] for row in store.rows("SELECT what FROM audit ORDER BY number")]
    assert words == [
        "patient added", "lesion added", "visit begun", "picture added", "picture judged", "decision written",
        "decision written", "outcome written",
    ]  # fmt: skip
    row = store.row("SELECT * FROM screenings")
    assert row["seed"].isdigit() and row["version"] and len(row["model_sha256"]) == 64


def test_refer_comes_first_then_retake(browser):
    for number, own_id in ((1, "R-1"), (3, "R-3"), (2, "R-2")):
        browser.new_picture(variation(number), own_id=own_id, name="")
    text = browser.get("/").text
    assert text.index("R-2") < text.index("R-3") < text.index("R-1")
    assert text.index("REFER") < text.index("RETAKE") < text.index("no sign that asks")


def test_every_page_carries_the_notice(browser):
    picture = browser.new_picture(DRAWN, own_id="N-1")
    lesion, patient = (
        re.search(r"/lesions/\w{16}", browser.page.text)[0],
        re.search(r"/patients/\w{16}", browser.page.text)[0],
    )
    for path in ("/", "/patients/new", patient, lesion, picture, "/nothing", "/patients/0123456789abcdef"):
        assert NOTICE in browser.get(path).text
    assert NOTICE in browser.post("/search", {"words": "N-1"}).text


def test_search_finds_by_number_and_by_name_and_writes_no_url(browser):
    browser.new_patient(own_id="S-77", name="Zoe 100% _Under")
    for words in ("s-7", "zoe", "100%", "_under"):
        page = browser.post("/search", {"words": words})
        assert "S-77" in page.text and str(page.url).endswith("/search")
    assert "S-77" not in browser.post("/search", {"words": "%"}).text
    assert "None." in browser.post("/search", {"words": "nobody"}).text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"own_id": ""}, "write the number"),
        ({"own_id": "x" * 65}, "at most 64"),
        ({"own_id": "F-1", "birth_year": "19"}, "four digits"),
        ({"own_id": "F-1", "birth_year": "2999"}, "four digits"),
        ({"own_id": "F-1", "birth_year": "१९७०"}, "four digits"),
        ({"own_id": "F-1", "sex": "robot"}, "Sex: one of"),
    ],
)
def test_a_wrong_field_is_told_and_nothing_typed_is_lost(browser, fields, says):
    page = browser.post("/patients", {**station_site.PATIENT, "name": "Keep Me", **fields})
    assert page.status_code == 422 and says in page.text and 'value="Keep Me"' in page.text
    assert "Keep Me" not in browser.post("/search", {"words": "Keep"}).text.partition("<main")[2].replace("“Keep”", "")


def test_a_number_is_given_once(browser):
    browser.new_patient(own_id="Once-1")
    page = browser.post("/patients", {**station_site.PATIENT, "own_id": "once-1"})
    assert page.status_code == 422 and "there is a patient with this number" in page.text


def test_a_lesion_needs_a_site_and_a_decision_a_clinician(browser):
    patient = browser.new_patient(own_id="L-1")
    page = browser.post(f"{patient}/lesions", {"site": "moon", "note": "kept words"})
    assert page.status_code == 422 and "choose where the lesion is" in page.text and "kept words" in page.text
    picture = browser.new_picture(DRAWN, own_id="L-2")
    page = browser.post(f"{picture}/decision", {"action": "biopsy", "note": "kept words"})
    assert page.status_code == 422 and "write who decided" in page.text and "kept words" in page.text
    assert re.search(r'value="biopsy" required checked', page.text)


def test_the_same_picture_twice_is_one(site, browser):
    lesion = browser.new_lesion(own_id="T-1")
    for _ in range(2):
        browser.post(f"{lesion}/pictures", files={"pictures": ("a.jpg", DRAWN, "image/jpeg")})
    count = "SELECT count(*) FROM pictures p JOIN lesions l ON l.id = p.lesion WHERE l.id = ?"
    assert site[0].store.row(count, (lesion.rpartition("/")[2],))[0] == 1


def test_a_withdrawn_picture_stays_with_its_reason_and_leaves_the_list(browser):
    picture = browser.new_picture(variation(5), own_id="W-1")
    assert browser.post(f"{picture}/withdraw", {"reason": ""}).status_code == 422
    browser.post(f"{picture}/withdraw", {"reason": "wrong patient"})
    assert "was withdrawn: wrong patient" in browser.page.text
    assert picture not in browser.get("/").text


def test_the_body_map_has_every_site_as_shape_and_as_button(browser):
    text = browser.get(browser.new_patient(own_id="M-1")).text
    assert len(SITES) > 35
    for code in SITES:
        assert f'data-site="{code}"' in text and f'name="site" value="{code}"' in text


def test_markup_in_names_stays_text(browser):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    patient = browser.new_patient(own_id='"><b>', name=evil)
    browser.post(f"{patient}/lesions", {"site": "face-front", "note": evil})
    for path in (patient, browser.here()):
        text = browser.get(path).text
        assert "<script>alert" not in text and "<img src=x" not in text and "&lt;script&gt;" in text


def test_a_dead_worker_costs_no_picture(site, browser, monkeypatch):
    import os
    import signal

    station = site[0]
    lesion = browser.new_lesion(own_id="K-1")
    station.judge.ask({"do": "model"})
    send = type(station.judge)._exchange

    def killed(self, child, request, blobs):
        os.kill(child.pid, signal.SIGKILL)
        return send(self, child, request, blobs)

    with monkeypatch.context() as patch:
        patch.setattr(type(station.judge), "_exchange", killed)
        page = browser.post(f"{lesion}/pictures", files={"pictures": ("a.jpg", DRAWN, "image/jpeg")})
    assert page.status_code == 422 and "the picture is kept" in page.text
    picture = re.search(r'/pictures/(\w{16})/judge"', page.text)[1]
    assert "no sign" in browser.post(f"/pictures/{picture}/judge").text


def test_a_worker_that_does_not_answer_is_ended():
    from edge_mdda.errors import StationError
    from edge_mdda.station.judge import Judge

    judge = Judge(station_site.OPTIONS, answer_s=0.01)
    with pytest.raises(StationError, match="no answer within"):
        judge.ask({"do": "screen"}, [DRAWN])
    assert judge.pid is None
    judge.close()


def test_a_referral_that_nobody_decided_on_is_not_forgotten(tmp_path, monkeypatch):
    from datetime import datetime, timedelta, timezone

    with station_in(tmp_path / "data") as station:
        browser = Browser(application(station))
        first = browser.new_picture(variation(2), own_id="O-1", name="")
        browser.new_picture(variation(0), own_id="O-2", name="")
        second = browser.new_picture(variation(6), own_id="O-3", name="")
        assert "on earlier days" not in browser.get("/").text
        later = (datetime.now(timezone.utc) + timedelta(days=2)).isoformat(timespec="milliseconds")
        monkeypatch.setattr("edge_mdda.station.store.clock", lambda: later.replace("+00:00", "Z"))
        text = browser.get("/").text
        assert "No pictures today" in text and "REFER on earlier days" in text
        assert "O-1" in text and "O-3" in text and "O-2" not in text
        browser.post(f"{first}/decision", {"action": "referred", "clinician": "Dr Bo"})
        browser.post(f"{second}/withdraw", {"reason": "wrong patient"})
        assert "on earlier days" not in browser.get("/").text


def test_a_retake_leads_back_to_the_camera(browser):
    browser.new_picture(variation(3), own_id="Y-1")
    lesion = re.search(r"/lesions/\w{16}", browser.page.text)[0]
    assert f'href="{lesion}">Take it again' in browser.page.text


def test_a_patient_is_corrected_and_what_it_was_is_kept(site, browser):
    import json

    other = browser.new_patient(own_id="E-2")
    patient = browser.new_patient(own_id="E-1", name="Ann Exampel")
    form = browser.get(f"{patient}/edit").text
    assert 'value="Ann Exampel"' in form and 'value="1970"' in form and 'value="female" checked' in form
    fixed = {"own_id": "E-1", "name": "Ann Example", "birth_year": "", "sex": "female"}
    page = browser.post(f"{patient}/edit", {**fixed, "own_id": "e-2"})
    assert page.status_code == 422 and "another patient has this number" in page.text and "Ann Example" in page.text
    page = browser.post(f"{patient}/edit", fixed)
    assert browser.here() == patient and "Ann Example" in page.text and "a year not known" in page.text
    row = site[0].store.row("SELECT * FROM patient_changes WHERE patient = ?", (patient[-16:],))
    assert json.loads(row["before"]) == {"name": "Ann Exampel", "birth_year": 1970}
    detail = site[0].store.row("SELECT detail FROM audit ORDER BY number DESC LIMIT 1")[0]
    assert detail == "name, birth_year"
    browser.post(f"{patient}/edit", fixed)  # nothing changed, nothing written
    assert site[0].store.row("SELECT count(*) FROM patient_changes")[0] == 1
    assert browser.get(f"{other}/edit").status_code == 200
    assert browser.get("/patients/0123456789abcdef/edit").status_code == 404
