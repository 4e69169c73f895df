"""The surrogates' definition and files: what is loaded answers as what was stored, and a damaged file is one line."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from benchmarks.robustness.attacks import to_tensor  # noqa: E402
from benchmarks.robustness.errors import RobustnessError  # noqa: E402
from benchmarks.robustness.squeezenet import SqueezeNet  # noqa: E402
from benchmarks.robustness.surrogate_file import load_surrogate, save_surrogate  # noqa: E402


def test_squeezenet_takes_imagenet_features_by_their_names(tmp_path):
    torch.manual_seed(0)
    network = SqueezeNet(7).eval()
    names = set(network.state_dict())
    assert {"features.0.weight", "features.3.squeeze.weight", "features.12.expand3x3.bias"} <= names
    assert network.features[12].expand1x1.weight.shape == (256, 64, 1, 1)
    imagenet = {f"features.{k}": torch.randn_like(v) for k, v in network.features.state_dict().items()}
    imagenet["classifier.1.weight"] = torch.zeros(1000, 512, 1, 1)
    head = network.classifier[1].weight.clone()
    network.load_imagenet(imagenet)
    assert torch.equal(network.features[0].weight, imagenet["features.0.weight"])
    assert torch.equal(network.classifier[1].weight, head)


def test_surrogate_file_keeps_the_answers_and_is_small(tmp_path, drawn_image):
    torch.manual_seed(0)
    network = SqueezeNet(7).eval()
    path = tmp_path / "squeezenet1_1.weights.xz"
    size = save_surrogate(path, network, "squeezenet1_1", ("a", "b", "c", "d", "e", "f", "g"), 6, {"steps": 3})
    assert path.stat().st_size == size < 700_000  # of 2.9 MB in float32
    loaded, about = load_surrogate(path)
    assert about["arch"] == "squeezenet1_1"
    assert about["about"] == {"steps": 3}
    assert len(about["labels"]) == 7
    assert not loaded.training
    pixels = to_tensor(drawn_image[None])
    with torch.no_grad():
        expected, found = network(pixels), loaded(pixels)
    assert (expected - found).abs().max() < 0.1 * expected.abs().max()
    eight = tmp_path / "eight.weights.xz"
    save_surrogate(eight, network, "squeezenet1_1", "abcdefg", 8)
    with torch.no_grad():
        closer = load_surrogate(eight)[0](pixels)
    assert (expected - closer).abs().max() < (expected - found).abs().max()


def test_surrogate_of_another_architecture_is_folded_without_change(tmp_path, drawn_image):
    pytest.importorskip("efficientnet_lite_pytorch")
    from export.train.network import LesionNet

    torch.manual_seed(0)
    network = LesionNet(7, arch="efficientnet-lite0").eval()
    path = tmp_path / "lite.weights.xz"
    save_surrogate(path, network, "efficientnet-lite0", "abcdefg", 8)
    loaded, _ = load_surrogate(path)
    pixels = to_tensor(drawn_image[None])
    with torch.no_grad():
        expected, found = network(pixels), loaded(pixels)
    assert (expected - found).abs().max() < 0.1 * expected.abs().max() + 1e-3


@pytest.mark.parametrize("damage", ["cut", "not xz", "empty"])
def test_damaged_surrogate_is_one_line(damage, tmp_path):
    path = tmp_path / "x.weights.xz"
    save_surrogate(path, SqueezeNet(7), "squeezenet1_1", "abcdefg", 4)
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "not xz": b"abc" * 99, "empty": b""}[damage])
    with pytest.raises(RobustnessError, match="not a usable surrogate") as caught:
        load_surrogate(path)
    assert "\n" not in str(caught.value)


def test_surrogate_with_impossible_weights_is_not_written(tmp_path):
    network = SqueezeNet(7)
    network.features[0].weight.data[0] = float("nan")
    with pytest.raises(RobustnessError, match="NaN"):
        save_surrogate(tmp_path / "x", network, "squeezenet1_1", "abcdefg")
    assert not list(tmp_path.iterdir())


def test_bits_that_cannot_be_packed_are_refused_before_the_training(tmp_path, capsys):
    from benchmarks.robustness.__main__ import main

    nothing = ["--imagenet", str(tmp_path / "none.tar.gz"), "--data", str(tmp_path)]
    assert main(["train-surrogate", *nothing, "--bits", "9"]) == 1
    assert capsys.readouterr().err == "robustness: bits: must be from 4 to 8, got 9\n"


def test_packed_checkpoint_says_which_step_it_reached(made_up, tmp_path, monkeypatch, capsys):
    pytest.importorskip("efficientnet_lite_pytorch")
    from benchmarks.robustness import networks
    from benchmarks.robustness.__main__ import main
    from export.dataset import CLASSES
    from export.train.network import LesionNet, save_checkpoint

    arch, checkpoint = "efficientnet-lite0", tmp_path / "checkpoint.pt"
    ema = LesionNet(len(CLASSES), arch=arch).state_dict()
    options = {"arch": arch, "steps": 400}
    save_checkpoint(checkpoint, {"labels": list(CLASSES), "options": options, "step": 250, "ema": ema})
    monkeypatch.setattr(networks, "SURROGATES", tmp_path / "packed")
    assert main(["train-surrogate", "--pack", str(checkpoint), "--bits", "4", "--data", str(made_up)]) == 0
    _, about = load_surrogate(tmp_path / "packed" / f"{arch}.weights.xz")
    assert about["about"]["step"] == 250
    assert about["about"]["training"] == options
    assert "balanced accuracy on val" in capsys.readouterr().out
