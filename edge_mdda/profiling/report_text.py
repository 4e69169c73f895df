"""A latency report as text for a terminal; :mod:`edge_mdda.profiling.report_html` makes the same into a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

from edge_mdda import NOTICE
from edge_mdda.console import bar, printable
from edge_mdda.profiling.case import STAGES
from edge_mdda.profiling.percentiles import QUANTILES, needed_for
from edge_mdda.profiling.run import Report

COLUMNS = (*QUANTILES, "max")
TEXT_BINS = 12  # of the histogram on a terminal
SERIES = (
    ("temperature_c", "temperature", "°C"),
    ("clock_mhz", "clock", "MHz"),
    ("power_w", "power", "W"),
    ("rss_mb", "memory of the process", "MB"),
    ("available_mb", "free memory", "MB"),
    ("p50_ms", "median call", "ms"),
)
"""Keys of the timeline, their names and units."""


def stage_rows(stages: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each stage with its cells as text; "-" where there were too few calls."""
    for name in STAGES:
        if name in stages:
            yield name, ["-" if stages[name][c] is None else f"{stages[name][c]:.2f}" for c in COLUMNS]


def too_few(report: Report) -> str | None:
    """Which quantiles are missing and what they need, or None."""
    total = report["stages"]["total"]
    lacking = [f"{name} ({needed_for(quantile)})" for name, quantile in QUANTILES.items() if total[name] is None]
    if not lacking:
        return None
    return f"-: too few calls ({total['n']}); needed for {', '.join(lacking)}"


def identity(report: Report) -> Iterator[tuple[str, str]]:
    """What was measured, on what, with what."""
    hardware, settings, software = report["hardware"], report["settings"], report["software"]
    name = hardware["model"] or "unknown machine"
    memory = f", {hardware['memory_mb']} MB" if hardware["memory_mb"] else ""
    yield "board", f"{name}, {hardware['cpu'] or hardware['machine']}, {hardware['cores']} cores{memory}"
    clock = f"{hardware['max_clock_mhz']:.0f} MHz at most" if hardware["max_clock_mhz"] else "clock not shown"
    yield "governor", f"{hardware['governor'] or 'not shown'}, {clock}"
    yield "system", f"{hardware['system'] or 'unknown'}, Linux {hardware['kernel']}"
    yield "software", ", ".join([f"edge-mdda {report['edge_mdda']}", *(f"{n} {v}" for n, v in software.items())])
    yield "model", f"{settings['model']['name']} ({settings['model']['sha256'][:12]}) in {settings['runtime']}"
    kernels = settings["kernels"]
    yield "kernels", f"{kernels['backend']} for {kernels['cpu']}" if kernels else "not used"
    size = settings["picture"]["bytes"]
    yield "settings", f"preset {settings['preset']}, {settings['threads']} threads, {settings['image']} ({size} bytes)"
    yield "measured", f"{report['created']}, {report['stages']['total']['n']} calls after {settings['warmup'] + 1} more"


def start_text(start: dict[str, Any]) -> str:
    """The start in one line."""
    each = ", ".join(f"{value:.2f}" for value in start["to_first_result_s"])
    return (
        f"process start to first result {start['median_s']:.2f} s (median of {each});"
        f" of these the call itself {start['first_call_ms']:.1f} ms. Once more, with all files in memory:"
        f" imports, model and workspace {start['open_ms']:.0f} ms, first call {start['first_call_in_run_ms']:.1f} ms"
    )


