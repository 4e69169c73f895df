"""A visit's picture and result as DICOM: the JPEG's own bytes, dciodvfy finds no error, and the same bytes again."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from pydicom.encaps import generate_frames  # noqa: E402
from station_visits import drawn_visit  # noqa: E402

from edge_mdda import NOTICE  # noqa: E402
from edge_mdda.errors import StationError  # noqa: E402
from edge_mdda.picture.decode import decode  # noqa: E402
from edge_mdda.station import dicom  # noqa: E402
from edge_mdda.station.dicom_pdf import encapsulated  # noqa: E402
from edge_mdda.station.dicom_pixels import JPEG_BASELINE, frame_of  # noqa: E402
from edge_mdda.station.dicom_report import bytes_of, result  # noqa: E402
from edge_mdda.station.sites import SITES  # noqa: E402
from edge_mdda.station.visit import Lesion, Patient, Visit  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
ONE_LEVEL = 2  # of 255; decoders of JPEG differ by so much


@functools.cache
def both_of_drawn() -> tuple[Any, Any]:
    """Picture and report, read back from their files."""
    visit = drawn_visit()
    picture = dicom.image(visit)
    return (
        pydicom.dcmread(io.BytesIO(bytes_of(picture))),
        pydicom.dcmread(io.BytesIO(bytes_of(result(visit, picture)))),
    )


def other_site(visit: Visit, code: str) -> Visit:
    return dataclasses.replace(visit, lesion=Lesion(visit.lesion.id, 2, code))


def judged(visit: Visit, **changes: Any) -> Visit:
    return dataclasses.replace(visit, answer={**visit.answer, **changes})


def encoded(kind: str, *options: int) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (31, 45, 3), np.uint8)
    return bytes(cv2.imencode(kind, cv2.GaussianBlur(pixels, (0, 0), 3), options)[1])


VISITS = {
    "drawn": lambda: drawn_visit(),
    "in the middle": lambda: other_site(drawn_visit(), "face-front"),
    "undecided and nameless": lambda: dataclasses.replace(
        drawn_visit(), decision=None, patient=Patient("0" * 16, "7", "", None, "unknown")
    ),
    "odd name": lambda: dataclasses.replace(
        drawn_visit(), patient=Patient("0" * 16, "Ä-7", "Ana=María^Ōe \\ " * 12, 1999, "other")
    ),
    "refer, unpurified, faulty": lambda: judged(
        drawn_visit(),
        advice="refer",
        purify=None,
        raw_probabilities=None,
        disagreement=None,
        quality=[{**check, "ok": False, "advice": "hold still"} for check in drawn_visit().answer["quality"]],
    ),
    "PNG": lambda: dataclasses.replace(drawn_visit(), picture=encoded(".png")),
    "TIFF": lambda: dataclasses.replace(drawn_visit(), picture=encoded(".tif")),
    "progressive": lambda: dataclasses.replace(drawn_visit(), picture=encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
}


@pytest.mark.parametrize("name", VISITS)
def test_dciodvfy_finds_no_error(name, tmp_path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy here: apt-get install dicom3tools")
    visit = VISITS[name]()
    picture = dicom.image(visit)
    said_of_it = result(visit, picture)
    page = encapsulated(visit, b"%PDF-1.4 odd", picture, said_of_it)
    kinds = ((picture, "DermoscopicPhotographyImage"), (said_of_it, "ComprehensiveSR"), (page, "EncapsulatedPDF"))
    for made, kind in kinds:
        path = tmp_path / "made.dcm"
        path.write_bytes(bytes_of(made))
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60)
        lines = (said.stdout + said.stderr).splitlines()
        assert kind in lines  # it has recognised what it is
        assert not [line for line in lines if "Error" in line]


def test_dciodvfy_would_find_one(tmp_path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy here: apt-get install dicom3tools")
    broken = dicom.image(drawn_visit())
    del broken.RecognizableVisualFeatures
    (tmp_path / "broken.dcm").write_bytes(bytes_of(broken))
    said = subprocess.run(["dciodvfy", str(tmp_path / "broken.dcm")], capture_output=True, text=True, timeout=60)
    assert "Error" in said.stdout + said.stderr


def test_the_jpeg_is_kept_as_it_is():
    visit = drawn_visit()
    picture, _ = both_of_drawn()
    (frame,) = generate_frames(picture.PixelData, number_of_frames=1)
    assert frame.removesuffix(b"\0") == visit.picture.removesuffix(b"\0")
    assert len(frame) - len(visit.picture) == len(visit.picture) % 2
    assert picture.file_meta.TransferSyntaxUID == JPEG_BASELINE
    assert [picture.Columns, picture.Rows] == visit.answer["size"]


@pytest.mark.parametrize("name", ["drawn", "PNG", "progressive"])
def test_a_reader_sees_the_same_colours(name):
    visit = VISITS[name]()
    picture = pydicom.dcmread(io.BytesIO(bytes_of(dicom.image(visit))))
    shown = picture.pixel_array  # as stored for uncompressed ones, RGB from a JPEG by pydicom's own decoder
    assert np.abs(shown.astype(int) - decode(visit.picture)).max() <= (0 if name == "PNG" else ONE_LEVEL)
    assert picture.LossyImageCompression == ("00" if name == "PNG" else "01")


def test_headers_of_jpegs():
    assert frame_of(drawn_visit().picture).fits_baseline
    assert not frame_of(encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)).fits_baseline
    plain = encoded(".jpg")
    assert frame_of(plain).fits_baseline
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
    rgb = plain[:2] + adobe + b"\x00" + plain[2:]
    assert frame_of(rgb).adobe == 0
    assert not frame_of(rgb).fits_baseline
    grey = bytes(cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1])
    assert frame_of(grey).components == (1,)
    picture = dicom.image(dataclasses.replace(drawn_visit(), picture=grey))
    assert picture.PhotometricInterpretation == "MONOCHROME2"


def test_place_patient_and_tracking():
    visit = drawn_visit()
    picture, report = both_of_drawn()
    assert picture.AnatomicRegionSequence[0].CodeMeaning == "Skin of back of upper thoracic region"
    assert (picture.ImageLaterality, picture.PatientSex, str(picture.PatientName)) == ("L", "F", "Drawn Dora^")
    assert picture.PatientID == report.PatientID == "D-001"
    assert picture.StudyInstanceUID == report.StudyInstanceUID == visit.study_uid
    second = dicom.image(dataclasses.replace(other_site(visit, "face-front"), made_at="2026-11-28T00:00:00.5Z"))
    assert second.StudyInstanceUID == visit.study_uid  # one study a visit, whose attributes must not differ ...
    assert (second.StudyTime, second.StudyDescription) == (picture.StudyTime or "", picture.StudyDescription)
    assert second.SeriesInstanceUID != picture.SeriesInstanceUID  # ... as a series' may
    assert picture.TrackingUID == visit.lesion.tracking_uid
    assert NOTICE in picture.ImageComments
    for code, site in SITES.items():
        made = dicom.image(other_site(visit, code))
        assert made.ImageLaterality == {"left": "L", "right": "R", "middle": "U"}[site.side]
    again = dataclasses.replace(visit, id="f" * 16, made_at="2027-03-01T08:00:00Z")
    later = dicom.image(again)
    assert later.TrackingUID == picture.TrackingUID  # one UID a lesion for life
    assert len({later.SOPInstanceUID, picture.SOPInstanceUID, later.StudyInstanceUID, picture.StudyInstanceUID}) == 4
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "TrackingUID", "FrameOfReferenceUID"):
        assert picture[name].value.startswith("2.25.")
        assert len(picture[name].value) <= 64


def contents(item: Any) -> list[Any]:
    """Every content item of a report."""
    found = [item]
    for inner in item.get("ContentSequence", []):
        found += contents(inner)
    return found


def test_the_report_says_what_the_program_said():
    visit = drawn_visit()
    picture, report = both_of_drawn()
    items = contents(report)
    numbers = {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(item.MeasuredValueSequence[0].NumericValue)
        for item in items
        if item.ValueType == "NUM"
    }
    assert numbers["Share of malignant classes, all classes equally likely"] == visit.answer["malignant"]
    assert numbers["Share of melanoma"] == visit.answer["probabilities"]["mel"]
    assert numbers["Divergence of raw and purified view"] == visit.answer["disagreement"]
    assert len(numbers) == len(visit.answer["probabilities"]) + 2
    texts = [item.TextValue for item in items if item.ValueType == "TEXT"]
    assert NOTICE in texts
    assert any(visit.answer["rule"] in text for text in texts)
    assert any("seed 21" in text for text in texts)
    assert any("Drawn Dr. Doe" in text for text in texts)
    advice = [
        item.ConceptCodeSequence[0].CodeValue
        for item in items
        if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeMeaning == "Advice of the screening"
    ]
    assert advice == [visit.answer["advice"]]
    (image,) = (item for item in items if item.ValueType == "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == picture.SOPInstanceUID
    assert visit.lesion.tracking_uid in [item.UID for item in items if item.ValueType == "UIDREF"]
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")


def test_same_visit_same_bytes_in_the_child(tmp_path):
    visit = drawn_visit()
    (tmp_path / "visit.json").write_text(visit.to_json(), encoding="utf-8")
    command = [sys.executable, "-m", "edge_mdda.station.dicom_report", str(tmp_path / "visit.json"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == {"files": ["image.dcm", "result.dcm"]}
    picture = dicom.image(visit)
    assert (tmp_path / "image.dcm").read_bytes() == bytes_of(picture)
    assert (tmp_path / "result.dcm").read_bytes() == bytes_of(result(visit, picture))


def test_the_report_goes_as_a_document_too(tmp_path):
    pytest.importorskip("reportlab", reason="the extra report is not installed")
    from edge_mdda.station.report_check import check
    from edge_mdda.station.report_pdf import report

    visit = drawn_visit()
    content = report(visit)
    (tmp_path / "visit.json").write_text(visit.to_json(), encoding="utf-8")
    (tmp_path / "report.pdf").write_bytes(content)
    command = [sys.executable, "-m", "edge_mdda.station.dicom_report", str(tmp_path / "visit.json"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == {"files": ["image.dcm", "result.dcm", "report.dcm"]}
    picture, said = both_of_drawn()
    document = pydicom.dcmread(tmp_path / "report.dcm")
    inner = document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    assert inner == content
    assert check(inner).visit == visit
    assert NOTICE in document.DocumentTitle
    sources = [item.ReferencedSOPInstanceUID for item in document.SourceInstanceSequence]
    assert sources == [picture.SOPInstanceUID, said.SOPInstanceUID]
    assert document.StudyInstanceUID == picture.StudyInstanceUID
    assert bytes_of(encapsulated(visit, content, picture, said)) == (tmp_path / "report.dcm").read_bytes()


def test_a_number_that_dicom_cannot_hold_is_refused(tmp_path):
    for number in ("a\\b", "7 ", "x" * 65):
        visit = dataclasses.replace(drawn_visit(), patient=Patient("0" * 16, number, "", None, "unknown"))
        with pytest.raises(StationError, match="patient's number"):
            dicom.image(visit)
    (tmp_path / "visit.json").write_text(visit.to_json(), encoding="utf-8")
    command = [sys.executable, "-m", "edge_mdda.station.dicom_report", str(tmp_path / "visit.json"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["visit.json"]
