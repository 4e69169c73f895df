"""The mean of two checkpoints: its ends are the two, its middle lies between, and strangers have no mean."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from export.__main__ import main  # noqa: E402
from export.dataset import CLASSES  # noqa: E402
from export.train.average import average  # noqa: E402
from export.train.fake_quant import FakeQuantNet  # noqa: E402
from export.train.network import LesionNet, network_from_checkpoint, save_checkpoint  # noqa: E402
from tests.tiny_networks import settle  # noqa: E402

SIDE = 64
PICTURES = np.random.default_rng(4).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)


def stored(path, seed, arch="efficientnet-lite0", labels=tuple(CLASSES)):
    torch.manual_seed(seed)
    network = settle(LesionNet(len(labels), dropout=0.0, arch=arch), PICTURES)
    save_checkpoint(path, {"labels": list(labels), "options": {"arch": arch}, "ema": network.state_dict()})
    return path


def logits(network):
    with torch.no_grad():
        return network(torch.from_numpy(PICTURES).permute(0, 3, 1, 2).float()).numpy()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return stored(folder / "a.pt", 0), stored(folder / "b.pt", 1)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_are_the_two_networks(two, share, tmp_path):
    found, content = network_from_checkpoint(average(*two, share, tmp_path))
    wanted, _ = network_from_checkpoint(two[int(share)])
    np.testing.assert_allclose(logits(found), logits(wanted), rtol=1e-3, atol=1e-3)
    assert content["share"] == share and len(set(content["init"])) == 2


def test_the_weights_in_between_are_the_weighted_mean(two, tmp_path):
    assert main(["average", *map(str, two), "--share", "0.25", "--out", str(tmp_path)]) == 0
    paths = (*two, tmp_path / "checkpoint.pt")
    a, b, mean = (FakeQuantNet(network_from_checkpoint(path)[0], n_float=None).state_dict() for path in paths)
    for name, value in mean.items():
        np.testing.assert_allclose(value, 0.75 * a[name] + 0.25 * b[name], rtol=1e-4, atol=1e-5)


def test_strangers_have_no_mean(two, tmp_path, capsys):
    others = stored(tmp_path / "c.pt", 0, arch="efficientnet-lite1"), stored(tmp_path / "d.pt", 0, labels=("a", "b"))
    for other in others:
        assert main(["average", str(two[0]), str(other), "--out", str(tmp_path / "out")]) == 1
        assert "nothing lies between" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["average", *map(str, two), "--share", "1.5", "--out", str(tmp_path / "out")])
