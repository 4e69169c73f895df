"""Colours come out as sRGB, whatever the file says its levels mean; LittleCMS, through Pillow, is the judge."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import (
    SAMPLES,
    chunk,
    encode,
    gamma_curve,
    icc,
    off_by,
    parametric_curve,
    picture,
    refusal,
    run_python,
    table_curve,
    with_exif,
    with_profile,
)

from edge_mdda.errors import ImageError
from edge_mdda.picture.colour import converter, srgb_light, to_xyz
from edge_mdda.picture.decode import decode
from edge_mdda.picture.icc import Profile
from edge_mdda.picture.parsing import ADOBE_RGB, DISPLAY_P3, SRGB_PRIMARIES, Primaries

SRGB_FORMULA = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
PROPHOTO = (0.345704, 0.358540, 0.734699, 0.265301, 0.159597, 0.840403, 0.036598, 0.000105)  # ISO 22028-2; white D50
WIDE = {
    "Adobe RGB": icc(to_xyz(ADOBE_RGB.chromaticities), gamma_curve(563 / 256)),
    "Display P3": icc(to_xyz(DISPLAY_P3.chromaticities), parametric_curve(3, *SRGB_FORMULA)),
    "ProPhoto": icc(to_xyz(PROPHOTO), gamma_curve(1.8)),
    "table": icc(to_xyz(SRGB_PRIMARIES), table_curve(np.linspace(0, 1, 1024) ** 1.5)),
    "linear": icc(to_xyz(SRGB_PRIMARIES), b"curv\0\0\0\0\0\0\0\0"),
    "power": icc(to_xyz(DISPLAY_P3.chromaticities), parametric_curve(0, 2.0)),
    "parametric 4": icc(to_xyz(SRGB_PRIMARIES), parametric_curve(4, 2.0, 0.9, 0.1, 0.2, 0.05, 0.0, 0.0)),
}
SRGB = icc(to_xyz(SRGB_PRIMARIES), parametric_curve(3, *SRGB_FORMULA))
MOST_OFF = 2  # grey levels, two roundings


def colours() -> np.ndarray:
    """Every colour of a lattice, some of them outside sRGB once their profile is known."""
    steps = np.arange(0, 256, 15)
    return np.stack(np.meshgrid(steps, steps, steps), -1).reshape(18, -1, 3).astype(np.uint8)


def by_littlecms(data: bytes, profile: bytes) -> np.ndarray:
    image, cms = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageCms")
    with image.open(io.BytesIO(data)) as opened:
        assert opened.info["icc_profile"] == profile
        source = cms.ImageCmsProfile(io.BytesIO(profile))
        flags = getattr(cms.Flags, "HIGHRESPRECALC", 0) | cms.Flags.NOOPTIMIZE
        done = cms.profileToProfile(
            opened.convert("RGB"), source, cms.createProfile("sRGB"), renderingIntent=1, flags=flags
        )
    return np.asarray(done)


@pytest.mark.parametrize("name", WIDE)
def test_profiles_are_applied_as_littlecms_applies_them(name):
    data = with_profile(encode(".png", colours()), WIDE[name])
    found, expected = decode(data), by_littlecms(data, WIDE[name])
    assert off_by(found, expected) <= MOST_OFF
    assert off_by(found, colours()) > 20  # without the profile it would have been another picture


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "PNG"])
def test_a_profile_is_found_in_each_format(kind):
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    image.fromarray(picture()).save(file, kind, icc_profile=WIDE["Adobe RGB"], **options)
    expected = by_littlecms(file.getvalue(), WIDE["Adobe RGB"])
    assert off_by(decode(file.getvalue()), expected) <= MOST_OFF + 2 * (kind == "JPEG")


def test_a_profile_in_several_parts_of_a_jpeg_and_one_in_a_bmp():
    data = SAMPLES["JPEG"]()
    whole = decode(with_profile(data, WIDE["ProPhoto"]))
    parted = with_profile(data, WIDE["ProPhoto"], part=100)
    assert parted.count(b"ICC_PROFILE\0") > 3
    assert np.array_equal(decode(parted), whole)
    at = parted.index(b"ICC_PROFILE\0")
    assert "profile is incomplete" in refusal(parted[: at + 12] + b"\x07" + parted[at + 13 :])
    profile = WIDE["Adobe RGB"]
    pixels = picture()[::-1, :, ::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, 64, 48, 1, 24, 0, len(pixels), 0, 0, 0, 0) + bytes(16)
    head += b"DEBM" + bytes(48) + struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    bmp = b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(profile), 0, 0, 138) + head + pixels + profile
    assert np.array_equal(decode(bmp), decode(with_profile(encode(".png", picture()), profile)))
    assert "outside the file" in refusal(bmp[:-1])


def test_srgb_however_it_is_written_changes_nothing():
    table = table_curve(srgb_light(np.linspace(0, 1, 1024)))
    for profile in (SRGB, icc(to_xyz(SRGB_PRIMARIES), table)):
        assert np.array_equal(decode(with_profile(encode(".png", colours()), profile)), colours())
        assert converter(profile, None) is None
    pil = pytest.importorskip("PIL.ImageCms")
    theirs = pil.ImageCmsProfile(pil.createProfile("sRGB")).tobytes()
    assert converter(theirs, None) is None


def test_a_grey_profile_has_its_curve():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    profile = icc(to_xyz(SRGB_PRIMARIES), gamma_curve(1.0), b"GRAY")
    found = decode(with_profile(encode(".png", grey), profile))
    expected = 255 * np.where(grey / 255 <= 0.0031308, grey / 255 * 12.92, 1.055 * (grey / 255) ** (1 / 2.4) - 0.055)
    assert np.abs(found - expected[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (b"", "profile"),
        (b"nonsense" * 30, "corrupt"),
        (SRGB[:200], "profile"),
        (SRGB[:300], "profile"),
        (icc(to_xyz(SRGB_PRIMARIES), b"curv"), "profile"),
        (icc(to_xyz(SRGB_PRIMARIES), table_curve(np.zeros(9))), "does not rise"),
        (icc(to_xyz(SRGB_PRIMARIES), parametric_curve(9, 1.0)), "corrupt"),
        (icc(np.ones((3, 3)), gamma_curve(2)), "on a line"),
        (icc(to_xyz(SRGB_PRIMARIES), gamma_curve(2), b"CMYK"), "CMYK"),
        (icc(to_xyz(SRGB_PRIMARIES), gamma_curve(2), b"RGB ", (b"A2B0", b"mft2" + bytes(60))), "tables"),
        (icc(to_xyz(SRGB_PRIMARIES), gamma_curve(2), connection=b"Lab "), "tables"),
    ],
)
def test_a_profile_that_cannot_be_applied_is_told_in_one_line(profile, words):
    assert words in refusal(with_profile(encode(".png", picture()), profile))


def test_a_profile_that_unpacks_to_gigabytes_is_refused():
    import zlib

    packed = zlib.compress(bytes(2**23))
    data = encode(".png", picture())
    assert "profile is corrupt" in refusal(data[:33] + chunk(b"iCCP", b"made\0\0" + packed) + data[33:])


def test_a_cmyk_jpeg_with_a_profile_is_refused():
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.fromarray(picture()).convert("CMYK").save(
        file, "JPEG", icc_profile=icc(to_xyz(SRGB_PRIMARIES), gamma_curve(2), b"CMYK")
    )
    assert "CMYK" in refusal(file.getvalue())


# --- colours by numbers ---------------------------------------------------------------------------------------------


def chrm(places: tuple[float, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in places)))


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def with_chunks(*chunks: bytes) -> bytes:
    data = encode(".png", colours())
    return data[:33] + b"".join(chunks) + data[33:]


def test_gamma_and_chromaticities_of_a_png_mean_what_a_profile_of_them_means():
    for gamma, places in ((1.0, SRGB_PRIMARIES), (256 / 563, ADOBE_RGB.chromaticities), (1 / 1.8, PROPHOTO)):
        found = decode(with_chunks(gama(gamma), chrm(places)))
        profile = icc(to_xyz(places), gamma_curve(1 / gamma))
        expected = by_littlecms(with_profile(encode(".png", colours()), profile), profile)
        assert off_by(found, expected) <= MOST_OFF + 1  # the profile rounds the exponent
    assert off_by(decode(with_chunks(gama(1.0))), decode(with_chunks(gama(1.0), chrm(SRGB_PRIMARIES)))) == 0


def test_the_usual_gamma_and_an_srgb_chunk_change_nothing_and_a_profile_goes_before_numbers():
    for chunks in ((gama(0.45455), chrm(SRGB_PRIMARIES)), (chunk(b"sRGB", b"\0"), gama(1.0)), ()):
        assert np.array_equal(decode(with_chunks(*chunks)), colours())
    profiled = with_profile(encode(".png", colours()), WIDE["Adobe RGB"])
    assert np.array_equal(decode(profiled[:33] + gama(1.0) + profiled[33:]), decode(profiled))


def test_code_points_of_a_png():
    assert np.array_equal(decode(with_chunks(chunk(b"cICP", bytes((1, 13, 0, 1))))), colours())
    profile = WIDE["Display P3"]
    expected = decode(with_profile(encode(".png", colours()), profile))
    assert off_by(decode(with_chunks(chunk(b"cICP", bytes((12, 13, 0, 1))))), expected) <= 1
    for codes in ((9, 16, 0, 1), (1, 18, 0, 1), (1, 13, 1, 1), (1, 13, 0, 0)):
        assert "high dynamic range" in refusal(with_chunks(chunk(b"cICP", bytes(codes))))


@pytest.mark.parametrize(
    "body", [gama(0.0), gama(9), chunk(b"gAMA", b"\0"), chrm((0.3, 0.3) * 4), chrm((0.3, 0) * 4), chunk(b"cHRM", b"")]
)
def test_senseless_numbers_are_refused(body):
    assert refusal(with_chunks(body))


# --- Adobe RGB as cameras say it: in EXIF, without a profile ---------------------------------------------------------


def camera_exif(space: int | None, index: bytes, order: str = "<") -> bytes:
    """EXIF with an EXIF directory (colour space) and an interoperability directory (index)."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entries = [(40961, 3, 1, struct.pack(order + "HH", space, 0))] if space is not None else []
    sub = 8 + 2 + 12 + 4
    interop = sub + 2 + 12 * (len(entries) + 1) + 4
    entries.append((40965, 4, 1, struct.pack(order + "I", interop)))
    out = magic + struct.pack(order + "IHHHII", 8, 1, 34665, 4, 1, sub) + bytes(4)
    out += struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        out += struct.pack(order + "HHI", tag, kind, count) + value
    out += bytes(4) + struct.pack(order + "HHHI", 1, 1, 2, 4) + index + bytes(4)
    return out


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("space", "index", "adobe"),
    [
        (0xFFFF, b"R03\0", True),
        (None, b"R03\0", True),
        (2, b"R98\0", True),
        (1, b"R98\0", False),
        (1, b"R03\0", False),
        (0xFFFF, b"R98\0", False),
    ],
)
def test_a_cameras_adobe_rgb(space, index, adobe, order):
    for kind in ("JPEG", "PNG", "WebP"):
        plain = SAMPLES[kind]()
        data = with_exif(plain, camera_exif(space, index, order))
        expected = decode(with_profile(encode(".png", decode(plain)), WIDE["Adobe RGB"])) if adobe else decode(plain)
        assert off_by(decode(data), expected) <= 1
    data = with_profile(with_exif(SAMPLES["JPEG"](), camera_exif(space, index, order)), SRGB)
    assert np.array_equal(decode(data), decode(SAMPLES["JPEG"]()))  # a profile goes before


