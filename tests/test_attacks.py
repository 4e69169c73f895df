"""Every attack attacks: it stays within its budget and hurts a small trained network more than noise of that size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("torchattacks")

from tiny_attacked import EPS, N, TinyClassifier, accuracy, with_noise  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.robustness import adaptive, black_box, defences, plan, sticker, universal  # noqa: E402
from benchmarks.robustness.attacks import ATTACKS, attack_images, to_tensor, whole_pixels  # noqa: E402
from benchmarks.robustness.cache import key_of  # noqa: E402
from benchmarks.robustness.defences import Defence  # noqa: E402
from benchmarks.robustness.images import Photographs  # noqa: E402
from benchmarks.robustness.pipeline import Pipeline  # noqa: E402
from export.dataset import LabelledImages  # noqa: E402
from export.metrics import balanced_accuracy  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


# -- attacks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ATTACKS))
def test_attack_beats_noise_and_stays_within_eps(name, tiny, photos):
    parameters = ATTACKS[name].parameters(EPS, True)
    key = key_of(test=name)
    attacked = attack_images(ATTACKS[name], tiny, photos.images, photos.data.targets, parameters, key)
    assert attacked.dtype == np.uint8
    assert attacked.shape == photos.images.shape
    assert 0 < np.abs(attacked.astype(int) - photos.images).max() <= EPS
    assert accuracy(tiny, photos.images, photos) > 0.9
    assert accuracy(tiny, attacked, photos) < accuracy(tiny, with_noise(photos, EPS), photos) - 0.2
    again = attack_images(ATTACKS[name], tiny, photos.images, photos.data.targets, parameters, key)
    assert np.array_equal(attacked, again)


def test_rounding_never_leaves_the_ball_and_mends_what_is_no_number():
    clean = np.array([[[[0, 255, 100]]]], np.uint8)
    moved = torch.tensor([-9.0, 300.0, 102.6]).view(1, 3, 1, 1)
    assert whole_pixels(moved, clean, 2.0).ravel().tolist() == [0, 255, 102]
    broken = torch.tensor([float("nan"), float("inf"), 101.4]).view(1, 3, 1, 1)
    assert whole_pixels(broken, clean, 2.0).ravel().tolist() == [0, 255, 101]


def test_more_steps_and_larger_eps_hurt_more(tiny, photos):
    found = {}
    for name, eps in (("fgsm", 10.0), ("pgd10", 10.0), ("pgd10", EPS)):
        parameters = ATTACKS[name].parameters(eps, True)
        made = attack_images(ATTACKS[name], tiny, photos.images, photos.data.targets, parameters, key_of(a=name))
        loss = nn.functional.cross_entropy(tiny(to_tensor(made)), torch.from_numpy(photos.data.targets))
        found[name, eps] = float(loss.detach())
    assert found["fgsm", 10.0] <= found["pgd10", 10.0] < found["pgd10", EPS]


# -- the attacker who knows the defence ---------------------------------------------------------------------


def noisy(sigma: float) -> Defence:
    """A defence that drowns the image in noise, as far as the tiny network bears it."""

    def apply(image: np.ndarray, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    return Defence("noise", "noise", "-", lambda: apply)


def test_gradient_is_the_mean_over_the_draws(tiny, photos):
    apply = noisy(20.0).open()
    draws = np.stack([np.stack([apply(image, seed) for seed in range(5)]) for image in photos.images[:3]])
    targets = photos.data.targets[:3]
    gradient, margins = adaptive.mean_gradient(tiny, draws, targets, batch=4)
    for i, views in enumerate(draws):
        each = []
        for k, view in enumerate(views):
            pixels = to_tensor(view[None]).requires_grad_(True)
            logits = tiny(pixels)
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(targets[i : i + 1]))
            each.append(torch.autograd.grad(loss, pixels)[0][0])
            own, others = logits[0, targets[i]], np.delete(logits.detach().numpy()[0], targets[i])
            assert margins[i, k] == pytest.approx(float(own.detach()) - others.max(), abs=1e-4)
        torch.testing.assert_close(gradient[i], torch.stack(each).mean(0), rtol=1e-4, atol=1e-9)
        assert not torch.allclose(gradient[i], each[0], rtol=1e-2, atol=1e-9)


def test_adaptive_attack_goes_through_a_random_defence(tiny, photos):
    """It beats noise, stays in the ball, asks for 20 draws a step, and images leave only when all draws are wrong."""
    seen = []
    with Pipeline(noisy(15.0), TinyClassifier(tiny), 2) as pipeline:

        def views(pictures, seeds):
            seen.append(len(pictures))
            assert len(set(seeds)) == len(seeds)
            return pipeline.views(pictures, seeds)

        parameters = adaptive.parameters(EPS, random=True, steps=12)
        assert parameters["draws"] == 20
        attacked = adaptive.attack_through(
            tiny, views, photos.images, photos.data.targets, parameters, seed=3, batch=64
        )
        seeds = range(10_000, 10_000 + N)
        through = pipeline.predict(attacked, seeds).argmax(1)
        unharmed = pipeline.predict(with_noise(photos, EPS), seeds).argmax(1)
    assert np.abs(attacked.astype(int) - photos.images).max() <= EPS
    assert balanced_accuracy(photos.data.targets, unharmed, 3) - 0.3 > balanced_accuracy(
        photos.data.targets, through, 3
    )
    assert seen[0] == N * 20
    assert all(later <= earlier for earlier, later in pairwise(seen))


def test_what_passes_backwards_through_a_blur():
    gradient = torch.zeros(2, 3, 33, 33)
    gradient[1, 2, 16, 16] = 1.0
    assert adaptive.blurred(gradient, 0.0) is gradient
    smooth = adaptive.blurred(gradient, 2.0)
    assert not smooth[0].any() and not smooth[1, :2].any()
    plane = smooth[1, 2].double().numpy()
    assert plane.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.allclose(plane, plane.T) and np.allclose(plane, plane[::-1])
    rows = np.arange(33) - 16
    assert np.sqrt((plane.sum(1) * rows**2).sum()) == pytest.approx(2.0, rel=0.05)


def test_the_smooth_stand_in_goes_deeper_through_a_blur_than_the_identity(photos):
    """A network that asks for the finest grain, behind a blur that swallows it, and for a slope, which passes."""
    side = photos.images.shape[1]
    grain = torch.from_numpy(np.indices((side, side)).sum(0) % 2 * 2.0 - 1)
    slope = torch.linspace(-1, 1, side).expand(side, side)

    class GrainAndSlope(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter((5 * grain + slope).float())

        def forward(self, pixels):
            score = (pixels.mean(1) * self.weight).mean((1, 2))
            return torch.stack([score, -score], 1)

    network, targets = GrainAndSlope(), np.zeros(4, np.int64)
    apply = defences.gaussian(2.5)

    def views(pictures, seeds):
        return np.stack([apply(picture, seed) for picture, seed in zip(pictures, seeds, strict=True)])

    def moved(smooth):
        parameters = adaptive.parameters(EPS, random=False, steps=8, smooth=smooth) | {"leave_margin": np.inf}
        attacked = adaptive.attack_through(network, views, photos.images[:4], targets, parameters, 0, batch=8)
        assert np.abs(attacked.astype(int) - photos.images[:4]).max() <= EPS
        before, after = (network(to_tensor(views(images, range(4))))[:, 0] for images in (photos.images[:4], attacked))
        return float((before - after).detach().mean())

    assert moved(2.0) > 2 * max(moved(0.0), 0)
    assert moved(2.0) > 0


def test_both_stand_ins_have_a_name():
    assert adaptive.STAND_INS == {plan.ADAPTIVE: 0.0, plan.ADAPTIVE_SMOOTH: adaptive.SMOOTH_SIGMA}
    named = {sigma: adaptive.parameters(2.0, True, smooth=sigma)["backward"] for sigma in adaptive.STAND_INS.values()}
    assert named == {0.0: "identity (BPDA)", adaptive.SMOOTH_SIGMA: "Gaussian blur (BPDA)"}


def test_image_leaves_only_when_every_draw_is_wrong_by_the_margin(photos):
    """A network whose answer is the defended image's first pixel: the draws decide, and nothing else."""

    class FirstPixel(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, pixels):
            first = pixels[:, 0, 0, 0] * self.weight
            return torch.stack([first, 100 - first], 1)

    calls = []

    def views(pictures, seeds):  # image 0: all draws wrong; image 1: one draw of four right
        calls.append(len(pictures))
        out = np.stack(list(pictures))
        out[:, 0, 0, 0] = 0
        if len(pictures) == 8:
            out[4, 0, 0, 0] = 200
        else:
            out[0, 0, 0, 0] = 200
        return out

    parameters = adaptive.parameters(2.0, random=True, steps=3, draws=4)
    adaptive.attack_through(FirstPixel(), views, photos.images[:2], np.zeros(2, np.int64), parameters, 0, batch=8)
    assert calls == [8, 4, 4, 4]


