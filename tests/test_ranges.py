"""Activation ranges that a checkpoint brings along reach the quantisers, and other networks than Lite0 convert."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import tiny_networks  # noqa: E402
from conversion import call, model_in, one_line  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from edge_mdda.classifier import open_classifier  # noqa: E402
from edge_mdda.errors import EdgeMddaError  # noqa: E402
from export.convert.graphs import make_core  # noqa: E402
from export.convert.quantise import quantise_onnx  # noqa: E402
from export.convert.ranges import in_order  # noqa: E402
from export.convert.sources import trace  # noqa: E402
from export.errors import ExportError  # noqa: E402
from export.options import TrainOptions  # noqa: E402

RANGES = {
    "input": (-2.0, 2.0),
    "stem.stem.1": (0.0, 5.0),
    "depthwise.depthwise.0": (0.0, 4.0),
    "point.point.0": (-3.0, 7.0),
    "": (-3.5, 8.5),  # the residual sum lies in the network itself
    "down.down.0": (0.0, 6.0),
    "head": (-20.0, 31.0),
}


@pytest.fixture
def core(network):
    traced = trace(network, "NCHW", (32, 32), "tiny")
    return make_core(traced, "tiny", "NCHW", tiny_networks.MEAN, tiny_networks.STD, 3)


def test_ranges_in_the_order_of_execution(core):
    """The mean over the picture and the residual sum both lie in the network itself."""
    order = in_order(core, RANGES)
    assert [kind for kind, _ in order] == ["conv", "conv", "conv", "add", "conv", "mean", "linear"]
    assert order[0] == ("conv", (0.0, 5.0))
    assert in_order(core, {k: v for k, v in RANGES.items() if k != "head"})[-1] == ("linear", None)
    with pytest.raises(ExportError, match=r"ranges do not fit the graph \(body\)"):
        in_order(core, RANGES | {"body": (0.0, 1.0)})


@pytest.mark.parametrize("symmetric", [False, True])
def test_onnx_takes_the_given_ranges_not_the_pictures(core, tmp_path, symmetric):
    onnx.save(core, tmp_path / "float.onnx")
    blank = iter([np.zeros((1, 3, 32, 32), np.float32)])
    quantise_onnx(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", blank, symmetric=symmetric, float_first=0, ranges=RANGES
    )
    graph = onnx.load(tmp_path / "int8.onnx").graph
    numbers = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    scales = {n.input[0]: float(numbers[n.input[1]]) for n in graph.node if n.op_type == "QuantizeLinear"}
    made_by = {o: n for n in graph.node for o in n.output}
    by_module = {
        made_by[t].name.strip("/").rpartition("/")[0].replace("/", "."): s for t, s in scales.items() if t in made_by
    }
    low, high = RANGES["point.point.0"]
    assert by_module["point.point.0"] == pytest.approx(2 * high / 255 if symmetric else (high - low) / 255, rel=0.01)
    assert "head" not in by_module  # logits stay in float


def test_the_tflite_worker_puts_ranges_over_what_it_saw():
    pytest.importorskip("ai_edge_litert")
    from test_tflite_runtimes import TINY

    from export.convert.tflite_worker import set_ranges

    kinds = ["conv", "conv", "conv", "add", "conv", "mean", "linear"]
    seen: dict = {}
    given = [(-1.0 - k, 2.0 + k) for k in range(7)]
    set_ranges(seen, TINY, list(zip(kinds, given, strict=True)))
    assert [(float(v["min"].item()), float(v["max"].item())) for v in seen.values()] == given
    before = dict(seen)
    set_ranges(seen, TINY, [(kind, None) for kind in kinds])
    assert seen == before
    with pytest.raises(ValueError, match="7 ranges do not fit the 7 operators"):
        set_ranges(seen, TINY, [(kind, (0.0, 1.0)) for kind in reversed(kinds)])


def checkpoint(path, arch: str, **more: object):
    """A checkpoint of an untrained network."""
    pytest.importorskip("efficientnet_lite_pytorch")
    from export.train.network import LesionNet, save_checkpoint

    torch.manual_seed(0)
    network = LesionNet(3, arch=arch).eval()
    options = {"arch": arch, "steps": 9}
    content = {"labels": ["akiec", "mel", "nv"], "options": options, "init": "imagenet", "label_hash": "0", "step": 4}
    save_checkpoint(path, {**content, "ema": network.state_dict(), **more})
    return network


def test_another_architecture_goes_through_the_same_commands(pictures, tmp_path):
    path = tmp_path / "checkpoint.pt"
    network = checkpoint(path, "efficientnet-lite2")
    assert call("convert", path, "--input-size", 64, "--calibration", pictures / "images", "--format", "onnx-fp32",
                "--purify", "off", "--min-images", 12, "--max-images", 12, "--out", tmp_path / "out") == 0  # fmt: skip
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["source"]["kind"] == "checkpoint of efficientnet-lite2"
    classifier = open_classifier(model_in(tmp_path / "out"))
    assert "--arch=efficientnet-lite2" in classifier.manifest.training_command
    assert "stopped after step 4" in classifier.manifest.training_command
    batch = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    with torch.inference_mode():
        rows = [network(torch.from_numpy(b[None]).permute(0, 3, 1, 2).float()) for b in batch]
    np.testing.assert_allclose(classifier.predict(batch), torch.softmax(torch.cat(rows), 1).numpy(), atol=1e-4)


def test_fitted_checkpoints_need_their_reference(pictures, tmp_path, capsys):
    path = tmp_path / "checkpoint.pt"
    checkpoint(path, "efficientnet-lite0", ranges={"input": [-1.0, 1.0]})
    assert call("convert", path, "--calibration", pictures / "images", "--format", "onnx-int8", "--out", tmp_path) == 1
    assert "name that one's checkpoint with --reference" in one_line(capsys)


def test_unknown_architectures_are_named(tmp_path):
    from export.train.network import CheckpointError, network_from_checkpoint, save_checkpoint

    with pytest.raises(EdgeMddaError, match=r"^arch: out of range, got 'resnet'"):
        TrainOptions(arch="resnet")
    save_checkpoint(tmp_path / "x.pt", {"labels": ["a", "b"], "options": {"arch": "resnet"}, "ema": {}})
    with pytest.raises(CheckpointError, match=r"unknown network 'resnet', known are efficientnet-lite0"):
        network_from_checkpoint(tmp_path / "x.pt")
