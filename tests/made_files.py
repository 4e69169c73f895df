"""Image files of every kind, built in memory, and what the tests of their reading share."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mdda import files
from edge_mdda.errors import ImageError
from edge_mdda.picture.decode import Limits, decode

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


def refusal(source: bytes | str | Path, limits: Limits = files.DEFAULT_LIMITS) -> str:
    """The message of a refusal of a content or file, after checking that it is one line with a cause and an advice."""
    with pytest.raises(ImageError) as caught:
        decode(source if isinstance(source, bytes) else files.read_bytes(source, limits), limits)
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


def icc(
    matrix: np.ndarray, curve: bytes, space: bytes = b"RGB ", *more: tuple[bytes, bytes], connection: bytes = b"XYZ "
) -> bytes:
    """An ICC profile (version 2) of three equal curves and a matrix from light to XYZ relative to D50."""

    def xyz(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in values))

    names = (b"r", b"g", b"b")
    tags = [(n + b"XYZ", xyz(matrix[:, k])) for k, n in enumerate(names)] + [(n + b"TRC", curve) for n in names]
    tags += [(b"wtpt", xyz(np.array([0.9642, 1.0, 0.8249]))), (b"kTRC", curve), *more]
    tags += [
        (b"desc", b"desc\0\0\0\0" + struct.pack(">I", 5) + b"made\0" + bytes(78)),
        (b"cprt", b"text\0\0\0\0none\0"),
    ]
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags:
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = 128 + len(table) + len(body)
    head = struct.pack(">II", size, 0) + b"\x02\x40\0\0mntr" + space + connection + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    return head + bytes(128 - len(head)) + table + body


def gamma_curve(exponent: float) -> bytes:
    """An ICC curve that is a power, in steps of 1/256."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


def table_curve(levels: np.ndarray) -> bytes:
    """An ICC curve that is a table of light, 0 to 1."""
    steps = np.round(np.asarray(levels) * 65535).astype(int)
    return b"curv\0\0\0\0" + struct.pack(f">I{len(steps)}H", len(steps), *steps)


def parametric_curve(kind: int, *values: float) -> bytes:
    """An ICC curve by a formula."""
    return b"para\0\0\0\0" + struct.pack(f">HH{len(values)}i", kind, 0, *(round(v * 65536) for v in values))


def with_profile(data: bytes, profile: bytes, part: int = 65_000) -> bytes:
    """Put a colour profile into a JPEG or a PNG."""
    if data.startswith(b"\x89PNG"):
        return data[:33] + chunk(b"iCCP", b"made\0\0" + zlib.compress(profile)) + data[33:]
    parts = [profile[at : at + part] for at in range(0, len(profile), part)]
    segments = b""
    for number, content in enumerate(parts, 1):
        body = b"ICC_PROFILE\0" + bytes((number, len(parts))) + content
        segments += b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body
    return data[:2] + segments + data[2:]


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


def run_python(program: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
    )
