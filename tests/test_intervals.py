"""The intervals of the robustness rows, against a reference, known values and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.robustness.rows import scores
from export.intervals import mean_interval, wilson

LABELS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def test_wilson_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for count in (1, 2, 5, 20, 171):
        hits = np.unique([0, 1, count // 3, count - 1, count])
        low, high = wilson(hits, np.full(len(hits), count))
        for n, k in enumerate(hits):
            expected = stats.binomtest(int(k), count).proportion_ci(0.95, method="wilson")
            assert (low[n], high[n]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_of_all_and_none_and_nothing():
    low, high = wilson(np.array([0, 14, 5, 0]), np.array([14, 14, 5, 0]))
    assert (low[0], high[1], high[2]) == (0, 1, 1)
    assert high[0] == pytest.approx(0.2153, abs=1e-4) and low[1] == pytest.approx(1 - 0.2153, abs=1e-4)
    assert low[2] == pytest.approx(0.5655, abs=1e-4)
    assert np.isnan([low[3], high[3]]).all()


def test_the_mean_of_equal_classes_against_the_formula():
    # Of one class it is Agresti and Coull's "plus four": 5 hits of 11.
    low, high = mean_interval(np.array([3]), np.array([7]))
    half = 1.959964 * np.sqrt(5 / 11 * 6 / 11 / 11)
    assert (low, high) == pytest.approx((5 / 11 - half, 5 / 11 + half), abs=1e-6)
    # Four classes share the four: 3.5 hits of 8 in each.
    half = 1.959964 * np.sqrt(3.5 / 8 * 4.5 / 8 / 8 / 4)
    assert mean_interval(np.full(4, 3), np.full(4, 7)) == pytest.approx((3.5 / 8 - half, 3.5 / 8 + half), abs=1e-6)
    assert mean_interval(np.array([3, 0]), np.array([7, 0])) == (low, high)  # a class without images counts nothing
    assert np.isnan(mean_interval(np.array([0]), np.array([0]))).all()


@pytest.mark.parametrize(
    ("counts", "least"),
    [((1,) * 7, 0.77), ((2,) * 7, 0.88), ((5,) * 7, 0.92), ((20, 20, 20, 1, 20, 20, 20), 0.89), ((20,) * 7, 0.92)],
)
def test_intervals_hold_the_truth_about_as_often_as_they_say(counts, least):
    rng = np.random.default_rng(0)
    for shares in ((0.05,) * 7, (0.1,) * 7, (0.2,) * 7, (0.5,) * 7, (0.9, 0.3, 0.6, 0.5, 0.2, 0.95, 0.7), (0.97,) * 7):
        draws = rng.binomial(counts, shares, (2000, 7))
        found = np.array([mean_interval(hits, np.array(counts)) for hits in draws])
        truth = np.mean(shares)
        assert ((found[:, 0] <= truth) & (truth <= found[:, 1])).mean() >= least, shares


@pytest.mark.parametrize("per_class", [1, 2, 5])
@pytest.mark.parametrize("right", [0, 1, 7])
def test_no_interval_is_without_width(per_class, right):
    targets = np.repeat(np.arange(7), per_class)
    answers = np.where(targets < right, targets, (targets + 1) % 7)
    found = scores(targets, np.eye(7)[answers], LABELS)
    for name in ("balanced_accuracy", "melanoma_recall"):
        low, high = found[f"{name}_ci"]
        assert 0 <= low <= found[name] <= high <= 1
        assert high - low > 0.02


def test_without_melanomas_their_recall_has_no_interval():
    found = scores(np.array([0, 1]), np.eye(7)[[0, 1]], LABELS)
    assert np.isnan([found["melanoma_recall"], *found["melanoma_recall_ci"]]).all()
    assert found["balanced_accuracy"] == 1 == found["balanced_accuracy_ci"][1]