def series_rows(timeline: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What each sensor showed over the run, for those that showed something."""
    for key, name, unit in SERIES:
        values = [window[key] for window in timeline if window[key] is not None]
        if values:
            yield name, f"{values[0]:g} -> {values[-1]:g} {unit} (from {min(values):g} to {max(values):g})"


def throttling_text(throttling: dict[str, Any]) -> str:
    """Throttling before, during and after the run in one line."""
    before, after = throttling["before"], throttling["after"]
    if after is None:
        return "not shown by this machine"
    during = ", ".join(throttling["during"]) or "none"
    old = set(before["since_start"]) if before else set()
    new = [flag for flag in after["since_start"] if flag not in old]
    return (
        f"during the run: {during}; sticky since the board's start: {', '.join(after['since_start']) or 'none'}"
        f"; new in this run: {', '.join(new) or 'none'}"
    )


def coarse(histogram: dict[str, Any], bins: int = TEXT_BINS) -> Iterator[tuple[str, int]]:
    """The histogram in fewer bins: a label and a count each."""
    edges, counts = histogram["edges"], histogram["counts"]
    step = len(counts) // bins
    for start in range(0, len(counts), step):
        yield f"{edges[start]:8.2f} - {edges[min(start + step, len(counts))]:8.2f}", sum(counts[start : start + step])
    if histogram["above"]:
        yield f"{'above':>19}", histogram["above"]


def detail_rows(detail: dict[str, Any]) -> Iterator[list[str]]:
    """The purifier by block and scale: a head line and one line a block."""
    yield ["block", *(f"scale {scale:g}" for scale in detail["scales"]), "sum"]
    for number, row in enumerate(detail["blocks_ms"] or [], 1):
        yield [str(number), *(f"{value:.2f}" for value in row), f"{sum(row):.2f}"]


def detail_rest(detail: dict[str, Any]) -> str:
    """What of the purifier is not in a block."""
    rest = ", ".join(f"{name} {value:.2f}" for name, value in detail["kernels_ms"].items())
    between = "" if detail["between_ms"] is None else f", between the kernels {detail['between_ms']:.2f}"
    return f"{rest}{between}; all {detail['total_ms']:.2f} ms (medians of {detail['calls']} calls, one thread)"


def sweep_rows(sweep: list[dict[str, Any]]) -> Iterator[list[str]]:
    """The sweep: a head line and one line a case."""
    yield ["runtime", "preset", "threads", "p50", "p95", "max", "peak MB"]
    for row in sweep:
        head = [row["runtime"], row["preset"], str(row["threads"])]
        if "failed" in row:
            yield [*head, f"failed: {printable(row['failed'])}"]
            continue
        total = row["stages"]["total"]
        cells = ["-" if total[c] is None else f"{total[c]:.2f}" for c in ("p50", "p95", "max")]
        yield [*head, *cells, "-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"]


def _table(rows: list[list[str]], left: int = 1) -> Iterator[str]:
    """Aligned columns, the first ``left`` of them to the left; a short row ends early."""
    longest = max(len(row) for row in rows)
    widths = [max((len(row[i]) for row in rows if len(row) == longest), default=0) for i in range(longest)]
    for row in rows:
        cells = [
            f"{cell:<{width}}" if i < left or len(row) < longest else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        yield ("  " + "  ".join(cells)).rstrip()


def print_report(report: Report, stream: TextIO) -> None:
    """The whole report for people."""
    lines = [f"{name:<9} {printable(text)}" for name, text in identity(report)]
    lines += ["", start_text(report["start"]), "", "latency of one screening, ms"]
    lines += _table([["stage", *COLUMNS], *([name, *cells] for name, cells in stage_rows(report["stages"]))])
    lines += [f"  {text}"] if (text := too_few(report)) else []
    lines += ["", "distribution of the total, ms"]
    largest = max(1, *report["histogram"]["counts"], *(count for _, count in coarse(report["histogram"])))
    lines += [
        f"  {label}  {bar(count / largest, stream, empty=False)} {count}"
        for label, count in coarse(report["histogram"])
    ]
    detail = report["purify_detail"]
    if detail:
        lines += ["", "purifier, ms (a pass of its own, each kernel timed)"]
        lines += _table(list(detail_rows(detail))) if detail["blocks_ms"] else ["  its blocks were not recognised"]
        lines.append(f"  {detail_rest(detail)}")
    lines += ["", "over the run"]
    lines += [f"  {name}: {text}" for name, text in series_rows(report["timeline"])]
    lines.append(f"  throttling: {throttling_text(report['throttling'])}")
    if report["memory"]["peak_mb"] is not None:
        lines.append(f"  peak memory: {report['memory']['peak_mb']:.0f} MB")
    if report["sweep"]:
        lines += ["", "sweep, total in ms", *_table(list(sweep_rows(report["sweep"])), left=2)]
    lines += ["", *report["notes"], NOTICE]
    print("\n".join(lines), file=stream)
