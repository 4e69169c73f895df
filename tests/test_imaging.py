"""Pictures in and out: every format, every orientation, every way in which a file can be bad."""

from __future__ import annotations

import io
import os
import socket
import stat
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mdda import codec_stderr, files, headers
from edge_mdda.errors import DamagedImageError, ImageError, ImageTooLargeError, UnreadableImageError
from edge_mdda.imaging import Limits, decode, fit, write_png

ROOT = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH = 48, 64
LOSSY = 12  # grey levels by which a lossy format may differ on the smooth picture
ORIENTED = {  # what each EXIF orientation asks for, by numpy alone
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


OPENCV = int(cv2.__version__.split(".")[0])


def picture() -> np.ndarray:
    """A smooth RGB picture without any symmetry, so that each flip and channel swap shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 3 + 20, y * 4 + 10, 200 - x - y], -1).astype(np.uint8)


def encode(ext: str, rgb: np.ndarray, *options: int) -> bytes:
    bgr = rgb if rgb.ndim == 2 else rgb[..., [2, 1, 0, 3][: rgb.shape[2]]]
    done, data = cv2.imencode(ext, bgr, options)
    assert done
    return data.tobytes()


SAMPLES = {
    "JPEG": lambda: encode(".jpg", picture(), cv2.IMWRITE_JPEG_QUALITY, 95),
    "PNG": lambda: encode(".png", picture()),
    "WebP": lambda: encode(".webp", picture(), cv2.IMWRITE_WEBP_QUALITY, 101),
    "BMP": lambda: encode(".bmp", picture()),
    "TIFF": lambda: encode(".tiff", picture()),
}


def off_by(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b).max())


def refusal(source: object, limits: Limits = files.DEFAULT_LIMITS) -> str:
    """The message of a refusal, after checking that it is one line with a cause and an advice."""
    with pytest.raises(ImageError) as caught:
        decode(source, limits)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message and "\n" not in message and ": " in message
    return message


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    tail = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + tail


def exif(orientation: int, order: str = "<") -> bytes:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def with_exif(data: bytes, block: bytes) -> bytes:
    """Put an EXIF block into a JPEG, PNG or lossless WebP."""
    if data.startswith(b"\xff\xd8"):
        body = b"Exif\0\0" + block
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    if data.startswith(b"\x89PNG"):
        return data[:33] + chunk(b"eXIf", block) + data[33:]
    side = [struct.pack("<I", n - 1)[:3] for n in (WIDTH, HEIGHT)]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + side[0] + side[1] + data[12:]
    body += b"EXIF" + struct.pack("<I", len(block)) + block + b"\0" * (len(block) & 1)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_tags(data: bytes) -> dict[int, int]:
    """Offsets of the 12-byte entries of a little-endian TIFF's first directory, by tag."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    return {struct.unpack_from("<H", data, at)[0]: at for at in range(start + 2, start + 2 + 12 * count, 12)}


def tiff(pixels: np.ndarray, photometric: int, *more: tuple[int, int], order: str = "<", size: int = 0) -> bytes:
    """An uncompressed TIFF with one strip; ``more`` adds or replaces short tags."""
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    body = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    tags = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: photometric, 273: 0, 277: samples}
    tags |= {278: height, 279: size or len(body), **dict(more)}
    long_tags = {273, 279}
    directory = 8 + 2 + 12 * len(tags) + 4
    bits_at = directory
    tags[273] = directory + 2 * samples
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for tag, value in sorted(tags.items()):
        if tag == 258 and samples > 2:
            out += struct.pack(order + "HHII", tag, 3, samples, bits_at)
        elif tag == 258 and samples == 2:
            out += struct.pack(order + "HHIHH", tag, 3, 2, value, value)
        elif tag in long_tags:
            out += struct.pack(order + "HHII", tag, 4, 1, value)
        else:
            out += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    return out + b"\0\0\0\0" + struct.pack(f"{order}{samples}H", *[tags[258]] * samples) + body


# --- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SAMPLES)
def test_each_format_gives_the_picture_back(kind: str, tmp_path: Path) -> None:
    data = SAMPLES[kind]()
    header = headers.read_header(data)
    assert (header.format, header.width, header.height) == (kind, WIDTH, HEIGHT)
    image = decode(data)
    assert image.flags.c_contiguous and image.flags.writeable
    assert off_by(image, picture()) <= (LOSSY if kind == "JPEG" else 0)
    (tmp_path / "lesion").write_bytes(data)
    assert np.array_equal(decode(tmp_path / "lesion"), image)
    assert np.array_equal(decode(str(tmp_path / "lesion")), image)


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
        from edge_mdda.imaging import decode
        try:
            decode(sys.argv[1])
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


