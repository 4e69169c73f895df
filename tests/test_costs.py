"""The ARM cost estimate and the footprint benchmark: what they read, what they count, how they refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("elftools", reason="the extra 'export' is not installed")

from benchmarks.arm_cost import __main__ as arm_cost
from benchmarks.arm_cost import mca, measure, replay
from benchmarks.footprint import __main__ as footprint
from edge_mdda.errors import EdgeMddaError

ASSEMBLY = """
edge_mdda_other:
.LBB0_1:
	str	q0, [x0], #16
	b.ne	.LBB0_1
.Lfunc_end0:
edge_mdda_double:
	mov	x1, xzr
.LBB1_1:
	mov	x2, x0
.LBB1_2:                                // the loop
	ldp	q0, q1, [x2]
	fadd	v0.4s, v0.4s, v0.4s
	fadd	v1.4s, v1.4s, v1.4s
	stp	q0, q1, [x2], #32
	subs	x3, x3, #8
	b.ne	.LBB1_2
	cbnz	x1, .LBB1_1
.LBB1_3:
	ldr	s0, [x2]
	str	s0, [x2], #4
	b.lt	.LBB1_3
	b	.LBB1_9
.Lfunc_end1:
"""


def test_innermost_loops_are_found_with_what_they_store():
    first, rest = mca.loops(ASSEMBLY, "double")
    assert (len(first.instructions), first.stored_bytes) == (6, 32)
    assert (len(rest.instructions), rest.stored_bytes) == (3, 4)
    with pytest.raises(mca.McaError, match="no function triple"):
        mca.loops(ASSEMBLY, "triple")


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("str q0, [x1]", 16),
        ("stp d0, d1, [x1]", 16),
        ("stur s3, [x1, #-4]", 4),
        ("str b0, [x1]", 1),
        ("strb w1, [x2]", 1),
        ("st1 { v0.b }[3], [x1]", 1),
        ("st2 { v0.4s, v1.4s }, [x1], #32", 32),
        ("st3 { v0.8b, v1.8b, v2.8b }, [x1]", 24),
    ],
)
def test_stored_bytes_of_every_kind_of_store(store, expected):
    assert mca.Loop((f"\t{store}",)).stored_bytes == expected


@pytest.mark.skipif(shutil.which(mca.TOOL) is None, reason="llvm-mca is not installed")
def test_prices_grow_with_the_work_and_unknown_cpus_are_refused():
    loop = mca.loops(ASSEMBLY, "double")[0]
    longer = mca.Loop((*loop.instructions[:-2], *["\tfsqrt\tv0.4s, v0.4s"] * 4, *loop.instructions[-2:]))
    assert mca.cycles(longer, "cortex-a72") > 2 * mca.cycles(loop, "cortex-a72")
    with pytest.raises(mca.McaError, match="no-such-cpu"):
        mca.cycles(loop, "no-such-cpu")
    with pytest.raises(mca.McaError, match="cannot price"):
        mca.cycles(mca.Loop(("\tfrobnicate v0.4s",)), "cortex-a72")


@pytest.mark.skipif(shutil.which(mca.TOOL) is None, reason="llvm-mca is not installed")
def test_every_inner_loop_is_priced_on_every_cpu_and_none_is_scalar():
    rows = measure.cycle_rows()
    assert {(row["kernel"], row["cpu"]) for row in rows} == {(k, c) for k in measure.STORED_BYTES for c in measure.CPUS}
    assert all(set(row) == {"kernel", "cpu", "cycles_per_pixel", "source"} for row in rows)
    assert all("estimate" in row["source"] for row in rows)


def test_without_the_tools_one_line_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert arm_cost.main([]) == 1
    assert "llvm-mca is not installed" in capsys.readouterr().err
    with pytest.raises(replay.ReplayError, match="qemu-user"):
        measure.instruction_rows()


def test_goals_are_judged_by_the_numbers():
    rows = [
        {"kernel": "rof_sweep", "cpu": "cortex-a72", "cycles_per_pixel": 5.6, "source": "tool, estimate"},
        {"kernel": "noise_sample", "cpu": "cortex-a72", "cycles_per_pixel": 5.9, "source": "tool, estimate"},
        {"kernel": "noise_sample", "cpu": "cortex-a53", "cycles_per_pixel": 99, "source": "tool, estimate"},
        {"run": "purify balanced 224x224x3", "cpu": "cortex-a72", "instructions": 89_000_000},
    ]
    sweep, noise, run = arm_cost.goals({"rows": rows})
    assert "NOT reached" in sweep and "NOT" not in noise and "NOT" not in run and "89.00" in run


@pytest.mark.parametrize("module", ["benchmarks.arm_cost", "benchmarks.footprint"])
def test_json_into_no_folder_is_found_out_first(module, tmp_path):
    target = tmp_path / "no" / "out.json"
    done = subprocess.run([sys.executable, "-m", module, "--json", target], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "there is no such folder" in done.stderr


def test_footprint_measures_in_processes_of_their_own(tmp_path, capsys):
    assert footprint.main(["--runtime", "onnx", "--repeats", "1", "--json", str(tmp_path / "out.json")]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert all(set(row) == {"case", "kernels", "runtime", "rss_mb", "seconds"} for row in rows)
    by_case = {(row["case"], row["kernels"]): row for row in rows}
    assert set(by_case) == {(case, kernels) for case in footprint.CASES for kernels in ("native", "numba")}
    # Not a limit of ours: Numba and LLVM are far larger than anything that varies between two runs.
    assert by_case["first_screen", "numba"]["rss_mb"] > by_case["first_screen", "native"]["rss_mb"] + 50
    assert "| first_screen | native | onnx |" in capsys.readouterr().out


def test_footprint_of_kernels_that_are_not_there(tmp_path):
    with pytest.raises(EdgeMddaError, match="no native kernels found"):
        footprint.measure("first_screen", "native", "onnx", "", str(tmp_path), 1)


def test_footprint_table_says_whether_the_goal_was_reached():
    row = {"case": "first_screen", "kernels": "native", "runtime": "tflite", "rss_mb": 74.0, "seconds": 0.61}
    results = {"rows": [row], "workspace_mb": 2.0, "hardware": {"machine": "m", "cores": 2, "python": "3"}}
    assert "NOT reached" in footprint.table(results)
    assert "NOT reached" not in footprint.table({**results, "rows": [{**row, "seconds": 0.5}]})
