"""What ``edge-mdda profile`` reports of one real run: text, JSON, page, comparisons; reports that are damaged."""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path
from xml.dom.minidom import parseString

import numpy as np
import pytest
from test_doctor import edge_mdda

from edge_mdda import NOTICE
from edge_mdda.errors import EdgeMddaError, ProfileError
from edge_mdda.mdda.purifier import PRESETS
from edge_mdda.profiling.case import STAGES
from edge_mdda.profiling.compare import compare, load, to_text
from edge_mdda.profiling.report_html import to_html
from edge_mdda.profiling.report_text import print_report, throttling_text
from edge_mdda.profiling.run import check_target, write


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


# -- text and page -----------------------------------------------------------------------------------


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
