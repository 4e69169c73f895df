"""Plots as inline SVG: no script, no network, readable in grey on paper.

By hand, because a board that only screens has no plotting library: Matplotlib costs 55 MB and 1.4 s to import
(Python 3.11, x86_64), beside its 30 MB of packages in every bundle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH = 680  # user units; the page scales them
INK, MAIN, LIGHT, ALARM, GRID = "#1c2733", "#2f6f8f", "#7d8b96", "#b3261e", "#dde3e8"
LEFT, RIGHT, LINE = 60, 16, 22  # margins, and the height of one line of bars


def nice_step(span: float, wanted: int = 5) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides ``span`` into about ``wanted`` parts."""
    if not span > 0 or not math.isfinite(span):
        return 1.0
    power = 10 ** math.floor(math.log10(span / wanted))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * wanted >= span * 0.999)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers within a range."""
    step = nice_step(high - low, wanted)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:.6g}"


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    size = f'width="{max(width, 0):.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}">{inside}</rect>'


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str = GRID) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _figure(height: float, label: str, parts: Sequence[str]) -> str:
    name = escape(label, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def histogram(edges: Sequence[float], counts: Sequence[int], above: int, marks: dict[str, float], unit: str) -> str:
    """Counts by bin; ``marks`` are named vertical lines, ``above`` is how many lie beyond the last edge."""
    top, height = 40, 200
    bottom = top + height
    low, high = edges[0], edges[-1]
    span = (high - low) or 1.0
    inner = WIDTH - LEFT - RIGHT
    largest = max(1, *counts)

    def across(value: float) -> float:
        return LEFT + (value - low) / span * inner

    parts = []
    for tick in ticks(0, largest, 4):
        if tick == int(tick):
            y = bottom - tick / largest * height
            parts += [_rule(LEFT, y, WIDTH - RIGHT, y), _text(LEFT - 6, y + 4, _number(tick), "end")]
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        tall = count / largest * height
        title = f"{left:.2f} to {right:.2f} {unit}: {count}"
        parts.append(_rect(across(left) + 0.5, bottom - tall, across(right) - across(left) - 1, tall, MAIN, title))
    for tick in ticks(low, high, 6):
        parts.append(_text(across(tick), bottom + 16, _number(tick), "middle"))
    shown = [(name, value) for name, value in marks.items() if low <= value <= high]
    for number, (name, value) in enumerate(shown):
        x = across(value)
        anchor = "end" if x > WIDTH - 100 else "start"
        y = top - 10 - 14 * (number % 2)  # above the bars, and one beside the other
        parts.append(_rule(x, y - 8, x, bottom, ALARM))
        parts.append(_text(x + (4 if anchor == "start" else -4), y, name, anchor, ALARM))
    text = unit + (f"; above {high:.2f}: {above}" if above else "")
    parts += [_rule(LEFT, bottom, WIDTH - RIGHT, bottom, INK), _text(WIDTH - RIGHT, bottom + 32, text, "end")]
    return _figure(bottom + 40, f"histogram, {unit}", parts)


def bars(rows: Sequence[tuple[str, float, float | None]], unit: str, left: int = 150) -> str:
    """Horizontal bars: a name, a length, and a whisker to a second value (or None)."""
    largest = max((max(value, whisker or 0) for _, value, whisker in rows), default=1.0) or 1.0
    inner = WIDTH - left - 120
    parts = []
    for number, (name, value, whisker) in enumerate(rows):
        y = 8 + number * LINE
        parts += [_text(left - 8, y + 13, name, "end"), _rect(left, y, value / largest * inner, LINE - 6, MAIN)]
        end, text = value, f"{value:.2f}"
        if whisker is not None:
            x1, x2, middle = left + value / largest * inner, left + whisker / largest * inner, y + (LINE - 6) / 2
            parts += [_rule(x1, middle, x2, middle, INK), _rule(x2, middle - 5, x2, middle + 5, INK)]
            end, text = max(end, whisker), f"{text} | {whisker:.2f}"
        parts.append(_text(left + end / largest * inner + 6, y + 13, f"{text} {unit}"))
    return _figure(16 + LINE * len(rows), f"bars, {unit}", parts)


def grid(head: Sequence[str], names: Sequence[str], values: Sequence[Sequence[float]], unit: str) -> str:
    """A table of cells shaded by value, with the number in each."""
    largest = max((value for row in values for value in row), default=1.0) or 1.0
    left, tall = 90, 34
    wide = (WIDTH - left - RIGHT) / max(1, len(head))
    parts = [_text(left + (i + 0.5) * wide, 16, name, "middle") for i, name in enumerate(head)]
    for line, (name, row) in enumerate(zip(names, values, strict=True)):
        y = 24 + line * tall
        parts.append(_text(left - 8, y + 21, name, "end"))
        for column, value in enumerate(row):
            x, share = left + column * wide, value / largest
            shade = f"rgb({_mix(255, 47, share)},{_mix(255, 111, share)},{_mix(255, 143, share)})"
            parts.append(_rect(x + 1, y + 1, wide - 2, tall - 2, shade))
            colour = "#ffffff" if share > 0.6 else INK
            parts.append(_text(x + wide / 2, y + 21, f"{value:.2f} {unit}", "middle", colour))
    return _figure(28 + tall * len(names), f"grid, {unit}", parts)


def _mix(start: int, end: int, share: float) -> int:
    return round(start + (end - start) * min(max(share, 0.0), 1.0))


def lines(
    times: Sequence[float],
    series: Sequence[tuple[str, Sequence[float | None], str]],
    unit: str,
    alarms: Sequence[float] = (),
) -> str:
    """Values over time; gaps where there is None. ``alarms`` are times that are marked at the top.

    ``series`` holds a name, its values and a colour each.
    """
    top, height = 24, 110
    bottom = top + height
    known = [value for _, values, _ in series for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    margin = (high - low) * 0.08 or max(abs(high) * 0.05, 0.5)
    low, high = max(low - margin, 0.0) if low >= 0 else low - margin, high + margin
    last = max(times, default=1.0) or 1.0

    def place(time: float, value: float) -> str:
        return f"{across(time):.1f},{bottom - (value - low) / (high - low) * height:.1f}"

    def across(time: float) -> float:
        return LEFT + time / last * (WIDTH - LEFT - RIGHT)

    parts = []
    for tick in ticks(low, high, 4):
        y = bottom - (tick - low) / (high - low) * height
        parts += [_rule(LEFT, y, WIDTH - RIGHT, y), _text(LEFT - 6, y + 4, _number(tick), "end")]
    for tick in ticks(0, last, 8):
        parts.append(_text(across(tick), bottom + 16, _number(tick), "middle"))
    for time in alarms:
        parts.append(_rect(across(time) - 1.5, top - 6, 3, 6, ALARM, "throttled"))
    label = LEFT
    for name, values, colour in series:
        for run in _runs(times, values):
            points = " ".join(place(*point) for point in run)
            if len(run) == 1:
                left, _, above = points.partition(",")
                parts.append(f'<circle cx="{left}" cy="{above}" r="2.5" fill="{colour}"/>')
            else:
                parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(_text(label, 12, name, "start", colour))
        label += 9 * len(name) + 24
    parts += [_rule(LEFT, bottom, WIDTH - RIGHT, bottom, INK), _text(WIDTH - RIGHT, 12, unit, "end")]
    parts += [_text(WIDTH / 2, 12, "red: throttled", "middle", ALARM)] if alarms else []
    return _figure(bottom + 24, f"{', '.join(name for name, _, _ in series)} over seconds", parts)


def _runs(times: Sequence[float], values: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """The stretches without gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for time, value in zip(times, values, strict=True):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((time, value))
    return [run for run in runs if run]
