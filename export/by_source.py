"""Figures by source and for the worst source: ``python -m export evaluate --source``.

A network that was judged on the clinic it was trained on says little of the next one. Each source is a folder with
``images/`` and ``labels.csv`` (columns ``image_id``, ``split`` and ``dx`` or ``malignant``). Within a source the
figures stand by age, sex, body site and dark border as well, and by patient where patients are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.cases import AGE_BANDS, Case, Screened, read_cases, screen_cases
from export.dataset import DatasetError
from export.intervals import mean_interval, share_of
from export.metrics import auroc, balanced_accuracy, bootstrap
from export.risk_coverage import cell, curve_table, risk_coverage

if TYPE_CHECKING:
    from edge_mdda.classifier import Manifest
    from edge_mdda.screening import Screener

ALL = "all"
AREA_FROM = 10  # malignant and as many benign cases, below which a subgroup gets no AUROC
SKIN_TYPE = "Skin type is not known of any case: nothing is said here about how the figures differ by skin type."
NO_RULERS = "Whether a ruler is in the picture is not known either."
GROUPS: dict[str, Callable[[Case], str]] = {
    "age": lambda case: case.age,
    "sex": lambda case: case.sex,
    "site": lambda case: case.site,
}
AGES = [name for _, name in AGE_BANDS]
VIEWS = ("raw", "purified")
ACTIONS = ("refer", "retake", "routine")


def find_sources(root: Path, wanted: str) -> list[Path]:
    """Folders of the sources; DatasetError where there is none of that name."""
    there = sorted(p.parent for p in root.glob("*/labels.csv")) if root.is_dir() else []
    if not there:
        raise DatasetError(f"{root}: holds no source (NAME/labels.csv with NAME/images); name another --sources-root")
    chosen = [folder for folder in there if wanted in (ALL, folder.name)]
    if not chosen:
        raise DatasetError(f"{root}: no source '{wanted}'; choose {ALL}, {', '.join(f.name for f in there)}")
    return chosen


def area(positive: np.ndarray, score: np.ndarray, seed: int) -> dict[str, Any]:
    """AUROC of the malignant share with its bootstrap interval; NaN where a kind is missing."""
    value = auroc(positive, score)
    if np.isnan(value):
        return {"auroc": value, "ci": [value, value]}
    found = bootstrap(lambda i: {"auroc": auroc(positive[i], score[i])}, positive.astype(int), seed)
    return {"auroc": value, "ci": list(found["auroc"])}


def of_view(screened: Screened, view: str, manifest: Manifest, seed: int) -> dict[str, Any]:
    """Figures of the raw or the purified view alone, at the manifest's operating point."""
    labels = list(manifest.labels)
    answers = getattr(screened, view)
    share = answers[:, [labels.index(label) for label in manifest.malignant]].sum(axis=1)
    positive = screened.positive
    result: dict[str, Any] = {
        **area(positive, share, seed),
        "sensitivity": share_of(share[positive] >= manifest.refer_at),
        "specificity": share_of(share[~positive] < manifest.refer_at),
    }
    targets = [case.target for case in screened.cases]
    known = None not in targets and len(set(targets)) == len(labels)
    if known:
        truth, predicted = np.array(targets), answers.argmax(axis=1)
        hits = np.bincount(truth[truth == predicted], minlength=len(labels))
        result["balanced_accuracy"] = balanced_accuracy(truth, predicted, len(labels))
        result["balanced_accuracy_ci"] = list(mean_interval(hits, np.bincount(truth, minlength=len(labels))))
    return result


def of_advice(screened: Screened, seed: int, area_from: int = 1) -> dict[str, Any]:
    """Figures of the advice with both views: what is referred, retaken and sent home, of malignant and benign cases."""
    positive, advice = screened.positive, screened.advice
    kinds = {"malignant": advice[positive], "benign": advice[~positive]}
    enough = min(len(found) for found in kinds.values()) >= area_from
    nothing = float("nan")
    return {
        **(area(positive, screened.largest, seed) if enough else {"auroc": nothing, "ci": [nothing, nothing]}),
        "sensitivity": share_of(kinds["malignant"] == "refer"),
        "specificity": share_of(kinds["benign"] != "refer"),
        **{name: {action: share_of(found == action) for action in ACTIONS} for name, found in kinds.items()},
    }


