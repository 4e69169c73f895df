"""A screening, and a folder of them, as text for people."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

from edge_mdda import NOTICE
from edge_mdda.console import BAR_CELLS, RESET, bar, colour_wanted, printable

if TYPE_CHECKING:
    from edge_mdda.screening import Screening

ADVICE_TEXT = {"refer": "REFER", "retake": "RETAKE", "routine": "no sign that asks for referral"}
COLOURS = {"refer": "\033[1;31m", "retake": "\033[1;33m", "routine": "\033[1;32m"}


MOST_COLUMNS = 100  # of a line on a terminal; longer ones are hard to read
LEAST_COLUMNS = 40
FEWEST_CELLS = 6  # of a bar; a shorter one shows nothing
NO_ADVICE = "not judged"


class Told(NamedTuple):
    """What the end of a run needs to know of one picture."""

    action: str
    malignant: float
    name: str


def _columns(stream: TextIO) -> int | None:
    """How wide lines may be: none but a terminal's have a limit, since a program may read them."""
    return max(LEAST_COLUMNS, min(MOST_COLUMNS, shutil.get_terminal_size().columns)) if stream.isatty() else None


def _fold(line: str, columns: int | None) -> str:
    """A line, in several where it is too wide."""
    if columns is None:
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.fill(line.strip(), columns, initial_indent=indent, subsequent_indent=indent + "  ",
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip


def print_screening(result: Screening, names: Mapping[str, str], malignant: tuple[str, ...], stream: TextIO) -> None:
    """Print one screening as text.

    ``names`` maps a label to its full name; ``malignant`` are the labels in the malignant share.
    """
    columns = _columns(stream)
    rows, lines = [printable(result.image)], list[str]()
    known = {"patient": result.patient, "lesion": result.lesion, "note": result.note}
    if any(known.values()):
        rows.append(_fold("  " + ", ".join(f"{name}: {printable(v)}" for name, v in known.items() if v), columns))
    raw = result.raw_probabilities if result.purify else None
    width = max(len(f"{name} ({label})") for label, name in names.items())
    room = BAR_CELLS if columns is None else min(BAR_CELLS, columns - width - (len("  raw 100.0%") if raw else 0) - 10)
    for label, share in sorted(result.probabilities.items(), key=lambda item: -item[1]):
        row = f"  {f'{names[label]} ({label})':<{width}} {share:6.1%}"
        row += f" {bar(share, stream, most=room)}" if room >= FEWEST_CELLS else ""
        rows.append(row + (f"  raw {raw[label]:6.1%}" if raw else ""))
    title = f"malignant share ({' + '.join(malignant)})"
    rows.append(f"  {title:<{width}} {result.malignant:6.1%}")
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
    text = "\n".join([*rows, *(_fold(line, columns) for line in lines)])
    if colour_wanted(stream):  # after the folding, to which its codes would be letters
        text = text.replace(f"advice: {action}", f"advice: {COLOURS[result.advice.action]}{action}{RESET}")
    print(text, file=stream)


def print_urgent_first(told: Sequence[Told], stream: TextIO) -> None:
    """After several pictures: each that asks for something, REFER first, the larger malignant share first."""
    order = ("refer", "retake", NO_ADVICE, "routine")
    print(f"\n{len(told)} pictures, most urgent first", file=stream)
    for one in sorted(told, key=lambda one: (order.index(one.action), -one.malignant, one.name)):
        if one.action != "routine":
            action = f"{ADVICE_TEXT.get(one.action, one.action):<{len(NO_ADVICE)}}"
            if colour_wanted(stream) and one.action in COLOURS:
                action = COLOURS[one.action] + action + RESET
            share = " " * len("100.0%") if one.action == NO_ADVICE else f"{one.malignant:6.1%}"
            print(f"  {action} {share}  {printable(one.name)}", file=stream)
    print(f"  {ADVICE_TEXT['routine']}: {sum(one.action == 'routine' for one in told)}", file=stream)


def print_summary(said: Mapping[str, int], not_judged: int, stream: TextIO) -> None:
    """One line that says how many pictures got which advice, and how many none."""
    parts = [f"{said.get(action, 0)} {text}" for action, text in ADVICE_TEXT.items()]
    print(f"edge-mdda: {', '.join(parts)}; {not_judged} {NO_ADVICE}", file=stream)
