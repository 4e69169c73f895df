"""What the figures show, taken from the JSON of ``run``, ``tune`` and ``alarm``: plain lists and arrays, no drawing.

``tune`` and ``alarm`` have ``rows`` of their own, which are told by their fields (:func:`by_kind`). Keys that are read,
from one file or several:

``rows``
    Of ``run``: ``{network, threat_model, attack, source_model, eps, defence, n, balanced_accuracy,
    balanced_accuracy_ci, confusion}``, and ``classes``, the labels of ``confusion``: rows truth, columns answer.
``confusions``
    The same rows with ``confusion`` alone, for a file whose ``rows`` have none.
``defences``
    ``{name: {label}}``; names stand for themselves without it.
``reliability``
    ``{name: {confidence: [0..1, ...], correct: [bool, ...]}}`` or ``{name: {bins: [{confidence, accuracy, count},
    ...]}}``, for example with the names ``before`` and ``after``.
``draws``
    ``[{series, draws, balanced_accuracy, balanced_accuracy_ci}, ...]``; ``series`` and the interval may be missing.
``pareto``
    ``[{clean, attacked, ms, name, front}, ...]``; ``name`` only where a point is a preset; ``front``, whether it lies
    on the front, where the search says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.robustness.errors import RobustnessError
from export.metrics import CALIBRATION_BINS

KEYS = ("rows", "confusions", "reliability", "draws", "pareto")
CLEAN = "clean"
MAX_JSON_BYTES = 64 << 20
RUN, TUNE, ALARM = "run", "tune", "alarm"
_NUMBER, _TEXT = (int, float), (str,)
FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    RUN: dict.fromkeys(("network", "threat_model", "attack", "defence"), _TEXT)
    | {"eps": _NUMBER, "n": (int,), "balanced_accuracy": _NUMBER},
    "confusions": dict.fromkeys(("network", "threat_model", "attack", "defence"), _TEXT) | {"eps": _NUMBER},
    TUNE: dict.fromkeys(("clean", "attacked", "ms"), _NUMBER),
    ALARM: {"draws": (int,), "balanced_accuracy": _NUMBER, "attack": _TEXT, "threat_model": _TEXT, "eps": _NUMBER},
    "draws": {"draws": (int,), "balanced_accuracy": _NUMBER},
    "pareto": dict.fromkeys(("clean", "attacked", "ms"), _NUMBER),
}
"""Fields that are read of each row of a kind, and their types in JSON."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """Balanced accuracy of one defence against eps (grey levels of 255), with its 95 % interval."""

    defence: str
    eps: list[float]
    value: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Panel:
    """The curves of one kind of attacker."""

    threat_model: str
    attack: str
    source_model: str
    n: int
    curves: list[Curve]


@dataclass(frozen=True)
class Confusion:
    """Counts ``(n_classes, n_classes)``, a row for each true class, and the same divided by the row's sum."""

    label: str
    counts: np.ndarray
    shares: np.ndarray


def read(paths: Iterable[Path]) -> dict[str, Any]:
    """The files' contents in one; of a key in several files the last one counts.

    Raises
    ------
    RobustnessError
        A file is missing, too large, no JSON, no object, or holds nothing of what is drawn.
    """
    content: dict[str, Any] = {}
    for path in paths:
        try:
            if path.stat().st_size > MAX_JSON_BYTES:
                raise RobustnessError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB; name the JSON of a run")
            found = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RobustnessError(f"{path}: cannot be read ({error.strerror}); check the name") from error
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise RobustnessError(f"{path}: not JSON; name what --json of a run has written") from error
        if not isinstance(found, dict) or not any(key in found for key in KEYS):
            raise RobustnessError(f"{path}: holds none of {', '.join(KEYS)}; name what --json of a run has written")
        try:
            content |= by_kind(found)
        except RobustnessError as error:
            raise RobustnessError(f"{path}: {error}; name the JSON of run, tune, alarm or calibrate") from error
    return content


def by_kind(content: dict[str, Any]) -> dict[str, Any]:
    """The content of one file, with the rows of ``tune`` under ``pareto`` and those of ``alarm`` under ``draws``.

    Raises
    ------
    RobustnessError
        The rows are of another study, or no rows.
    """
    for key in ("confusions", "draws", "pareto"):
        _check(content, key, key)
    reliable = content.get("reliability", {})
    if not isinstance(reliable, dict) or not all(
        isinstance(part, dict) and ("bins" in part or {"confidence", "correct"} <= set(part))
        for part in reliable.values()
    ):
        raise RobustnessError("'reliability' holds no sets with bins, or with confidence and correct")
    rows = content.get("rows", [])
    first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    if "params" in first and "front" in content:
        _check(content, "rows", TUNE)
        return {"pareto": _points(rows, content["front"], content.get("chosen", {}))}
    if "draws" in first:
        _check(content, "rows", ALARM)
        return {"draws": [row | {"series": row.get("series") or _series(row)} for row in rows]}
    _check(content, "rows", RUN)
    return content


