"""``edge-mdda profile``: real, short measurements; reports that are damaged; plots that are whole."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.dom.minidom import parseString

import numpy as np
import pytest
import tiny_models
from conftest import ROOT
from test_doctor import SUICIDE, broken_package, edge_mdda

from edge_mdda import NOTICE, profiling
from edge_mdda.cli import DEMO_IMAGE
from edge_mdda.errors import EdgeMddaError, ProfileError
from edge_mdda.latency.case import STAGES, Case, measure
from edge_mdda.latency.compare import compare, load, to_text
from edge_mdda.latency.html import to_html
from edge_mdda.latency.kernel_clock import KernelClock, purifier_detail
from edge_mdda.latency.report import print_report, throttling_text
from edge_mdda.mdda import PRESETS, MddaParams, Purifier
from edge_mdda.profiling import Plan, check_target, profile, thread_counts, write


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """One real run of the command: its JSON, its page and what it printed."""
    folder = tmp_path_factory.mktemp("profile")
    data, page = folder / "a.json", folder / "a.html"
    done = edge_mdda("profile", "--calls", 12, "--warmup", 1, "--json", data, "--html", page)
    assert done.returncode == 0, done.stderr
    return data, page, done


@pytest.fixture
def report(files) -> dict:
    return json.loads(files[0].read_text())


# -- the command --------------------------------------------------------------------------------------


def test_a_run_prints_its_summary(files):
    done = files[2]
    assert done.stderr == ""
    for text in (
        *STAGES,
        "process start to first result",
        "p99.9",
        "too few calls (12)",
        "block",
        "scale 0.25",
        NOTICE,
    ):
        assert text in done.stdout
    assert "\033" not in done.stdout


def test_a_run_writes_all_that_its_reader_needs(report):
    assert report["notice"] == NOTICE
    assert set(report["stages"]) == set(STAGES)
    for row in report["stages"].values():
        assert row["n"] == 12
        assert 0 <= row["min"] <= row["p50"] <= row["p90"] <= row["max"]
        assert row["p95"] is row["p99"] is row["p99.9"] is None
    parts = sum(report["stages"][name]["mean"] for name in STAGES if name != "total")
    assert parts == pytest.approx(report["stages"]["total"]["mean"], rel=1e-3, abs=0.01)
    assert sum(report["histogram"]["counts"]) + report["histogram"]["above"] == 12
    assert sum(window["calls"] for window in report["timeline"]) == 12
    assert len(report["start"]["to_first_result_s"]) == 3
    assert report["settings"]["runtime"].startswith("onnxruntime")
    assert report["settings"]["kernels"]["backend"] in ("numba", "native")
    assert report["software"]["numpy"] == np.__version__
    assert report["memory"]["peak_mb"] > 10
    detail = report["purify_detail"]
    assert np.shape(detail["blocks_ms"]) == (PRESETS["balanced"].n_blocks, len(PRESETS["balanced"].scales))
    assert min(map(min, detail["blocks_ms"])) > 0


def test_the_page_is_whole_and_loads_nothing(files, report):
    page = files[1].read_text()
    assert page == to_html(report)
    assert NOTICE in page
    for forbidden in ("<script", "http:", "https:", "src=", "href=", "@import", "url("):
        assert forbidden not in page
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) >= 5
    for plot in plots:
        parseString(plot)
        assert "nan" not in plot


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
    from edge_mdda.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["profile", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_file_that_cannot_be_written_is_said_before_the_measuring(tmp_path, capsys, option):
    from edge_mdda.cli import main

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
        "import sys\nfrom edge_mdda.cli import main\n"
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
    probe = "import sys, edge_mdda.profiling, edge_mdda.latency.html, edge_mdda.doctor; print('numpy' in sys.modules)"
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
    from edge_mdda.cli import build_parser
    from edge_mdda.cli_board import _plan

    def plan(*arguments: str) -> Plan:
        return _plan(build_parser().parse_args(["profile", *arguments]))

    long = plan("--minutes", "10", "--sweep", "--threads", "2", "--preset", "mild")
    assert (long.case.seconds, long.case.calls, long.case.detail) == (600, None, True)
    assert (long.sweep_case.seconds, long.sweep_case.preset, long.sweep_case.detail) == (3, "mild", False)
    assert long.sweep == ("threads", "runtimes", "presets")
    assert plan().case.seconds == 10
    short = plan("--calls", "7", "--sweep=presets,threads")
    assert (short.case.calls, short.sweep_case.calls, short.sweep) == (7, 7, ("presets", "threads"))


# -- text and page -----------------------------------------------------------------------------------


def sustained(report: dict) -> dict:
    """The report as a board writes it that becomes hot: what the sensors say, by hand."""
    window = report["timeline"][0]
    hot = {"temperature_c": 81.5, "clock_mhz": 1500.0, "power_w": 6.1, "throttled": ["throttled"]}
    cool = {"temperature_c": 50.0, "clock_mhz": 1800.0, "power_w": 5.0, "throttled": []}
    timeline = [{**window, **cool, "t_s": 1.0}, {**window, **hot, "t_s": 2.0}]
    before = {"source": "get_throttled (sysfs)", "now": [], "since_start": ["under-voltage"]}
    after = {**before, "since_start": ["under-voltage", "throttled"]}
    throttling = {"before": before, "after": after, "during": ["throttled"]}
    return {**report, "timeline": timeline, "throttling": throttling}


def test_a_hot_board_shows_in_text_and_page(report):
    hot = sustained(report)
    text = throttling_text(hot["throttling"])
    assert "during the run: throttled" in text
    assert text.endswith("new in this run: throttled")
    stream = io.StringIO()
    print_report(hot, stream)
    assert "temperature: 50 -> 81.5 °C" in stream.getvalue()
    assert "█" not in stream.getvalue()  # this stream has no encoding: ASCII
    page = to_html(hot)
    assert "red: throttled" in page
    for name in ("temperature", "clock", "power"):
        assert f">{name}</text>" in page


def test_names_cannot_inject_into_the_page(report):
    report["hardware"]["model"] = "<script>alert(1)</script>\033[31m"
    report["settings"]["image"] = '"><img src=x>'
    page = to_html(report)
    assert "<script" not in page
    assert "<img" not in page
    assert "\033" not in page


# -- comparing ----------------------------------------------------------------------------------------


def test_compare_gives_ratios_and_says_what_differs(files, report, tmp_path):
    slower = json.loads(json.dumps(report))
    for row in slower["stages"].values():
        row["p50"] = row["p50"] * 2 + 1
    slower["hardware"] |= {"model": "Raspberry Pi 4 Model B Rev 1.4", "cores": 4}
    slower["software"]["numpy"] = "1.26.4"
    other = tmp_path / "b.json"
    other.write_text(json.dumps(slower))
    done = edge_mdda("profile", "--compare", files[0], other)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("B / A", "different hardware", "Raspberry Pi 4", f"numpy: {np.__version__} -> 1.26.4", NOTICE):
        assert text in done.stdout
    rows = {name: (one, two, ratio) for name, one, two, ratio in compare(report, slower)["rows"]}
    one, two, ratio = rows["total p50, ms"]
    assert (two, ratio) == (one * 2 + 1, pytest.approx(two / one))
    same = compare(report, report)
    assert (same["hardware"], same["warnings"]) == ([], [])
    assert all(ratio == 1 for *_, one, ratio in same["rows"] if one)


def test_compare_warns_of_emulation_and_another_picture(report):
    emulated = json.loads(json.dumps(report))
    emulated["hardware"]["emulation"] = "this program runs in qemu-aarch64-static"
    emulated["settings"]["picture"]["sha256"] = "0" * 64
    text = to_text("a", "b", compare(report, emulated))
    assert "B was measured in emulation" in text
    assert "another picture" in text


def test_compare_takes_reports_of_other_stages(report):
    off = json.loads(json.dumps(report))
    del off["stages"]["purify"]
    off["stages"]["decode"]["p50"] = 0
    rows = {name: ratio for name, *_, ratio in compare(off, report)["rows"]}
    assert rows["purify p50, ms"] is None
    assert rows["decode p50, ms"] is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "no whole JSON"),
        (lambda text: "", "no whole JSON"),
        (lambda text: "[" * 100_000, "no whole JSON"),
        (lambda text: "[]", "no report"),
        (lambda text: '{"format": "another"}', "no report"),
        (lambda text: text.replace('"stages":', '"stagecoach":'), "lacks its part 'stages'"),
        (lambda text: text.replace('"p50":', '"p50": "fast", "px":'), "no numbers"),
        (lambda text: text.replace('"n":', '"n": true, "m":'), "no numbers"),
    ],
)
def test_a_damaged_report_is_one_line(files, tmp_path, damage, words):
    path = tmp_path / "damaged.json"
    path.write_text(damage(files[0].read_text()))
    with pytest.raises(ProfileError, match=words) as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_report_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(ProfileError, match="cannot be read"):
        load(tmp_path / "none.json")
    with pytest.raises(ProfileError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError):
        load(tmp_path / "b.json")


def test_files_are_written_whole_or_not(tmp_path):
    check_target(tmp_path / "a.json")
    write(tmp_path / "a.json", "é\n")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "é\n"
    for target in ("/dev/full", str(tmp_path)):
        with pytest.raises(EdgeMddaError, match=target):
            write(Path(target), "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
