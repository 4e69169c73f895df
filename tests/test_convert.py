"""Conversion of strangers' small networks: what is written is checked by means of its own, what is bad is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("safetensors")

import tiny_networks  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edge_mdda.classifier import open_classifier  # noqa: E402
from edge_mdda.classifier.manifest import EMBEDDED_KEY, embedded_text, manifest_path  # noqa: E402
from edge_mdda.classifier.verdict import onnx_metadata  # noqa: E402
from export.__main__ import main  # noqa: E402
from export.formats import FORMATS  # noqa: E402
from export.sources import trace  # noqa: E402

ONNX_FORMATS = [name for name, f in FORMATS.items() if not f.is_tflite]
NORMALISE = ["--mean", ",".join(map(str, tiny_networks.MEAN)), "--std", ",".join(map(str, tiny_networks.STD))]
LABELS = ["--labels", ",".join(tiny_networks.LABELS), "--malignant", "dark"]
EASY = ["--min-agreement", "0.9", "--max-kl", "0.2", "--max-balanced-loss", "0.1", "--min-images", "12"]


@pytest.fixture(scope="module")
def network():
    return tiny_networks.trained()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory) -> Path:
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return tiny_networks.write_pictures(tmp_path_factory.mktemp("pictures"), 16)


@pytest.fixture(scope="module")
def float_onnx(network, tmp_path_factory) -> Path:
    """Normalised NCHW float input, static."""
    path = tmp_path_factory.mktemp("float") / "tiny.onnx"
    onnx.save(trace(network, "NCHW", (32, 32), "tiny"), path)
    return path


def call(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def factory_call(weights: Path, pictures: Path, out: Path, formats: str, *more: object) -> int:
    return call("convert", "tiny_networks:make", "--weights", weights, "--input-size", 32, *LABELS, *NORMALISE,
                "--calibration", pictures / "images", "--verify-labels", pictures / "truth.csv",
                "--format", formats, "--out", out, *EASY, *more)  # fmt: skip


@pytest.fixture(scope="module")
def converted(weights, pictures, tmp_path_factory) -> Path:
    """Every ONNX format of the tiny network."""
    out = tmp_path_factory.mktemp("converted")
    assert factory_call(weights, pictures, out, ",".join(ONNX_FORMATS)) == 0
    return out


def model_in(folder: Path, suffix: str = ".onnx") -> Path:
    (found,) = folder.glob("*" + suffix)
    return found


def answers(network, images: np.ndarray) -> np.ndarray:
    """Probabilities of the PyTorch network, by its own preprocessing."""
    x = torch.from_numpy((images.astype(np.float32) - np.float32(tiny_networks.MEAN)) / np.float32(tiny_networks.STD))
    with torch.inference_mode():
        return torch.softmax(network(x.permute(0, 3, 1, 2)), 1).numpy()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(9)
    return np.stack([tiny_networks.picture(k % 3, rng) for k in range(12)])


@pytest.mark.parametrize(("name", "tolerance"), [("onnx-fp32", 1e-5), ("onnx-fp16", 0.01), ("onnx-int8", 0.12),
                                                 ("onnx-int8-tensorrt", 0.15)])  # fmt: skip
def test_every_onnx_format_answers_as_the_network_does(converted, network, images, name, tolerance):
    classifier = open_classifier(model_in(converted / name))
    np.testing.assert_allclose(classifier.predict(images), answers(network, images), atol=tolerance)
    assert classifier.manifest.target == name


@pytest.mark.parametrize("name", ONNX_FORMATS)
def test_reports_and_manifests_tell_the_same(converted, name):
    folder = converted / name
    model = model_in(folder)
    report = json.loads((folder / "report.json").read_text())
    manifest = open_classifier(model).manifest
    assert report["format"] == name
    assert report["size_bytes"] == model.stat().st_size
    assert report["sha256"] == manifest.sha256
    assert report["argmax_agreement"] == min(v["argmax_agreement"] for v in report["views"].values()) >= 0.9
    assert 0 <= report["balanced_accuracy_exported"] <= 1
    assert report["balanced_accuracy_source"] > 0.9
    assert report["median_ms"] > 0
    assert report["n_images"] == 24  # those of 48 that did not calibrate
    assert set(report["views"]) == {"raw", "purified"}
    assert set(manifest.files) == {"report.json", "report.md"}
    assert f"`{name}`" in (folder / "report.md").read_text()
    assert "--format" in report["command"]
    assert len(manifest.calibration_sha256) == (64 if "int8" in name else 0)
    assert onnx_metadata(model.read_bytes()) == {EMBEDDED_KEY: embedded_text(manifest)}
    stored = {p.key: p.value for p in onnx.load(model).metadata_props}
    assert stored == {EMBEDDED_KEY: embedded_text(manifest)}


def test_int8_files_hold_int8_convolutions_and_the_audit_says_so(converted):
    for name in ("onnx-int8", "onnx-int8-tensorrt"):
        graph = onnx.load(model_in(converted / name)).graph
        kinds = {t.name: t.data_type for t in graph.initializer}
        weight_of = {n.output[0]: kinds.get(n.input[0]) for n in graph.node if n.op_type == "DequantizeLinear"}
        layers = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
        int8 = sum(weight_of.get(n.input[1]) == TensorProto.INT8 for n in layers)
        found = json.loads((converted / name / "report.json").read_text())["audit"]
        assert (found["int8_layers"], found["layers"]) == (int8, len(layers)) == (2, 5)  # three stay in float
        assert 0 < found["float_op_share"] < 1


def test_the_tensorrt_file_keeps_tensorrts_rules(converted):
    model = onnx.load(model_in(converted / "onnx-int8-tensorrt"))
    weights = {t.name: t for t in model.graph.initializer}
    quantisers = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantisers
    for node in quantisers:
        zero = weights[node.input[2]]
        assert zero.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()
    assert [(e.domain, e.version) for e in model.opset_import] == [("", 17)]
    assert {n.domain for n in model.graph.node} == {""}
    known = {"Add", "Clip", "Conv", "DequantizeLinear", "Div", "Gemm", "QuantizeLinear", "ReduceMean", "Relu", "Sub"}
    assert {n.op_type for n in model.graph.node} <= known
    for value, shape in ((model.graph.input[0], [1, 3, 32, 32]), (model.graph.output[0], [1, 3])):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
        assert [d.dim_value for d in value.type.tensor_type.shape.dim] == shape
    biases = {n.input[2] for n in model.graph.node if n.op_type == "Conv" and len(n.input) > 2}
    assert biases <= set(weights)  # float biases, not quantised ones
    onnx.checker.check_model(model, full_check=True)


def test_the_fp16_file_computes_in_fp16_between_float_ends(converted):
    model = onnx.load(model_in(converted / "onnx-fp16"))
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    assert {kinds[n.input[1]] for n in model.graph.node if n.op_type == "Conv"} == {TensorProto.FLOAT16}
    ends = (model.graph.input[0], model.graph.output[0])
    assert [v.type.tensor_type.elem_type for v in ends] == [TensorProto.FLOAT] * 2


def test_an_onnx_file_and_a_state_dict_give_the_same_model(network, float_onnx, pictures, images, tmp_path):
    state = tmp_path / "tiny.pt"
    torch.save({"state_dict": network.state_dict()}, state)
    common = [*NORMALISE, *LABELS, *EASY, "--calibration", pictures / "images", "--format", "onnx-fp32"]
    assert call("convert", float_onnx, *common, "--out", tmp_path / "a") == 0
    assert (
        call("convert", "tiny_networks:make", "--weights", state, "--input-size", 32, *common, "--out", tmp_path / "b")
        == 0
    )
    a, b = (open_classifier(model_in(tmp_path / name)).predict(images) for name in "ab")
    np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(a, answers(network, images), atol=1e-5)
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["balanced_accuracy_source"] is None  # no labels were given
    assert report["labelled"] is False


def test_nhwc_networks_and_probabilities(network, pictures, images, tmp_path):
    state = tmp_path / "tiny.pt"
    torch.save(network.state_dict(), state)
    assert call("convert", "tiny_networks:make_nhwc", "--weights", state, "--input-size", "32x32", "--layout", "NHWC",
                *NORMALISE, *LABELS, *EASY, "--calibration", pictures / "images", "--format", "onnx-fp32,onnx-int8",
                "--out", tmp_path / "out") == 0  # fmt: skip
    classifier = open_classifier(model_in(tmp_path / "out" / "onnx-fp32"))
    assert classifier.manifest.output == "probabilities"
    np.testing.assert_allclose(classifier.predict(images), answers(network, images), atol=1e-5)


def one_line(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("export:")]
    assert len(lines) == 1
    return lines[0]


def test_a_failed_gate_writes_no_model(weights, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert factory_call(weights, pictures, out, "onnx-int8", "--max-kl", "0") == 1
    line = one_line(capsys)
    assert "mean KL divergence" in line
    assert "above --max-kl 0" in line
    assert not out.exists()
    assert factory_call(weights, pictures, out, "onnx-fp32,onnx-int8", "--max-bytes", 4000) == 1
    assert "more than --max-bytes 4000" in capsys.readouterr().err
    assert not (out / "onnx-fp32").exists()


def test_default_gates_refuse_a_file_that_answers_otherwise(network, pictures, images):
    """The gates themselves, on answers that differ in one picture of twelve."""
    from export.parity import Gates, compare, failures

    truth = answers(network, images)
    other = truth.copy()
    other[0] = np.roll(other[0], 1)
    targets = np.arange(12) % 3
    figures = compare(truth, other, targets, tiny_networks.LABELS)
    assert figures["argmax_agreement"] == pytest.approx(11 / 12)
    assert figures["balanced_accuracy_source"] - figures["balanced_accuracy_exported"] == pytest.approx(1 / 12)
    causes = failures(figures, 1, Gates().of(FORMATS["onnx-int8"]), "raw")
    assert [c.split()[0] for c in causes] == ["argmax", "mean", "balanced"]
    same = compare(truth, truth, targets, tiny_networks.LABELS)
    assert failures(same, 1, Gates().of(FORMATS["onnx-fp32"]), "raw") == []
    assert same["kl_mean"] == same["max_logit_error"] == 0


def test_kl_and_logit_error_are_what_they_are_called(images):
    from export.parity import compare

    p, q = np.array([[0.7, 0.2, 0.1]]), np.array([[0.5, 0.3, 0.2]])
    figures = compare(p, q, None, tiny_networks.LABELS)
    expected = 0.7 * np.log(1.4) + 0.2 * np.log(2 / 3) + 0.1 * np.log(0.5)
    assert figures["kl_mean"] == pytest.approx(expected)
    gaps = np.log(p[0] / q[0])
    assert figures["max_logit_error"] == pytest.approx(np.abs(gaps - gaps.mean()).max())


def test_a_float_file_is_never_labelled_int8(converted):
    from export.audit import audit, check
    from export.errors import ExportError

    content = model_in(converted / "onnx-fp32").read_bytes()
    for name, slack in (("onnx-int8", 0), ("onnx-int8", 1000), ("onnx-int8-tensorrt", 1000), ("onnx-fp16", 0)):
        with pytest.raises(ExportError, match=f"0 of 5 .* this is no {name} file"):
            check(audit(content, ".onnx"), FORMATS[name], slack)
    unsymmetric = model_in(converted / "onnx-int8").read_bytes()
    with pytest.raises(ExportError, match=r"zero points other than 0|other than int8"):
        check(audit(unsymmetric, ".onnx"), FORMATS["onnx-int8-tensorrt"], 3)


def test_weights_quantised_alone_are_no_int8_convolution(converted, tmp_path):
    """Weight-only quantisation computes in float, whatever the weights are stored as."""
    from export.audit import audit

    model = onnx.load(model_in(converted / "onnx-fp32"))
    for node in [n for n in model.graph.node if n.op_type == "Conv"]:
        scale, stored = node.input[1] + "_scale", node.input[1] + "_int8"
        shape = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == node.input[1]).shape
        model.graph.initializer.extend(
            [numpy_helper.from_array(np.float32(0.1), scale), numpy_helper.from_array(np.ones(shape, np.int8), stored)]
        )
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", [stored, scale], [node.input[1] + "_dq"]))
        node.input[1] += "_dq"
    found = audit(model.SerializeToString(), ".onnx")
    assert (found["int8_layers"], found["layers"]) == (0, 5)


def test_pictures_seen_in_calibration_do_not_judge(weights, pictures, tmp_path, capsys):
    """The same pictures under other names are still the same pictures."""
    again = tmp_path / "again"
    again.mkdir()
    for path in (pictures / "images").iterdir():
        shutil.copy(path, again / f"copy_{path.name}")
    assert factory_call(weights, pictures, tmp_path / "out", "onnx-fp32", "--min-images", 30) == 1
    assert "24 images to judge by" in one_line(capsys)
    assert call("convert", "tiny_networks:make", "--weights", weights, "--input-size", 32, *LABELS, *NORMALISE, *EASY,
                "--calibration", pictures / "images", "--verify", again, "--format", "onnx-fp32", "--out",
                tmp_path / "out") == 0  # fmt: skip
    assert json.loads((tmp_path / "out" / "report.json").read_text())["n_images"] == 24


def test_formats_are_listed_and_a_typo_gets_the_nearest(capsys):
    assert call("formats") == 0
    table = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == list(FORMATS)
    assert call("formats", "--json") == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(FORMATS)
    assert call("convert", "x.onnx", "--format", "onxx-int-8", "--calibration", "a", "--out", "b") == 1
    assert "unknown format 'onxx-int-8'; did you mean 'onnx-int8'?" in one_line(capsys)


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
    arguments = ["convert", model, "--weights", weights, "--input-size", 32, *LABELS, *NORMALISE, *EASY, "--calibration",
                 pictures / "images", "--format", "onnx-fp32", "--out", tmp_path / "out", *more]  # fmt: skip
    assert call(*arguments) == 1
    assert cause in one_line(capsys)
    assert not (tmp_path / "out").exists()


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


@pytest.mark.filterwarnings("ignore")  # of the tracing exporter, which alone makes this kind of file
def test_a_dynamic_onnx_file_is_fixed_where_a_size_is_given(network, pictures, images, tmp_path):
    path = tmp_path / "dynamic.onnx"
    torch.onnx.export(network, (torch.zeros(1, 3, 32, 32),), str(path), opset_version=14, dynamo=False,
                      input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})  # fmt: skip
    assert call("convert", path, "--input-size", 32, *NORMALISE, *LABELS, *EASY, "--calibration", pictures / "images",
                "--format", "onnx-fp32", "--out", tmp_path / "out") == 0  # fmt: skip
    model = onnx.load(model_in(tmp_path / "out"))
    assert [(e.domain, e.version) for e in model.opset_import] == [("", 17)]
    got = open_classifier(model_in(tmp_path / "out")).predict(images)
    np.testing.assert_allclose(got, answers(network, images), atol=1e-5)


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


def test_labels_from_files(tmp_path):
    from export.sources import read_label_names

    (tmp_path / "a.json").write_text('{"mel": "melanoma", "nv": "naevus"}')
    (tmp_path / "a.txt").write_text("mel, melanoma\nnv\n")
    assert read_label_names(str(tmp_path / "a.json")) == {"mel": "melanoma", "nv": "naevus"}
    assert read_label_names(str(tmp_path / "a.txt")) == {"mel": "melanoma", "nv": "nv"}
    assert list(read_label_names("b,a")) == ["b", "a"]


def test_a_damaged_picture_to_judge_by_is_named(weights, pictures, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    for k in range(14):
        cv2.imwrite(str(other / f"{k}.png"), np.full((32, 32, 3), 10 * k, np.uint8))
    (other / "13.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    assert factory_call(weights, pictures, tmp_path / "out", "onnx-fp32") == 0
    shutil.rmtree(tmp_path / "out")
    assert call("convert", "tiny_networks:make", "--weights", weights, "--input-size", 32, *LABELS, *EASY, "--calibration",
                pictures / "images", "--verify", other, "--format", "onnx-fp32", "--out", tmp_path / "out") == 1  # fmt: skip
    assert "13.png: " in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_the_manifest_beside_a_model_is_its_own(converted):
    for name in ONNX_FORMATS:
        model = model_in(converted / name)
        manifest = json.loads(manifest_path(model).read_text())
        assert manifest["file"] == model.name
        assert manifest["preprocessing"].startswith("input ")
        assert "folded into the graph" in manifest["preprocessing"]
        assert (manifest["mean"], manifest["std"]) == (0.0, 1.0)
