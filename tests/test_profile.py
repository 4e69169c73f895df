"""``edge-mdda profile``: the command, and real, short measurements; what it reports is in test_profile_report.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from conftest import ROOT
from test_doctor import SUICIDE, broken_package, edge_mdda

from edge_mdda.errors import ProfileError
from edge_mdda.mdda.purifier import PRESETS, MddaParams, Purifier
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.profiling import run as profiling
from edge_mdda.profiling.case import Case, measure
from edge_mdda.profiling.kernel_times import KernelClock, purifier_detail
from edge_mdda.profiling.run import Plan, profile, thread_counts

# -- the command --------------------------------------------------------------------------------------


def test_a_sweep_has_a_row_for_each_case_and_a_crash_is_one(tmp_path):
    broken = broken_package(tmp_path / "stub", "ai_edge_litert", SUICIDE)
    model = tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model())
    data = tmp_path / "s.json"
    built_in = ROOT / "edge_mdda/models/lesion-lite0-int8.onnx"
    done = edge_mdda(
        "profile", "--calls", 2, "--warmup", 0, "--preset", "off", "--sweep=runtimes", "--model", built_in,
        "--model", model, "--json", data, path=broken,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    good, crashed = json.loads(data.read_text())["sweep"]
    assert good["stages"]["total"]["n"] == 2
    assert "purify" not in good["stages"]
    assert "instruction" in crashed["failed"]
    assert "failed: it uses an instruction" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "0"],
        ["--calls", "0"],
        ["--minutes", "-1"],
        ["--calls", "1.5"],
        ["--calls", "5", "--seconds", "5"],
        ["--sweep=colours"],
        ["--preset", "heroic"],
        ["--compare", "a.json"],
        ["--compare", "a.json", "b.json", "--html", "x.html"],
        ["--json", "same", "--html", "same"],
    ],
)
def test_wrong_usage_has_status_2(arguments, capsys):
    from edge_mdda.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["profile", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_file_that_cannot_be_written_is_said_before_the_measuring(tmp_path, capsys, option):
    from edge_mdda.cli.main import main

    for target in (tmp_path / "no" / "folder", tmp_path, "/proc/nothing", "/dev/full"):
        assert main(["profile", option, str(target)]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert len(said.err.splitlines()) == 1
        assert str(target) in said.err


HANG = """\
import sys, time
if sys.argv[0].endswith("case.py"):  # the measurement; the starts before it are let through
    time.sleep(600)
