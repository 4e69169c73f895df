"""The tensor twin of the purifier, its attackers, and the losses of sources that know different things."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)

from edge_mdda import Purifier  # noqa: E402
from edge_mdda.mdda.params import PRESETS  # noqa: E402
from export.dataset import CLASSES, DatasetError  # noqa: E402
from export.metrics import auroc  # noqa: E402
from export.train.lesion_sets import BENIGN, MALIGNANT_ONLY, WHOLE, LesionSets, pack, read_sets, unpack  # noqa: E402
from export.train.sources import Recipe, Sampler, known_loss  # noqa: E402
from export.train.torch_attack import WAYS, Attack, attacked, margin  # noqa: E402
from export.train.torch_augment import views  # noqa: E402
from export.train.torch_mdda import Schedule, purify, rof  # noqa: E402

SCHEDULE = Schedule.of(PRESETS["balanced"])


def pictures(n: int = 2, side: int = 64) -> torch.Tensor:
    smooth = torch.nn.functional.interpolate(
        torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 255, (side, side), mode="bilinear"
    )
    return smooth.round()


def test_the_tensor_purifier_agrees_with_the_boards_up_to_the_noise():
    torch.manual_seed(0)
    x = pictures()
    twin = torch.stack([purify(x, SCHEDULE) for _ in range(24)]).mean(0)
    with Purifier(64, 64, PRESETS["balanced"]) as board:
        image = x.permute(0, 2, 3, 1).to(torch.uint8).numpy()
        means = [np.mean([board.purify(one, seed) for seed in range(24)], axis=0) for one in image]
    gap = twin.permute(0, 2, 3, 1).numpy() - np.stack(means)
    assert np.sqrt(np.square(gap).mean()) < 0.8  # grey levels; one draw alone has 2


def test_rof_lowers_its_own_energy_and_keeps_a_constant():
    torch.manual_seed(0)
    noisy = 100 + 20 * torch.randn(1, 1, 32, 32)

    def energy(u):
        dx, dy = torch.diff(u, dim=3)[..., :-1, :], torch.diff(u, dim=2)[..., :-1]
        return float((dx**2 + dy**2).sqrt().sum() + ((u - noisy) ** 2).sum() / (2 * 8.0))

    energies = [energy(rof(noisy, 8.0, n)) for n in (1, 4, 40)]
    assert energy(noisy) > energies[0] > energies[1] > energies[2]
    flat = torch.full((1, 3, 16, 16), 90.0)
    assert torch.allclose(rof(flat, 5.0), flat)


class Tiny(torch.nn.Module):
    """Logits that are linear in the mean colour of the picture's quarters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = torch.nn.Linear(12, len(CLASSES))

    def forward(self, x):
        return self.layer(torch.nn.functional.adaptive_avg_pool2d(x / 255, 2).flatten(1))


@pytest.mark.parametrize("way", WAYS)
def test_every_attacker_stays_within_eps_and_gains(way):
    network, x = Tiny().eval(), pictures()
    y = network(x).argmax(1)
    loss, eps = margin(y), torch.full((2, 1, 1, 1), 3.0)
    out = attacked(network, x, loss, eps, Attack(way, 4, 0.5, keep_best=True), SCHEDULE)
    assert float((out - x).abs().max()) <= 3.0
    assert torch.equal(out, out.round())
    assert (loss(network(out)) > loss(network(x))).all()


def test_views_are_whole_pictures_in_eight_bits():
    torch.manual_seed(0)
    boxes = torch.tensor([[0.4, 0.4, 0.6, 0.6], list(WHOLE)])
    out = views(pictures(), boxes)
    assert out.shape == (2, 3, 64, 64) and torch.equal(out, out.round().clamp(0, 255))


def test_the_loss_uses_what_is_known():
    targets = torch.tensor([4, BENIGN, MALIGNANT_ONLY])
    prior = torch.zeros(3, len(CLASSES))
    melanoma, naevus = (torch.nn.functional.one_hot(torch.tensor([c] * 3), len(CLASSES)) * 8.0 for c in (4, 5))
    as_melanoma, as_naevus = (known_loss(targets, prior, 0.0)(z) for z in (melanoma, naevus))
    assert as_melanoma[0] < as_naevus[0]
    assert as_melanoma[1] > as_naevus[1]
    assert as_melanoma[2] < as_naevus[2]


def sets() -> LesionSets:
    target = np.array([4, 5, 5, 2, 5, BENIGN, MALIGNANT_ONLY, BENIGN])
    source = np.array([0, 0, 0, 0, 1, 2, 2, 2])
    held = np.array([False, False, False, True, False, False, False, False])
    return LesionSets([b"x"] * 8, source, target, held, np.tile(np.array(WHOLE, np.float32), (8, 1)))


def test_batches_hold_each_source_and_nothing_held_back():
    recipe = Recipe("efficientnet-lite0", 1, 16, 1e-3, 0, 0, 0, 0, 0, 1, (0, 0, 0), (0.5, 0.25, 0.25))
    sampler = Sampler(sets(), recipe)
    rows = np.concatenate([sampler.rows() for _ in range(20)])
    assert not (rows == 3).any()
    assert np.bincount(sets().source[rows]).tolist() == [160, 80, 80]
    assert np.isfinite(sampler.log_prior).all()  # a class that a source lacks is unlikely there, never impossible


def test_packed_sets_are_the_same(tmp_path):
    pack(sets(), tmp_path / "a.npz")
    twice = unpack([tmp_path / "a.npz"] * 2)
    assert twice.encoded == [b"x"] * 16
    assert twice.target.tolist() == sets().target.tolist() * 2
    assert twice.held_back.sum() == 2


def test_labels_are_read_and_wrong_ones_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"picture")
    (tmp_path / "labels.csv").write_text("image_id,malignant,split\na,1,train\n")
    assert read_sets([tmp_path]).target.tolist() == [MALIGNANT_ONLY]
    (tmp_path / "labels.csv").write_text("image_id,dx,split\na,wart,train\n")
    with pytest.raises(DatasetError, match="wart"):
        read_sets([tmp_path])
    with pytest.raises(DatasetError, match="cannot be read"):
        read_sets([tmp_path / "none"])


def test_area_under_curve_of_known_cases():
    assert auroc(np.array([False, False, True, True]), np.array([0.1, 0.2, 0.8, 0.9])) == 1.0
    assert auroc(np.array([True, False, True, False]), np.array([0.5, 0.5, 0.5, 0.5])) == 0.5
