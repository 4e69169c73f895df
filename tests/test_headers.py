"""What is refused by its header and structure alone."""

from __future__ import annotations

import io
import struct
import time

import numpy as np
import pytest
from made_files import (
    SAMPLES,
    chunk,
    encode,
    exif,
    picture,
    png,
    refusal,
    tiff,
    tiff_tags,
    with_exif,
)

from edge_mdda.errors import DamagedImageError
from edge_mdda.picture import codec_stderr
from edge_mdda.picture.decode import decode

# --- bad contents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a" + bytes(50), "GIF"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"),
        (b"\0\0\0\x18ftypavif" + bytes(50), "AVIF"),
        (b"\0\0\0\x18ftypisom" + bytes(50), "video"),
        (b"%PDF-1.7\n", "PDF"),
        (bytes(128) + b"DICM" + bytes(50), "DICOM"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "SVG"),
        (b"PK\x03\x04" + bytes(50), "ZIP"),
        (b"BMI is not a bitmap but text", "text"),
        ("Läsion, links".encode(), "text"),
        (b"II+\0\x08\0\0\0" + bytes(50), "BigTIFF"),
        (b"\x01\x02\x03\x04", "not a recognised image"),
        (b"", "empty"),
        (b"\xff\0", "not a recognised image"),
    ],
)
def test_other_types_are_named(data: bytes, words: str) -> None:
    assert words in refusal(data)


@pytest.mark.parametrize("kind", SAMPLES)
def test_every_truncation_is_refused(kind: str) -> None:
    data = SAMPLES[kind]()
    for length in {*range(min(len(data), 200)), *range(0, len(data), 97), len(data) - 1}:
        message = refusal(data[:length])
        assert length < 20 or kind in message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_bytes_after_the_end_do_no_harm(kind: str) -> None:
    data = SAMPLES[kind]()
    assert np.array_equal(decode(data + b"\xff\xd8trailer of the phone" * 50), decode(data))


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def test_jpeg_structure() -> None:
    data = SAMPLES["JPEG"]()
    frame_at = data.index(b"\xff\xc0")
    scan_at = data.index(b"\xff\xda")
    frame = data[frame_at : frame_at + 19]
    zero = data[: frame_at + 5] + b"\0\0" + data[frame_at + 7 :]
    second = data[:scan_at] + frame[:5] + b"\x4e\x20\x4e\x20" + frame[9:] + data[scan_at:]
    assert "cut off" in refusal(data[:-2])
    assert "64 x 0 pixels" in refusal(zero)
    assert "size more than once" in refusal(second)
    assert "no image" in refusal(data[:frame_at] + data[frame_at + 19 :])
    assert "no image" in refusal(data[:scan_at] + b"\xff\xd9")
    assert "lossless" in refusal(data.replace(b"\xff\xc0", b"\xff\xc3", 1))
    assert "segments" in refusal(data[:2] + segment(0xFE, b"") * 20_000 + data[2:])
    assert "scans" in refusal(data[:-2] + segment(0xDA, b"") * 200 + data[-2:])
    assert np.array_equal(decode(data[:2] + b"\xff\xff\xff" + data[2:]), decode(data))  # padding is legal


def test_damaged_jpeg_data_is_refused_not_invented() -> None:
    if codec_stderr.codec_stderr() is None:
        pytest.skip("this C library does not tell what libjpeg says")
    random = np.random.default_rng(0)
    good = encode(".jpg", random.integers(0, 256, (64, 64, 3), np.uint8))
    scan = good.index(b"\xff\xda")
    refused = 0
    for _ in range(50):
        data = bytearray(good)
        at = int(random.integers(scan + 20, len(data) - 200))
        data[at : at + 40] = random.integers(0, 255, 40, np.uint8).tobytes()  # no 0xFF: the structure stays whole
        try:
            decode(bytes(data))
        except DamagedImageError as error:
            assert "corrupt" in str(error)
            refused += 1
    assert refused >= 40  # a stream of codes can fall into step again by chance


@pytest.mark.parametrize("padding", [b"\x12" * 9, bytes(500)])
def test_a_cameras_padding_before_the_end_of_a_jpeg_is_accepted(padding: bytes) -> None:
    data = SAMPLES["JPEG"]()
    assert np.array_equal(decode(data[:-2] + padding + data[-2:]), decode(data))


