"""Damaged files: silence, no hang, threads."""

from __future__ import annotations

import struct
import threading

import cv2
import numpy as np
import pytest
from made_files import (
    HEIGHT,
    SAMPLES,
    WIDTH,
    chunk,
    encode,
    picture,
    refusal,
    run_python,
)

from edge_mdda.errors import ImageError
from edge_mdda.picture.decode import decode

# --- silence and threads --------------------------------------------------------------------------------------------

FUZZ = """
    import sys
    import numpy as np
    from edge_mdda.errors import ImageError
    from edge_mdda.picture.decode import decode
    from test_damage import mutants

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
        from edge_mdda.picture.decode import decode
        from made_files import encode, picture, png, chunk

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
