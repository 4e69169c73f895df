"""The report of a visit: what stands on the page, what its QR code holds, and the same bytes for the same visit."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("reportlab", reason="the extra report is not installed")
pytest.importorskip("segno", reason="the extra report is not installed")
pypdf = pytest.importorskip("pypdf")
pdfium = pytest.importorskip("pypdfium2")

from station_visits import drawn_visit  # noqa: E402

from edge_mdda import NOTICE  # noqa: E402
from edge_mdda.digest import sha256  # noqa: E402
from edge_mdda.errors import StationError  # noqa: E402
from edge_mdda.station.report_check import check  # noqa: E402
from edge_mdda.station.report_pdf import code_text, report  # noqa: E402
from edge_mdda.station.visit import Decision, Patient, Visit  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SCALE = 3  # pixels a point: 216 an inch, less than a scanner reads paper with


def text_of(content: bytes) -> str:
    """The only page's words, with single spaces."""
    pages = pypdf.PdfReader(io.BytesIO(content)).pages
    assert len(pages) == 1
    return " ".join(pages[0].extract_text().split())


def pixels_of(content: bytes) -> np.ndarray:
    """The page as (height, width, 3) uint8 RGB."""
    page = pdfium.PdfDocument(content)[0]
    return np.asarray(page.render(scale=SCALE).to_pil().convert("RGB"))


def code_of(pixels: np.ndarray) -> str:
    """What the QR code in the page's lower right corner says."""
    height, width = pixels.shape[:2]
    corner = np.ascontiguousarray(pixels[int(height * 0.6) :, int(width * 0.5) :])
    # OpenCV misses a good code at one size or another; a phone looks many times, too.
    for scale in (1.0, 0.75, 1.5, 2.0):
        said = cv2.QRCodeDetectorAruco().detectAndDecode(cv2.resize(corner, None, fx=scale, fy=scale))[0]
        if said:
            return str(said)
    return ""


def everything_wrong(visit: Visit) -> Visit:
    """The same visit with the longest words that the records hold, and every check failed."""
    answer = dict(visit.answer)
    sentence = "the picture is not sharp enough to be judged, so hold the camera still and take it again; "
    checks = answer["quality"] * 2  # more than there are today
    answer["quality"] = [{**check, "ok": False, "advice": sentence} for check in checks]
    answer["rule"] = sentence * 4
    answer["advice"] = "retake"
    return dataclasses.replace(
        visit,
        answer=answer,
        patient=Patient("0" * 16, "W" * 64, "Wilhelmina " * 18, None, "unknown"),
        decision=Decision("retake", "Dr. Wanda Wiesengrund " * 9, "once more, please " * 110),
    )


def test_the_page_says_it_all():
    visit = drawn_visit()
    text = text_of(report(visit))
    for words in (
        NOTICE,
        "Drawn Dora Patient D-001; born 1961; sex: female",
        "Lesion 1: Upper back, left",
        f"Because {visit.answer['rule']}.",
        f"refer from a malignant share of {visit.answer['operating_point']['refer_at']:.3f}",
        "As taken",
        "Purified",
        "melanoma (malignant)",
        "carcinoma (malignant)",
        "Good: size, contrast",
        f"edge-mdda {visit.answer['version']}; model lesion-lite0-int8",
        "seed 21",
        f"Picture SHA-256 {sha256(visit.picture).hexdigest()}",
        f"Record SHA-256 {visit.sha256}",
        "Drawn Dr. Doe",
        "signature of the clinician",
    ):
        assert words in text, words
    assert text.count(NOTICE) == 2  # at the top and at the bottom


