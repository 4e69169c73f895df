"""Hostile models and manifests: each is one line and a status other than 0, with bounded memory.

As a board sees them: ``edge-mdda screen --model`` in a process that may not have more than so much memory. No key is
trusted here; where one is, an unsigned file is refused before any of this (test_signature.py).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from conftest import ROOT

from edge_mdda.classifier.manifest import manifest_path
from edge_mdda.models import DEMO_IMAGE

MEMORY = 2 << 30  # bytes of address space; a runtime alone reserves most of one
PATIENCE_S = 120.0


def screened(model: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    command = [sys.executable, "-m", "edge_mdda", "screen", "--purify", "off", "--model", str(model), str(DEMO_IMAGE)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, preexec_fn=bounded, timeout=PATIENCE_S
    )


def refused(model: Path, folder: Path) -> str:
    """The one line; it judges nothing and writes nothing."""
    before = sorted(path.name for path in folder.rglob("*"))
    done = screened(model, folder)
    lines = [line for line in done.stderr.splitlines() if line.startswith("edge-mdda: ")]
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr[-500:])
    assert len(lines) == 1 and len(lines[0]) < 600, done.stderr[-1500:]
    assert "Traceback" not in done.stderr
    assert not any(word in done.stdout for word in ("ROUTINE", "REFER", "RETAKE"))
    assert "\x1b" not in done.stderr
    assert sorted(path.name for path in folder.rglob("*")) == before
    return lines[0]


# -- manifests ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[bytes, dict[str, Any]]:
    pytest.importorskip("ai_edge_litert")
    content = tiny_models.tflite_model()
    return content, json.loads(tiny_models.manifest_for(content, "m.tflite").to_json())


def with_manifest(folder: Path, good: tuple[bytes, dict[str, Any]], text: str) -> Path:
    path = folder / "m.tflite"
    path.write_bytes(good[0])
    manifest_path(path).write_text(text)
    return path


def test_the_model_that_the_others_are_made_of_is_good(tmp_path, good):
    assert screened(with_manifest(tmp_path, good, json.dumps(good[1])), tmp_path).returncode == 0


CHANGES: dict[str, dict[str, Any]] = {
    "refer NaN": {"refer_at": float("nan")},
    "refer infinite": {"refer_at": float("inf")},
    "refer negative": {"refer_at": -0.1},
    "refer huge": {"refer_at": 1e300},
    "refer true": {"refer_at": True},
    "refer text": {"refer_at": "0.5"},
    "refer nothing": {"refer_at": None},
    "retake NaN": {"retake_at": float("nan")},
    "retake negative": {"retake_at": -1},
    "temperature NaN": {"temperature": float("nan")},
    "temperature zero": {"temperature": 0},
    "temperature huge": {"temperature": 1e9},
    "mean huge": {"mean": 1e300},
    "mean NaN": {"mean": float("nan")},
    "deviation nothing": {"std": 0},
    "deviation tiny": {"std": 1e-300},
    "a side of a billion": {"height": 10**9},
    "a negative side": {"width": -224},
    "a side of a fraction": {"width": 16.5},
    "one label": {"labels": {"a": "only"}},
    "labels as a list": {"labels": ["a", "b", "c"]},
    "a label that is a number": {"labels": {"a": 1, "b": "x", "c": "y"}},
    "a label that steers a terminal": {"labels": {"a": "\x1b[2J", "b": "x", "c": "y"}},
    "a million labels": {"labels": {f"l{n}": "x" for n in range(30_000)}},
    "malignant elsewhere": {"malignant": ["z"]},
    "malignant empty": {"malignant": []},
    "more labels than outputs": {"labels": {"a": "x", "b": "y", "c": "z", "d": "w"}},
    "a file elsewhere": {"files": {"../../etc/passwd": "0" * 64}},
    "another format": {"format": 2},
    "a field nobody knows": {"\x1b[2Jrun": "rm -rf /"},
    "a name that is a list": {"name": ["x"]},
    "a long text": {"notes": "x" * 500_000},
    "another file's hash": {"sha256": "0" * 64},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_manifest_that_is_wrong(tmp_path, good, name):
    refused(with_manifest(tmp_path, good, json.dumps({**good[1], **CHANGES[name]})), tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"a":' * 50_000, "1" * 5000, "\ud800"[:0] + "é{"]
)
def test_a_manifest_that_is_none(tmp_path, good, text):
    refused(with_manifest(tmp_path, good, text), tmp_path)


def test_a_label_twice(tmp_path, good):
    text = json.dumps(good[1]).replace('"b": "class b"', '"b": "class b", "b": "benign"')
    assert "twice" in refused(with_manifest(tmp_path, good, text), tmp_path)
    text = json.dumps(good[1]).replace('"refer_at": 0.5', '"refer_at": 0.5, "refer_at": 1.0')
    assert "twice" in refused(with_manifest(tmp_path, good, text), tmp_path)


def test_a_manifest_that_is_large_a_pipe_or_a_device(tmp_path, good):
    model = with_manifest(tmp_path, good, " " * (3 << 20))
    refused(model, tmp_path)
    manifest_path(model).unlink()
    os.mkfifo(manifest_path(model))
    refused(model, tmp_path)
    manifest_path(model).unlink()
    manifest_path(model).symlink_to("/dev/zero")
    refused(model, tmp_path)


# -- TFLite -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["empty", "noise", "cut", "only its name"])
def test_a_tflite_file_that_is_none(tmp_path, good, kind):
    content = {
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(5000),
        "cut": good[0][: len(good[0]) // 2],
        "only its name": good[0][:8],
    }[kind]
    refused(tiny_models.save(tmp_path, "m.tflite", content), tmp_path)


# -- ONNX ---------------------------------------------------------------------------------------------


def onnx_model(change: str, folder: Path) -> bytes:
    """A small graph with one thing wrong in it."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    side = tiny_models.SIDE
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, side, side, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 3], tiny_models.WEIGHTS.tobytes(), raw=True)
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["logits"]),
    ]
    initial, opsets = [weights], [helper.make_opsetid("", 13)]
    if change.startswith("external"):
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        place = {"external": "weights.bin", "external above": "../weights.bin", "external root": "/etc/passwd"}[change]
        entry = weights.external_data.add()
        entry.key, entry.value = "location", place
        (folder / "weights.bin").write_bytes(tiny_models.WEIGHTS.tobytes())
    if change == "an operator of its own":
        nodes[1] = helper.make_node("Evil", ["m", "w"], ["logits"], domain="evil.example")
        opsets.append(helper.make_opsetid("evil.example", 1))
    if change == "an unknown operator":
        nodes[1] = helper.make_node("NoSuchThing", ["m", "w"], ["logits"])
    if change == "a shape of 8 GB":
        initial[0] = helper.make_tensor("w", TensorProto.FLOAT, [3, 3], tiny_models.WEIGHTS.tobytes(), raw=True)
        initial[0].dims[:] = [1 << 16, 1 << 15]
    if change in ("8 GB of zeros", "2 GB of zeros"):
        size = [1 << 16, 1 << (15 if change[0] == "8" else 13)]
        shape = helper.make_tensor("shape", TensorProto.INT64, [2], size)
        initial.append(shape)
        nodes[:0] = [helper.make_node("ConstantOfShape", ["shape"], ["zeros"])]
        nodes += [
            helper.make_node("ReduceSum", ["zeros"], ["sum"]),
            helper.make_node("Add", ["logits", "sum"], ["end"]),
        ]
        logits = helper.make_tensor_value_info("end", TensorProto.FLOAT, None)
    if change == "a negative shape":
        initial[0].dims[:] = [-3, -3]
    if change == "a circle":
        nodes = [helper.make_node("Add", ["x", "pixels"], ["y"]), helper.make_node("Add", ["y", "pixels"], ["x"])]
        logits = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, side, side, 3])
    if change == "another input":
        pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 7, 7, 3])
    if change == "no output":
        logits = helper.make_tensor_value_info("nowhere", TensorProto.FLOAT, [1, 3])
    if change == "answers that are no numbers":
        initial[0] = helper.make_tensor(
            "w", TensorProto.FLOAT, [3, 3], np.full((3, 3), np.nan, np.float32).tobytes(), raw=True
        )
    graph = helper.make_graph(nodes, "g", [pixels], [logits], initial)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