sys.path.remove(__file__.rpartition("/onnxruntime/")[0])
del sys.modules["onnxruntime"]
import onnxruntime
"""


def test_a_runtime_that_hangs_ends_by_a_time_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(broken_package(tmp_path, "onnxruntime", HANG)))
    monkeypatch.setattr(profiling, "SILENCE_S", 3.0)
    case = Case(str(DEMO_IMAGE), preset="off", calls=1)
    with pytest.raises(ProfileError, match=r"the measurement failed: no sign of life for 3 s; try edge-mdda doctor"):
        profile(Plan(case))


def test_the_provider_reaches_the_measurement_and_spares_litert():
    done = edge_mdda("profile", "--calls", 1, "--preset", "off", "--provider", "cuda")
    if done.returncode == 0:
        assert "CUDA" in done.stdout
    else:
        assert "CUDA" in done.stderr or "cuda" in done.stderr
    case = Case("x.jpg", calls=1, provider="auto")
    cases = Plan(case, models=(Path("a.tflite"),), sweep=("runtimes",), sweep_case=case).cases()
    assert [(one.model, one.provider) for one in cases] == [("a.tflite", "cpu"), (None, "auto")]


def test_a_bad_image_or_model_is_one_line(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    for arguments in (["none.jpg"], [tmp_path / "text.jpg"], [tmp_path], ["--model", tmp_path / "none.onnx"]):
        done = edge_mdda("profile", "--calls", 2, *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
        assert str(arguments[-1]) in done.stderr


def test_help_shows_examples_and_imports_nothing_heavy():
    probe = (
        "import sys\nfrom edge_mdda.cli.main import main\n"
        "for command in ('doctor', 'profile'):\n"
        "    try:\n        main([command, '--help'])\n    except SystemExit:\n        pass\n"
        "heavy = {'numpy', 'numba', 'cv2', 'onnxruntime', 'subprocess', 'ctypes'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stderr.strip() == "[]"
    assert done.stdout.count("examples:") == 2
    assert "edge-mdda profile --compare before.json after.json" in done.stdout


def test_reporting_loads_no_numpy():
    modules = "edge_mdda.profiling.run, edge_mdda.profiling.report_html, edge_mdda.diagnostics.doctor"
    probe = f"import sys, {modules}; print('numpy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


# -- measuring ----------------------------------------------------------------------------------------


def test_a_case_needs_a_length():
    for length in ({}, {"calls": 3, "seconds": 1.0}, {"calls": 0}, {"seconds": 0.0}, {"seconds": -1.0}):
        with pytest.raises(ProfileError):
            Case("x.jpg", **length)
    case = Case("x.jpg", seconds=1.5, detail=True)
    assert Case.from_json(case.to_json()) == case


def test_seconds_are_kept_and_reported_on():
    shares: list[float] = []
    result = measure(Case(str(DEMO_IMAGE), preset="off", warmup=0, seconds=0.6), shares.append)
    assert result["stages"]["total"]["n"] >= 1
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert result["purify_detail"] is None


def test_a_failed_start_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(broken_package(tmp_path, "onnxruntime", SUICIDE)))
    with pytest.raises(ProfileError, match="doctor"):
        profile(Plan(Case(str(DEMO_IMAGE), calls=1)))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_plane_is_put_to_its_block_and_scale(kernels, drawn_image, preset, threads):
    """With one and with several channels at a time; and the clock does not change the picture."""
    params = PRESETS[preset]
    clock = KernelClock(kernels, params)
    with Purifier(64, 50, params, threads, kernels=clock.kernels) as purifier:
        purified = purifier.purify(drawn_image[:64, :50].copy(), 3)
    table = clock.table()
    assert np.shape(table) == (params.n_blocks, len(params.scales))
    with Purifier(64, 50, params) as plain:
        np.testing.assert_array_equal(purified, plain.purify(drawn_image[:64, :50].copy(), 3))


def test_the_clock_sorts_calls_in_any_order_and_knows_when_it_cannot():
    params = MddaParams(n_blocks=2)  # and four scales
    plane = [np.zeros((side, side), np.float32) for side in (64, 32, 16, 8)]
    calls: list[int] = []
    clock = KernelClock({"dda_plane": lambda *arguments: calls.append(arguments[9])}, params)

    def call(scale: int, sample: int) -> None:
        clock.kernels["dda_plane"](None, None, None, plane[scale], *[0] * 5, np.uint32(sample))

    numbered = [(scale, 1000 * n) for n, scale in enumerate(s for _ in range(2) for s in range(4) for _ in range(3))]
    for order in (numbered, numbered[::-1], numbered[::2] + numbered[1::2]):
        calls.clear()
        clock.start()
        for scale, sample in order:
            call(scale, sample)
        assert len(calls) == 24
        assert np.shape(clock.table()) == (2, 4)
        assert [row[0] for row in clock.table()] == [
            pytest.approx(sum(t for n, t in clock._planes[64, 64] if low <= n < low + 12_000)) for low in (0, 12_000)
        ]
    call(0, 99)  # one more than there should be
    assert clock.table() is None
    clock.start()
    assert clock.table() is None


def test_detail_covers_the_whole_purifier(kernels, drawn_image):
    params = MddaParams(n_blocks=3)  # and four scales
    detail = purifier_detail(drawn_image[:64, :64].copy(), "strong", params, kernels, 3)
    assert np.shape(detail["blocks_ms"]) == (3, 4)
    assert {"unpack", "pack", "smooth"} <= set(detail["kernels_ms"])
    assert detail["between_ms"] >= 0


def test_the_sweep_is_every_combination():
    assert [thread_counts(n) for n in (1, 2, 4, 6)] == [[1], [1, 2], [1, 2, 4], [1, 2, 4, 6]]
    case = Case("x.jpg", calls=1)
    plan = Plan(case, sweep=("presets",), sweep_case=case)
    assert [one.preset for one in plan.cases()] == [*PRESETS, "off"]
    both = Plan(case, models=(Path("a.tflite"),), sweep=("presets", "runtimes"), sweep_case=case)
    assert {(one.model, one.preset) for one in both.cases()} >= {("a.tflite", "off"), (None, "strong")}
    assert Plan(case).cases() == []


def test_minutes_are_for_the_main_run_alone():
    from edge_mdda.cli.main import build_parser
    from edge_mdda.cli.profile import _plan

    def plan(*arguments: str) -> Plan:
        return _plan(build_parser().parse_args(["profile", *arguments]))

    long = plan("--minutes", "10", "--sweep", "--threads", "2", "--preset", "mild")
    assert (long.case.seconds, long.case.calls, long.case.detail) == (600, None, True)
    assert (long.sweep_case.seconds, long.sweep_case.preset, long.sweep_case.detail) == (3, "mild", False)
    assert long.sweep == ("threads", "runtimes", "presets")
    assert plan().case.seconds == 10
    short = plan("--calls", "7", "--sweep=presets,threads")
    assert (short.case.calls, short.sweep_case.calls, short.sweep) == (7, 7, ("presets", "threads"))


def test_the_boards_settings_are_what_is_measured(monkeypatch):
    """The service on a board runs with them; a report of another configuration would mislead."""
    from edge_mdda.cli.main import build_parser
    from edge_mdda.cli.profile import _plan

    monkeypatch.setenv("EDGE_MDDA_THREADS", "3")
    monkeypatch.setenv("EDGE_MDDA_PRESET", "strong")
    case = _plan(build_parser().parse_args(["profile"])).case
    assert (case.threads, case.preset) == (3, "strong")
    case = _plan(build_parser().parse_args(["profile", "--threads", "2", "--preset", "off"])).case
    assert (case.threads, case.preset) == (2, "off")
    for wrong in ({"EDGE_MDDA_THREADS": "many"}, {"EDGE_MDDA_PRESET": "heroic"}):
        done = edge_mdda("profile", "--calls", 1, **wrong)
        assert done.returncode == 2
        assert next(iter(wrong.values())) in done.stderr


def test_models_that_are_not_there_are_one_line():
    done = edge_mdda("profile", "--calls", 1, EDGE_MDDA_MODELS="/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "/nonexistent" in done.stderr
