"""What a run leaves: JSON with all that made it, and a markdown report whose first table is the hardest attacker's."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.robustness import goals
from edge_mdda import NOTICE, __version__
from edge_mdda.files import replace_file
from export.convert.report import processor
from export.evaluate import write_json

__all__ = ["HEAD", "line", "markdown", "parameter_table", "result", "write_json", "write_text"]

WITHOUT_EPS = ("clean", "sticker")
JSON_NAME, MARKDOWN_NAME = "robustness.json", "robustness.md"
ROOT = Path(__file__).parents[2]
PACKAGES = ("numpy", "torch", "torchattacks", "onnxruntime", "opencv-python-headless", "numba", "scikit-image")
FORMAT = 1

HEAD = (
    "| network | threat model | attack | source model | eps | defence | n | balanced accuracy | melanoma recall"
    " | ms |\n"
    "| --- | --- | --- | --- | ---: | --- | ---: | --- | --- | ---: |"
)
TITLES = {
    "adaptive": (
        "White-box adaptive: the attacker knows the network and the defence",
        "BPDA, EOT, PGD-50; straight-through gradient, under `pgd50smooth` that of a blur.",
    ),
    "gray": ("Gray-box: the attacker knows the network, not the defence", ""),
    "transfer": ("Transfer: the attacker trains another network", ""),
    "black": ("Black-box: the attacker sees the scores of the whole pipeline", "Square attack, few queries."),
}


SUMMARY_TEXT = (
    "In each cell: balanced accuracy under the attack that harms most, and clean on the same number of images (- where"
    " that was not judged). Within one eps and attacker only what every defence with figures there was judged under is"
    " compared: the same attacks, made on the same network, on as many images. A cell stays empty where nothing is"
    " common; all figures stand in the tables below."
)


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if value is None or value != value:
        return "-"
    low, high = row[f"{name}_ci"]
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def line(row: Mapping[str, Any]) -> str:
    """One row of the table."""
    cells = [row["network"], row["threat_model"], row["attack"], row["source_model"], f"{row['eps']:g}", row["defence"]]
    cells += [str(row["n"]), _with_interval(row, "balanced_accuracy"), _with_interval(row, "melanoma_recall")]
    return "| " + " | ".join((*cells, f"{row['ms']:.1f}")) + " |"


def commit() -> str | None:
    """The checkout's commit, with ``-dirty`` behind it if files differ; None without git."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "edge_mdda": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _device(name: str) -> str:
    import torch

    return torch.cuda.get_device_name() if name == "cuda" else name


def result(run: Any, rows: Sequence[dict[str, Any]], command: str) -> dict[str, Any]:
    """Everything that the JSON file holds.

    Parameters
    ----------
    run : Run
        Finished.
    rows : sequence of dict
        Its rows.
    command : str
        The command line.
    """
    chosen = run.options
    return {
        "format": FORMAT,
        "notice": NOTICE,
        "command": command,
        "commit": commit(),
        "quick": chosen.quick,
        "seed": chosen.seed,
        "split": "test",
        "classes": list(run.photos.data.labels),
        "hardware": {
            "cpu": processor(),
            "threads": chosen.threads,
            "device": _device(chosen.device),
        },
        "versions": _versions(),
        "networks": {
            name: {
                "name": target.classifier.manifest.name,
                "version": target.classifier.manifest.version,
                "sha256": target.digest,
                "runtime": target.classifier.runtime,
            }
            for name, target in run.targets.items()
        },
        "surrogates": {source.name: source.digest for sources in run.sources.values() for source in sources},
        "defences": {
            name: {
                "label": defence.label,
                "source": defence.source,
                "ms": run.ms[name],
                "random": run.random[name],
            }
            for name, defence in run.defences.items()
        },
        "attacks": {name: merged(list(by_eps.values())) for name, by_eps in run.parameters.items()},
        "sets": run.sets,
        "rows": list(rows),
    }


def _tables(content: Mapping[str, Any], threat_model: str) -> Iterable[str]:
    """One table a network: an attack a row, a defence a column."""
    for network in content["networks"]:
        rows = [row for row in content["rows"] if row["threat_model"] == threat_model and row["network"] == network]
        if not rows:
            continue
        defences = [name for name in content["defences"] if any(row["defence"] == name for row in rows)]
        for figure in ("balanced_accuracy", "melanoma_recall"):
            yield f"\n**{network}**, {figure.replace('_', ' ')} (95 % interval)\n"
            yield "| attack | eps | n | " + " | ".join(content["defences"][name]["label"] for name in defences) + " |"
            yield "| --- | ---: | ---: |" + " --- |" * len(defences)
            for identity in dict.fromkeys(map(_identity, rows)):
                cells = {row["defence"]: row for row in rows if _identity(row) == identity}
                attack, n, source_model, eps = identity
                name = f"{attack} on {source_model}" if threat_model == "transfer" else attack
                values = [_with_interval(cells[d], figure) if d in cells else "" for d in defences]
                yield f"| {name} | {eps:g} | {n} | " + " | ".join(values) + " |"


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What one line of a table is of."""
    return *_judgement(row), row["eps"]


def _judgement(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two rows must share for their defences to be compared."""
    return row["attack"], row["n"], row["source_model"]