ONNX_CHANGES = [
    "external",
    "external above",
    "external root",
    "an operator of its own",
    "an unknown operator",
    "a shape of 8 GB",
    "8 GB of zeros",
    "2 GB of zeros",
    "a negative shape",
    "a circle",
    "another input",
    "no output",
    "answers that are no numbers",
]


@pytest.fixture
def onnx_folder(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(tiny_models.WEIGHTS.tobytes())
    return folder


def test_the_graph_that_the_others_are_made_of_is_good(onnx_folder):
    model = tiny_models.save(onnx_folder, "m.onnx", onnx_model("nothing", onnx_folder))
    done = screened(model, onnx_folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("change", ONNX_CHANGES)
def test_a_graph_that_is_hostile(onnx_folder, change):
    content = onnx_model(change, onnx_folder)
    refused(tiny_models.save(onnx_folder, "m.onnx", content), onnx_folder)


@pytest.mark.parametrize("kind", ["empty", "noise", "cut"])
def test_an_onnx_file_that_is_none(onnx_folder, kind):
    whole = onnx_model("nothing", onnx_folder)
    content = {"empty": b"", "noise": np.random.default_rng(1).bytes(5000), "cut": whole[: len(whole) // 2]}[kind]
    refused(tiny_models.save(onnx_folder, "m.onnx", content), onnx_folder)
