"""``edge-mdda doctor``: real child processes that load, fail and crash; boards are in test_board.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from board_trees import put
from conftest import ROOT

from edge_mdda import NOTICE, packages
from edge_mdda.classifier import built_in
from edge_mdda.diagnostics import doctor
from edge_mdda.diagnostics.finding import COLOURS, FAILED, OK, UNKNOWN, WARNING, Finding, is_fit, print_table, verdict
from edge_mdda.hardware.child_process import ChildError, run_module


def edge_mdda(*arguments: object, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process; ``path`` stands first on its PYTHONPATH."""
    python_path = os.pathsep.join(map(str, [*([path] if path else []), ROOT]))
    done = subprocess.run(
        [sys.executable, "-m", "edge_mdda", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": python_path, **environment},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def broken_package(folder: Path, name: str, code: str) -> Path:
    """A package that does something bad when it is imported, and has the version of no package."""
    put(folder, {f"{name}/__init__.py": code})
    return folder


SUICIDE = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"


# -- packages and model -------------------------------------------------------------------------------


def test_packages_that_do_not_go_together():
    pair = {"numpy": "2.4.6", "tflite-runtime": "2.14.0"}
    alone = doctor.packages(pair, [])
    assert (alone.status, "numpy<2" in alone.advice) == (FAILED, True)
    assert doctor.packages({**pair, "ai-edge-litert": "2.3.0"}, []).status == WARNING
    assert doctor.packages({**pair, "numpy": "1.26.4"}, []).status == OK


def test_packages_outside_the_programs_own_limits():
    own = [
        "numpy<3,>=1.26",
        "onnxruntime<2,>=1.19",
        'numba<1,>=0.61; platform_machine != "aarch64"',
        'torch; extra == "x"',
    ]
    assert doctor.packages({"numpy": "2.4.6", "onnxruntime": "1.31.1"}, own).status == OK
    old = doctor.packages({"numpy": "2.0.0rc1", "onnxruntime": "1.17.3"}, own)
    assert (old.status, "onnxruntime" in old.advice) == (WARNING, True)


def test_the_model_and_its_manifest(tmp_path):
    assert doctor.model_integrity(built_in()).status == OK
    altered = tmp_path / built_in().name
    altered.write_bytes(built_in().read_bytes() + b"\0")
    (tmp_path / f"{built_in().name}.json").write_bytes(built_in().with_name(f"{built_in().name}.json").read_bytes())
    assert doctor.model_integrity(altered).status == FAILED
    assert doctor.model_integrity(tmp_path / "none.onnx").status == FAILED


def test_doctor_wants_of_a_model_what_screen_wants(tmp_path, monkeypatch):
    pytest.importorskip("nacl")
    from edge_mdda.classifier.signature import VARIABLE, sign
    from edge_mdda.classifier.verify import verify_model

    model = tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model())
    manifest = json.loads((tmp_path / "tiny.tflite.json").read_text())
    signature = tmp_path / "tiny.tflite.sig"
    signature.write_text(sign(manifest, b"1" * 32))
    key = verify_model(model, frozenset()).signed_by
    assert doctor.model_integrity(model).status == OK  # no key is trusted: nothing is asked
    keys = tmp_path / "keys"
    monkeypatch.setenv(VARIABLE, str(keys))
    missing = doctor.model_integrity(model)
    assert (missing.status, "trusted keys" in missing.value) == (FAILED, True)
    keys.write_text(f"{key}\n")
    assert doctor.model_integrity(model).status == OK
    keys.write_text("ab" * 32)
    stranger = doctor.model_integrity(model)
    assert (stranger.status, "not trusted" in stranger.value) == (FAILED, True)
    monkeypatch.delenv(VARIABLE)
    signature.write_text(sign({**manifest, "name": "another"}, b"1" * 32))
    assert doctor.model_integrity(model).status == WARNING


# -- children -----------------------------------------------------------------------------------------


def test_a_child_that_dies_is_one_line(tmp_path, monkeypatch):
    codes = {
        "illegal": SUICIDE,
        "killed": SUICIDE.replace("SIGILL", "SIGKILL"),
        "usr1": SUICIDE.replace("SIGILL", "SIGUSR1"),
        "fails": "raise SystemExit('no\\tluck')",
        "silent": "",
        "slow": "import time; time.sleep(60)",
        "chatty": "import sys\nprint('{broken')\nprint('{\"a\": 1}')\nprint('hello')\nsys.stderr.write('x' * 300000)",
    }
    put(tmp_path, {f"{name}.py": code for name, code in codes.items()})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, words in {
        "illegal": "instruction that this CPU lacks",
        "killed": "SIGKILL",
        "usr1": "SIGUSR1",
        "fails": "luck",
        "silent": "without an answer",
    }.items():
        with pytest.raises(ChildError, match=words):
            run_module(name)
    with pytest.raises(ChildError, match="no answer within"):
        run_module("slow", timeout=0.5)
    assert run_module("chatty") == {"a": 1}


def test_a_crashing_runtime_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(broken_package(tmp_path, "onnxruntime", SUICIDE)))
    examination = doctor.Examination()
    found = examination.runtime("onnx")
    assert (found.status, "instruction" in found.value) == (FAILED, True)
    screening = examination.screening()
    assert (screening.status, "instruction" in screening.value) == (FAILED, True)


