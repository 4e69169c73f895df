"""Models, weights and pictures that cannot be converted: one clear line each, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("safetensors")

from conversion import EASY, LABELS, NORMALISE, call, factory_call, model_in, one_line  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402


def damaged_weights(folder: Path, network) -> Path:
    state = {k: v.clone() for k, v in network.state_dict().items()}
    state["head.weight"][0, 0] = float("nan")
    torch.save(state, folder / "nan.pt")
    return folder / "nan.pt"


class Code:
    """What must never run: unpickling it would make a file."""

    def __reduce__(self):
        return (Path("ran").touch, ())


def bad_weights(kind: str, folder: Path, network) -> tuple[Path, str]:
    """A file of weights that cannot be used, and what must be said about it."""
    path = folder / f"{kind}.pt"
    if kind == "nan":
        return damaged_weights(folder, network), "hold NaN or infinity"
    if kind == "code":
        torch.save({"x": Code()}, path)
        return path, "no readable weights"
    torch.save(network.state_dict(), path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-300])
        return path, "no readable weights"
    if kind == "other":
        torch.save({"head.weight": torch.zeros(2, 2)}, path)
        return path, "does not fit tiny_networks:make"
    if kind == "list":
        torch.save([torch.zeros(1)], path)
        return path, "no state dict"
    (folder / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    return folder / "cut.safetensors", "no readable weights"


@pytest.mark.parametrize("kind", ["nan", "code", "cut", "other", "list", "safetensors"])
def test_unusable_weights_are_one_line(kind, network, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, cause = bad_weights(kind, tmp_path, network)
    assert factory_call(path, pictures, tmp_path / "out", "onnx-fp32") == 1
    assert cause in one_line(capsys)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("model", "more", "cause"),
    [
        (
            "tiny_networks:make",
            ["--labels", "a,b", "--malignant", "a"],
            "output has the shape (1, 3), but there are 2 labels",
        ),
        ("tiny_networks:make", ["--labels", "a,a,b"], "none twice"),
        ("tiny_networks:make", ["--labels", "nothing"], "neither a file nor a list"),
        ("tiny_networks:make", ["--malignant", "mole"], "--malignant: name at least one of pale, dark, red"),
        ("tiny_networks:missing", [], "cannot be imported"),
        ("tiny_nothing:make", [], "cannot be imported"),
        ("tiny_networks:not_a_network", [], "returned list, expected a torch.nn.Module"),
        ("tiny_networks:fails", [], "the factory failed (RuntimeError: no such data)"),
        ("tiny_networks:make", ["--weight-scale", "octav"], "--weight-scale is no option of onnx-fp32"),
        ("tiny_networks:make", ["--refer-at", "0.3"], "--refer-at and --retake-at go together"),
        ("tiny_networks:make", ["--layout", "NHWC"], "cannot be traced at 32x32"),
        ("tiny_networks:make", ["--verify", "nowhere"], "no such folder of images"),
        ("none.pt", [], "--weights goes with package.module:factory"),
    ],
)
def test_wrong_arguments_are_one_line(model, more, cause, weights, pictures, tmp_path, capsys):
    common = [*LABELS, *NORMALISE, *EASY, "--calibration", pictures / "images", "--format", "onnx-fp32"]
    call_ = ["convert", model, "--weights", weights, "--input-size", 32, *common, "--out", tmp_path / "out", *more]
    assert call(*call_) == 1
    assert cause in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused_at_once(weights, pictures, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert factory_call(weights, pictures, tmp_path / "out", "onnx-fp32") == 1
    assert "is a file; name a folder with --out" in one_line(capsys)
    assert (tmp_path / "out").read_text() == "mine"


def test_calibration_pictures_that_are_missing_empty_few_or_damaged(weights, pictures, tmp_path, capsys):
    def refused(folder: Path, cause: str) -> None:
        assert call("convert", "tiny_networks:make", "--weights", weights, "--input-size", 32, *LABELS, *EASY,
                    "--calibration", folder, "--format", "onnx-int8", "--out", tmp_path / "out") == 1  # fmt: skip
        assert cause in one_line(capsys)
        assert not (tmp_path / "out").exists()

    refused(tmp_path / "none", "no such folder of images")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no images")
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((pictures / "images").iterdir())[:10]:
        shutil.copy(path, few)
    refused(few, "5 images to calibrate on, at least 8 are needed")
    data = tmp_path / "data"
    shutil.copytree(pictures / "images", data / "images")
    (data / "labels.csv").write_text("image_id,dx,split\npale0,pale,train\ngone,dark,train\n")
    refused(data, "no image for image_id 'gone'")
    damaged = tmp_path / "damaged"
    shutil.copytree(pictures / "images", damaged)
    for path in damaged.iterdir():
        path.write_bytes(path.read_bytes()[:200])
    refused(damaged, ".png: ")


def one_node(node: onnx.NodeProto, shape: list[object], domain: str = "", opset: int = 17) -> onnx.ModelProto:
    """Picture, one node, output."""
    graph = helper.make_graph(
        [node, helper.make_node("ReduceMean", ["y"], ["z"], axes=[2, 3], keepdims=0)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3])],
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize(
    ("node", "shape", "domain", "cause"),
    [
        (helper.make_node("Relu", ["x"], ["y"]), ["n", 3, 32, 32], "", "has the dynamic shape (n, 3, 32, 32)"),
        (helper.make_node("Relu", ["x"], ["y"]), [1, 3, "h", "w"], "", "has the dynamic shape (1, 3, h, w)"),
        (helper.make_node("Relu", ["x"], ["y"]), [1, 32, 32, 3], "", "set --layout and --input-size"),
        (helper.make_node("Relu", ["x"], ["y"]), [4, 3, 32, 32], "", "has the shape (4, 3, 32, 32)"),
        (helper.make_node("Strange", ["x"], ["y"], domain="my.own"), [1, 3, 32, 32], "my.own", "my.own.Strange"),
    ],
)
def test_onnx_files_that_cannot_be_converted(node, shape, domain, cause, pictures, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    path.write_bytes(one_node(node, shape, domain).SerializeToString())
    assert call("convert", path, *LABELS, *EASY, "--calibration", pictures / "images", "--format", "onnx-fp32",
                "--out", tmp_path / "out") == 1  # fmt: skip
    assert cause in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_no_onnx_file_and_a_quantised_one(converted, pictures, tmp_path, capsys):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model" * 20)
    for path, cause in ((broken, "not a usable ONNX file"), (tmp_path / "none.onnx", "no such model file"),
                        (model_in(converted / "onnx-int8"), "is quantised already")):  # fmt: skip
        assert call("convert", path, *LABELS, "--layout", "NHWC", "--calibration", pictures / "images", "--format",
                    "onnx-fp32", "--out", tmp_path / "out") == 1  # fmt: skip
        assert cause in one_line(capsys)


def test_a_truncated_checkpoint_is_one_line(pictures, tmp_path, capsys):
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": 1, "labels": ["a"], "ema": {"x": torch.zeros(2000)}}, path)
    path.write_bytes(path.read_bytes()[:-500])
    for model, cause in ((path, "not a readable checkpoint"), (tmp_path / "none.pt", "no such model")):
        assert call("convert", model, "--calibration", pictures / "images", "--format", "onnx-fp32", "--out",
                    tmp_path / "out") == 1  # fmt: skip
        assert cause in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_damaged_picture_to_judge_by_is_named(weights, pictures, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    for k in range(14):
        cv2.imwrite(str(other / f"{k}.png"), np.full((32, 32, 3), 10 * k, np.uint8))
    (other / "13.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    assert factory_call(weights, pictures, tmp_path / "out", "onnx-fp32") == 0
    shutil.rmtree(tmp_path / "out")
    common = [*LABELS, *EASY, "--calibration", pictures / "images", "--verify", other, "--format", "onnx-fp32"]
    model = ["tiny_networks:make", "--weights", weights, "--input-size", 32]
    assert call("convert", *model, *common, "--out", tmp_path / "out") == 1
    assert "13.png: " in one_line(capsys)
    assert not (tmp_path / "out").exists()
