"""DICOM photographs as pictures to screen: each way to store pixels, what is refused, and what other pictures pay."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import HEIGHT, LOSSY, WIDTH, encode, gamma_curve, icc, off_by, picture, refusal
from PIL import Image

from edge_mdda import NOTICE
from edge_mdda.errors import ImageError
from edge_mdda.files import Limits
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.picture.colour import to_xyz
from edge_mdda.picture.decode import check_header, decode
from edge_mdda.picture.dicom import read_dicom
from edge_mdda.picture.parsing import SRGB_PRIMARIES

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
)

ROOT = Path(__file__).resolve().parents[1]
FULL_RANGE = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
"""RGB to YBR_FULL (PS3.3, C.7.6.3.1.2)."""
DERMOSCOPIC, PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.7", "1.2.840.10008.5.1.4.1.1.77.1.4"


def dicom(pixels: bytes, syntax: str, colours: str, samples: int = 3, **more: object) -> bytes:
    """A DICOM photograph of ``picture()``'s size."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = str(more.pop("SOPClassUID", DERMOSCOPIC))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "2.25.1"
    dataset.PatientID, dataset.PatientName, dataset.TrackingID, dataset.TrackingUID = (
        "P-17",
        "Doe^Dora",
        "L 4",
        "2.25.9",
    )
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = HEIGHT, WIDTH, samples
    dataset.PhotometricInterpretation = colours
    if samples == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    for name, value in more.items():
        setattr(dataset, name, value)
    if pydicom.uid.UID(syntax).is_encapsulated:
        dataset.PixelData = encapsulate([pixels])
        dataset["PixelData"].VR = "OB"
    else:
        dataset.PixelData = pixels
        dataset["PixelData"].VR = "OB" if syntax != ImplicitVRLittleEndian else "OW"
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def raw(colours: str = "RGB", syntax: str = ExplicitVRLittleEndian, **more: object) -> bytes:
    return dicom(picture().tobytes(), syntax, colours, **more)