def test_deterministic_defence_needs_one_draw():
    assert adaptive.parameters(2.0, random=False)["draws"] == 1
    chosen = adaptive.parameters(2.0, random=True)
    assert chosen["draws"] >= 20
    assert chosen["steps"] >= 50


def test_square_through_the_pipeline_beats_noise(tiny, photos):
    eps = 2 * EPS  # without a gradient it takes more
    parameters = black_box.parameters(eps, random=False, quick=True)
    with Pipeline(noisy(0.0), TinyClassifier(tiny), 2) as pipeline:
        attacked = black_box.square(pipeline, photos.images, photos.data.targets, parameters, seed=1)
    assert 0 < np.abs(attacked.astype(int) - photos.images).max() <= eps
    assert accuracy(tiny, attacked, photos) < accuracy(tiny, with_noise(photos, eps), photos) - 0.2


class Thermometer:
    """A toy pipeline that says class 0 by the mean of red over blue, and the more noise the less it can be trusted."""

    def __init__(self, noise: float, start: float) -> None:
        self.noise, self.start = noise, start
        self.asked: list[np.ndarray] = []

    def margin(self, images) -> np.ndarray:
        """What the answers vary about."""
        images = np.asarray(images, float)
        return self.start + (images[..., 0].mean((1, 2)) - images[..., 2].mean((1, 2))) / 2

    def predict(self, images, seeds) -> np.ndarray:
        images = np.stack(list(images))
        self.asked.append(images)
        noise = [np.random.default_rng(seed).normal(0, self.noise) for seed in seeds] if self.noise else 0.0
        share = 1 / (1 + np.exp(-(self.margin(images) + noise)))
        return np.stack([share, 1 - share], 1)


