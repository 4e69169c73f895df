"""Files as devices and programs really write them: odd EXIF, several pictures in one file, raw files, HEIC."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import (
    HEIGHT,
    LOSSY,
    ORIENTED,
    SAMPLES,
    WIDTH,
    chunk,
    encode,
    exif,
    gamma_curve,
    icc,
    off_by,
    picture,
    refusal,
    run_python,
    tiff,
    with_exif,
)

from edge_mdda.errors import ImageError
from edge_mdda.files import Limits
from edge_mdda.picture import exif as exif_reader
from edge_mdda.picture.colour import to_xyz
from edge_mdda.picture.decode import check_header, decode
from edge_mdda.picture.parsing import DISPLAY_P3

# --- orientation ----------------------------------------------------------------------------------------------------


def entry(order: str, kind: int, count: int, value: int) -> bytes:
    layout = {1: "BBH", 3: "HH", 4: "I", 8: "hh", 9: "i"}[kind]
    return struct.pack(order + "HHI" + layout, 274, kind, count, value, *(0,) * (len(layout) - 1))


def block(order: str, *entries: bytes, count: int | None = None, following: int = 0) -> bytes:
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    count = len(entries) if count is None else count
    return head + struct.pack(order + "H", count) + b"".join(entries) + struct.pack(order + "I", following)


def odd_blocks(order: str, wanted: int) -> dict[str, bytes]:
    good, other = entry(order, 3, 1, wanted), struct.pack(order + "HHII", 271, 2, 5, 9999)
    return {
        "a long": block(order, entry(order, 4, 1, wanted)),
        "a byte": block(order, entry(order, 1, 1, wanted)),
        "signed": block(order, entry(order, 8, 1, wanted)),
        "count 0": block(order, entry(order, 3, 0, wanted)),
        "count 2": block(order, entry(order, 3, 2, wanted)),
        "count of millions": block(order, entry(order, 3, 2**31, wanted)),
        "more entries claimed": block(order, other, good, count=65535),
        "two, the second senseless": block(order, good, entry(order, 3, 1, 77)),
        "two, the first senseless": block(order, entry(order, 3, 1, 0), good),
        "two that differ": block(order, good, entry(order, 3, 1, 1 + wanted % 8)),
        "twice a size": block(order, struct.pack(order + "HHII", 256, 4, 1, 5) * 2, good, count=3),
        "a loop": block(order, good, following=8),
        "header twice": b"Exif\0\0" + block(order, good),
        "the following directory lies outside": block(order, good, following=2**31),
        "no following directory": block(order, good)[:-4],
    }


@pytest.mark.parametrize("form", odd_blocks("<", 1))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_orientation_is_found_in_odd_exif(kind, order, form):
    plain = decode(SAMPLES[kind]())
    for wanted in range(2, 9):
        data = with_exif(SAMPLES[kind](), odd_blocks(order, wanted)[form])
        assert np.array_equal(decode(data), ORIENTED[wanted](plain)), (wanted, form)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pillow_agrees_where_it_reads_the_form(order):
    image, ops = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageOps")
    compared = 0
    for form in ("a long", "signed", "more entries claimed", "a loop", "twice a size"):
        for kind in ("PNG", "WebP", "JPEG"):
            data = with_exif(SAMPLES[kind](), odd_blocks(order, 6)[form])
            try:
                with image.open(io.BytesIO(data)) as opened:
                    turned = np.asarray(ops.exif_transpose(opened).convert("RGB"))
            except Exception:
                continue
            if turned.shape != (HEIGHT, WIDTH, 3):  # it has read the orientation
                assert off_by(decode(data), turned) <= (2 if kind == "JPEG" else 0)
                compared += 1
    assert compared >= 3


def test_a_second_exif_block_counts_where_the_first_says_nothing():
    data = with_exif(with_exif(SAMPLES["JPEG"](), exif(6)), b"nonsense" * 9)
    assert data.index(b"nonsense") < data.index(b"II*\0")
    assert np.array_equal(decode(data), ORIENTED[6](decode(SAMPLES["JPEG"]())))


def raw_profile(block: bytes, name: bytes = b"exif") -> bytes:
    digits = block.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return b"Raw profile type " + name + b"\0", f"\n{name.decode()}\n{len(block):8}\n{lines}\n".encode()


@pytest.mark.parametrize("name", [b"exif", b"APP1"])
@pytest.mark.parametrize("wanted", [3, 6, 8])
def test_orientation_in_a_png_text_of_imagemagick(wanted, name):
    data = SAMPLES["PNG"]()
    key, text = raw_profile(b"Exif\0\0" + exif(wanted), name)
    for made in (chunk(b"zTXt", key + b"\0" + zlib.compress(text)), chunk(b"tEXt", key + text)):
        file = data[:33] + made + data[33:]
        assert np.array_equal(decode(file), ORIENTED[wanted](picture()))
        if name == b"exif" and made[4:8] == b"zTXt":
            image, ops = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageOps")
            with image.open(io.BytesIO(file)) as opened:
                assert np.array_equal(decode(file), np.asarray(ops.exif_transpose(opened)))
    first = data[:33] + chunk(b"eXIf", exif(8)) + chunk(b"tEXt", key + text) + data[33:]
    assert np.array_equal(decode(first), ORIENTED[8](picture()))
    for broken in (
        b"\0" + b"no deflate",
        b"\0" + zlib.compress(b"\nexif\n 5\nzz"),
        b"\0" + zlib.compress(bytes(2**24)),
    ):
        assert np.array_equal(decode(data[:33] + chunk(b"zTXt", key + broken) + data[33:]), picture())


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_with_an_odd_count_of_orientations_stands_upright(order):
    data = bytearray(tiff(picture(), 2, (274, 6), order=order))
    at = data.index(struct.pack(order + "HHI", 274, 3, 1))
    for count in (2, 0):
        struct.pack_into(order + "I", data, at + 4, count)
        assert np.array_equal(decode(bytes(data)), ORIENTED[6](picture()))


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_any_exif_has_some_orientation(body, head):
    assert 0 <= exif_reader.orientation(head + body) <= 8
    assert exif_reader.is_adobe_rgb(head + body) in (True, False)


# --- several pictures in one file -----------------------------------------------------------------------------------


def pages(*kinds: int | None, last: int = 0) -> bytes:
    """A TIFF of several small pictures; ``kinds`` are their NewSubfileType, ``last`` the last link."""
    out, links = bytearray(b"II*\0\0\0\0\0"), [4]
    for kind in kinds:
        pixels = bytes(range(48))
        tags = {256: 4, 257: 4, 258: 8, 259: 1, 262: 2, 273: len(out), 277: 3, 278: 4, 279: 48}
        if kind is not None:
            tags[254] = kind
        bits = len(out) + 48
        out += pixels + struct.pack("<3H", 8, 8, 8) + b"\0\0"
        struct.pack_into("<I", out, links[-1], len(out))
        out += struct.pack("<H", len(tags))
        for tag, value in sorted(tags.items()):
            out += struct.pack("<HHII", tag, 3, 3, bits) if tag == 258 else struct.pack("<HHII", tag, 4, 1, value)
        links.append(len(out))
        out += b"\0\0\0\0"
    struct.pack_into("<I", out, links[-1], last)
    return bytes(out)


def test_a_tiff_of_several_pages_is_refused_and_says_how_many():
    assert decode(pages(None)).shape == (4, 4, 3)
    assert "holds 3 pictures" in refusal(pages(None, None, None))
    assert "holds 2 pictures" in refusal(pages(2, 2))
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    page = image.fromarray(picture())
    page.save(file, "TIFF", save_all=True, append_images=[page.rotate(90)])
    assert "holds 2 pictures" in refusal(file.getvalue())


def test_smaller_copies_and_masks_in_a_tiff_are_no_other_pictures():
    assert np.array_equal(decode(pages(0, 1)), decode(pages(None)))
    assert np.array_equal(decode(pages(0, 4, 5, 1)), decode(pages(None)))


def test_tiff_directories_that_go_round_in_a_circle_or_outside():
    first = struct.unpack_from("<I", pages(None), 4)[0]
    assert "circle" in refusal(pages(None, last=first))
    assert "cut off" in refusal(pages(None, last=2**31))
    assert decode(pages(None)[:-4]).shape == (4, 4, 3)  # some programs leave the last link out


@pytest.mark.parametrize(
    "data",
    [
        pages(1),  # begins with a preview, as Nikon's, Sony's and many DNG files do
        tiff(picture(), 2, (50706, 1)),  # DNG
        b"II*\0\x10\0\0\0CR\x02\0" + bytes(4) + tiff(picture(), 2)[8:],
    ],
)
def test_a_cameras_raw_file_is_refused_instead_of_its_preview(data):
    assert "raw file" in refusal(data)


def test_animations_are_refused():
    image = pytest.importorskip("PIL.Image")
    frames = [image.fromarray(np.roll(picture(), 9 * k, axis=1)) for k in range(3)]
    for kind, word in (("GIF", "GIF"), ("WEBP", "animation"), ("PNG", "animation")):
        file = io.BytesIO()
        frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=100)
        assert word in refusal(file.getvalue())


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_a_file_that_is_cut_off_anywhere_is_refused(kind):
    data = SAMPLES[kind]()
    for length in (len(data) - 1, len(data) - 100, len(data) // 2, 60, 20):
        assert refusal(data[:length])


# --- HEIC -----------------------------------------------------------------------------------------------------------


def heic(*arrays: np.ndarray, **options: object) -> bytes:
    heif = pytest.importorskip("pillow_heif")
    made = heif.HeifFile()
    for array in arrays:
        mode = {2: "L", 3: "RGB", 4: "RGBA"}[array.shape[2] if array.ndim == 3 else 2]
        made.add_frombytes(mode, array.shape[1::-1], np.ascontiguousarray(array).tobytes())
    file = io.BytesIO()
    made.save(file, quality=95, chroma=444, **options)
    return file.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    heif, image = pytest.importorskip("pillow_heif"), pytest.importorskip("PIL.Image")
    heif.register_heif_opener()
    with image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"))


def test_a_heic_picture_has_the_pixels_that_pillow_reads():
    data = heic(picture())
    assert np.array_equal(decode(data), by_pillow(data))
    assert off_by(decode(data), picture()) <= LOSSY
    assert decode(data).flags.c_contiguous and decode(data).flags.writeable
    assert check_header(data).format == "HEIC"


def test_a_heic_picture_stands_upright_once():
    heif = pytest.importorskip("pillow_heif")
    for wanted in (3, 6, 8):
        made = heif.HeifFile()
        made.add_frombytes("RGB", (WIDTH, HEIGHT), picture().tobytes())
        file = io.BytesIO()
        made.save(file, quality=95, chroma=444, exif=b"Exif\0\0" + exif(wanted))
        data = file.getvalue()
        assert np.array_equal(decode(data), by_pillow(data))


def test_a_heic_picture_with_transparency_stands_on_white():
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:, : WIDTH // 2] = 0
    found = decode(heic(np.concatenate([picture(), alpha], axis=2)))
    assert found[:, : WIDTH // 2 - 2].min() > 250
    assert off_by(found[:, WIDTH // 2 + 2 :], picture()[:, WIDTH // 2 + 2 :]) <= 2 * LOSSY


def test_a_heic_picture_with_a_profile_is_in_srgb():
    heif, image = pytest.importorskip("pillow_heif"), pytest.importorskip("PIL.Image")
    profile = icc(to_xyz(DISPLAY_P3.chromaticities), gamma_curve(2.2))
    file = io.BytesIO()
    heif.from_pillow(image.fromarray(picture())).save(file, quality=95, chroma=444, icc_profile=profile)
    plain = by_pillow(file.getvalue())
    png = encode(".png", plain)
    expected = decode(png[:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)) + png[33:])
    assert np.array_equal(decode(file.getvalue()), expected)
    assert off_by(decode(file.getvalue()), plain) > 5


def test_heic_limits_several_pictures_and_damage():
    data = heic(picture())
    assert "pixels" in refusal(data, Limits(max_pixels=HEIGHT * WIDTH - 1))
    assert "holds 2 pictures" in refusal(heic(picture(), picture()[::-1]))
    for length in range(40, len(data), 37):
        assert refusal(data[:length])
    sizes = bytearray(data)
    at = sizes.index(b"ispe") + 8
    sizes[at : at + 4] = b"\0\0\0\0"
    assert "0 x" in refusal(bytes(sizes))
    assert "animation" in refusal(data[:8] + b"msf1" + data[12:])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_heic_is_a_refusal_or_a_picture(draw):
    data = bytearray(heic(picture()))
    for _ in range(3):
        data[draw.draw(st.integers(12, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        assert decode(bytes(data)).shape[2] == 3
    except ImageError as error:
        assert "\n" not in str(error)


def test_without_the_package_a_heic_file_says_what_to_install(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    program = """
        import sys
        sys.modules["pillow_heif"] = None
        from edge_mdda.cli.main import main
        sys.exit(main(["screen", sys.argv[1]]) - 1)
    """
    done = run_python(program, str(tmp_path / "a.heic"))
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'edge-mdda[heic]'" in done.stderr
    assert "a.heic" in done.stderr