def jpeg_2000(pixels: np.ndarray) -> bytes:
    """A lossless codestream without a container."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG2000", no_jp2=True, irreversible=False)
    return out.getvalue()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("kind", [DERMOSCOPIC, PHOTOGRAPHIC])
def test_pixels_that_are_not_compressed(syntax, kind):
    assert np.array_equal(decode(raw(syntax=syntax, SOPClassUID=kind)), picture())


def test_planes_grey_and_luma_with_chroma():
    planes = np.ascontiguousarray(picture().transpose(2, 0, 1)).tobytes()
    assert np.array_equal(decode(dicom(planes, ExplicitVRLittleEndian, "RGB", PlanarConfiguration=1)), picture())
    grey = np.ascontiguousarray(picture()[..., 1])
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(decode(dicom(grey.tobytes(), ExplicitVRLittleEndian, "MONOCHROME2", 1)), as_rgb)
    assert np.array_equal(decode(dicom(grey.tobytes(), ExplicitVRLittleEndian, "MONOCHROME1", 1)), 255 - as_rgb)
    luma = np.rint(picture() @ FULL_RANGE.T + (0, 128, 128)).clip(0, 255).astype(np.uint8).tobytes()
    assert off_by(decode(dicom(luma, ExplicitVRLittleEndian, "YBR_FULL")), picture()) <= 2  # rounded twice


def test_a_jpeg_has_the_pixels_that_it_has_alone():
    content = encode(".jpg", picture())
    for colours in ("YBR_FULL_422", "YBR_FULL"):
        assert np.array_equal(decode(dicom(content, JPEGBaseline8Bit, colours)), decode(content))


def test_a_jpeg_of_red_green_and_blue_keeps_its_colours():
    out = io.BytesIO()
    Image.fromarray(picture()).save(out, "JPEG", quality=95, subsampling=0, keep_rgb=True)
    content = out.getvalue()
    start = content.index(b"\xff\xee")
    bare = content[:start] + content[start + 2 + struct.unpack_from(">H", content, start + 2)[0] :]
    assert b"Adobe" not in bare
    with_jfif = bare[:2] + b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00" + bare[2:]
    for stored in (content, bare, with_jfif):
        assert off_by(decode(dicom(stored, JPEGBaseline8Bit, "RGB")), picture()) <= LOSSY


def test_jpeg_2000():
    assert np.array_equal(decode(dicom(jpeg_2000(picture()), JPEG2000Lossless, "YBR_RCT")), picture())


def test_the_objects_own_profile_counts():
    profile = icc(to_xyz(SRGB_PRIMARIES), gamma_curve(1.0))
    dark = decode(raw(ICCProfile=profile))
    assert dark.mean() > picture().mean() + 10  # linear light is lighter in sRGB


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: raw(SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "CT Image Storage"),
        (lambda: raw(NumberOfFrames=2), "2 pictures"),
        (lambda: raw(BitsAllocated=16, BitsStored=12, HighBit=11), "12 of 16 bits"),
        (lambda: raw("PALETTE COLOR"), "PALETTE COLOR"),
        (lambda: dicom(jpeg_2000(picture()[..., 1].copy()), JPEG2000Lossless, "MONOCHROME2", 1), "MONOCHROME2"),
        (lambda: raw("RGB", SamplesPerPixel=1), "unusual pixels"),
        (lambda: raw(Rows=HEIGHT + 1), "fewer pixels"),
        (lambda: raw(Rows=0), "0 pixels"),
        (lambda: raw(syntax=DeflatedExplicitVRLittleEndian), "Deflated"),
        (lambda: dicom(b"\xff\xd8\xff\xd9", JPEGLosslessSV1, "RGB"), "JPEG Lossless"),
        (lambda: dicom(encode(".jpg", picture()), JPEGBaseline8Bit, "YBR_FULL", Rows=HEIGHT - 1), "about its size"),
        (lambda: dicom(jpeg_2000(picture()), JPEG2000Lossless, "YBR_RCT", Columns=WIDTH + 2), "about its size"),
        (lambda: dicom(encode(".png", picture()), JPEGBaseline8Bit, "YBR_FULL"), "not the JPEG"),
        (lambda: dicom(encode(".jpg", picture()), JPEG2000Lossless, "YBR_RCT"), "not the JPEG 2000"),
        (lambda: dicom(encode(".jpg", picture())[:-40], JPEGBaseline8Bit, "YBR_FULL"), "JPEG"),
    ],
)
def test_what_is_refused(data, words):
    message = refusal(data())
    assert words in message
    assert "DICOM" in message or "JPEG" in message


def test_limits_hold():
    with pytest.raises(ImageError, match="more than the limit"):
        check_header(raw(), Limits(max_pixels=WIDTH * HEIGHT - 1))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_a_refusal_or_a_picture(draw):
    data = bytearray(
        dicom(encode(".jpg", picture()), JPEGBaseline8Bit, "YBR_FULL") if draw.draw(st.booleans()) else raw()
    )
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(132, min(len(data) - 1, 900)))] = draw.draw(st.integers(0, 255))
    damaged = bytes(data[: draw.draw(st.integers(132, len(data)))] if draw.draw(st.booleans()) else data)
    try:
        found = decode(damaged)
    except ImageError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert found.dtype == np.uint8
        assert found.ndim == 3


def test_identifiers():
    photograph = read_dicom(raw())
    assert (photograph.patient, photograph.lesion) == ("P-17", "L 4")
    bare = read_dicom(raw(PatientID="", TrackingID="\x1b[2J x\n" + "y" * 200))
    assert bare.patient is None
    assert bare.lesion is not None
    assert bare.lesion.isprintable()
    assert len(bare.lesion) == 64


def demo_dicom() -> bytes:
    content = DEMO_IMAGE.read_bytes()
    height, width = decode(content).shape[:2]
    return dicom(content, JPEGBaseline8Bit, "YBR_FULL_422", Rows=height, Columns=width)


def screen(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_mdda", "screen", "--json", "--seed", "7", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_screen_takes_a_dicom_file_and_names_patient_and_lesion(tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(demo_dicom())
    done = screen(str(path), str(DEMO_IMAGE))
    assert done.returncode == 0, done.stderr
    ours, plain = (json.loads(line) for line in done.stdout.splitlines())
    assert (ours["patient"], ours["lesion"]) == ("P-17", "L 4")
    assert (plain["patient"], plain["lesion"]) == (None, None)
    assert ours["notice"] == NOTICE
    for name in ("probabilities", "raw_probabilities", "advice", "quality"):
        assert ours[name] == plain[name], name
    named = json.loads(screen(str(path), "--patient", "given", "--lesion", "by hand").stdout)
    assert (named["patient"], named["lesion"]) == ("given", "by hand")


def test_other_pictures_do_not_load_pydicom(tmp_path):
    program = (
        "import sys; from edge_mdda.cli.main import main; assert main(['screen', sys.argv[1]]) == 0;"
        "packages = {name.partition('.')[0] for name in sys.modules};"
        "sys.exit(len(packages & {'pydicom', 'highdicom', 'sqlite3', 'starlette'}))"
    )
    (tmp_path / "image.dcm").write_bytes(demo_dicom())
    for path, loaded in ((DEMO_IMAGE, 0), (tmp_path / "image.dcm", 1)):
        command = [sys.executable, "-c", program, str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == loaded, done.stderr


def test_without_pydicom_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("edge_mdda.picture.dicom.find_spec", lambda name: None)
    assert "edge-mdda[dicom]" in refusal(raw())
    assert decode(encode(".png", picture())) is not None
