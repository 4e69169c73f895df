"""Spoiled pictures and pictures of no lesion are never routine; good ones pass."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_files import encode

from benchmarks.inputs import FILES, SOURCES, as_png, false_retakes, kinds, no_lesions
from benchmarks.spoiled_later import later_kinds
from edge_mdda import Screener
from edge_mdda.picture.decode import decode
from edge_mdda.picture.field import useful_square, whole_field
from edge_mdda.picture.quality import USUAL_LIGHT, judge, lit, problem
from edge_mdda.picture.statistics import blocking, light_ends
from edge_mdda.screening import PURIFY_MODES

DATA = Path("../shared/data")
MOST_FALSE = 0.03  # of the unspoiled pictures of each source


def lesion(side: int = 224) -> np.ndarray:
    """A drawn lesion with the grain and the colours of a photograph."""
    import cv2

    rng = np.random.default_rng(5)
    y, x = np.mgrid[:side, :side] / side - 0.5
    inside = 1 / (1 + np.exp((np.hypot(x, y * 1.2) - 0.25) * 40))
    base = np.array([205, 150, 135])[None, None] * (1 - inside[..., None]) + np.array([120, 75, 70]) * inside[..., None]
    for sigma, strength in ((1.2, 14), (4, 45), (14, 160)):
        base = base + cv2.GaussianBlur(rng.normal(0, strength, base.shape), (0, 0), sigma)
    return base.clip(0, 255).astype(np.uint8)


def failed(picture: np.ndarray) -> set[str]:
    return {verdict.name for verdict in judge(picture, picture.shape[:2]) if not verdict.ok}


def test_a_lesion_passes_every_check():
    assert failed(lesion()) == set()
    assert problem(judge(lesion(), (224, 224))) is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("brightness 0.2", "light"),
        ("greyscale", "colour"),
        ("sepia", "colour"),
        ("red and blue swapped", "red over blue"),
        ("negative", "red over blue"),
        ("defocus 3 px", "focus"),
        ("motion 15 px", "motion"),
        ("motion down 15 px", "motion"),
        ("letterbox 30 %", "border"),
        ("red cast", "cast"),
        ("JPEG 5", "compression"),
    ],
)
def test_each_kind_of_fault_has_its_name(kind, name):
    assert name in failed(kinds()[kind](lesion()))


def test_a_failed_check_says_what_to_do():
    for verdict in judge(np.zeros((224, 224, 3), np.uint8), (50, 60)):
        assert verdict.ok is (verdict.advice == "")
        assert "\n" not in verdict.advice
    assert "60 x 50" in problem(judge(np.zeros((224, 224, 3), np.uint8), (50, 60)))


@pytest.mark.parametrize("name", sorted(no_lesions()))
def test_what_is_no_lesion_is_never_routine(name, screener):
    assert screener.screen(as_png(no_lesions()[name]), seed=1).advice.action != "routine"


@pytest.fixture(scope="module")
def screener():
    with Screener(purify=PURIFY_MODES[-1]) as opened:
        yield opened


def test_the_answer_carries_the_checks_the_size_and_the_time(screener):
    answer = screener.screen(as_png(kinds()["brightness 0.2"](lesion(300))), seed=1).to_dict()
    assert answer["advice"] != "routine"
    assert next(v["name"] for v in answer["quality"] if not v["ok"]) == "light"
    assert answer["size"] == [300, 300]
    assert answer["time"].endswith("Z")
    assert json.loads(json.dumps(answer)) == answer


def test_a_dim_picture_is_looked_at_in_the_usual_light_as_well(screener):
    bright = screener.screen(as_png(lesion()), seed=1)
    dim = screener.screen(as_png(kinds()["brightness 0.65"](lesion())), seed=1)
    assert bright.malignant_in_usual_light is None
    assert 0 <= dim.malignant_in_usual_light <= 1
    refers = dim.malignant_in_usual_light >= dim.operating_point["refer_at"]
    assert dim.advice.action == "refer" or not refers


@pytest.mark.parametrize(("kind", "power"), [("gamma 2", 2), ("gamma 0.5", 0.5), ("brightness 0.8", None)])
def test_the_usual_light_undoes_a_curve_and_an_exposure(kind, power):
    """One of the views is nearly the picture that was spoiled; a picture in usual light has none."""
    pale = lesion() * np.float32((1.0, 1.18, 1.22))
    light = np.dot(light_ends(pale.clip(0, 255).astype(np.uint8)), (0.299, 0.587, 0.114))
    good = (pale * np.float32(USUAL_LIGHT / light)).clip(0, 255).astype(np.uint8)
    assert lit(good) == []
    views = lit(kinds()[kind](good))
    assert len(views) == (1 if kind == "gamma 0.5" else 2)
    assert all(view.dtype == np.uint8 and view.shape == good.shape for view in views)
    off = [np.abs(view.astype(int) - good).mean() for view in views]
    assert min(off) < 4 < np.abs(kinds()[kind](good).astype(int) - good).mean()
    assert off.index(min(off)) == (0 if power in (None, 0.5) else 1)


@pytest.mark.parametrize("shift", [0, 3, 7])
def test_blocks_are_seen_wherever_they_begin_and_only_if_they_are_there(shift):
    good = lesion(300)
    assert blocking(good) < 0.5
    for quality, low, high in ((5, 2.0, 20.0), (10, 1.0, 10.0), (90, 0.0, 0.5)):
        coded = encode(".jpg", good, cv2.IMWRITE_JPEG_QUALITY, quality)
        assert low <= blocking(decode(coded)[shift:, 2 * shift :]) <= high
    for size in ((1, 1), (7, 300), (15, 15)):
        assert blocking(np.zeros((*size, 3), np.uint8)) == 0


def test_a_large_picture_is_looked_at_for_blocks_before_it_is_shrunk(screener):
    large = cv2.resize(lesion(), (900, 700))
    coded = encode(".jpg", large, cv2.IMWRITE_JPEG_QUALITY, 4)
    answer = screener.screen(coded, seed=1)
    failed_ones = {verdict["name"] for verdict in answer.quality if not verdict["ok"]}
    assert "compression" in failed_ones
    assert answer.advice.action != "routine"


def test_the_whole_field_has_no_black_and_keeps_what_the_square_leaves_out(screener):
    picture = cv2.resize(lesion(), (640, 480))
    y, x = np.mgrid[:480, :640]
    picture[:] = (190, 150, 140)
    picture[230:250, 490:515] = (90, 30, 30)  # at the rim of the field, beyond the square
    picture[np.hypot(y - 240, x - 320) > 200] = 0
    whole = whole_field(picture, 224, 224)
    assert whole.shape == (224, 224, 3) and whole.dtype == np.uint8
    assert (whole.max(axis=2) < 14).mean() == 0
    rows, columns = useful_square(picture)

    def shows_the_mark(view: np.ndarray) -> bool:
        return bool((view[..., 0].astype(int) - view[..., 1] > 50).any())

    assert shows_the_mark(whole) and not shows_the_mark(picture[rows, columns])
    answer = screener.screen(as_png(picture), seed=1)
    assert 0 <= answer.malignant_in_whole_field <= 1
    assert answer.advice.action == "refer" or answer.malignant_in_whole_field < answer.operating_point["refer_at"]
    assert screener.screen(as_png(lesion()), seed=1).malignant_in_whole_field is None


@pytest.mark.parametrize("kind", sorted({**kinds(), **later_kinds()}))
def test_each_kind_spoils_the_picture_and_leaves_a_picture(kind):
    good = lesion()
    spoiled = {**kinds(), **later_kinds()}[kind](good)
    assert spoiled.dtype == np.uint8 and spoiled.ndim == 3 and spoiled.shape[2] == 3
    assert spoiled.shape != good.shape or not np.array_equal(spoiled, good)
    assert np.array_equal(good, lesion())  # the original is left alone


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_colours_of_a_file_in_other_levels_are_the_pictures_own(name):
    found = decode(FILES[name](lesion()))
    most = 6 if name == "ProPhoto" else 3  # its levels are far apart
    assert np.abs(found.astype(int) - lesion()).max() <= most


@pytest.mark.parametrize("share", [0.6, 0.8, 0.98])
def test_a_round_field_is_cut_to_a_square_without_border(share):
    picture = kinds()["round field 50 %"](np.full((600, 800, 3), 150, np.uint8))
    y, x = np.mgrid[:600, :800]
    picture[...] = 150
    picture[np.hypot(y - 299.5, x - 399.5) > share * 300] = 0
    rows, columns = useful_square(picture)
    cut = picture[rows, columns]
    assert (cut == 0).all(axis=2).mean() < 0.02
    assert min(cut.shape[:2]) > 0.9 * share * 600 / np.sqrt(2)


def test_a_black_lesion_is_no_border():
    picture = np.full((400, 400, 3), 170, np.uint8)
    picture[120:280, 120:280] = 3
    assert useful_square(picture) is None


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(32, 80), st.integers(32, 80), st.just(3))))
def test_any_picture_gets_finite_verdicts(picture):
    verdicts = judge(picture, picture.shape[:2])
    assert all(np.isfinite(verdict.value) for verdict in verdicts)
    square = useful_square(picture)
    assert square is None or picture[square].size > 0


def test_the_checks_load_no_more_than_the_screening_has():
    code = "import sys, edge_mdda.picture.quality; print([m for m in ('scipy', 'PIL', 'numba') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.skipif(not (DATA / "siim2020").is_dir(), reason="the data sets are not here")
def test_few_good_pictures_of_any_source_are_sent_back():
    table = false_retakes(DATA)
    assert [row["source"] for row in table] == list(SOURCES)
    assert all(row["share"] <= MOST_FALSE for row in table), table


def test_a_folder_ends_with_how_many_got_which_advice(tmp_path):
    (tmp_path / "good.png").write_bytes(as_png(lesion()))
    (tmp_path / "page.png").write_bytes(as_png(no_lesions()["page of text"]))
    (tmp_path / "cut.png").write_bytes(as_png(lesion())[:900])
    (tmp_path / "phone.HEIC").write_bytes(b"not read")
    (tmp_path / "._good.png").write_bytes(b"a twin that another system wrote")
    (tmp_path / "Thumbs.db").write_bytes(b"no picture")
    done = subprocess.run(
        [sys.executable, "-m", "edge_mdda", "screen", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("; 2 not judged")
    assert sum("phone.HEIC: " in line for line in done.stderr.splitlines()) == 1
    assert "._good" not in done.stdout + done.stderr and "Thumbs" not in done.stderr
    assert "1 RETAKE" in done.stderr
    assert "of the benign ones" in done.stdout and "in other clinics it misses more" in done.stdout