def test_same_visit_same_bytes_in_another_process(tmp_path):
    visit = drawn_visit()
    (tmp_path / "visit.json").write_text(visit.to_json(), encoding="utf-8")
    program = (
        "import sys; from pathlib import Path; from edge_mdda.station.report_pdf import report;"
        "from edge_mdda.station.visit import Visit;"
        "sys.stdout.buffer.write(report(Visit.from_json(Path(sys.argv[1]).read_text('utf-8'))))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "visit.json")]
    other = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    assert other == report(visit)
    changed = dataclasses.replace(visit, patient=dataclasses.replace(visit.patient, birth_year=1962))
    assert report(changed) != other


def test_the_code_is_read_from_the_page_and_covers_picture_and_answer():
    visit = drawn_visit()
    said = code_of(pixels_of(report(visit)))
    assert said == code_text(visit)
    assert sha256(visit.picture).hexdigest().upper() in said
    other_decision = dataclasses.replace(visit, decision=None)
    assert code_text(other_decision) != said
    altered = dataclasses.replace(visit, answer={**visit.answer, "malignant": 0.9})
    assert code_text(altered) != said


def objects_of(content: bytes) -> list[Any]:
    """The pictures on the page, as they are stored."""
    resources = pypdf.PdfReader(io.BytesIO(content)).pages[0]["/Resources"]
    return [named.get_object() for named in resources["/XObject"].values()]


def test_the_stored_picture_goes_in_as_it_is():
    content = report(drawn_visit())
    assert len(objects_of(content)) == 3
    (jpeg,) = (image for image in objects_of(content) if image["/Filter"] == ["/DCTDecode"])
    assert jpeg._data == drawn_visit().picture  # not the reader's own decoding, which would compress the pixels anew
    assert content.count(drawn_visit().picture) == 1


def test_the_record_is_attached():
    visit = drawn_visit()
    (attached,) = pypdf.PdfReader(io.BytesIO(report(visit))).attachments["visit.json"]
    record = json.loads(attached)
    assert record["notice"] == NOTICE
    assert record["sha256"] == visit.sha256
    assert record["visit"]["answer"] == visit.answer


def test_the_longest_words_still_fit():
    visit = everything_wrong(drawn_visit())
    content = report(visit)
    text = text_of(content)
    assert "shortened" in text
    assert "Wilhelmina" in text
    assert all(check["name"] in text.casefold() for check in visit.answer["quality"])
    assert text.count(NOTICE) == 2
    assert code_of(pixels_of(content)) == code_text(visit)  # nothing was written over it
    assert "None yet" in text_of(report(dataclasses.replace(visit, decision=None)))


def test_without_purifier_and_without_raw_view():
    visit = drawn_visit()
    answer = {**visit.answer, "purify": None, "raw_probabilities": None, "disagreement": None}
    text = text_of(report(dataclasses.replace(visit, answer=answer, purified_view=b"")))
    assert "The picture was not purified" in text


def test_letters_that_the_font_lacks_are_refused():
    visit = drawn_visit()
    patient = dataclasses.replace(visit.patient, name="\u0645\u0631\u064a\u0645")
    with pytest.raises(StationError, match="Latin"):
        report(dataclasses.replace(visit, patient=patient))


def named(name: str) -> Visit:
    visit = drawn_visit()
    return dataclasses.replace(visit, patient=dataclasses.replace(visit.patient, name=name))


def test_eastern_names_where_their_font_is_installed():
    try:
        content = report(named("Łucja Žižková Ελένη Іван"))
    except StationError as error:
        assert "install DejaVu" in str(error)
        pytest.skip("no DejaVu fonts here")
    assert "Łucja Žižková Ελένη Іван" in text_of(content)
    assert check(content).visit.patient.name == "Łucja Žižková Ελένη Іван"


def turned(picture: bytes) -> bytes:
    """The JPEG with an EXIF orientation of 6: to be turned by 90 degrees to the right."""
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return picture[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + picture[2:]


def test_a_turned_picture_stands_upright():
    visit = drawn_visit()
    picture = turned(visit.picture)
    answer = {**visit.answer, "sha256": sha256(picture).hexdigest()}
    content = report(dataclasses.replace(visit, picture=picture, answer=answer))
    images = objects_of(content)
    width, height = visit.answer["size"]
    assert (height, width) in [(image["/Width"], image["/Height"]) for image in images]
    assert check(content).visit.picture == picture


def test_an_unaltered_report_is_recognised():
    visit = drawn_visit()
    found = check(report(visit), visit.sha256[:16])
    assert found.visit == visit
    assert found.code == code_text(visit)


def test_every_altered_byte_is_noticed():
    content = report(drawn_visit())
    random = np.random.default_rng(3)
    picture = content.find(drawn_visit().picture)
    places = [*random.integers(0, len(content), 60), *range(0, 300, 7), picture + 3000, len(content) - 2]
    for place in places:
        altered = bytearray(content)
        altered[place] ^= 1 << random.integers(0, 8)
        with pytest.raises(StationError):
            check(bytes(altered))
    for altered in (content[:-1], content[:5000], content + b"\n", b"", b"%PDF-1.4", drawn_visit().picture):
        with pytest.raises(StationError):
            check(bytes(altered))


def test_a_report_made_anew_from_an_altered_record_has_another_hash():
    visit = drawn_visit()
    forged = report(dataclasses.replace(visit, decision=dataclasses.replace(visit.decision, action="none")))
    with pytest.raises(StationError, match="another report"):
        check(forged, visit.sha256)


def test_a_report_of_another_version_is_not_called_altered(monkeypatch):
    visit = drawn_visit()
    with monkeypatch.context() as patch:
        patch.setattr("edge_mdda.station.report_pdf.__version__", "9.9.9")
        content = report(visit)
    with pytest.raises(StationError, match=r"made with edge_mdda 9\.9\.9"):
        check(content)


def edge_mdda(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_mdda", "serve", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_command_checks(tmp_path):
    visit = drawn_visit()
    path = tmp_path / "report.pdf"
    path.write_bytes(report(visit))
    good = edge_mdda("verify-report", str(path), "--record", visit.sha256[:16].upper())
    assert good.returncode == 0, good.stderr
    assert "not altered" in good.stdout
    assert code_text(visit) in good.stdout
    assert NOTICE in good.stdout
    path.write_bytes(report(visit).replace(b"Report", b"report", 1))
    for arguments in ((str(path),), (str(tmp_path / "none.pdf"),), (str(tmp_path),)):
        bad = edge_mdda("verify-report", *arguments)
        assert bad.returncode == 1
        assert bad.stdout == ""
        assert len(bad.stderr.strip().splitlines()) == 1
    assert edge_mdda("verify-report", str(path), "--record", "xyz").returncode == 2


def test_a_visit_survives_its_way_to_a_child():
    visit = drawn_visit()
    assert Visit.from_json(visit.to_json()) == visit
    assert Visit.from_json(visit.to_json()).result_uid == visit.result_uid