def by_patient(screened: Screened, seed: int) -> dict[str, Any] | None:
    """How many lesions of a patient are referred; None where patients are not known.

    Returns
    -------
    dict or None
        ``patients``; quartiles of the lesions a patient; the mean share of a patient's lesions that are referred with
        a bootstrap interval over patients, its quartiles; and the patients of whom at least one lesion is referred.
    """
    patients = sorted({case.patient for case in screened.cases if case.patient})
    if not patients:
        return None
    of = np.array([case.patient or "" for case in screened.cases])
    referred = screened.advice == "refer"
    lesions = np.array([(of == patient).sum() for patient in patients])
    shares = np.array([referred[of == patient].mean() for patient in patients])
    found = bootstrap(lambda i: {"mean": float(shares[i].mean())}, np.zeros(len(patients), int), seed)
    return {
        "patients": len(patients),
        "lesions_a_patient": [float(v) for v in np.percentile(lesions, (25, 50, 75))],
        "referred_share": float(shares.mean()),
        "referred_share_ci": list(found["mean"]),
        "referred_share_quartiles": [float(v) for v in np.percentile(shares, (25, 50, 75))],
        "with_a_referral": share_of(shares > 0),
    }


def report_source(screened: Screened, manifest: Manifest, seed: int = 0) -> dict[str, Any]:
    """All figures of one source."""
    groups: dict[str, dict[str, Any]] = {}
    columns = {name: np.array([of(case) for case in screened.cases]) for name, of in GROUPS.items()}
    columns["dark border"] = np.where(screened.border, "cut away", "none")
    for name, values in columns.items():
        groups[name] = {
            str(value): {"n": int((values == value).sum())}
            | of_advice(screened.subset(values == value), seed, AREA_FROM)
            for value in sorted(set(values), key=lambda value: (AGES.index(value) if value in AGES else 0, value))
        }
    return {
        "n": len(screened.cases),
        "malignant_cases": int(screened.positive.sum()),
        "views": {view: of_view(screened, view, manifest, seed) for view in VIEWS},
        "advice": of_advice(screened, seed),
        "subgroups": groups,
        "by_patient": by_patient(screened, seed),
        "risk_coverage": risk_coverage(screened.positive, screened.largest),
    }


