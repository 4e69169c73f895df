"""Adversarial training: the attack stays in its bounds and attacks, what is kept is found again, runs resume."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge_mdda.errors import EdgeMddaError  # noqa: E402
from export.dataset import CLASSES, LabelledImages  # noqa: E402
from export.options import HardenOptions  # noqa: E402
from export.train.fake_quant import FakeQuantNet  # noqa: E402
from export.train.harden import (  # noqa: E402
    KEPT_NAME,
    Kept,
    View,
    Visit,
    Visits,
    attack,
    diverse,
    harden,
    smoothed,
    taught,
    turned,
    turned_back,
)
from export.train.network import LesionNet, load_checkpoint, network_from_checkpoint, save_checkpoint  # noqa: E402
from tests.tiny_networks import settle  # noqa: E402

SIDE = 64
TINY = HardenOptions(steps=2, batch=4, size=SIDE, attack_steps=2, seed=5)


@pytest.fixture(scope="module")
def network() -> FakeQuantNet:
    torch.manual_seed(0)
    pictures = np.random.default_rng(4).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
    settled = settle(LesionNet(len(CLASSES), dropout=0.0), pictures)
    return FakeQuantNet(settled, n_float=None).requires_grad_(False)


def visit_of(n: int, epsilon: float = 4.0, purified: bool = False, smooth: bool = False) -> Visit:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (n, SIDE, SIDE, 3), np.uint8)
    sizes = np.full(n, epsilon, np.float32)
    sizes[0] = 0
    turns = rng.integers(8, size=n)
    return Visit(np.arange(n), turns, pixels, sizes, np.full(n, purified), np.full(n, smooth), 7)


def test_turns_are_undone():
    image = np.arange(4 * 4 * 3).reshape(4, 4, 3)
    views = [turned(image, turn) for turn in range(8)]
    assert len({view.tobytes() for view in views}) == 8
    for turn, view in enumerate(views):
        np.testing.assert_array_equal(turned_back(view, turn), image)


@pytest.mark.parametrize("kind", ["raw", "through", "smooth"])
def test_the_attack_raises_the_loss_within_its_bounds(network, kind):
    visit = visit_of(4, purified=kind != "raw", smooth=kind == "smooth")
    targets = torch.tensor([0, 1, 2, 3])
    options = replace(TINY, attack="raw" if kind == "raw" else "through", attack_steps=4)
    start = np.random.default_rng(1).uniform(-1, 1, visit.pixels.shape).astype(np.float32)
    view = View(SIDE, 0)
    attacked = attack(network, visit, start, targets, view, options)
    clean = torch.from_numpy(visit.pixels).permute(0, 3, 1, 2).float()
    change = (attacked - clean).abs()
    assert torch.equal(attacked[0], clean[0])  # epsilon 0 is not attacked
    assert change[1:].max() <= 4 + 1e-4
    assert attacked.min() >= 0
    assert attacked.max() <= 255

    def loss(pixels: torch.Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(network(pixels)[1:], targets[1:]))

    noise = (clean + torch.from_numpy(start).permute(0, 3, 1, 2) * 4).clamp(0, 255)
    if kind == "raw":
        assert loss(attacked) > loss(noise) > 0
    else:
        seen = [sum(loss(View(SIDE, s)(p, visit.purified)) for s in range(6)) for p in (attacked, noise)]
        assert seen[0] > seen[1]


def test_a_blur_as_stand_in_moves_neighbours_together(network):
    start = np.zeros((4, SIDE, SIDE, 3), np.float32)
    alike = []
    for smooth in (False, True):
        visit = visit_of(4, purified=True, smooth=smooth)
        attacked = attack(network, visit, start, torch.tensor([0, 1, 2, 3]), View(SIDE, 0), TINY)
        sign = (attacked - torch.from_numpy(visit.pixels).permute(0, 3, 1, 2).float())[1:].sign()
        alike.append((sign[..., 1:] == sign[..., :-1]).float().mean().item())
    assert alike[0] < 0.7 < alike[1]


def test_two_boxes_have_the_spread_of_the_blur():
    point = torch.zeros((1, 1, 21, 21))
    point[..., 10, 10] = 1
    seen = smoothed(point)
    places = torch.arange(21) - 10.0
    assert seen.sum() == pytest.approx(1, abs=1e-5)
    assert (seen.sum(2) * places**2).sum() == pytest.approx(2.0**2, abs=1e-4)


def test_diverse_inputs_keep_their_size_and_lose_a_border():
    pixels = torch.full((2, 3, SIDE, SIDE), 100.0)
    out = diverse(pixels, np.random.default_rng(0))
    assert out.shape == pixels.shape
    assert (out == 0).any()
    assert out.max() == pytest.approx(100, abs=1e-3)


def test_what_is_kept_comes_back_turned_like_the_next_view(tmp_path):
    visit = visit_of(4)
    kept = Kept(tmp_path / "p.i8", visit.pixels.shape, 0)
    before = kept.values[0].copy()
    share = np.random.default_rng(2).uniform(-1, 1, visit.pixels.shape)
    attacked = torch.from_numpy(visit.pixels + share * visit.epsilon[:, None, None, None]).permute(0, 3, 1, 2)
    kept.put(visit, attacked)
    np.testing.assert_allclose(kept.get(visit)[1:], share[1:], atol=0.5 / 127 + 1e-6)
    np.testing.assert_array_equal(kept.values[0], before)  # not attacked, not changed
    kept.values.flush()
    np.testing.assert_array_equal(Kept(tmp_path / "p.i8", visit.pixels.shape, 0).values, kept.values)
    kept.values.flush()
    later = Kept(tmp_path / "later.i8", visit.pixels.shape, 1, earlier=tmp_path / "p.i8")
    np.testing.assert_array_equal(later.values, kept.values)
    other = Kept(tmp_path / "other.i8", (1, *visit.pixels.shape[1:]), 1, earlier=tmp_path / "p.i8")
    assert len(other.values) == 1  # of another shape: a fresh start


def test_batches_have_the_shares_that_were_asked_for():
    data = LabelledImages((), np.arange(40) % len(CLASSES), tuple(CLASSES), "made up")
    images = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), np.uint8)
    options = replace(TINY, batch=400, attacked_share=0.5, purify_share=0.5, eps_low=2.0, eps_high=8.0, steps=1)
    through = Visits(images, data, options).make(0)
    attacked = through.epsilon > 0
    assert 0.4 < attacked.mean() < 0.6
    assert 0.4 < through.purified.mean() < 0.6
    assert (through.epsilon[attacked] >= 2).all()
    assert (through.epsilon <= 8).all()
    assert not through.smooth.any()
    half = Visits(images, data, replace(options, smooth_share=0.5)).make(0)
    assert 0.3 < half.smooth[half.purified].mean() < 0.7
    assert not half.smooth[~half.purified].any()
    assert len(set(half.chosen[half.smooth]) & set(half.chosen[half.purified & ~half.smooth])) == 0
    raw = Visits(images, data, replace(options, attack="raw")).make(0)
    assert raw.purified[raw.epsilon > 0].all()
    np.testing.assert_array_equal(raw.pixels, through.pixels)  # the same seed, the same pictures


def test_a_run_resumes_and_can_be_exported(made_up, tmp_path):
    class KillError(Exception):
        pass

    def kill(*_: object) -> None:
        raise KillError

    torch.manual_seed(1)
    start = tmp_path / "start.pt"
    save_checkpoint(start, {"labels": list(CLASSES), "options": {}, "ema": LesionNet(len(CLASSES)).state_dict()})
    with pytest.raises(KillError):  # the last step reports before it stores
        harden(made_up, start, tmp_path / "cut", TINY, checkpoint_every=1, progress=kill)
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == 1
    path = harden(made_up, start, tmp_path / "cut", TINY, checkpoint_every=1)
    content = load_checkpoint(path)
    assert content["step"] == 2
    lines = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2]
    network, _ = network_from_checkpoint(path)
    before, _ = network_from_checkpoint(start)
    pixels = torch.full((1, 3, SIDE, SIDE), 90.0)
    with torch.no_grad():
        assert not torch.allclose(network(pixels), before(pixels))
    with pytest.raises(EdgeMddaError, match="made with other options"):
        harden(made_up, start, tmp_path / "cut", replace(TINY, lr=1e-3))
    # The same folder after its checkpoint was removed: nothing of the old run goes on, of whatever size it was.
    path.unlink()
    smaller = replace(TINY, size=32, steps=1)
    again, new = (harden(made_up, start, tmp_path / folder, smaller) for folder in ("cut", "new"))
    assert (tmp_path / "cut" / KEPT_NAME).read_bytes() == (tmp_path / "new" / KEPT_NAME).read_bytes()
    weights = [load_checkpoint(file)["ema"] for file in (again, new)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_teacher_pulls_towards_its_answers():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]], requires_grad=True)
    answer = torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 0.0]])
    p, q = answer.softmax(1), logits.detach().softmax(1)
    assert taught(logits, answer).item() == pytest.approx(((p * (p / q).log()).sum() / 2).item(), rel=1e-5)
    assert taught(answer, answer + 7).item() == pytest.approx(0, abs=1e-6)  # logits have no zero of their own
    (gradient,) = torch.autograd.grad(taught(logits, answer), logits)
    torch.testing.assert_close(gradient, (q - p) / 2)


def test_a_run_with_a_teacher_is_another_run(made_up, tmp_path):
    torch.manual_seed(2)
    start, teacher = tmp_path / "start.pt", tmp_path / "teacher.pt"
    stranger = tmp_path / "stranger.pt"
    for path, labels in ((start, CLASSES), (teacher, CLASSES), (stranger, ("a", "b"))):
        net = LesionNet(len(labels))
        save_checkpoint(path, {"labels": list(labels), "options": {}, "ema": net.state_dict()})
    one = replace(TINY, steps=1)
    alone = harden(made_up, start, tmp_path / "alone", one)
    guided = harden(made_up, start, tmp_path / "guided", replace(one, teacher_share=1.0), teacher=teacher)
    weights = [load_checkpoint(path)["ema"] for path in (alone, guided)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    with pytest.raises(EdgeMddaError, match="made with other options"):
        harden(made_up, start, tmp_path / "guided", replace(one, teacher_share=1.0), teacher=start)
    with pytest.raises(EdgeMddaError, match="made with other options"):
        harden(made_up, start, tmp_path / "guided", replace(one, teacher_share=1.0))
    with pytest.raises(EdgeMddaError, match=r"stranger\.pt: a teacher of other labels"):
        harden(made_up, start, tmp_path / "refused", one, teacher=stranger)
    assert not (tmp_path / "refused").exists()


def test_options_name_the_bad_field():
    for field, value in {
        "attack": "both",
        "eps_low": 0.0,
        "eps_high": 1.0,
        "attack_steps": 0,
        "smooth_share": 2.0,
    }.items():
        with pytest.raises(EdgeMddaError, match=f"^{field}: "):
            replace(TINY, **{field: value})
    with pytest.raises(EdgeMddaError, match=r"^smooth_share: "):
        replace(TINY, attack="raw", smooth_share=0.5)  # he does not go through the purifier