def test_a_runtime_that_the_model_does_not_need_may_crash(tmp_path, monkeypatch):
    folder = broken_package(tmp_path, "ai_edge_litert", SUICIDE)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    found = doctor.Examination().runtime("tflite")
    assert (found.status, "instruction" in found.value) == (WARNING, True)


def test_a_tflite_model_runs(tmp_path):
    pytest.importorskip("ai_edge_litert")
    model = tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model())
    examination = doctor.Examination(model=model)
    found = examination.runtime("tflite")
    assert (found.status, "runs tiny" in found.value) == (OK, True), found
    assert examination.screening().status == OK
    assert examination.models[".onnx"] == built_in()


def test_a_missing_runtime(monkeypatch):
    monkeypatch.setitem(packages.MODULES, "onnx", ("surely_not_installed",))
    monkeypatch.setitem(packages.MODULES, "tflite", ("surely_not_installed",))
    needed, other = (doctor.Examination().runtime(name) for name in ("onnx", "tflite"))
    assert (needed.status, needed.advice) == (FAILED, "pip install surely-not-installed")
    assert (other.status, other.value) == (UNKNOWN, "not installed")


def test_without_numpy_the_rest_is_not_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(broken_package(tmp_path, "numpy", SUICIDE)))
    examination = doctor.Examination()
    assert examination.numpy().status == FAILED
    rest = (examination.opencv(), examination.runtime("onnx"), examination.kernels(), examination.screening())
    assert {found.status for found in rest} == {UNKNOWN}


def test_a_refused_library_is_named_and_a_missing_one_fails(tmp_path, monkeypatch):
    put(tmp_path, {"kernels-znver9.json": "{}"})
    monkeypatch.setenv("EDGE_MDDA_KERNELS_DIR", str(tmp_path))
    pytest.importorskip("numba")
    refused = doctor.Examination().kernels()
    assert (refused.status, "kernels-znver9.json" in refused.value) == (WARNING, True)
    monkeypatch.setenv("EDGE_MDDA_KERNELS", "native")
    assert doctor.Examination().kernels().status == FAILED


# -- the command --------------------------------------------------------------------------------------


def test_doctor_as_json_says_fit_on_this_machine_unless_something_failed():
    done = edge_mdda("doctor", "--json")
    answer = json.loads(done.stdout)
    assert done.stderr == ""
    assert answer["notice"] == NOTICE
    by_name = {finding["name"]: finding for finding in answer["findings"]}
    assert {"system", "python", "numpy", "runtime onnx", "runtime tflite", "kernels", "model", "screening"} <= set(
        by_name
    )
    assert {"memory", "swap", "clock", "file system", "disk", "camera", "temperature", "throttling"} <= set(by_name)
    for name in ("numpy", "opencv", "runtime onnx", "model", "screening"):
        assert by_name[name]["status"] == OK, by_name[name]
    assert "CPUExecutionProvider" in by_name["runtime onnx"]["value"]
    assert answer["fit"] == all(finding["status"] != FAILED for finding in answer["findings"])
    assert done.returncode == (0 if answer["fit"] else 1)


def test_doctor_with_a_crashing_numpy_prints_its_table_and_fails(tmp_path):
    done = edge_mdda("doctor", path=broken_package(tmp_path, "numpy", SUICIDE), COLUMNS="70")
    assert done.returncode == 1
    assert done.stderr == ""
    assert "NOT fit to screen: numpy" in done.stdout
    assert NOTICE in done.stdout
    assert "\033" not in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-3])) <= 70


def test_a_model_that_is_not_there_is_a_finding(tmp_path):
    findings = doctor.Examination(model=tmp_path / "none.tflite", timeout=60)
    assert findings.screening().status == FAILED
    assert findings.models[".tflite"] == tmp_path / "none.tflite"


@pytest.mark.parametrize(
    ("setting", "value", "cause"),
    [("EDGE_MDDA_MODELS", "/nonexistent", "cannot be read"), ("EDGE_MDDA_RUNTIME", "abacus", "must be one of")],
)
def test_a_wrong_setting_is_a_finding_beside_all_others(setting, value, cause):
    """What is wrong with the models must not keep the doctor from telling the rest."""
    table = edge_mdda("doctor", **{setting: value})
    assert (table.returncode, table.stderr) == (1, "")
    assert "NOT fit to screen" in table.stdout
    assert {"numpy", "memory", "kernels"} <= {word for line in table.stdout.splitlines() for word in line.split()[1:2]}
    answer = json.loads(edge_mdda("doctor", "--json", **{setting: value}).stdout)
    by_name = {finding["name"]: finding for finding in answer["findings"]}
    assert answer["fit"] is False
    assert by_name["numpy"]["status"] == OK
    assert by_name["screening"]["status"] == FAILED
    assert cause in by_name["model"]["value"]
    assert setting in by_name["model"]["value"]


class Terminal:
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)


def test_the_table_has_colour_on_a_terminal_only_where_it_is_wanted(monkeypatch):
    findings = [
        Finding("a", OK, "fine"),
        Finding("b", FAILED, "bad\033[31m\nline", "mend it"),
        Finding("c", WARNING, "hm"),
    ]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    print_table(findings, coloured)
    assert COLOURS[FAILED] in coloured.text
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(findings, plain)
    assert "\033" not in plain.text
    assert "-> mend it" in plain.text
    assert verdict(findings) == "NOT fit to screen: b; look at: c"
    assert not is_fit(findings)
    with pytest.raises(ValueError, match="status"):
        Finding("a", "superb", "x")