def _check(content: Row, key: str, kind: str) -> None:
    """Whether a list of rows, if it is there, has the fields of its kind."""
    rows = content.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RobustnessError(f"'{key}' is no list of objects")
    for n, row in enumerate(rows):
        for field, types in FIELDS[kind].items():
            if not isinstance(row.get(field), types):
                raise RobustnessError(f"'{key}' number {n + 1} has no usable '{field}'")


def _points(rows: list[dict[str, Any]], front: Any, chosen: Any) -> list[dict[str, Any]]:
    """The settings of a search, with the names of the presets and the front that it found."""
    named = chosen if isinstance(chosen, dict) else {}
    places = front if isinstance(front, list) else [None]
    if not all(isinstance(n, int) and 0 <= n < len(rows) for n in (*places, *named.values())):
        raise RobustnessError("'front' or 'chosen' names a row that is not there")
    names = {index: name for name, index in named.items()}
    return [row | {"front": n in places} | ({"name": names[n]} if n in names else {}) for n, row in enumerate(rows)]


def _series(row: Row) -> str:
    if row["attack"] == CLEAN:
        return CLEAN
    return f"{row['attack']} {row['eps']:g}/255, {row['threat_model']}"


def networks(content: Row) -> list[str]:
    """Networks in the rows, in their order."""
    return list(dict.fromkeys(row["network"] for row in (*_rows(content), *content.get("confusions", []))))


def label_of(content: Row, defence: str) -> str:
    """A defence's label."""
    return content.get("defences", {}).get(defence, {}).get("label", defence)


def confusions(
    content: Row, network: str, attack: str, eps: float, defences: Sequence[str], threat_model: str = "gray"
) -> list[Confusion]:
    """Confusion matrices of one attack behind these defences; those that the run did not judge are left out."""
    wanted = {"network": network, "attack": attack, "eps": eps, "threat_model": threat_model}
    found: dict[str, np.ndarray] = {}
    for row in (*content.get("confusions", []), *_rows(content)):
        if row.get("confusion") is not None and all(row.get(key) == value for key, value in wanted.items()):
            found[row["defence"]] = np.array(row["confusion"], np.int64)
    chosen = []
    for defence in defences:
        if defence in found:
            counts = found[defence]
            if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
                raise RobustnessError(f"confusion of {defence}: expected a square of counts, got {counts.shape}")
            sums = counts.sum(1, keepdims=True)
            shares = np.divide(counts, sums, out=np.zeros(counts.shape), where=sums > 0)
            chosen.append(Confusion(label_of(content, defence), counts, shares))
    return chosen


def attacks_with_curves(content: Row, network: str) -> list[str]:
    """Gray-box attacks that were run at two strengths or more behind each defence, on one number of images."""
    found: dict[str, list[Row]] = {}
    for row in _rows(content):
        if row["network"] == network and row["threat_model"] == "gray" and row["attack"] != CLEAN:
            found.setdefault(row["attack"], []).append(row)
    return [attack for attack, rows in found.items() if _all_curves(_on_one_set(rows))]


def _all_curves(rows: Sequence[Row]) -> bool:
    strengths: dict[str, set[float]] = {}
    for row in rows:
        strengths.setdefault(row["defence"], set()).add(row["eps"])
    return min(map(len, strengths.values())) > 1


def panels(content: Row, network: str, attack: str, defences: Sequence[str]) -> list[Panel]:
    """Curves of a gray-box attack, of the same attack from another network, and of the adaptive attacker.

    All points of a panel are of one number of images, the one that was judged at the most eps (of equals the largest).
    Of several other networks the one is taken that hurts the undefended network most at the largest eps; an attack
    that was not run from another network is replaced by the first one that was. Of the adaptive attacks each point has
    the one that harms more there.
    """
    rows = [row for row in _rows(content) if row["network"] == network]
    chosen = [_panel(rows, "gray", attack, None, defences)]
    transfer = [row for row in rows if row["threat_model"] == "transfer"]
    if transfer:
        same = [row for row in transfer if row["attack"] == attack] or transfer
        name = same[0]["attack"]
        same = [row for row in same if row["attack"] == name]
        chosen.append(_panel(rows, "transfer", name, _most_harmful(same), defences))
    adaptive = _harder([row for row in rows if row["threat_model"] == "adaptive"])
    if adaptive:
        others = [row for row in rows if row["threat_model"] != "adaptive"]
        chosen.append(_panel([*others, *adaptive], "adaptive", adaptive[0]["attack"], None, defences))
    return [panel for panel in chosen if panel.curves]


