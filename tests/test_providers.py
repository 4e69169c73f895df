"""Which provider of ONNX Runtime is asked for, and that what loaded is what is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny_models

from edge_mdda.classifier import ModelError, open_classifier, providers

REPOSITORY = Path(__file__).parent.parent
MANIFEST = tiny_models.manifest_for(b"x", "tiny.onnx")
ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def names(chosen: list) -> list[str]:
    return [c if isinstance(c, str) else c[0] for c in chosen]


def test_what_is_asked_for_and_what_is_left_to_others(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert names(providers.wanted("tensorrt", ALL, MANIFEST)) == ALL
    assert names(providers.wanted("cuda", ALL, MANIFEST)) == ALL[1:]
    assert names(providers.wanted("cpu", ALL, MANIFEST)) == ALL[2:]
    assert names(providers.wanted("auto", ALL[1:], MANIFEST)) == ALL[1:]
    assert names(providers.wanted("auto", ["AzureExecutionProvider", ALL[2]], MANIFEST)) == ALL[2:]


def test_tensorrt_engines_are_cached_where_xdg_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    int8 = tiny_models.manifest_for(b"x", "tiny.onnx", target="onnx-int8-tensorrt")
    for manifest, expected in ((MANIFEST, False), (int8, True)):
        options = providers.wanted("tensorrt", ALL, manifest)[0][1]
        assert options["trt_engine_cache_enable"] is True
        assert options["trt_engine_cache_path"] == str(tmp_path / "edge-mdda" / "tensorrt")
        assert options["trt_int8_enable"] is expected
    assert (tmp_path / "edge-mdda" / "tensorrt").is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot make the engine cache"):
        providers.wanted("tensorrt", ALL, MANIFEST)


def test_a_provider_that_fell_back_is_an_error_unless_auto():
    with pytest.raises(ModelError, match="provider 'tensorrt' did not load, ONNX Runtime fell back to CUDA"):
        providers.loaded("tensorrt", ALL[1:])
    with pytest.raises(ModelError, match="provider 'cuda' did not load"):
        providers.loaded("cuda", ALL[2:])
    assert providers.loaded("auto", ALL[2:]) == "CPUExecutionProvider"
    assert providers.loaded("cuda", ALL[1:]) == "CUDAExecutionProvider"


def test_the_dynamic_linkers_words_are_passed_on(tmp_path):
    (tmp_path / "libonnxruntime_providers_shared.so").write_bytes(b"no library")
    with pytest.raises(ModelError, match=r"fell back to CPUExecutionProvider \(.*libonnxruntime_providers_shared.*\);"):
        providers.loaded("cuda", ALL[2:], tmp_path)


def test_the_built_in_model_says_what_runs_it():
    automatic, plain = open_classifier(provider="auto"), open_classifier(provider="cpu")
    assert plain.runtime == f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider"
    assert automatic.runtime.split()[-1] in ALL
    manifest = plain.manifest
    picture = np.full((1, manifest.height, manifest.width, 3), 120, np.uint8)
    assert plain.predict(picture).shape == automatic.predict(picture).shape


def test_providers_that_are_not_there_or_do_not_fit(tmp_path):
    with pytest.raises(ModelError, match="unknown provider 'gpu'; choose one of cpu, cuda, tensorrt, auto"):
        open_classifier(provider="gpu")
    if ALL[0] not in onnxruntime.get_available_providers():
        with pytest.raises(ModelError, match=r"has no provider 'tensorrt' \(it has: "):
            open_classifier(provider="tensorrt")
    pytest.importorskip("ai_edge_litert")
    model = tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model())
    with pytest.raises(ModelError, match=r"provider 'cuda' runs \.onnx files only"):
        open_classifier(model, provider="cuda")
    assert open_classifier(model, provider="auto").runtime.startswith("ai-edge-litert")


def test_the_command_line_takes_a_provider():
    command = [sys.executable, "-m", "edge_mdda", "screen", "--demo", "--purify", "off", "--json", "--provider"]
    good = subprocess.run([*command, "auto"], capture_output=True, text=True, timeout=120, cwd=REPOSITORY)
    assert good.returncode == 0
    assert "ExecutionProvider" in good.stdout
    assert good.stderr == ""
    command.remove("--json")
    text = subprocess.run([*command, "auto"], capture_output=True, text=True, timeout=120, cwd=REPOSITORY)
    assert text.stderr.startswith(f"edge-mdda: the model runs on onnxruntime {onnxruntime.__version__} ")
    command.insert(-1, "--json")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        bad = subprocess.run([*command, "cuda"], capture_output=True, text=True, timeout=120, cwd=REPOSITORY)
        assert bad.returncode == 1
        assert len(bad.stderr.strip().splitlines()) == 1
        assert "has no provider 'cuda'" in bad.stderr
