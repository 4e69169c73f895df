"""The TFLite tool environment: what is said without it, and a real conversion where it is there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("ai_edge_litert")

import tiny_networks  # noqa: E402

from edge_mdda.classifier import open_classifier  # noqa: E402
from export.__main__ import main  # noqa: E402
from export.convert import tflite  # noqa: E402
from export.convert.audit import audit  # noqa: E402
from export.errors import ExportError  # noqa: E402

HAS_TOOLS = (tflite.environment() / "bin" / "python").is_file()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(tiny_networks.trained().state_dict(), path)
    return path


def convert(weights: Path, folder: Path, formats: str, *more: str) -> int:
    tiny_networks.write_pictures(folder / "pictures", 16)
    images = folder / "pictures"
    names = {
        "--weights": weights,
        "--input-size": 32,
        "--labels": ",".join(tiny_networks.LABELS),
        "--malignant": "dark",
        "--mean": ",".join(map(str, tiny_networks.MEAN)),
        "--std": ",".join(map(str, tiny_networks.STD)),
        "--calibration": images / "images",
        "--verify-labels": images / "truth.csv",
        "--format": formats,
        "--out": folder / "out",
        "--min-images": 12,
    }
    options = [str(part) for pair in names.items() for part in pair]
    return main(["convert", "tiny_networks:make", *options, *more])


def test_the_environment_is_looked_for_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv(tflite.ENVIRONMENT_VARIABLE, "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert tflite.environment() == tmp_path / "edge-mdda" / "tflite-env"
    monkeypatch.setenv(tflite.ENVIRONMENT_VARIABLE, str(tmp_path / "other"))
    assert tflite.environment() == tmp_path / "other"
    assert tflite.environment(Path("mine")) == Path("mine")


def test_without_tools_the_first_line_says_how_to_make_them(weights, tmp_path, capsys):
    assert convert(weights, tmp_path, "onnx-fp32,tflite-int8", "--tflite-env", str(tmp_path / "none")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"no TFLite tools in {tmp_path / 'none'}" in line
    assert f"python -m export setup tflite --tflite-env {tmp_path / 'none'}" in line
    assert not (tmp_path / "out").exists()


def test_setup_prints_the_exact_commands(tmp_path, capsys):
    assert main(["setup", "tflite", "--print", "--tflite-env", str(tmp_path / "env")]) == 0
    make, install, probe = capsys.readouterr().out.splitlines()
    assert make.split()[1:] == ["-m", "venv", str(tmp_path / "env")]
    assert "litert-torch==0.10.0" in install.split()
    assert "litert_torch" in probe
    assert not (tmp_path / "env").exists()


def test_an_environment_without_the_packages_is_one_line(weights, tmp_path, capsys):
    """A real interpreter that lacks them."""
    import venv

    venv.create(tmp_path / "bare", with_pip=False)
    assert convert(weights, tmp_path, "tflite-fp32", "--tflite-env", str(tmp_path / "bare")) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("export:")]
    assert "the TFLite tools failed: ModuleNotFoundError: No module named 'litert_torch'" in line
    assert not (tmp_path / "out").exists()


def test_an_interpreter_that_says_nothing_is_one_line(tmp_path):
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport sys; sys.exit(3)\n")
    script.chmod(0o755)
    with pytest.raises(ExportError, match="stopped with status 3: no message"):
        tflite.ask(script, tmp_path / "job.json")
    with pytest.raises(ExportError, match="cannot be run"):
        tflite.ask(tmp_path / "nobody", tmp_path / "job.json")


@pytest.mark.skipif(
    not HAS_TOOLS, reason=f"no TFLite tools; set {tflite.ENVIRONMENT_VARIABLE}, or: export setup tflite"
)
def test_a_real_conversion(weights, tmp_path):
    before = dict(os.environ)
    assert convert(weights, tmp_path, "tflite-int8,tflite-fp32") == 0
    assert dict(os.environ) == before
    rng = np.random.default_rng(9)
    images = np.stack([tiny_networks.picture(k % 3, rng) for k in range(9)])
    x = torch.from_numpy((images.astype(np.float32) - np.float32(tiny_networks.MEAN)) / np.float32(tiny_networks.STD))
    network = tiny_networks.trained()
    with torch.inference_mode():
        expected = torch.softmax(network(x.permute(0, 3, 1, 2)), 1).numpy()
    for name, tolerance, kind in (("tflite-fp32", 1e-4, "fp32"), ("tflite-int8", 0.1, "int8")):
        (path,) = (tmp_path / "out" / name).glob("*.tflite")
        np.testing.assert_allclose(open_classifier(path).predict(images), expected, atol=tolerance)
        found = audit(path.read_bytes(), ".tflite")
        assert "TRANSPOSE" not in found["operators"]
        assert found[f"{kind}_layers"] == found["layers"] == 5
        report = json.loads((tmp_path / "out" / name / "report.json").read_text())
        assert report["format"] == name
        assert report["runtime"].startswith("ai-edge-litert")
        assert report["tools"]["litert-torch"] == "0.10.0"


@pytest.mark.skipif(
    not HAS_TOOLS, reason=f"no TFLite tools; set {tflite.ENVIRONMENT_VARIABLE}, or: export setup tflite"
)
def test_the_stem_stays_in_float_and_the_last_layer_with_the_output():
    from export.convert.graphs import make_core
    from export.convert.sources import trace

    traced = trace(tiny_networks.trained(), "NCHW", (32, 32), "tiny")
    core = make_core(traced, "tiny", "NCHW", tiny_networks.MEAN, tiny_networks.STD, 3)
    rng = np.random.default_rng(0)
    pixels = np.stack([tiny_networks.picture(k % 3, rng) for k in range(9)])
    content, _ = tflite.convert(core, pixels, "minmax", None, float_first=1)
    found = audit(content, ".tflite")
    # Input and output are float32 then (see tflite.convert), so the layer that writes the output is in float as well;
    # the converter allows for it, see Conversion._float_layers.
    assert (found["int8_layers"], found["fp32_layers"]) == (3, 2)
    assert found["layers"] == 5
