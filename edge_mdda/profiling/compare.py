"""``edge-mdda profile --compare A.json B.json``: two reports side by side, and whether that is fair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.console import printable
from edge_mdda.errors import ProfileError
from edge_mdda.profiling.case import STAGES
from edge_mdda.profiling.run import FORMAT, Report

MAX_BYTES = 1 << 26
SHOWN = ("p50", "p95", "p99")
PARTS = ("hardware", "software", "settings", "start", "stages", "memory")
LENGTH_SETTINGS = ("calls", "seconds", "warmup", "image")
"""Settings that say how long was measured and not what."""


def load(path: Path) -> Report:
    """Read a report that ``edge-mdda profile --json`` wrote.

    Raises
    ------
    ProfileError
        It cannot be read, is no JSON or no such report; the message names the file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror}): name a file from profile --json") from error
    if len(content) > MAX_BYTES:
        raise ProfileError(f"{path}: larger than {MAX_BYTES >> 20} MB: no report of edge-mdda profile")
    try:
        report = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: no whole JSON: make it anew with edge-mdda profile --json") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ProfileError(f"{path}: no report of this version's edge-mdda profile: make it anew")
    for part in PARTS:
        if not isinstance(report.get(part), dict):
            raise ProfileError(f"{path}: the report lacks its part '{part}': make it anew")
    for name, row in report["stages"].items():
        good = isinstance(row, dict) and all(_is_number(row.get(q)) or row.get(q) is None for q in SHOWN)
        if not good or not _is_number(row.get("n")):
            raise ProfileError(f"{path}: the times of '{name}' are no numbers: make the report anew")
    return report


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def differences(a: Report, b: Report, part: str) -> list[str]:
    """``field: of A -> of B`` for every field of a part that differs."""
    found = []
    for name in dict.fromkeys([*a[part], *b[part]]):
        one, other = a[part].get(name), b[part].get(name)
        if one != other and not (part == "settings" and name in LENGTH_SETTINGS):
            found.append(f"{name.replace('_', ' ')}: {_brief(one)} -> {_brief(other)}")
    return found


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        value = ", ".join(str(v)[:40] for v in value.values())
    return "none" if value is None else printable(str(value))


def compare(a: Report, b: Report) -> dict[str, Any]:
    """Rows of both reports with ratios (B to A), what differs, and what forbids a conclusion.

    Returns
    -------
    dict
        ``rows``: name, A, B, ratio (None where a side lacks the value); ``hardware``, ``software``, ``settings``: lists
        of differences; ``warnings``.
    """
    rows: list[tuple[str, float | None, float | None, float | None]] = []

    def row(name: str, one: Any, other: Any) -> None:
        one, other = (value if _is_number(value) else None for value in (one, other))
        if one is not None or other is not None:
            rows.append((name, one, other, other / one if one and other is not None else None))

    row("process to first result, s", a["start"].get("median_s"), b["start"].get("median_s"))
    row("first call, ms", a["start"].get("first_call_ms"), b["start"].get("first_call_ms"))
    stages = [*STAGES, *sorted({*a["stages"], *b["stages"]} - set(STAGES))]
    for stage in stages:
        for quantile in SHOWN:
            one, other = (report["stages"].get(stage, {}).get(quantile) for report in (a, b))
            row(f"{stage} {quantile}, ms", one, other)
    row("peak memory, MB", a["memory"].get("peak_mb"), b["memory"].get("peak_mb"))
    found = {part: differences(a, b, part) for part in ("hardware", "software", "settings")}
    warnings = []
    for name, report in (("A", a), ("B", b)):
        if report["hardware"].get("emulation"):
            warnings.append(f"{name} was measured in emulation: its times, and every ratio here, are meaningless.")
    if found["hardware"]:
        warnings.append("Measured on different hardware: the ratios compare boards, not versions of the program.")
    if any(text.startswith(("picture", "model")) for text in found["settings"]):
        warnings.append("Measured with another picture or model: the ratios of their stages mean little.")
    return {"rows": rows, **found, "warnings": warnings}


def to_text(a_name: str, b_name: str, result: dict[str, Any]) -> str:
    """The comparison as a table for people."""
    lines = [f"A: {printable(a_name)}", f"B: {printable(b_name)}", ""]
    width = max(len(name) for name, *_ in result["rows"])
    lines.append(f"{'':<{width}}  {'A':>10}  {'B':>10}  {'B / A':>7}")
    for name, one, other, ratio in result["rows"]:
        cells = ("-" if value is None else f"{value:.3f}" for value in (one, other))
        share = "-" if ratio is None else f"{ratio:.2f}"
        lines.append("  ".join([f"{name:<{width}}", *(f"{cell:>10}" for cell in cells), f"{share:>7}"]))
    for part in ("hardware", "software", "settings"):
        found = result[part]
        lines += ["", f"{part}: " + ("the same" if not found else "")]
        lines[-1] = lines[-1].rstrip()
        lines += [f"  {text}" for text in found]
    if result["warnings"]:
        lines += ["", *result["warnings"]]
    return "\n".join([*lines, NOTICE])
