"""Conversion of strangers' small networks; what is written is checked by means of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("safetensors")

import tiny_networks  # noqa: E402
from conversion import (  # noqa: E402
    EASY,
    LABELS,
    NORMALISE,
    ONNX_FORMATS,
    answers,
    call,
    factory_call,
    model_in,
    one_line,
)
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edge_mdda.classifier import open_classifier  # noqa: E402
from edge_mdda.classifier.manifest import EMBEDDED_KEY, embedded_text, manifest_path  # noqa: E402
from edge_mdda.classifier.verify import onnx_metadata  # noqa: E402
from export.convert.formats import FORMATS  # noqa: E402
from export.convert.sources import trace  # noqa: E402


@pytest.fixture
def float_onnx(network, tmp_path) -> Path:
    """Normalised NCHW float input, static."""
    path = tmp_path / "tiny.onnx"
    onnx.save(trace(network, "NCHW", (32, 32), "tiny"), path)
    return path


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
    from export.convert.parity import Gates, compare, failures

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
    from export.convert.parity import compare

    p, q = np.array([[0.7, 0.2, 0.1]]), np.array([[0.5, 0.3, 0.2]])
    figures = compare(p, q, None, tiny_networks.LABELS)
    expected = 0.7 * np.log(1.4) + 0.2 * np.log(2 / 3) + 0.1 * np.log(0.5)
    assert figures["kl_mean"] == pytest.approx(expected)
    gaps = np.log(p[0] / q[0])
    assert figures["max_logit_error"] == pytest.approx(np.abs(gaps - gaps.mean()).max())


def test_a_float_file_is_never_labelled_int8(converted):
    from export.convert.audit import audit, check
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
    from export.convert.audit import audit

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


def test_labels_from_files(tmp_path):
    from export.convert.labels import read_label_names

    (tmp_path / "a.json").write_text('{"mel": "melanoma", "nv": "naevus"}')
    (tmp_path / "a.txt").write_text("mel, melanoma\nnv\n")
    assert read_label_names(str(tmp_path / "a.json")) == {"mel": "melanoma", "nv": "naevus"}
    assert read_label_names(str(tmp_path / "a.txt")) == {"mel": "melanoma", "nv": "nv"}
    assert list(read_label_names("b,a")) == ["b", "a"]


def test_the_manifest_beside_a_model_is_its_own(converted):
    for name in ONNX_FORMATS:
        model = model_in(converted / name)
        manifest = json.loads(manifest_path(model).read_text())
        assert manifest["file"] == model.name
        assert manifest["preprocessing"].startswith("input ")
        assert "folded into the graph" in manifest["preprocessing"]
        assert (manifest["mean"], manifest["std"]) == (0.0, 1.0)


def test_one_format_can_go_to_a_file_with_its_reports_beside_it(weights, pictures, tmp_path, capsys):
    from edge_mdda.classifier import open_classifier

    target = tmp_path / "models" / "mine.onnx"
    assert factory_call(weights, pictures, target, "onnx-fp32") == 0
    beside = ["mine.onnx", "mine.onnx.json", "mine.onnx.report.json", "mine.onnx.report.md"]
    assert sorted(path.name for path in target.parent.iterdir()) == beside
    manifest = open_classifier(target).manifest
    assert (manifest.name, manifest.file) == ("mine", "mine.onnx")
    assert set(manifest.files) == {"mine.onnx.report.json", "mine.onnx.report.md"}
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    capsys.readouterr()
    assert factory_call(weights, pictures, folder, "onnx-fp32") == 1
    assert "is a folder; name a file with --out" in one_line(capsys)
