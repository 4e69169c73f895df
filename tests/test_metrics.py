"""Figures of merit against hand-computed values and, where installed, an independent library."""

from __future__ import annotations

import numpy as np
import pytest

from export.metrics import (
    auroc,
    balanced_accuracy,
    bootstrap,
    calibration_error,
    figures,
    recalls,
    threshold_for_sensitivity,
)

LABELS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT = ("akiec", "bcc", "mel")


def test_recall_and_balanced_accuracy_by_hand():
    targets = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 0, 1, 1, 0, 2])
    assert recalls(targets, predicted, 3).tolist() == [0.75, 0.5, 1.0]
    assert balanced_accuracy(targets, predicted, 3) == pytest.approx(0.75)


def test_a_class_without_images_does_not_count():
    targets, predicted = np.array([0, 1]), np.array([0, 0])
    assert np.isnan(recalls(targets, predicted, 3)[2])
    assert balanced_accuracy(targets, predicted, 3) == pytest.approx(0.5)


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    positive = rng.random(60) < 0.3
    score = np.round(rng.random(60) + 0.3 * positive, 1)  # rounded, so that there are ties
    pairs = [(p > n) + 0.5 * (p == n) for p in score[positive] for n in score[~positive]]
    assert auroc(positive, score) == pytest.approx(np.mean(pairs))
    assert np.isnan(auroc(np.ones(3, bool), np.arange(3.0)))


def test_calibration_error_of_a_known_gap():
    # Confidence 0.8 throughout, right in half of the cases: the gap is 0.3.
    probabilities = np.tile([0.8, 0.2], (10, 1))
    targets = np.array([0, 1] * 5)
    assert calibration_error(targets, probabilities) == pytest.approx(0.3)


def test_threshold_reaches_the_sensitivity_and_is_the_largest_that_does():
    rng = np.random.default_rng(1)
    positive, score = rng.random(500) < 0.4, rng.random(500)
    threshold = threshold_for_sensitivity(positive, score, 0.95)
    assert (score[positive] >= threshold).mean() >= 0.95
    above = np.nextafter(threshold, 2)
    assert (score[positive] >= above).mean() < 0.95


def test_figures_agree_with_their_parts_and_lie_in_their_intervals():
    rng = np.random.default_rng(2)
    targets = rng.integers(0, 7, 400)
    logits = rng.normal(size=(400, 7)) + 1.5 * np.eye(7)[targets]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    result = figures(targets, probabilities, LABELS, MALIGNANT)
    predicted = probabilities.argmax(1)
    is_melanoma = targets == 4
    assert result["melanoma_recall"] == pytest.approx((predicted[is_melanoma] == 4).mean())
    assert result["melanoma_specificity"] == pytest.approx((predicted[~is_melanoma] != 4).mean())
    assert result["malignant_auroc"] > 0.6
    intervals = bootstrap(lambda i: figures(targets[i], probabilities[i], LABELS, MALIGNANT), targets)
    low, high = intervals["balanced_accuracy"]
    assert low < result["balanced_accuracy"] < high
    assert high - low < 0.15


def test_agreement_with_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 7, 300)
    predicted = np.where(rng.random(300) < 0.6, targets, rng.integers(0, 7, 300))
    assert balanced_accuracy(targets, predicted, 7) == pytest.approx(sk.balanced_accuracy_score(targets, predicted))
    score = rng.random(300)
    assert auroc(targets == 1, score) == pytest.approx(sk.roc_auc_score(targets == 1, score))