def _harder(rows: Sequence[Row]) -> list[Row]:
    """Of each defence, eps and number of images the row of the attack that harms more, under the names of all."""
    worst: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = row["defence"], row["eps"], row.get("n")
        if key not in worst or row["balanced_accuracy"] < worst[key]["balanced_accuracy"]:
            worst[key] = row
    name = " or ".join(dict.fromkeys(row["attack"] for row in rows))
    return [{**row, "attack": name} for row in worst.values()]


def _most_harmful(rows: Sequence[Row]) -> str | None:
    rows = _on_one_set(rows)
    strongest = max(row["eps"] for row in rows)
    rows = [row for row in rows if row["eps"] == strongest]
    bare = [row for row in rows if row["defence"] == "none"] or rows
    return min(bare, key=lambda row: row["balanced_accuracy"]).get("source_model")


def _on_one_set(rows: Sequence[Row]) -> list[Row]:
    """The attacked rows of the number of images with the most eps: a line through several image sets has no meaning."""
    strengths: dict[int, set[float]] = {}
    for row in rows:
        strengths.setdefault(row.get("n", 0), set()).add(row["eps"])
    chosen = max(strengths, key=lambda n: (len(strengths[n]), n), default=0)
    return [row for row in rows if row.get("n", 0) == chosen]


def _panel(
    rows: Sequence[Row], threat_model: str, attack: str, source_model: str | None, defences: Sequence[str]
) -> Panel:
    own = _on_one_set(
        [
            row
            for row in rows
            if row["threat_model"] == threat_model
            and row["attack"] == attack
            and source_model in (None, row.get("source_model"))
            and row["defence"] in defences
        ]
    )
    n = own[0].get("n", 0) if own else 0
    curves = []
    for defence in defences:
        points = [row for row in own if row["defence"] == defence]
        if not points:
            continue
        # Clean accuracy on other images than the attacked ones would bend the curve for no reason.
        clean = [row for row in rows if (row["attack"], row["defence"], row.get("n", 0)) == (CLEAN, defence, n)]
        points = sorted([*clean[:1], *points], key=lambda row: row["eps"])
        curves.append(_curve(defence, "eps", points))
    return Panel(threat_model, attack, source_model or "", n, curves)


def _curve(name: str, axis: str, rows: Sequence[Row]) -> Curve:
    """A curve over the field ``axis``; where an interval is missing, its ends are the value."""
    values = [float(row["balanced_accuracy"]) for row in rows]
    bands = [row.get("balanced_accuracy_ci") or (value, value) for row, value in zip(rows, values, strict=True)]
    return Curve(
        name,
        [float(row[axis]) for row in rows],
        values,
        [float(low) for low, _ in bands],
        [float(high) for _, high in bands],
    )


def reliability_bins(
    confidence: Sequence[float], correct: Sequence[bool], n_bins: int = CALIBRATION_BINS
) -> list[dict[str, float]]:
    """``{confidence, accuracy, count}`` of each equal-width bin that holds an answer.

    Raises
    ------
    RobustnessError
        The lists differ in length, or a confidence is not within 0 and 1.
    """
    sure, right = np.asarray(confidence, float), np.asarray(correct, float)
    if sure.shape != right.shape or sure.ndim != 1:
        raise RobustnessError(f"reliability: {sure.size} confidences for {right.size} outcomes; give one each")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise RobustnessError("reliability: a confidence is not within 0 and 1")
    bins = np.minimum((sure * n_bins).astype(int), n_bins - 1)
    return [
        {
            "confidence": float(sure[bins == b].mean()),
            "accuracy": float(right[bins == b].mean()),
            "count": int((bins == b).sum()),
        }
        for b in np.unique(bins)
    ]


def reliability(content: Row) -> dict[str, list[dict[str, float]]]:
    """Bins of each named set of answers."""
    return {
        name: part["bins"] if "bins" in part else reliability_bins(part["confidence"], part["correct"])
        for name, part in content.get("reliability", {}).items()
    }


def calibration_error(bins: Sequence[Mapping[str, float]]) -> float:
    """Expected calibration error of bins."""
    total = sum(b["count"] for b in bins)
    return sum(abs(b["confidence"] - b["accuracy"]) * b["count"] for b in bins) / total if total else float("nan")


def draw_curves(content: Row) -> list[Curve]:
    """Balanced accuracy against the number of draws, a curve a series; ``eps`` holds the draws."""
    series: dict[str, list[Row]] = {}
    for row in content.get("draws", []):
        series.setdefault(str(row.get("series", "")), []).append(row)
    return [_curve(name, "draws", sorted(rows, key=lambda row: row["draws"])) for name, rows in series.items()]


def pareto_front(points: Sequence[Row]) -> list[bool]:
    """Whether no other point is as good in ``clean``, ``attacked`` and ``ms``, and better in one of them."""
    values = [(-float(p["clean"]), -float(p["attacked"]), float(p["ms"])) for p in points]

    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return [not any(dominates(other, value) for other in values) for value in values]


def _rows(content: Row) -> list[Row]:
    return content.get("rows", [])
