"""What the purifier does to images: it keeps what is constant, its range, flips and channels, and takes noise away."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from purifying import BALANCED, SETTINGS, VARIANTS, detail, few, purify, rmse, sides, stages_of

from edge_mdda.mdda.params import MddaParams

QUIET = replace(BALANCED, sigma=0.0)  # no noise added: what is left is deterministic


@few
@given(
    height=sides, width=sides, level=st.tuples(*[st.integers(0, 255)] * 3), variant=st.sampled_from(sorted(VARIANTS))
)
def test_a_constant_image_stays_without_noise(height, width, level, variant):
    image = np.empty((height, width, 3), np.uint8)
    image[...] = level
    np.testing.assert_array_equal(purify(image, 1, replace(VARIANTS[variant], sigma=0.0)), image)


@few
@given(height=sides, width=sides, seed=st.integers(0, 2**32), low=st.integers(0, 200), span=st.integers(0, 55))
def test_nothing_leaves_the_range_of_the_image_without_noise(height, width, seed, low, span):
    """Means of neighbours and an ROF that nearly solves its problem obey a maximum principle, to rounding."""
    image = np.random.default_rng(seed).integers(low, low + span, (height, width, 3), np.uint8, endpoint=True)
    stages = stages_of(image, seed, replace(QUIET, iterations=20))
    for name, value in stages.items():
        assert value.min() > image.min() - 0.5, name
        assert value.max() < image.max() + 0.5, name


@pytest.mark.parametrize("level", [0, 255])
def test_noise_at_black_and_white_is_clipped_and_does_not_wrap(level):
    result = purify(np.full((40, 40, 3), level, np.uint8), 3, MddaParams(sigma=40.0, lam=1.0)).astype(int)
    assert np.abs(result - level).max() < 128
    assert np.mean(result == level) > 0.3  # half the noise points outwards


@pytest.mark.parametrize("preset", SETTINGS)
def test_flips_nearly_commute_without_noise(drawn_image, preset):
    """Forward differences and a sweep from the top are not symmetric; what that makes is a fraction of a level.

    Measured RMSE 0.20 to 0.22 sideways and 0.29 to 0.32 upside down, where purification itself changes 4 to 6.
    """
    params = replace(SETTINGS[preset], sigma=0.0)
    straight = stages_of(drawn_image, 0, params)["purified"]
    sideways = stages_of(drawn_image[:, ::-1], 0, params)["purified"][:, ::-1]
    upside_down = stages_of(drawn_image[::-1], 0, params)["purified"][::-1]
    assert rmse(straight, sideways) < 0.5
    assert rmse(straight, upside_down) < 0.6
    assert rmse(straight, drawn_image) > 2


@pytest.mark.parametrize("preset", SETTINGS)
def test_channels_are_treated_alike_without_noise(drawn_image, preset):
    params = replace(SETTINGS[preset], sigma=0.0)
    image = detail(drawn_image, 40, 56)
    swapped = np.ascontiguousarray(image[..., [2, 0, 1]])
    np.testing.assert_array_equal(purify(swapped, 0, params), purify(image, 0, params)[..., [2, 0, 1]])


@pytest.mark.parametrize("preset", SETTINGS)
def test_sign_noise_is_reduced(drawn_image, preset, record_property):
    """Noise of +-4 levels, the shape of an FGSM step, on an image with nothing as fine as the noise itself.

    Measured: 4.0 falls to 2.1 (mild), 2.8 (balanced) and 3.4 (strong). The sharp drawing, whose pigment network is as
    fine as noise, would lose more by blurring than it gains.
    """
    clean = cv2.GaussianBlur(drawn_image, (0, 0), 1.2)
    signs = np.random.default_rng(2).choice([-4, 4], clean.shape)
    noisy = np.clip(clean.astype(int) + signs, 0, 255).astype(np.uint8)
    before, after = rmse(noisy, clean), rmse(purify(noisy, 1, SETTINGS[preset]), clean)
    record_property("rmse", (float(before), float(after)))
    assert before > 3.9
    assert after < 0.92 * before


@pytest.mark.parametrize("preset", SETTINGS)
def test_attacked_and_clean_image_come_closer(drawn_image, preset, record_property):
    """What the classifier sees of the perturbation, though the two calls drew different noise: measured 1.1 to 1.3."""
    signs = np.random.default_rng(2).choice([-4, 4], drawn_image.shape)
    noisy = np.clip(drawn_image.astype(int) + signs, 0, 255).astype(np.uint8)
    distance = rmse(purify(noisy, 1, SETTINGS[preset]), purify(drawn_image, 2, SETTINGS[preset]))
    record_property("rmse", float(distance))
    assert rmse(noisy, drawn_image) > 3.9
    assert distance < 2
