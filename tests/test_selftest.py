"""``edge-mdda selftest``: agrees with the shipped golden values, and notices when something is not as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert")

from edge_mdda.classifier import BUILT_IN_MODELS, MODELS_SETTING, RUNTIME_SETTING, ModelError, built_in, models_here
from edge_mdda.cli.main import main
from edge_mdda.diagnostics import selftest
from edge_mdda.diagnostics.finding import FAILED, OK


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """A folder with the built-in models and their golden values, in use."""
    for path in built_in().parent.iterdir():
        if path.is_file() and path.suffix != ".py":
            shutil.copy(path, tmp_path)
    monkeypatch.setenv(MODELS_SETTING, str(tmp_path))
    return tmp_path


def test_the_built_in_models_compute_what_was_recorded(capsys):
    assert main(["selftest", "--json", "--runtime", "tflite", "--runtime", "onnx"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is True
    titles = [f"selftest {runtime}{name}" for runtime in ("tflite", "onnx") for name in ("", " hardened", " broad")]
    assert [(found["name"], found["status"]) for found in answer["findings"]] == [(title, OK) for title in titles]
    assert "never a diagnosis" in answer["notice"]


def test_what_is_recorded_again_agrees(models):
    written = selftest.record(models, [built_in("tflite")])
    assert {path.name for path in written} == {"golden.json", "golden-224x224.png"}
    answer = selftest.compare("tflite")
    assert (answer["purified_worst"], answer["probability_worst"] < 1e-4) == (0, True)


def test_other_probabilities_and_other_pixels_fail(models):
    golden = json.loads((models / selftest.GOLDEN).read_text())
    for entry in golden["models"].values():
        entry["raw"]["mel"] += 2 * selftest.MAX_PROBABILITY
    (models / selftest.GOLDEN).write_text(json.dumps(golden))
    answer = selftest.compare("tflite")
    assert answer["probability_worst"] > selftest.MAX_PROBABILITY
    assert selftest._judge("x", answer).status == FAILED
    assert selftest._judge("x", {**answer, "probability_worst": 0.0}).status == OK
    assert selftest._judge("x", {**answer, "probability_worst": 0.0, "purified_worst": 2}).status == FAILED


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "preset": "mild", "seed": 1}'])
def test_unusable_golden_values_cost_one_line(models, content):
    (models / selftest.GOLDEN).write_text(content)
    with pytest.raises(ModelError, match=r"golden\.json: not usable \([^\n]*\); record them again$"):
        selftest.read_golden(models)


def test_a_damaged_golden_picture_and_an_unknown_model_are_refused(models):
    picture = models / "golden-224x224.png"
    picture.write_bytes(picture.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is damaged"):
        selftest.compare("tflite")
    golden = json.loads((models / selftest.GOLDEN).read_text())
    (models / selftest.GOLDEN).write_text(json.dumps({**golden, "models": {}}))
    with pytest.raises(ModelError, match="know no such model"):
        selftest.compare("tflite")


def test_a_folder_of_models_holds_one_for_each_runtime(models, monkeypatch, tmp_path):
    assert built_in("onnx").parent == models
    monkeypatch.setenv(RUNTIME_SETTING, "tflite")
    assert built_in().suffix == ".tflite"
    shutil.copy(built_in("onnx"), models / "second.onnx")
    with pytest.raises(ModelError, match=r"expected one model ending in \.onnx"):
        built_in("onnx")
    monkeypatch.setenv(RUNTIME_SETTING, "tensorflow")
    with pytest.raises(ModelError, match=RUNTIME_SETTING):
        built_in()
    monkeypatch.setenv(RUNTIME_SETTING, "onnx")
    monkeypatch.setenv(MODELS_SETTING, str(tmp_path / "none"))
    with pytest.raises(ModelError, match="cannot be read"):
        built_in()


def test_a_folder_of_models_may_hold_named_ones_beside_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv(MODELS_SETTING, str(tmp_path))
    hardened = BUILT_IN_MODELS["hardened"] + ".tflite"
    (tmp_path / "clinic.tflite").touch()
    assert built_in("tflite") == tmp_path / "clinic.tflite"
    assert models_here("tflite") == ["standard"]
    with pytest.raises(ModelError, match="holds no"):
        built_in("tflite", "hardened")
    (tmp_path / hardened).touch()
    assert built_in("tflite") == tmp_path / "clinic.tflite"
    assert built_in("tflite", "hardened") == tmp_path / hardened
    assert models_here("tflite") == ["standard", "hardened"]
    (tmp_path / "another.tflite").touch()
    with pytest.raises(ModelError, match=r"expected one model ending in \.tflite, found 2"):
        built_in("tflite")
