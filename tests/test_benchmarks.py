"""The speed benchmark runs and writes what it promises; no time and no ratio is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("cv2")

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "skimage_chambolle": "skimage",
    "skimage_bregman": "skimage",
    "opencv_tvl1": "cv2",
    "art_totalvarmin": "art",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.speed", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    target = tmp_path_factory.mktemp("speed") / "speed.json"
    done = run("--quick", "--size", "48", "--json", str(target))
    assert done.returncode == 0, done.stderr
    assert [p.name for p in target.parent.iterdir()] == ["speed.json"]
    return json.loads(target.read_text(encoding="utf-8")), done.stdout


def is_positive(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0


def test_json_has_ours_and_a_ratio_for_every_installed_peer(quick):
    results, _ = quick
    installed = {name for name, module in MODULES.items() if find_spec(module)}
    assert set(results["ratios"]) == installed
    assert set(results["not_installed"]) == set(MODULES) - installed
    assert is_positive(results["ours_ms"])
    assert all(is_positive(ratio) for ratio in results["ratios"].values())


def test_figures_from_inside_are_given_with_their_goals(quick):
    results, text = quick
    for key in ("sweep_over_l1", "two_threads"):
        assert is_positive(results[key])
        assert f"({results[key]:.2f})" in text
    assert text.count("- Goal: ") == 5
    assert text.count(": reached (") + text.count(": NOT reached (") == 5


def test_every_contestant_has_times_and_memory(quick):
    results, _ = quick
    rows = results["contestants"]
    assert {"ours", *results["ratios"]} <= set(rows)
    for row in rows.values():
        assert row["repeats"] >= 1
        assert all(is_positive(row[key]) for key in ("median_ms", "p10_ms", "p90_ms", "times_slower"))
        assert row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        assert math.isfinite(row["extra_peak_mb"])
        assert row["extra_peak_mb"] >= 0
    assert rows["ours"]["times_slower"] == 1


def test_rmse_is_given_for_those_that_solve_the_same_model(quick):
    results, _ = quick
    solvers = {"ours", *(name for name in results["ratios"] if name.startswith("skimage"))}
    for key in ("rmse", "rmse_worst", "rmse_by_scale"):
        assert solvers <= set(results[key])
    for name, mean in results["rmse"].items():
        assert is_positive(mean)
        assert len(results["rmse_by_scale"][name]) == len(results["setting"]["params"]["scales"])
        assert mean <= results["rmse_worst"][name] == max(results["rmse_by_scale"][name].values())


def test_table_names_every_contestant_and_the_hardware(quick):
    results, text = quick
    assert all(f"`{name}`" in text for name in [*results["contestants"], *results["not_installed"]])
    assert results["hardware"]["cpu"] in text.splitlines()[0]


@pytest.mark.parametrize("target", ["missing/speed.json", "."])
def test_a_path_that_cannot_be_written_fails_at_once(tmp_path, target):
    done = run("--json", str(tmp_path / target))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: cannot write ")


@pytest.mark.parametrize("arguments", [("--size", "8"), ("--repeats", "0"), ("--seconds", "nan")])
def test_senseless_numbers_are_refused(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_the_reference_is_the_rof_optimum():
    np = pytest.importorskip("numpy")
    from benchmarks.speed.reference import rof_optimum

    # A step with few pixels: each side moves towards the other by lam * edge / area, exactly.
    step = np.zeros((8, 12))
    step[:, 4:] = 90.0
    u, bound = rof_optimum(step, lam=6.0, tolerance=1e-3)
    assert bound <= 1e-3
    np.testing.assert_allclose(u[:, :4], 6 * 8 / 32, atol=0.02)
    np.testing.assert_allclose(u[:, 4:], 90 - 6 * 8 / 64, atol=0.02)


def test_presets_use_the_sweeps_that_the_search_used():
    from benchmarks.robustness.tune import STRENGTHS
    from edge_mdda import PRESETS

    for params in PRESETS.values():
        assert params.sigma == params.lam
        assert params.iterations == STRENGTHS[params.sigma]