def test_png_structure() -> None:
    good = png(2, 1, 8, 0, b"\0\1\2")
    assert decode(good).tolist() == [[[1] * 3, [2] * 3]]
    for at in range(8, len(good)):
        assert refusal(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    assert "header" in refusal(good[:8] + good[33:])
    assert "header" in refusal(good[:33] + good[8:])
    assert "senseless" in refusal(png(2, 1, 3, 0, b"\0\1\2"))
    assert "0 x 1" in refusal(png(0, 1, 8, 0, b"\0\1\2"))
    assert "palette" in refusal(png(2, 1, 8, 3, b"\0\1\2"))
    assert "animation" in refusal(png(2, 1, 8, 0, b"\0\1\2", chunk(b"acTL", bytes(8))))
    assert "corrupt" in refusal(png(2, 9, 8, 0, b"\0\1\2"))  # too few rows, though every checksum is right
    assert "text" in refusal(good.replace(b"\r\n", b"\n", 1))


def test_webp_structure() -> None:
    data = SAMPLES["WebP"]()
    canvas = bytearray(with_exif(data, exif(1)))
    canvas[24:27] = struct.pack("<I", 16_000_000)[:3]
    assert "16000001" in refusal(bytes(canvas))
    animated = bytearray(with_exif(data, exif(1)))
    animated[20] |= 2
    assert "animation" in refusal(bytes(animated))
    assert "0 pictures" in refusal(b"RIFF\x04\0\0\0WEBP")
    twice = data[:4] + struct.pack("<I", 4 + 2 * (len(data) - 12)) + data[8:] + data[12:]
    assert "2 pictures" in refusal(twice)


def test_tiff_structure() -> None:
    pixels = picture()
    assert np.array_equal(decode(tiff(pixels, 2)), pixels)
    data = tiff(pixels, 2)
    tags = tiff_tags(data)

    def changed(tag: int, value: int, place: int = 8) -> bytes:
        out = bytearray(data)
        struct.pack_into("<I" if place == 8 else "<H", out, tags[tag] + place, value)
        return bytes(out)

    assert "cut off" in refusal(changed(279, 2**31))
    assert "cut off" in refusal(changed(273, 2**32 - 1))
    assert "less image data" in refusal(changed(279, 100))
    assert "less image data" in refusal(changed(256, 1000))
    assert "senseless directory" in refusal(changed(257, 256, place=0))  # two widths
    assert "compression" in refusal(changed(259, 34925))
    assert "directory" in refusal(data[:4] + b"\xff\xff\xff\x7f" + data[8:])
    assert "measurements" in refusal(tiff(pixels, 2, (339, 3)))
    assert "measurements" in refusal(encode(".tiff", picture().astype(np.float32)))
    assert "layout" in refusal(tiff(pixels[..., :2], 1, (338, 2)))
    assert "layout" in refusal(tiff(pixels.astype(np.uint16), 2, (284, 2)))
    tiles = ((322, 60_000), (323, 60_000), (324, 8), (325, 8), (259, 5))
    assert "tiles of 3600000000 pixels" in refusal(tiff(pixels, 2, *tiles))


def test_tiled_and_planar_tiff() -> None:
    writer = pytest.importorskip("tifffile")
    for options in ({"tile": (32, 32)}, {"tile": (256, 256)}, {"rowsperstrip": 5}, {"compression": "zlib"}):
        file = io.BytesIO()
        writer.imwrite(file, picture(), photometric="rgb", **options)
        assert np.array_equal(decode(file.getvalue()), picture())
    file = io.BytesIO()
    writer.imwrite(file, np.moveaxis(picture(), -1, 0).copy(), photometric="rgb", planarconfig="separate")
    assert np.array_equal(decode(file.getvalue()), picture())


def test_bilevel_and_inverted_tiff() -> None:
    grey = picture()[..., 0]
    assert np.array_equal(decode(tiff(grey, 0)), np.repeat(255 - grey[..., None], 3, -1))
    assert "layout" in refusal(tiff(grey.astype(np.uint16), 0))
    bits = np.array([[0b10100000]], np.uint8)
    assert decode(tiff(bits, 1, (256, 4), (258, 1))).tolist() == [[[255] * 3, [0] * 3, [255] * 3, [0] * 3]]
    assert "4 bits" in refusal(tiff(np.array([[0x0F, 0x80]], np.uint8), 1, (256, 4), (258, 4)))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff" * 4_000_000,
        b"\xff\xd8" + b"\xff\xd0" * 2_000_000,
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1_000_000,
        b"\xff\xd8" + segment(0xDA, b"") + b"\xff\xff\x00" * 1_500_000,
        png(1, 1, 8, 0, b"", chunk(b"aaAa", b"") * 400_000),
        b"RIFF" + struct.pack("<I", 4_000_004) + b"WEBP" + b"abcd\0\0\0\0" * 500_000,
        b"II*\0" + struct.pack("<IH", 8, 65535) + struct.pack("<HHII", 999, 4, 1, 0) * 65535 + bytes(4),
    ],
    ids=["fill", "restarts", "comments", "stuffing", "png", "webp", "tiff"],
)
def test_hostile_repetition_is_refused_quickly(data: bytes) -> None:
    started = time.process_time()
    refusal(data)
    assert time.process_time() - started < 5