def most_harmful(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The row of least balanced accuracy of each defence, among the judgements that all these defences share.

    Parameters
    ----------
    rows : sequence of dict
        Attacked rows of one network, eps and kind of attacker.
    """
    met: dict[str, set[tuple[Any, ...]]] = {}
    for row in rows:
        met.setdefault(row["defence"], set()).add(_judgement(row))
    common = set.intersection(*met.values()) if met else set()
    worst: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        name = row["defence"]
        better = name not in worst or row["balanced_accuracy"] < worst[name]["balanced_accuracy"]
        if _judgement(row) in common and better:
            worst[name] = row
    return worst


def summary(content: Mapping[str, Any]) -> Iterable[str]:
    """One table a network: a defence and eps a row, an attacker a column, in each cell its most harmful attack."""
    for network in content["networks"]:
        own = [row for row in content["rows"] if row["network"] == network]
        rows = [row for row in own if row["attack"] not in WITHOUT_EPS]
        if not rows:
            continue
        clean = {(row["defence"], row["n"]): row["balanced_accuracy"] for row in own if row["attack"] == "clean"}
        yield f"\n**{network}**, balanced accuracy under the most harmful attack of each attacker\n"
        yield "| eps | defence | " + " | ".join(title.split(":")[0] for title, _ in TITLES.values()) + " |"
        yield "| ---: | --- |" + " --- |" * len(TITLES)
        for eps in sorted({row["eps"] for row in rows}):
            worst = {
                threat_model: most_harmful(
                    [row for row in rows if (row["eps"], row["threat_model"]) == (eps, threat_model)]
                )
                for threat_model in TITLES
            }
            for defence in content["defences"]:
                cells = [_summary_cell(worst[threat_model].get(defence), clean) for threat_model in TITLES]
                if any(cells):
                    yield f"| {eps:g} | {content['defences'][defence]['label']} | " + " | ".join(cells) + " |"


def _summary_cell(row: Mapping[str, Any] | None, clean: Mapping[tuple[str, int], float]) -> str:
    if row is None:
        return ""
    before = clean.get((row["defence"], row["n"]))
    text = "-" if before is None else f"{before:.3f}"
    return f"{row['balanced_accuracy']:.3f} ({row['attack']}, n {row['n']}, clean {text})"


def parameter_table(content: Mapping[str, Any]) -> list[str]:
    """Every attack with all its parameters; a list where they differ with eps."""
    lines = ["| attacker / attack | parameters |", "| --- | --- |"]
    for name, parameters in content["attacks"].items():
        lines.append(f"| {name} | " + "; ".join(f"{key}: {_short(value)}" for key, value in parameters.items()) + " |")
    return lines


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def merged(parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters of one attack at several eps as one: a value where all agree, else all of them in order."""
    return {
        name: values[0] if all(value == values[0] for value in values) else values
        for name in parameters[0]
        for values in [[one[name] for one in parameters]]
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The report."""
    lines = ["# Robustness", "", content["notice"], ""]
    lines += [f"`{content['command']}`", "", f"- Commit {content['commit'] or 'unknown'}, split {content['split']}."]
    lines += [
        f"- Network {name}: {network['name']} {network['version']}, SHA-256 {network['sha256']}, {network['runtime']}."
        for name, network in content["networks"].items()
    ]
    hardware = content["hardware"]
    lines.append(f"- {hardware['cpu']}, {hardware['threads']} threads, {hardware['device']}.")
    lines.append("- " + ", ".join(f"{name} {number}" for name, number in content["versions"].items()) + ".")
    lines.append("- eps in grey levels of 255; of a sticker, its largest change. Verdicts are the int8 file's.")
    reached = goals.table(content)
    if reached:
        lines += ["", "## Goals", "", "Balanced accuracy, in shares of 1; a difference bears its sign.", "", *reached]
    lines += ["", "## By threat model", "", SUMMARY_TEXT, *summary(content)]
    for threat_model, (title, text) in TITLES.items():
        tables = list(_tables(content, threat_model))
        if tables:
            lines += ["", f"## {title}", *(["", text] if text else []), *tables]
    lines += ["", "## Defences", "", "| defence | ms an image | random | source |", "| --- | ---: | --- | --- |"]
    for defence in content["defences"].values():
        drawn = "yes" if defence["random"] else "no"
        lines.append(f"| {defence['label']} | {defence['ms']:.1f} | {drawn} | {defence['source']} |")
    lines += ["", "## Parameters of the attacks", "", *parameter_table(content)]
    return "\n".join(lines) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text through a temporary file."""
    replace_file(str(path), text.encode())
