"""The quantised network in float: against onnxruntime's int8 file, its gradients, fitted rounding and checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from edge_mdda.errors import EdgeMddaError  # noqa: E402
from edge_mdda.mdda.params import PRESETS  # noqa: E402
from export.dataset import CLASSES, SIDE  # noqa: E402
from export.demo import draw  # noqa: E402
from export.options import Int8Options  # noqa: E402
from export.train import rounding  # noqa: E402
from export.train.fake_quant import FakeQuantNet, grid, round_activation, round_weight  # noqa: E402
from export.train.network import LesionNet, load_checkpoint, network_from_checkpoint, save_checkpoint  # noqa: E402
from export.train.rounding import calibrate, descend, round_network, to_batch  # noqa: E402
from tests.tiny_networks import settle  # noqa: E402

TINY = Int8Options(fit_images=2, steps=2, batch=2, lr=1e-4, seed=3)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Six cut-outs of the drawn picture, (6, SIDE, SIDE, 3) uint8."""
    picture = cv2.resize(draw(), (300, 300), interpolation=cv2.INTER_AREA)
    return np.stack([picture[k : k + SIDE, 2 * k : 2 * k + SIDE] for k in range(0, 36, 6)])


@pytest.fixture(scope="module")
def network(images) -> LesionNet:
    torch.manual_seed(0)
    return settle(LesionNet(len(CLASSES), dropout=0.0), images)


@pytest.fixture(scope="module")
def ranges(network, images) -> dict:
    return calibrate(network, images)


@pytest.fixture(autouse=True)
def short_fit(monkeypatch):
    """Fit few layers, and those roughly."""
    monkeypatch.setattr(rounding, "FITTED_LAYERS", 3)
    monkeypatch.setattr(rounding, "CLIPPED_SHARES", (1.0, 0.9))


@pytest.fixture(scope="module")
def student(network, ranges, images) -> FakeQuantNet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "FITTED_LAYERS", 3)
        return round_network(network, ranges, images[:2])


