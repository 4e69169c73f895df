"""A kept picture handed on from its page: the report and the archive, by a child."""

from __future__ import annotations

import io
import zipfile

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nacl")
pytest.importorskip("reportlab")
pytest.importorskip("segno")
from station_site import Browser, application, station_in

from edge_mdda.errors import StationError
from edge_mdda.station import paper_pages
from edge_mdda.station.drawn import variation


@pytest.fixture()
def kept(tmp_path):
    with station_in(tmp_path / "data") as station:
        browser = Browser(application(station))
        picture = browser.new_picture(variation(2), own_id="H-1", name="Ann Example")
        browser.post(f"{picture}/decision", {"action": "referred", "clinician": "Dr Bo"})
        yield station, browser, picture


def test_the_report_and_the_archive(kept):
    station, browser, picture = kept
    assert f'href="{picture}/files/report.pdf"' in browser.get(picture).text
    page = browser.get(f"{picture}/files/report.pdf")
    assert (
        page.status_code == 200
        and page.content.startswith(b"%PDF")
        and page.headers["content-type"] == "application/pdf"
    )
    again = browser.get(f"{picture}/files/report.pdf")
    assert again.content == page.content and "Ann" not in page.headers["content-disposition"]
    packed = browser.get(f"{picture}/files/visit.zip")
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert archive.testzip() is None and "report.pdf" in archive.namelist()
        assert archive.read("report.pdf") == page.content
    words = [row["what"] for row in station.store.rows("SELECT what FROM audit ORDER BY number")]
    assert words[-3:] == ["report.pdf made", "report.pdf made", "visit.zip made"]


def test_what_is_not_there(kept):
    _, browser, picture = kept
    for path in (f"{picture}/files/x.pdf", "/pictures/0123456789abcdef/files/report.pdf"):
        assert browser.get(path).status_code == 404


def test_the_visit_is_that_of_the_records(kept):
    station, _, picture = kept
    visit = paper_pages.visit_of(station.store, picture.rpartition("/")[2])
    assert (visit.patient.own_id, visit.lesion.site, visit.decision.clinician) == (
        "H-1",
        "upper-back-left-back",
        "Dr Bo",
    )
    assert visit.picture == variation(2) and visit.answer["advice"] == "refer"


def test_a_child_that_fails_is_one_line(kept):
    station, _, picture = kept
    visit = paper_pages.visit_of(station.store, picture.rpartition("/")[2])
    broken = type(visit)(**{**vars(visit), "picture": b"no picture", "raw_view": b"none"})
    with pytest.raises(StationError, match="could not be made") as caught:
        paper_pages.make(broken, "pdf")
    assert "\n" not in str(caught.value) and "Ann" not in str(caught.value)