def worst(sources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The lowest AUROC, sensitivity and specificity of the advice, and whose they are; sources without a figure
    do not count."""
    readers: dict[str, Callable[[dict[str, Any]], tuple[float, list[float]]]] = {
        "auroc": lambda advice: (advice["auroc"], advice["ci"]),
        "sensitivity": lambda advice: (advice["sensitivity"]["share"], advice["sensitivity"]["ci"]),
        "specificity": lambda advice: (advice["specificity"]["share"], advice["specificity"]["ci"]),
    }
    result: dict[str, Any] = {}
    for figure, read in readers.items():
        known = {name: read(found["advice"]) for name, found in sources.items()}
        known = {name: pair for name, pair in known.items() if pair[0] == pair[0]}
        if known:
            name = min(known, key=lambda source: known[source][0])
            result[figure] = {"source": name, "value": known[name][0], "ci": known[name][1]}
    return result


def evaluate_sources(
    screener: Screener,
    folders: list[Path],
    split: str,
    seed: int = 0,
    step: Callable[[int], Callable[[], None] | None] | None = None,
) -> dict[str, Any]:
    """Judge a model on one split of several sources.

    Parameters
    ----------
    screener : Screener
        With both views.
    folders : list of Path
        From :func:`find_sources`.
    split : {'train', 'val', 'test'}
        A source without such cases is named under ``left_out``.
    seed : int
        Of purifier and bootstrap.
    step : callable, optional
        Gets the number of pictures and returns what to call after each.

    Raises
    ------
    DatasetError
        A source cannot be read, or none has the split.
    """
    manifest = screener.classifier.manifest
    cases = {folder.name: read_cases(folder / "images", folder / "labels.csv", manifest, split) for folder in folders}
    left_out = [name for name, found in cases.items() if not found]
    if len(left_out) == len(cases):
        raise DatasetError(f"{', '.join(cases)}: no rows of split '{split}'")
    total = sum(map(len, cases.values()))
    after = step(total) if step else None
    sources = {
        name: report_source(screen_cases(screener, found, seed, after), manifest, seed)
        for name, found in cases.items()
        if found
    }
    return {
        "split": split,
        "seed": seed,
        "preset": screener.preset,
        "refer_at": manifest.refer_at,
        "retake_at": manifest.retake_at,
        "model": {"name": manifest.name, "sha256": manifest.sha256, "runtime": screener.classifier.runtime},
        "sources": sources,
        "left_out": left_out,
        "worst": worst(sources),
        "skin_type": SKIN_TYPE,
    }


def _area_cell(part: dict[str, Any]) -> str:
    if part["auroc"] != part["auroc"]:
        return "-"
    return f"{part['auroc']:.3f} ({part['ci'][0]:.3f} to {part['ci'][1]:.3f})"


def _rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *rows)]


def _main_table(result: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in result["sources"].items():
        size = f"{found['n']} ({found['malignant_cases']})"
        for view, part in found["views"].items():
            accuracy = "-"
            if "balanced_accuracy" in part:
                low, high = part["balanced_accuracy_ci"]
                accuracy = f"{part['balanced_accuracy']:.3f} ({low:.3f} to {high:.3f})"
            rows.append(
                (name, size, view, _area_cell(part), cell(part["sensitivity"]), cell(part["specificity"]), accuracy)
            )
        part = found["advice"]
        rows.append((name, size, "advice", _area_cell(part), cell(part["sensitivity"]), cell(part["specificity"]), "-"))
    head = ("source", "n (malignant)", "view", "malignant AUROC", "sensitivity", "specificity", "balanced accuracy")
    return _rows(head, rows)


def _advice_table(result: dict[str, Any]) -> list[str]:
    rows = [
        (name, kind, *(f"{part['hits']}: {cell(part)}" for part in found["advice"][kind].values()))
        for name, found in result["sources"].items()
        for kind in ("malignant", "benign")
    ]
    return _rows(("source", "cases", *(action.upper() for action in ACTIONS)), rows)


def _group_table(found: dict[str, Any]) -> list[str]:
    rows = [
        (
            group,
            value,
            f"{part['n']} ({part['sensitivity']['n']})",
            _area_cell(part),
            cell(part["sensitivity"]),
            cell(part["specificity"]),
        )
        for group, values in found["subgroups"].items()
        for value, part in values.items()
    ]
    return _rows(("group", "value", "n (malignant)", "malignant AUROC", "sensitivity", "specificity"), rows)


def _patient_line(patients: dict[str, Any]) -> str:
    low, high = patients["referred_share_ci"]
    first, middle, third = patients["referred_share_quartiles"]
    return (
        f"{patients['patients']} patients, {patients['lesions_a_patient'][1]:.0f} lesions each (median): of a patient's"
        f" lesions {patients['referred_share']:.1%} ({low:.1%} to {high:.1%}) are referred, quartiles {first:.0%},"
        f" {middle:.0%}, {third:.0%}; {cell(patients['with_a_referral'])} of the patients have a referral. Lesions of"
        " one patient are alike, so the intervals by lesion are too narrow here."
    )


def sources_table(result: dict[str, Any]) -> str:
    """The report as markdown."""
    model = result["model"]
    lines = [
        f"{model['name']} {model['sha256'][:12]}, {model['runtime']}; split {result['split']}, preset"
        f" {result['preset']}; a malignant share from {result['refer_at']:.4f} is referred.",
        "",
        *_main_table(result),
        "",
        *_advice_table(result),
        "",
    ]
    for figure, found in result["worst"].items():
        low, high = found["ci"]
        lines.append(
            f"Worst {figure.replace('auroc', 'AUROC')}: {found['source']}, {found['value']:.3f}"
            f" ({low:.3f} to {high:.3f})."
        )
    for name, found in result["sources"].items():
        lines += ["", f"### {name}, the advice by subgroup", "", *_group_table(found)]
        if found["by_patient"]:
            lines += ["", _patient_line(found["by_patient"])]
        lines += ["", f"### {name}, risk against coverage", "", curve_table(found["risk_coverage"])]
    lines.append("")
    lines += [f"{name} has no pictures of split {result['split']}." for name in result["left_out"]]
    lines += [f"{result['skin_type']} {NO_RULERS}", "95 % intervals. A referral aid, never a diagnosis."]
    return "\n".join(lines)