GREY = np.full((2, 24, 24, 3), 128, np.uint8)


@pytest.mark.parametrize("random", [False, True])
def test_square_returns_the_best_picture_that_it_asked_for(random):
    """Even where no answer is wrong; the library would return the clean picture."""
    parameters = black_box.parameters(8.0, random, quick=True)
    toy = Thermometer(0.0, 9.0)  # eps moves it by 8 at most
    attacked = black_box.square(toy, GREY, np.zeros(2, np.int64), parameters, seed=3)
    lowest = min(toy.margin(images).min() for images in toy.asked)
    assert toy.margin(attacked).min() == lowest
    assert (toy.margin(attacked) < 8).all()
    assert np.abs(attacked.astype(int) - 128).max() == 8


def test_square_does_not_stop_at_a_lucky_answer():
    """Some answers are wrong from the start; the search goes on, and what it returns is wrong more often."""
    parameters = black_box.parameters(8.0, random=True, quick=True)
    parameters["queries"] = 150
    toy = Thermometer(1.0, 1.0)
    attacked = black_box.square(toy, GREY, np.zeros(2, np.int64), parameters, seed=3)
    assert len(toy.asked) > parameters["queries"]
    assert any(toy.predict(GREY, (seed, seed)).argmax(1).any() for seed in range(20))
    assert (toy.margin(attacked) < 0).all()
    wrong = [np.mean([toy.predict(p, (s, s + 500)).argmax(1) for s in range(300)]) for p in (GREY, attacked)]
    assert wrong[1] > wrong[0] + 0.2


def test_square_leaves_what_is_wrong_already():
    toy = Thermometer(0.0, -1.0)
    parameters = black_box.parameters(8.0, random=False, quick=True)
    assert np.array_equal(black_box.square(toy, GREY, np.zeros(2, np.int64), parameters, seed=3), GREY)
    assert len(toy.asked) == 1


# -- the same on every picture ------------------------------------------------------------------------------


def test_universal_perturbation_beats_noise_on_pictures_it_never_saw(tiny, photos):
    train, judged = photos.images[: N // 2], photos.images[N // 2 :]
    parameters = universal.parameters(EPS, True)
    change = universal.train(tiny, train, photos.data.targets[: N // 2], parameters, seed=0)
    assert change.dtype == np.int16
    assert 0 < np.abs(change).max() <= EPS
    rest = Photographs(
        LabelledImages(photos.data.paths[N // 2 :], photos.data.targets[N // 2 :], photos.data.labels, "rest"), judged
    )
    assert accuracy(tiny, universal.apply(judged, change), rest) < accuracy(tiny, with_noise(rest, EPS), rest) - 0.2


def test_sticker_keeps_its_budget_and_its_drawing_has_a_gradient(photos):
    parameters = sticker.parameters(True)
    spots = np.zeros((parameters["spots"], 6), np.float32)
    spots[:, :2] = np.random.default_rng(0).normal(0, 1, (parameters["spots"], 2))
    spots[:, 2:5], spots[:, 5] = 9, 9  # white, as opaque as can be
    black = np.zeros((1, 64, 64, 3), np.uint8)
    drawn = sticker.apply(black, spots[:1], parameters)
    assert drawn.max() <= np.ceil(255 * parameters["max_alpha"])
    assert drawn.max() > 200 * parameters["max_alpha"]
    assert (drawn > 8).any(axis=3).mean() < 4 * parameters["area"] / parameters["spots"]
    wanted = torch.from_numpy(spots).requires_grad_(True)
    sticker.draw(wanted, to_tensor(photos.images[:2]), parameters).sum().backward()
    assert torch.isfinite(wanted.grad).all()
    assert (wanted.grad[:, :2].abs().sum(1) > 0).all()


def test_sticker_is_trained_to_raise_the_loss(tiny, photos):
    parameters = sticker.parameters(True) | {"radius": 0.3, "max_alpha": 0.9}
    trained = sticker.train(tiny, photos.images, photos.data.targets, parameters, seed=0)
    chance = np.random.default_rng(0).normal(0, 1, trained.shape).astype(np.float32)

    def loss(spots: np.ndarray) -> float:
        with torch.no_grad():
            logits = tiny(to_tensor(sticker.apply(photos.images, spots, parameters)))
            return float(nn.functional.cross_entropy(logits, torch.from_numpy(photos.data.targets)))

    assert loss(trained) > loss(chance)
