"""The goals of the benchmark, each against the rows of a run: reached or not, on how many images.

A goal is a record: which rows it speaks of, what is measured there, and the least that it must be. A goal whose rows
the run does not have gives no line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.robustness.plan import THROUGH
from edge_mdda.classifier import BUILT_IN_MODELS

Row = Mapping[str, Any]
PRESET = "mdda_balanced"
OURS = ("none", "mdda_")
"""Defences (beginnings of names) that are no competitor: no defence, and MDDA's presets."""
FIGURE = "balanced_accuracy"
ROUNDING = 1e-9
HEAD = ("| goal | measured | n | |", "| --- | --- | ---: | --- |")


@dataclass(frozen=True)
class Measured:
    """A measured figure and how it came about, in words."""

    value: float
    text: str


Measure = Callable[[Row, Sequence[Row]], "Measured | None"]


@dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes
    ----------
    name : str
    rows : mapping
        Fields and their values of the rows that it speaks of; it is judged once for each network that the attack was
        ``source_model``, on the most images.
    measure : callable
        Takes such a row and all rows; None where something is missing that it is compared with.
    least : float
        What is measured must be at least this.
    foreign : bool
        Only attacks made on networks that are not our own.
    """

    name: str
    rows: Mapping[str, Any]
    measure: Measure
    least: float
    foreign: bool = False


def value(row: Row, rows: Sequence[Row]) -> Measured:
    """Balanced accuracy, with its interval."""
    low, high = row[f"{FIGURE}_ci"]
    return Measured(row[FIGURE], f"{row[FIGURE]:.3f} (95 %: {low:.3f} to {high:.3f})")


def lead(row: Row, rows: Sequence[Row]) -> Measured | None:
    """Balanced accuracy above the best competitor's under the same attack on the same images."""
    same = ("network", "threat_model", "attack", "source_model", "eps", "n")
    others = [
        other for other in rows if all(other[key] == row[key] for key in same) and not other["defence"].startswith(OURS)
    ]
    if not others:
        return None
    best = max(others, key=lambda other: other[FIGURE])
    ahead = row[FIGURE] - best[FIGURE]
    return Measured(ahead, f"{ahead:+.3f} ({row[FIGURE]:.3f}; {best['defence']} {best[FIGURE]:.3f})")


def against_clean(row: Row, rows: Sequence[Row]) -> Measured | None:
    """Balanced accuracy above (below zero: below) that of the same clean images behind the same defence."""
    same = ("network", "defence", "n")
    for other in rows:
        if other["attack"] == "clean" and all(other[key] == row[key] for key in same):
            ahead = row[FIGURE] - other[FIGURE]
            return Measured(ahead, f"{ahead:+.3f} ({row[FIGURE]:.3f}; clean {other[FIGURE]:.3f})")
    return None


def _rows(network: str, threat_model: str, attack: str, eps: float) -> dict[str, Any]:
    return {"network": network, "defence": PRESET, "threat_model": threat_model, "attack": attack, "eps": eps}


_GRAY = (("difgsm", 2.0, 0.60), ("pgd10", 4.0, 0.60), ("difgsm", 6.0, 0.40))

GOALS = (
    *(
        Goal(f"gray {attack} {eps:g}, {PRESET}", _rows("standard", "gray", attack, eps), value, least)
        for attack, eps, least in _GRAY
    ),
    *(
        Goal(f"gray {attack} {eps:g}, above the best other defence", _rows("standard", "gray", attack, eps), lead, 0.10)
        for attack, eps, _ in _GRAY
    ),
    Goal("transfer difgsm 8, against clean", _rows("standard", "transfer", "difgsm", 8.0), against_clean, -0.05, True),
    *(
        Goal(f"adaptive {attack} 2, {PRESET}, hardened", _rows("hardened", "adaptive", attack, 2.0), value, 0.30)
        for attack in THROUGH
    ),
)


def lines(content: Mapping[str, Any], goals: Sequence[Goal] = GOALS) -> Iterable[str]:
    """A table line for each goal that the rows of a run can answer."""
    rows = content["rows"]
    for goal in goals:
        found: dict[str, Row] = {}
        for row in rows:
            if any(row[key] != wanted for key, wanted in goal.rows.items()):
                continue
            source_model = row["source_model"]
            if goal.foreign and source_model in BUILT_IN_MODELS:
                continue
            if source_model not in found or row["n"] > found[source_model]["n"]:
                found[source_model] = row
        for source_model, row in found.items():
            measured = goal.measure(row, rows)
            if measured is not None:
                name = f"{goal.name}, made on {source_model}" if goal.foreign else goal.name
                verdict = "reached" if measured.value >= goal.least - ROUNDING else "NOT reached"
                yield f"| {name}: at least {_bound(goal)} | {measured.text} | {row['n']} | {verdict} |"


def _bound(goal: Goal) -> str:
    return f"{goal.least:.2f}" if goal.measure is value else f"{goal.least:+.2f}"


def table(content: Mapping[str, Any]) -> list[str]:
    """The whole table; empty where the run answers no goal."""
    found = list(lines(content))
    return [*HEAD, *found] if found else []
