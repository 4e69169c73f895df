"""A screening, and a folder of them, as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from edge_mdda import NOTICE
from edge_mdda.console import RESET, bar, colour_wanted, printable

if TYPE_CHECKING:
    from edge_mdda.screening import Screening

ADVICE_TEXT = {"refer": "REFER", "retake": "RETAKE", "routine": "no sign that asks for referral"}
COLOURS = {"refer": "\033[1;31m", "retake": "\033[1;33m", "routine": "\033[1;32m"}


def print_screening(result: Screening, names: Mapping[str, str], malignant: tuple[str, ...], stream: TextIO) -> None:
    """Print one screening as text.

    ``names`` maps a label to its full name; ``malignant`` are the labels in the malignant share.
    """
    lines = [printable(result.image)]
    raw = result.raw_probabilities if result.purify else None
    width = max(len(f"{name} ({label})") for label, name in names.items())
    for label, share in sorted(result.probabilities.items(), key=lambda item: -item[1]):
        line = f"  {f'{names[label]} ({label})':<{width}} {share:6.1%} {bar(share, stream)}"
        lines.append(line + (f"  raw {raw[label]:6.1%}" if raw else ""))
    title = f"malignant share ({' + '.join(malignant)})"
    lines.append(f"  {title:<{width}} {result.malignant:6.1%}")
    if result.disagreement is None:
        view = "purified" if result.purify else "raw"
        lines.append(f"  only the {view} view was classified: tampering cannot be noticed")
    else:
        change = "another top class" if result.top_changed else "same top class"
        lines.append(f"  disagreement of raw and purified view: {result.disagreement:.3f} bit, {change}")
    if result.spread is not None and result.purify:
        spread, draws = result.spread, result.purify["draws"]
        same = round(spread["agreement"] * draws)
        lines.append(
            f"  {draws} draws of the purifier: malignant share +/- {spread['malignant']:.1%}, {same} say the same class"
        )
    action = ADVICE_TEXT[result.advice.action]
    if colour_wanted(stream):
        action = COLOURS[result.advice.action] + action + RESET
    lines.append(f"  advice: {action}, because {result.advice.rule}")
    measured = result.operating_point.get("test", {})
    if "sensitivity" in measured and "specificity" in measured:
        lines.append(
            f"  on its own test split this advice finds {measured['sensitivity']:.0%} of malignant lesions"
            f" and refers {1 - measured['specificity']:.0%} of the benign ones;"
        )
        lines.append("  in other clinics it misses more: see 'edge-mdda screen --help'")
    times = ", ".join(f"{stage} {value:.1f} ms" for stage, value in result.timings_ms.items())
    seed = f"; preset {result.purify['preset']}, seed {result.purify['seed']}" if result.purify else ""
    lines.append(f"  {times}{seed}")
    lines.append(f"  {NOTICE}")
    print("\n".join(lines), file=stream)


def print_summary(said: Mapping[str, int], not_judged: int, stream: TextIO) -> None:
    """One line that says how many pictures got which advice, and how many none."""
    parts = [f"{said.get(action, 0)} {text}" for action, text in ADVICE_TEXT.items()]
    print(f"edge-mdda: {', '.join(parts)}; {not_judged} not judged", file=stream)
