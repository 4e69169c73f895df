"""A latency report as one HTML page: plots inline, nothing loaded, no script, made to be printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from edge_mdda import NOTICE
from edge_mdda.console import printable
from edge_mdda.profiling import report_svg as svg
from edge_mdda.profiling.case import STAGES
from edge_mdda.profiling.report_text import (
    COLUMNS,
    SERIES,
    detail_rest,
    identity,
    series_rows,
    stage_rows,
    start_text,
    sweep_rows,
    throttling_text,
    too_few,
)
from edge_mdda.profiling.run import Report

STYLE = """\
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2733; background: #fff; max-width: 46rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .4rem; border-bottom: 1px solid #c5ced6; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; display: block; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .5rem; border-bottom: 1px solid #dde3e8; }
th:first-child, td:first-child, td.text { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { color: #51606d; } dd { margin: 0; overflow-wrap: anywhere; }
.note { background: #fbf3e0; border-left: 4px solid #c98a00; padding: .4rem .8rem; }
.small { color: #51606d; font-size: .9rem; }
@media print { body { margin: 0; max-width: none; font-size: 10.5pt; }
  section { break-inside: avoid; } .note { border: 1px solid #c98a00; } }
"""


def _e(text: object) -> str:
    return escape(printable(str(text)))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    lines = ["<table><thead><tr>", *(f"<th>{_e(cell)}</th>" for cell in head), "</tr></thead><tbody>"]
    for row in rows:
        lines.append("<tr>")
        for number, cell in enumerate(row):
            short = len(row) < len(head) and number == len(row) - 1  # a failed case: its reason fills the line
            span = f' colspan="{len(head) - number}"' if short else ""
            kind = ' class="text"' if short or number < text_columns else ""
            lines.append(f"<td{kind}{span}>{_e(cell)}</td>")
        lines.append("</tr>")
    return "".join([*lines, "</tbody></table>"])


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{_e(title)}</h2>{''.join(parts)}</section>"


def _small(text: str) -> str:
    return f'<p class="small">{_e(text)}</p>'


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{_e(name)}</dt><dd>{_e(text)}</dd>" for name, text in rows) + "</dl>"


def to_html(report: Report) -> str:
    """The whole page."""
    name = report["hardware"]["model"] or report["hardware"]["cpu"] or report["hardware"]["machine"]
    title = f"Latency of edge-mdda on {name}"
    made = f"{NOTICE} Made by edge-mdda profile {report['edge_mdda']}, {report['created']}."
    sections = [
        *(f'<p class="note">{_e(note)}</p>' for note in report["notes"]),
        _facts(identity(report)),
        _start(report),
        _latency(report),
        *_detail(report["purify_detail"]),
        _run(report),
        *_sweep(report["sweep"]),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_e(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{_e(title)}</h1><p><strong>{_e(NOTICE)}</strong></p>{''.join(sections)}"
        f"<footer>{_small(made)}</footer>"
        "</body></html>\n"
    )


def _start(report: Report) -> str:
    start = report["start"]
    rows = [(f"process {n}", seconds, None) for n, seconds in enumerate(start["to_first_result_s"], 1)]
    return _section("Start", f"<p>{_e(start_text(start))}</p>", svg.bars(rows, "s"))


def _latency(report: Report) -> str:
    stages, histogram = report["stages"], report["histogram"]
    total = stages["total"]
    marks = {name: total[name] for name in ("p50", "p95", "p99") if total[name] is not None}
    rows = [(n, stages[n]["p50"] or stages[n]["mean"], stages[n]["p95"]) for n in STAGES if n in stages]
    few = too_few(report)
    return _section(
        "One screening",
        _table(["stage, ms", *COLUMNS], ([name, *cells] for name, cells in stage_rows(stages))),
        _small(few) if few else "",
        "<h3>Distribution of the total</h3>",
        svg.histogram(histogram["edges"], histogram["counts"], histogram["above"], marks, "ms"),
        "<h3>Median by stage, with its 95th percentile</h3>",
        svg.bars(rows, "ms"),
    )


def _detail(detail: dict[str, Any] | None) -> list[str]:
    if not detail:
        return []
    head = [f"scale {scale:g}" for scale in detail["scales"]]
    blocks = detail["blocks_ms"]
    plot = (
        svg.grid(head, [f"block {n}" for n in range(1, len(blocks) + 1)], blocks, "ms")
        if blocks
        else _small("Its blocks were not recognised.")
    )
    return [_section("Purifier by block and scale", plot, _small(detail_rest(detail)))]


def _run(report: Report) -> str:
    timeline = report["timeline"]
    times = [window["t_s"] for window in timeline]
    alarms = [window["t_s"] for window in timeline if window["throttled"]]
    plots = [
        svg.lines(
            times,
            [
                ("median", [w["p50_ms"] for w in timeline], svg.MAIN),
                ("slowest", [w["max_ms"] for w in timeline], svg.LIGHT),
            ],
            "ms of a call, over seconds",
            alarms,
        )
    ]
    for key, name, unit in SERIES:
        values = [window[key] for window in timeline]
        if key != "p50_ms" and any(value is not None for value in values):
            plots.append(svg.lines(times, [(name, values, svg.MAIN)], unit, alarms))
    peak = report["memory"]["peak_mb"]
    facts = [*series_rows(timeline), ("throttling", throttling_text(report["throttling"]))]
    if peak is not None:
        facts.append(("peak memory", f"{peak:.0f} MB"))
    return _section("Over the run", *plots, _facts(facts))


def _sweep(sweep: list[dict[str, Any]]) -> list[str]:
    if not sweep:
        return []
    head, *rows = sweep_rows(sweep)
    plotted = [
        (
            f"{row['runtime'].split()[0]} {row['preset']} x{row['threads']}",
            row["stages"]["total"]["p50"] or row["stages"]["total"]["mean"],
            row["stages"]["total"]["p95"],
        )
        for row in sweep
        if "failed" not in row
    ]
    plot = svg.bars(plotted, "ms", left=230) if plotted else ""
    return [_section("Sweep: threads, runtimes, presets", plot, _table(head, rows, text_columns=2))]
