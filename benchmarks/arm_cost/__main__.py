"""Command line of the ARM cost estimate."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge_mdda.errors import EdgeMddaError

GOAL_CPU = "cortex-a72"
GOAL_CYCLES = {"rof_sweep": 5.5, "noise_sample": 6.0}  # a pixel and iteration; a sample
GOAL_RUN, GOAL_INSTRUCTIONS = "balanced", 90e6


def main(arguments: list[str] | None = None) -> int:
    """Run the estimate; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.arm_cost",
        description="Estimate the purifier's cost on ARM boards: llvm-mca for loops, QEMU for instruction counts.",
        epilog="example: python -m benchmarks.arm_cost --json arm.json",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    args = parser.parse_args(arguments)
    try:
        if args.json and not args.json.absolute().parent.is_dir():
            raise EdgeMddaError(f"{args.json}: there is no such folder to write to")
        from benchmarks.arm_cost.measure import cycle_rows, instruction_rows

        results = {"rows": [*cycle_rows(), *instruction_rows()]}
        print(table(results))
        if args.json:
            from edge_mdda.files import replace_file

            replace_file(str(args.json), (json.dumps(results, indent=2) + "\n").encode())
    except (EdgeMddaError, OSError) as error:
        print(f"arm_cost: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"arm_cost: {error.name} is not installed; run: pip install -e '.[export]'", file=sys.stderr)
        return 1
    return 0


def table(results: dict[str, Any]) -> str:
    """Both kinds of rows as Markdown, and what became of the goals."""
    loops = [row for row in results["rows"] if "kernel" in row]
    runs = [row for row in results["rows"] if "run" in row]
    cpus = list(dict.fromkeys(row["cpu"] for row in loops))
    heads, rule = " | ".join(f"`{cpu}`" for cpu in cpus), " ---: |" * len(cpus)
    lines = [
        f"Estimates by {loops[0]['source'].split(',')[0]}: no board was used.",
        "",
        f"| cycles a pixel (sweeps: and iteration) | {heads} |",
        f"| --- |{rule}",
    ]
    for name in dict.fromkeys(row["kernel"] for row in loops):
        cycles = {row["cpu"]: row["cycles_per_pixel"] for row in loops if row["kernel"] == name}
        lines.append(f"| `{name}` | " + " | ".join(f"{cycles[cpu]:.2f}" for cpu in cpus) + " |")
    lines += ["", f"| million instructions (counted under QEMU) | {heads} |", f"| --- |{rule}"]
    for name in dict.fromkeys(row["run"] for row in runs):
        counts = {row["cpu"]: row["instructions"] for row in runs if row["run"] == name}
        lines.append(f"| {name} | " + " | ".join(f"{counts[cpu] / 1e6:.1f}" for cpu in cpus) + " |")
    return "\n".join([*lines, "", *goals(results)])


def goals(results: dict[str, Any]) -> list[str]:
    """One line a goal: reached or not."""
    lines = []
    for row in results["rows"]:
        if row["cpu"] != GOAL_CPU:
            continue
        limit = GOAL_CYCLES.get(row.get("kernel"))
        if limit:
            lines.append(_verdict(f"`{row['kernel']}`, cycles", row["cycles_per_pixel"], limit))
        elif GOAL_RUN in row.get("run", ""):
            millions = row["instructions"] / 1e6
            lines.append(_verdict(f"{row['run']}, million instructions", millions, GOAL_INSTRUCTIONS / 1e6))
    return lines


def _verdict(what: str, value: float, limit: float) -> str:
    return f"- {GOAL_CPU}, {what}: {value:.2f}, goal under {limit:g}: {'reached' if value < limit else 'NOT reached'}."


if __name__ == "__main__":
    sys.exit(main())
