"""What is written about a conversion: ``report.json`` and ``report.md`` beside the model."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

COLUMNS = (
    "format",
    "argmax_agreement",
    "balanced_accuracy_source",
    "balanced_accuracy_exported",
    "size_bytes",
    "median_ms",
)


def processor() -> str:
    """Name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return (names or [platform.processor() or "unknown CPU"])[0] + f" ({platform.machine()})"


def plain(value: Any) -> Any:
    """NaN as null, tuples as lists, floats with six digits."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return None if value != value else float(f"{value:.6g}")
    return value


def as_json(report: dict[str, Any]) -> bytes:
    """The report as readable JSON."""
    return (json.dumps(plain(report), indent=2, allow_nan=False) + "\n").encode()


def _cell(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def as_markdown(report: dict[str, Any]) -> bytes:
    """The report for people."""
    r = plain(report)
    figures = ("argmax_agreement", "kl_mean", "kl_max", "max_logit_error", "balanced_accuracy_source",
               "balanced_accuracy_exported", "melanoma_recall_source", "melanoma_recall_exported")  # fmt: skip
    views = r["views"]
    half = " (every second one purified)" if r["calibration"]["purified"] else ""
    calibration = f"{r['calibration']['n']} images{half}" if r["calibration"]["n"] else "none needed"
    lines = [
        f"# {r['file']}",
        "",
        f"`{r['format']}` of {r['source']['name']} ({r['source']['kind']}, SHA-256 `{r['source']['sha256'][:12]}`),"
        f" checked in {r['runtime']} on {r['machine']}.",
        "",
        f"Made by `{r['command']}`.",
        "",
        f"{r['n_images']} images ({r['image_set']}) that calibration did not see"
        + ("" if r["labelled"] else ", without labels")
        + f"; median of one image on one thread {r['median_ms']:.2f} ms; {r['size_bytes']} bytes.",
        "",
        "| figure | " + " | ".join(views) + " |",
        "| --- |" + " --- |" * len(views),
        *(
            f"| {name.replace('_', ' ')} | " + " | ".join(_cell(v[name]) for v in views.values()) + " |"
            for name in figures
        ),
        "",
        f"- Audit: {r['audit_line']}.",
        f"- Gates: {', '.join(f'{k} {v:g}' for k, v in r['gates'].items())}; all kept.",
        f"- Preprocessing: {r['preprocessing']}.",
        f"- Calibration: {calibration}.",
        f"- Thresholds: {r['thresholds']}.",
    ]
    if r["note"]:
        lines.append(f"- {r['note']}")
    return ("\n".join(lines) + "\n").encode()


def as_table(reports: list[dict[str, Any]]) -> str:
    """One line a format, as markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for r in reports:
        lines.append("| " + " | ".join(_cell(plain(r)[name]) for name in COLUMNS) + " |")
    return "\n".join(lines)