def test_exif_that_refers_to_itself_ends():
    block = b"II*\0" + struct.pack("<IH", 8, 5000) + struct.pack("<HHII", 34665, 4, 1, 8) * 5000
    assert np.array_equal(decode(with_exif(SAMPLES["JPEG"](), block[:60_000])), decode(SAMPLES["JPEG"]()))


# --- costs and damage -----------------------------------------------------------------------------------------------


def test_pictures_without_a_profile_load_nothing_of_this(tmp_path):
    (tmp_path / "a.jpg").write_bytes(SAMPLES["JPEG"]())
    program = """
        import sys
        from edge_mdda.picture.decode import decode
        decode(open(sys.argv[1], "rb").read())
        print(sorted({"edge_mdda.picture.colour", "edge_mdda.picture.icc", "PIL"} & set(sys.modules)))
    """
    assert run_python(program, str(tmp_path / "a.jpg")).stdout.strip() == "[]"


def test_a_photograph_is_converted_in_place():

    convert = converter(WIDE["Display P3"], None)
    assert convert is not None
    photo = np.random.default_rng(1).integers(0, 256, (1500, 2000, 3), np.uint8)
    assert convert(photo) is photo


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SRGB) - 1), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_any_damage_to_a_profile_is_a_refusal_or_a_picture(at, value, word):
    for profile in WIDE["Display P3"], SRGB:
        damaged = bytearray(profile)
        damaged[at % len(profile)] = value
        damaged[at // 4 * 4 % (len(profile) - 4) :][:4] = struct.pack(">I", word)
        try:
            Profile(bytes(damaged))
            converter(bytes(damaged), None)
        except ImageError as error:
            assert "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=8, max_size=8), st.floats(0.2, 10))
def test_any_primaries_give_tables_or_a_refusal(places, exponent):
    try:
        convert = converter(None, Primaries(exponent, tuple(places)))
    except ImageError:
        return
    if convert is not None:
        convert(colours().copy())