def run_python(program: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


# --- bad paths and streams ------------------------------------------------------------------------------------------


def test_bad_paths(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    cases = {
        str(tmp_path / "missing.jpg"): "no such file",
        str(empty): "empty",
        str(empty / "below"): "not a folder",
        str(tmp_path): "folder",
        str(fifo): "pipe",
        "/dev/null": "device",
        "/dev/zero": "device",
        str(loop): "circle",
        "x" * 5000: "too long",
        "nul\0byte": "impossible character",
        "": "no such file",
    }
    started = time.monotonic()
    for path, words in cases.items():
        message = refusal(path)
        assert words in message
        assert not path or path not in message  # the caller names the file
        with pytest.raises(UnreadableImageError):
            files.read_bytes(path)
    assert time.monotonic() - started < 10


def test_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert "socket" in refusal("s")


def test_a_pipe_put_in_place_between_check_and_open_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo, plain = tmp_path / "fifo", tmp_path / "plain"
    os.mkfifo(fifo)
    plain.write_bytes(b"x")
    real = os.stat(plain)
    monkeypatch.setattr(files.os, "stat", lambda path: real)
    assert "pipe" in refusal(fifo)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(SAMPLES["PNG"]())
    path.chmod(0)
    assert "permission" in refusal(path)


@pytest.mark.parametrize("number", [13, 5])
def test_system_errors_become_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"x")

    def fail(*_: object) -> int:
        raise OSError(number, "raw words of the system")

    monkeypatch.setattr(files.os, "open", fail)
    assert {13: "permission", 5: "card"}[number] in refusal(path)


def test_too_large_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    monkeypatch.setattr(files, "_read_all", lambda *_: pytest.fail("was read"))
    assert "limit of 32 MiB" in refusal(path)


def test_read_stream() -> None:
    data = SAMPLES["PNG"]()
    limits = Limits(max_bytes=len(data))
    assert files.read_stream(io.BytesIO(data), limits) == data
    endless = io.BytesIO(data + bytes(1000))
    with pytest.raises(ImageTooLargeError):
        files.read_stream(endless, limits)
    assert endless.tell() == len(data) + 1
    closed = io.BytesIO(data)
    closed.close()
    for stream, words in ((io.BytesIO(), "empty"), (closed, "closed"), (io.StringIO("text"), "text")):
        with pytest.raises(UnreadableImageError, match=words):
            files.read_stream(stream)  # type: ignore[arg-type]


def test_read_stream_takes_short_reads_together() -> None:
    reader, writer = os.pipe()
    data = SAMPLES["BMP"]()

    def feed() -> None:
        with open(writer, "wb", buffering=0) as out:
            for at in range(0, len(data), 1000):
                out.write(data[at : at + 1000])

    thread = threading.Thread(target=feed)
    thread.start()
    with open(reader, "rb", buffering=0) as stream:
        assert files.read_stream(stream) == data
    thread.join()


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


# --- silence and threads --------------------------------------------------------------------------------------------

FUZZ = """
    import sys
    import numpy as np
    from edge_mdda.errors import ImageError
    from edge_mdda.imaging import decode
    from tests.test_imaging import mutants

    decoded = refused = 0
    for data in mutants():
        try:
            image = decode(data)
        except ImageError as error:
            assert str(error) and "\\n" not in str(error), error
            refused += 1
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.flags.c_contiguous
            decoded += 1
    print(decoded, refused)
"""


def mutants(count: int = 200) -> list[bytes]:
    """Damaged files: 40 each of five formats, always the same ones."""
    random = np.random.default_rng(20240607)
    noisy = np.clip(picture() + random.normal(0, 20, picture().shape), 0, 255).astype(np.uint8)
    options = (
        (".jpg", cv2.IMWRITE_JPEG_QUALITY, 80),
        (".png", cv2.IMWRITE_PNG_COMPRESSION, 6),
        (".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
        (".bmp",),
        (".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 5),
    )
    good = [encode(ext, noisy, *rest) for ext, *rest in options]
    out = []
    for number in range(count):
        data = bytearray(good[number % len(good)])
        way = number // len(good) % 5
        if way == 0:
            del data[int(random.integers(0, len(data))) :]
        elif way == 1:
            for at in random.integers(0, len(data), 8):
                data[at] ^= 1 << int(random.integers(8))
        elif way == 2:
            at = int(random.integers(0, len(data) - 16))
            data[at : at + 16] = random.bytes(16)
        elif way == 3:
            data[: int(random.integers(1, 9))] = random.bytes(int(random.integers(1, 9)))
        else:
            other = good[int(random.integers(len(good)))]
            size = int(random.integers(4, 400))
            data[:size] = other[:size]
        if data.startswith(b"\x89PNG") and number % 2:
            data = bytearray(right_checksums(bytes(data)))
        out.append(bytes(data))
    return out


def right_checksums(data: bytes) -> bytes:
    """Make every chunk's checksum right, so that the damage reaches the decoder."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        out += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return out


def test_damaged_files_never_print_nor_hang() -> None:
    done = run_python(FUZZ)
    decoded, refused = map(int, done.stdout.split())
    assert decoded + refused == 200
    assert decoded >= 10 and refused >= 100  # the batch tests both outcomes
    assert done.stderr == ""


def test_codecs_are_silent_and_our_own_stderr_is_not() -> None:
    """The same damage makes OpenCV print when it is called directly, so the silence is our doing."""
    program = """
        import sys, threading
        import cv2, numpy as np
        from edge_mdda.errors import ImageError
        from edge_mdda.imaging import decode
        from tests.test_imaging import encode, picture, png, chunk

        jpeg = bytearray(encode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
        jpeg[-900:-300] = b"U" * 600
        bad = [bytes(jpeg), png(4, 4, 8, 2, b"\\x09" * 52), png(4, 4, 8, 2, b"\\0" * 20)]
        if sys.argv[1] == "direct":
            for data in bad:
                cv2.imdecode(np.frombuffer(data, np.uint8), 1)
        else:
            logging = getattr(cv2.utils, "logging", cv2)
            level = logging.getLogLevel()
            stop = threading.Event()
            def talk():
                for number in range(200):
                    print("line", number, file=sys.stderr, flush=True)
            thread = threading.Thread(target=talk)
            thread.start()
            for data in bad * 100:
                try:
                    decode(data)
                except ImageError:
                    pass
            thread.join()
            assert logging.getLogLevel() == level
    """
    assert "JPEG" in run_python(program, "direct").stderr
    assert "libpng" in run_python(program, "direct").stderr
    assert run_python(program, "ours").stderr.splitlines() == [f"line {number}" for number in range(200)]


def test_decode_from_several_threads() -> None:
    good, bad = SAMPLES["JPEG"](), SAMPLES["PNG"]()[:-20]
    expected = decode(good)
    wrong: list[object] = []

    def work() -> None:
        for _ in range(25):
            if not np.array_equal(decode(good), expected):
                wrong.append("picture")
            try:
                decode(bad)
                wrong.append("decoded")
            except ImageError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "corrupt"),
        (np.zeros((WIDTH, HEIGHT, 3), np.uint8), "contradicts"),
        (np.zeros((HEIGHT, WIDTH, 3), np.float32), "unusual kind"),
        (np.zeros((HEIGHT, WIDTH, 2), np.uint8), "unusual kind"),
        (MemoryError(), "memory"),
        (cv2.error("raw words of OpenCV"), "corrupt"),
    ],
)
def test_surprises_from_the_decoder(monkeypatch: pytest.MonkeyPatch, result: object, words: str) -> None:
    def imdecode(*_: object) -> object:
        if isinstance(result, BaseException):
            if isinstance(result, cv2.error):
                result.code = -2  # type: ignore[misc]
            raise result
        return result

    data = SAMPLES["JPEG"]()
    monkeypatch.setattr(cv2, "imdecode", imdecode)
    assert words in refusal(data)


def test_messages_are_one_line() -> None:
    assert str(ImageError("first\nsecond\r\n  third")) == "first second third"


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


# --- write_png ------------------------------------------------------------------------------------------------------


def test_write_png_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"old")
    write_png(path, picture())
    assert np.array_equal(decode(path), picture())
    write_png(str(path), picture()[:, ::-1])  # a view
    assert np.array_equal(decode(path), picture()[:, ::-1])
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    link = tmp_path / "link.png"
    link.symlink_to(path)
    write_png(link, picture())
    assert link.is_symlink() and np.array_equal(decode(path), picture())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.png", "out.png"]


def test_write_png_bad_targets(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for target, words in (
        (tmp_path / "none" / "out.png", "check the name"),
        (tmp_path / "file" / "out.png", "not a folder"),
        (tmp_path, "folder"),
        (tmp_path / "fifo", "pipe"),
        ("nul\0", "impossible"),
    ):
        with pytest.raises(UnreadableImageError, match=words):
            write_png(target, picture())
    # Devices are not tried: were the check ever lost, root would replace a real one by a file.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fifo", "file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_write_png_leaves_the_old_file_when_the_disk_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "raw words")

    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(UnreadableImageError, match="disk is full"):
        write_png(path, picture())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_png_when_the_disk_is_really_full() -> None:
    """A file size limit makes the write itself fail, as a full disk does."""
    program = """
        import os, resource, signal, sys, tempfile
        import numpy as np
        from edge_mdda.errors import ImageError
        from edge_mdda.imaging import write_png
        folder = tempfile.mkdtemp()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_png(folder + "/out.png", noise)
        except ImageError as error:
            print(len(str(error).splitlines()), os.listdir(folder))
        os.rmdir(folder)
    """
    assert run_python(program).stdout.strip() == "1 []"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_write_png_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UnreadableImageError, match="permission"):
        write_png(tmp_path / "out.png", picture())


def test_write_png_refuses_other_arrays(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "out.png", picture().astype(np.float32))
    assert not list(tmp_path.iterdir())
