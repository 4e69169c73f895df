"""Every format, every orientation, every limit, and the fit to the network's size."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_files import (
    HEIGHT,
    LOSSY,
    OPENCV,
    ORIENTED,
    SAMPLES,
    WIDTH,
    chunk,
    encode,
    exif,
    off_by,
    picture,
    png,
    refusal,
    run_python,
    tiff,
    with_exif,
)

from edge_mdda.picture import headers
from edge_mdda.picture.decode import Limits, decode, fit

# --- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SAMPLES)
def test_each_format_gives_the_picture_back(kind: str) -> None:
    data = SAMPLES[kind]()
    header = headers.read_header(data)
    assert (header.format, header.width, header.height) == (kind, WIDTH, HEIGHT)
    image = decode(data)
    assert image.flags.c_contiguous and image.flags.writeable
    assert off_by(image, picture()) <= (LOSSY if kind == "JPEG" else 0)
    assert np.array_equal(decode(bytearray(data)), image)
    assert np.array_equal(decode(memoryview(data)), image)


@pytest.mark.parametrize("wrong", ["lesion.jpg", Path("lesion.jpg"), 5, None, io.StringIO()])
def test_what_is_no_content_is_a_type_error_that_says_so(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"expected the bytes of a picture.*read_bytes"):
        decode(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
def test_progressive_and_restart_jpeg(options: tuple[int, int]) -> None:
    assert off_by(decode(encode(".jpg", picture(), *options)), picture()) <= LOSSY


def test_lossy_webp() -> None:
    assert off_by(decode(encode(".webp", picture(), cv2.IMWRITE_WEBP_QUALITY, 95)), picture()) <= LOSSY


@pytest.mark.parametrize("ext", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_grey_becomes_three_equal_channels(ext: str) -> None:
    grey = picture()[..., 0]
    image = decode(encode(ext, grey))
    assert off_by(image, np.repeat(grey[..., None], 3, -1)) <= (LOSSY if ext in (".jpg", ".webp") else 0)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_sensors_bits_in_a_file_of_16_bits_are_scaled_to_8(bits: int) -> None:
    whole = np.tile(np.arange(256, dtype=np.uint16)[:, None, None], (1, 4, 3))
    deep = (whole.astype(np.uint32) * ((1 << bits) - 1) // 255).astype(np.uint16)
    assert np.abs(decode(encode(".png", deep)).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_is_scaled_not_cut(order: str) -> None:
    # 0x01FF is nearest to grey level 2; dropping the low byte would give 1, and dividing by 256 would give 201
    deep = np.full((4, 5, 3), (200 * 257 + 128, 0x01FF, 65535), np.uint16)
    expected = np.full((4, 5, 3), (200, 2, 255), np.uint8)
    assert np.array_equal(decode(encode(".png", deep)), expected)
    assert np.array_equal(decode(tiff(deep, 2, order=order)), expected)


def test_alpha_is_composited_on_white() -> None:
    rgba = np.dstack([picture(), np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))])
    weight = rgba[..., 3:] / 255
    expected = np.round(rgba[..., :3] * weight + 255 * (1 - weight)).astype(np.uint8)
    for data in (
        encode(".png", rgba),
        encode(".png", rgba.astype(np.uint16) * 257),
        encode(".webp", rgba, cv2.IMWRITE_WEBP_QUALITY, 101),
        *([encode(".bmp", rgba)] if OPENCV >= 5 else []),  # OpenCV 4 passes over a BMP's alpha
        tiff(rgba, 2, (338, 2)),  # libtiff multiplies by alpha here
        tiff(rgba.astype(np.uint16) * 257, 2, (338, 2)),
    ):
        transparent = rgba[..., 3] == 0  # lossless WebP may drop the colour under full transparency
        image = decode(data)
        assert off_by(image, expected) <= 2
        assert (image[transparent] == 255).all()
    premultiplied = np.dstack([np.round(rgba[..., :3] * weight).astype(np.uint8), rgba[..., 3]])
    assert off_by(decode(tiff(premultiplied, 2, (338, 1))), expected) <= 2
    assert np.array_equal(decode(tiff(rgba, 2, (338, 0))), picture())  # a fourth sample that is not alpha


def test_png_colour_keys_and_palettes() -> None:
    palette = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60]))
    white = [255, 255, 255]
    cases = [
        (png(2, 1, 8, 3, b"\0\0\1", palette), [[10, 20, 30], [40, 50, 60]]),
        (png(2, 1, 4, 3, b"\0\x01", palette, chunk(b"tRNS", b"\0")), [white, [40, 50, 60]]),
        (png(2, 1, 8, 0, b"\0\x10\x80", chunk(b"tRNS", b"\0\x10")), [white, [128] * 3]),
        (png(2, 1, 2, 0, b"\0\x60", chunk(b"tRNS", b"\0\x02")), [[85] * 3, white]),
        (png(1, 1, 16, 0, b"\0\x10\x10", chunk(b"tRNS", b"\x10\x10")), [white]),
        (png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", chunk(b"tRNS", b"\0\1\0\2\0\3")), [white, [4, 5, 6]]),
        (png(1, 1, 8, 4, b"\0\x80\0"), [white]),
    ]
    for data, expected in cases:
        assert decode(data).tolist() == [expected]


def test_bmp_variants() -> None:
    row = bytes([1, 2, 3, 4, 5, 6, 0, 0])
    rest = bytes([7, 8, 9, 10, 11, 12, 0, 0])

    def bmp(height: int) -> bytes:
        dib = struct.pack("<IiiHHIIiiII", 40, 2, height, 1, 24, 0, 16, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 70, 0, 0, 54) + dib + row + rest

    up = [[[3, 2, 1], [6, 5, 4]], [[9, 8, 7], [12, 11, 10]]]
    assert decode(bmp(-2)).tolist() == up
    assert decode(bmp(2)).tolist() == up[::-1]
    core = b"BM" + struct.pack("<IHHI", 42, 0, 0, 26) + struct.pack("<IHHHH", 12, 2, 2, 1, 24) + row + rest
    assert decode(core).tolist() == up[::-1]
    assert "cut off" in refusal(bmp(2)[:-1])
    assert "pixels" in refusal(bmp(-(2**31)))


def test_cmyk_jpeg_and_tiff_have_the_colours_of_the_original() -> None:
    pil = pytest.importorskip("PIL.Image")
    cmyk = pil.fromarray(picture()).convert("CMYK")
    for options in ({"format": "JPEG", "quality": 95}, {"format": "TIFF"}):
        file = io.BytesIO()
        cmyk.save(file, **options)
        assert off_by(decode(file.getvalue()), picture()) <= LOSSY
    file = io.BytesIO()
    cmyk.save(file, format="JPEG")
    data = file.getvalue()
    at = data.index(b"\xff\xee")
    unmarked = data[:at] + data[at + 2 + struct.unpack_from(">H", data, at + 2)[0] :]
    assert "CMYK" in refusal(unmarked)


# --- orientation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_is_applied_once(kind: str, orientation: int, order: str) -> None:
    data = SAMPLES[kind]()
    image = decode(with_exif(data, exif(orientation, order)))
    assert np.array_equal(image, ORIENTED[orientation](decode(data)))
    assert image.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_orientation_is_applied_once(orientation: int, order: str, dtype: type) -> None:
    pixels = picture().astype(dtype) * (257 if dtype is np.uint16 else 1)
    image = decode(tiff(pixels, 2, (274, orientation), order=order))
    assert np.array_equal(image, ORIENTED[orientation](picture()))


@pytest.mark.parametrize(
    "block", [exif(0), exif(9), exif(6)[:-8], b"", b"II*\0", b"II*\0\xff\xff\xff\xff\0\0", b"nonsense" * 9]
)
def test_senseless_exif_means_as_stored(block: bytes) -> None:
    data = SAMPLES["JPEG"]()
    assert np.array_equal(decode(with_exif(data, block)), decode(data))


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SAMPLES)
def test_limits_are_exact(kind: str) -> None:
    data = SAMPLES[kind]()
    assert decode(data, Limits(HEIGHT * WIDTH, len(data))).shape == (HEIGHT, WIDTH, 3)
    assert "64 x 48" in refusal(data, Limits(max_pixels=HEIGHT * WIDTH - 1))
    assert "byte limit" in refusal(data, Limits(max_bytes=len(data) - 1))


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "9", None])
def test_senseless_limits(bad: object) -> None:
    with pytest.raises(ValueError, match="max_pixels"):
        Limits(max_pixels=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_bytes"):
        Limits(max_bytes=bad)  # type: ignore[arg-type]


def test_a_huge_png_is_refused_in_little_memory(tmp_path: Path) -> None:
    side = 20_000
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + side // 8)) for _ in range(side)]
    body = b"".join(rows) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    assert bomb.stat().st_size < 200_000
    program = """
        import sys
        from edge_mdda.errors import ImageTooLargeError
        from edge_mdda.picture.decode import decode
        try:
            decode(open(sys.argv[1], "rb").read())
        except ImageTooLargeError as error:
            peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
            print(peak, "numpy" in sys.modules, "cv2" in sys.modules)
            print(error)
    """
    done = run_python(program, str(bomb))
    peak, numpy_loaded, cv2_loaded = done.stdout.splitlines()[0].split()
    assert int(peak) < 100 * 1024  # KiB; not ru_maxrss, which begins at what the parent had when it forked
    assert (numpy_loaded, cv2_loaded) == ("False", "False")
    assert "20000 x 20000" in done.stdout and done.stderr == ""


# --- fit ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", ["squeeze", "center"])
@pytest.mark.parametrize("size", [(24, 24), (100, 30), (30, 100), (200, 200), (1, 1), (48, 32), (47, 64)])
def test_fit_shape(crop: str, size: tuple[int, int]) -> None:
    image = fit(picture(), *size, crop)
    assert image.shape == (*size, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    source = picture()
    assert fit(source, HEIGHT, WIDTH, crop) is source


def test_center_cuts_the_middle_and_squeeze_keeps_the_edges() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:30] = 200
    assert (fit(image, 10, 10, "center") == 200).all()
    assert fit(image, 10, 10, "squeeze")[0, :, 0].tolist() == [0, 0, 100, 200, 200, 200, 200, 100, 0, 0]
    assert (fit(image.swapaxes(0, 1), 10, 10, "center") == 200).all()
    assert np.array_equal(fit(image, 20, 20, "center"), image[:, 10:30])


@pytest.mark.parametrize("size", [(8, 8), (8, 256), (256, 8)])
def test_shrinking_averages_even_if_the_other_side_grows(size: tuple[int, int]) -> None:
    checks = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    image = fit(np.repeat(checks[..., None], 3, -1), *size, "squeeze")
    assert abs(image.astype(int) - 127).max() <= 2


def test_enlarging_adds_no_rim() -> None:
    edge = np.full((8, 8, 3), 50, np.uint8)
    edge[:, 4:] = 200
    image = fit(edge, 64, 64, "squeeze")
    assert (image.min(), image.max()) == (50, 200)
    assert len(np.unique(image)) > 4  # interpolated, not repeated


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1)])
def test_fit_extreme_shapes(shape: tuple[int, int]) -> None:
    for crop in ("squeeze", "center"):
        assert (fit(np.full((*shape, 3), 77, np.uint8), 32, 24, crop) == 77).all()


def test_fit_refuses_nonsense() -> None:
    for crop in ("centre", "", "CENTER"):
        with pytest.raises(ValueError, match="crop"):
            fit(picture(), HEIGHT, WIDTH, crop)
    for size in ((0, 5), (5, 0), (-1, 5)):
        with pytest.raises(ValueError, match="size"):
            fit(picture(), *size, "squeeze")
    for image in (picture()[..., 0], picture().astype(float), picture()[:0]):
        with pytest.raises(ValueError, match="uint8"):
            fit(image, 8, 8, "squeeze")