@pytest.fixture(scope="module")
def root(tmp_path_factory, network, images) -> Path:
    """A data set of the six cut-outs, and the float network's checkpoint."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    lines = ["image_id,dx,split"]
    for n, image in enumerate(images):
        cv2.imwrite(str(folder / "images" / f"i{n}.png"), image[..., ::-1])
        lines.append(f"i{n},{tuple(CLASSES)[n]},{'train' if n < 4 else 'val'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    save_checkpoint(folder / "float.pt", {"labels": list(CLASSES), "ema": network.state_dict()})
    return folder


def test_grids_are_those_of_the_runtimes():
    scale, zero = grid(-1.0, 3.0)
    assert (scale, zero) == (4 / 255, 64)
    assert grid(2.0, 6.0) == (6 / 255, 0)  # zero is always on the grid: padding needs it
    x = torch.tensor([-9.0, 0.0, 0.01, 3.0, 9.0])
    np.testing.assert_allclose(
        round_activation(x, (-1.0, 3.0)).numpy(), scale * (np.array([0, 64, 65, 255, 255]) - 64), atol=1e-6
    )
    weight = torch.tensor([[0.5, -1.0, 0.003], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(round_weight(weight)[0].numpy() * 127, [64, -127, 0], atol=1e-5)
    assert round_weight(weight)[1].abs().max() == 0


def test_without_rounding_it_is_the_float_network(network, images):
    exact = FakeQuantNet(network, n_float=None)
    with torch.no_grad():
        np.testing.assert_allclose(
            exact(to_batch(images[:2])).numpy(), network(to_batch(images[:2])).numpy(), atol=1e-4
        )


def test_gradients_pass_the_rounding_and_stop_at_the_ends():
    x = torch.tensor([-2.0, 0.3, 2.9, 3.5], requires_grad=True)
    round_activation(x, (-1.0, 3.0)).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]
    weight = torch.tensor([[0.31, -1.0, 0.02]], requires_grad=True)
    (round_weight(weight) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert weight.grad.tolist() == [[1, 2, 3]]


def test_every_layer_learns(network, ranges, images):
    student = FakeQuantNet(network, ranges)
    student(to_batch(images[:2])).square().sum().backward()
    still = [name for name, value in student.named_parameters() if not value.grad.abs().max() > 0]
    assert not still


def int8_file(checkpoint: Path, ranges: dict) -> bytes:
    """The ONNX file that ``convert`` makes of a fitted checkpoint, before its metadata."""
    from export.convert.graphs import with_pixels
    from export.convert.quantise import int8_onnx
    from export.convert.sources import SourceOptions, open_source

    core = open_source(str(checkpoint), SourceOptions()).core
    blank = iter([np.zeros((1, SIDE, SIDE, 3), np.uint8)])  # the tool insists on seeing one
    return int8_onnx(with_pixels(core), blank, float_first=0, ranges=ranges).SerializeToString()


def test_the_int8_file_computes_the_same(network, student, ranges, images, tmp_path):
    """All but the order of summation, which moves a value to the next step here and there."""
    from edge_mdda.classifier.onnx import OnnxClassifier
    from tests.tiny_models import int8_share, manifest_for

    save_checkpoint(tmp_path / "c.pt", {"labels": list(CLASSES), "ema": student.to_network().state_dict()})
    content = int8_file(tmp_path / "c.pt", ranges)
    assert int8_share(content) == (50, 50)
    labels = dict.fromkeys(CLASSES, "")
    manifest = manifest_for(content, "c.onnx", labels=labels, malignant=("mel",), height=SIDE, width=SIDE)
    got = np.log(OnnxClassifier(content, manifest).predict(images))
    with torch.no_grad():
        wanted = torch.log_softmax(student(to_batch(images)), 1).numpy()
        exact = torch.log_softmax(network(to_batch(images)), 1).numpy()
    spread = exact.std(1).mean()
    assert np.sqrt(np.mean((got - wanted) ** 2)) < 0.25 * spread
    assert np.sqrt(np.mean((got - exact) ** 2)) < 0.5 * spread


def test_unknown_ranges_are_refused(ranges, root):
    from export.errors import ExportError

    more = ranges | {"body._conv_tail": (0.0, 6.0)}
    with pytest.raises(ExportError, match=r"do not fit the graph \(body\._conv_tail\)"):
        int8_file(root / "float.pt", more)


def test_plain_weights_keep_the_grid(student, ranges, images):
    """Exporters scale by the largest weight of a channel; that must find the stored grid, again and again."""
    plain = FakeQuantNet(student.to_network(), ranges)
    for before, after in zip(student.in_order(), plain.in_order(), strict=True):
        torch.testing.assert_close(after.used_weight(), before.used_weight(), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(after.weight, after.used_weight(), rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        np.testing.assert_allclose(plain(to_batch(images)), student(to_batch(images)), atol=0.05)


def test_descent_beats_the_nearest_step():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, 400, 9, generator=generator) + 2 * torch.randn(1, 400, 1, generator=generator)
    moment = inputs.mT @ inputs / 400
    target = torch.randn(1, 50, 9, generator=generator)
    scale = target.abs().amax(2, keepdim=True) / 127
    q, error = descend(target, moment, scale)
    assert (q == q.round()).all()
    assert (q.abs().amax(2) == 127).all()
    rest = q * scale - target
    torch.testing.assert_close(error, ((rest @ moment) * rest).sum(2, keepdim=True), rtol=1e-3, atol=1e-6)
    nearest = (target / scale).round() * scale - target
    plain = ((nearest @ moment) * nearest).sum(2, keepdim=True)
    assert (error <= plain * 1.0001).all()
    assert error.mean() < 0.45 * plain.mean()


def test_a_run_resumes_and_its_ranges_survive(root, tmp_path, monkeypatch):
    from export.convert.sources import SourceOptions, open_source
    from export.train.fit_int8 import fit_int8, stored_ranges

    class KillError(Exception):
        pass

    def kill(*_: object) -> None:
        raise KillError

    whole = load_checkpoint(fit_int8(root, root / "float.pt", tmp_path / "whole", TINY, checkpoint_every=1))
    with pytest.raises(KillError):  # the last step reports before it stores
        fit_int8(root, root / "float.pt", tmp_path / "cut", TINY, checkpoint_every=1, progress=kill)
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == 1
    path = fit_int8(root, root / "float.pt", tmp_path / "cut", TINY, checkpoint_every=1)
    resumed = load_checkpoint(path)
    assert resumed["step"] == whole["step"] == 2
    assert stored_ranges(resumed) == stored_ranges(whole)
    assert len(stored_ranges(resumed)) == 50 + 9 + 2 - 2  # layers, sums, input and pooling, less the float start
    assert resumed["float_layers"] == ["body._conv_stem", "body._blocks.0._depthwise_conv"]
    for name, value in whole["student"].items():
        torch.testing.assert_close(resumed["student"][name], value, rtol=1e-4, atol=1e-5, msg=name)

    # Any exporter can read it: a plain network whose weights need no more rounding.
    network, content = network_from_checkpoint(path)
    student = FakeQuantNet(network, stored_ranges(content), 2)
    average = FakeQuantNet(network, stored_ranges(content), 2)
    average.load_state_dict(content["average"])
    for plain, kept in zip(student.in_order(), average.in_order(), strict=True):
        torch.testing.assert_close(plain.weight, kept.used_weight(), rtol=1e-5, atol=1e-7)

    with pytest.raises(EdgeMddaError, match="made with other options"):
        fit_int8(root, root / "float.pt", tmp_path / "cut", replace(TINY, lr=1e-3))
    with monkeypatch.context() as other:
        other.setitem(PRESETS, "mild", PRESETS["strong"])  # other pictures to fit to
        with pytest.raises(EdgeMddaError, match=r"made with other .* or presets"):
            fit_int8(root, root / "float.pt", tmp_path / "cut", TINY)
    with pytest.raises(EdgeMddaError, match="fitted to int8 already"):
        fit_int8(root, path, tmp_path / "again", TINY)
    with pytest.raises(EdgeMddaError, match="--reference"):
        open_source(str(path), SourceOptions())
    with pytest.raises(EdgeMddaError, match="is not the network"):
        open_source(str(path), SourceOptions(reference=path))


def test_options_name_the_bad_field():
    for field, value in {"fit_images": 0, "steps": -1, "lr": 0.0, "ema": 1.0, "purify_share": 2.0}.items():
        with pytest.raises(EdgeMddaError, match=f"^{field}: "):
            Int8Options(**{field: value})
