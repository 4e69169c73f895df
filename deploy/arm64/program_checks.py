"""Checks of the installed program: the same answers as on this machine, and the command line as its users know it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.arm64.bench import Bench
from deploy.arm64.enter import Done
from deploy.arm64.results import Result, judged
from edge_mdda import NOTICE, __version__
from edge_mdda.diagnostics.finding import FAILED, OK
from edge_mdda.mdda.params import PRESETS

if TYPE_CHECKING:
    import numpy as np

SEED = 11
PRESET = "balanced"
MAX_GREY_LEVELS = 1  # two compilers may fuse a multiplication and an addition or not
MAX_PROBABILITY = 1e-2  # two CPUs sum an int8 layer's rest in a different order
ODD_SIZE = (101, 67)  # height and width in pixels: no multiple of a vector
PROGRAM_FINDINGS = ("python", "packages", "numpy", "opencv", "kernels", "model", "screening")
"""What ``edge-mdda doctor`` must find in order on every board; the rest is the board's, and not here."""

TRACEBACK = "Traceback"


def selftest(bench: Bench) -> Iterator[Result]:
    """``edge-mdda selftest``: the golden picture and the golden probabilities."""
    arguments = [part for name in bench.runtimes for part in ("--runtime", name)]
    done = bench.edge_mdda("selftest", "--json", *arguments)
    answer = _json(done)
    texts = [finding["value"] for finding in answer.get("findings", [])]
    good = done.status == 0 and answer.get("ok") is True and len(texts) == len(bench.runtimes)
    yield judged("selftest", good, "; ".join(texts) or "no answer", done)


def kernels(bench: Bench) -> Iterator[Result]:
    """The board's machine code makes the same pictures as this machine's, at every preset and at an odd size."""
    from edge_mdda.models import DEMO_IMAGE
    from edge_mdda.picture.decode import decode, fit, write_png

    demo = fit(decode(DEMO_IMAGE.read_bytes()), 224, 224, "squeeze")
    height, width = ODD_SIZE
    cases = [(preset, demo) for preset in PRESETS] + [(PRESET, demo[:height, :width].copy())]
    for preset, picture in cases:
        write_png(bench.exchange / "in.png", picture)
        (bench.exchange / "out.png").unlink(missing_ok=True)
        done = bench.edge_mdda("purify", "--preset", preset, "--seed", str(SEED), "in.png", "out.png")
        name = f"kernels {preset} {picture.shape[1]}x{picture.shape[0]}"
        if done.status:
            yield judged(name, False, "no purified picture", done)
        else:
            purified = decode((bench.exchange / "out.png").read_bytes())
            yield _compared(name, done, picture, purified, _purified(picture, preset))


def _purified(picture: np.ndarray, preset: str) -> np.ndarray:
    from edge_mdda.mdda.purifier import Purifier

    height, width = picture.shape[:2]
    with Purifier(height, width, PRESETS[preset]) as purifier:
        return purifier.purify(picture, SEED)


def _compared(name: str, done: Done, picture: np.ndarray, there: np.ndarray, here: np.ndarray) -> Result:
    import numpy as np

    if there.shape != here.shape:
        return judged(name, False, f"the purified picture has the shape {there.shape}, not {here.shape}", done)
    distance = np.abs(there.astype(np.int16) - here)
    changed = int(np.abs(here.astype(np.int16) - picture).max())
    worst, differ = int(distance.max()), int((distance > 0).sum())
    text = f"{differ} of {distance.size} values differ from this machine's, by at most {worst} grey level"
    return judged(name, worst <= MAX_GREY_LEVELS and changed > 0, text, done)


def screen(bench: Bench) -> Iterator[Result]:
    """The demo picture through each runtime: the class of this machine, and nearly its probabilities."""
    for runtime in bench.runtimes:
        done = bench.edge_mdda(
            *("screen", "--demo", "--json", "--runtime", runtime, "--preset", PRESET, "--seed", str(SEED))
        )
        answer = _json(done)
        if done.status or not answer:
            yield judged(f"screen {runtime}", False, "no answer", done)
        else:
            yield _same_answer(f"screen {runtime}", done, answer, _screened(runtime), bench.board.cpu.name)


def _screened(runtime: str) -> dict[str, Any]:
    """This machine's answer."""
    from edge_mdda.models import DEMO_IMAGE
    from edge_mdda.screening import Screener

    with Screener(runtime=runtime, preset=PRESET) as screener:
        return screener.screen(DEMO_IMAGE, SEED).to_dict()


def _same_answer(name: str, done: Done, there: dict[str, Any], here: dict[str, Any], cpu: str) -> Result:
    if there["model"]["sha256"] != here["model"]["sha256"]:
        return judged(name, False, "the bundle has another model than this source tree", done)
    if there["kernels"] != {"backend": "native", "cpu": cpu}:
        return judged(name, False, f"the kernels are {there['kernels']}, not native ones for {cpu}", done)
    worst = max(
        abs(there[view][label] - share)
        for view in ("probabilities", "raw_probabilities")
        for label, share in here[view].items()
    )
    same = all(there[field] == here[field] for field in ("label", "advice", "notice"))
    text = f"{there['label']}, {there['advice']} in {there['model']['runtime']}, native kernels for {cpu}; here"
    text += f" {here['label']}, {here['advice']}; probabilities differ by at most {worst:.4f}"
    return judged(name, same and worst <= MAX_PROBABILITY, text, done)


def doctor(bench: Bench) -> Iterator[Result]:
    """``edge-mdda doctor --json`` ends by itself and finds every part of the program in order."""
    done = bench.edge_mdda("doctor", "--json")
    findings = {finding["name"]: finding for finding in _json(done).get("findings", [])}
    wanted = (*PROGRAM_FINDINGS, *(f"runtime {name}" for name in bench.runtimes))
    bad = [f"{name}: {findings[name]['value'] if name in findings else 'missing'}" for name in wanted
           if findings.get(name, {}).get("status") != OK]  # fmt: skip
    failed = [name for name, finding in findings.items() if finding["status"] == FAILED]
    honest = done.status == (1 if failed else 0)
    text = "; ".join(bad) or f"{len(wanted)} parts in order, {len(findings) - len(wanted)} findings on the board itself"
    if failed and not bad:
        text += f"; failed there, as emulation has no such thing: {', '.join(failed)}"
    yield judged("doctor", not bad and honest, text, done)


@dataclass(frozen=True)
class Usage:
    """One call of the command line and what its user must see."""

    name: str
    arguments: tuple[str, ...]
    status: int
    errors: int = 0
    """Lines on standard error; -1: usage and more."""
    says: str = ""
    """Must be in what it prints."""
    stdin: bytes = b""


USAGES = (
    Usage("version", ("--version",), 0, says=__version__),
    Usage("help", ("--help",), 0, says=NOTICE),
    Usage("help of screen", ("screen", "--help"), 0, says="examples:"),
    Usage("help of doctor", ("doctor", "--help"), 0, says="exit status"),
    Usage("no command", (), 2, 1, "error: no command given: choose from screen"),
    Usage("no image", ("screen",), 2, -1, "--demo"),
    Usage("unknown option", ("screen", "--colour", "red"), 2, 1, "unrecognized arguments: --colour"),
    Usage("bad number", ("screen", "--demo", "--threads", "0"), 2, -1, "--threads"),
    Usage("missing file", ("screen", "missing.jpg"), 1, 1, "missing.jpg: there is no such file"),
    Usage("empty file", ("screen", "empty.jpg"), 1, 1, "empty.jpg: the file is empty"),
    Usage("text as picture", ("screen", "text.png"), 1, 1, "text.png: "),
    Usage("cut-off picture", ("screen", "cut.jpg"), 1, 1, "cut.jpg: "),
    Usage("empty standard input", ("screen", "-"), 1, 1, "standard input: "),
    Usage("device as picture", ("screen", "/dev/zero"), 1, 1, "/dev/zero: this is a device"),
    Usage("not a PNG name", ("purify", "in.png", "out.jpg"), 2, -1, ".png"),
    Usage("missing model", ("screen", "--demo", "--model", "missing.onnx"), 1, 1, "missing.onnx"),
    Usage("models as signed", ("verify",), 0),
)


def command_line(bench: Bench) -> Iterator[Result]:
    """Help, version, bad input: exit statuses, one line for each problem, never a traceback."""
    from edge_mdda.models import DEMO_IMAGE

    content = DEMO_IMAGE.read_bytes()
    for name, data in {"empty.jpg": b"", "text.png": b"hello", "cut.jpg": content[: len(content) // 2]}.items():
        (bench.exchange / name).write_bytes(data)
    good = 0
    for usage in USAGES:
        done = bench.edge_mdda(*usage.arguments, stdin=usage.stdin)
        fault = _fault(usage, done)
        if fault:
            yield judged(f"command line: {usage.name}", False, fault, done)
        good += not fault
    yield from _mixed(bench)
    if good == len(USAGES):
        yield judged("command line", True, f"{good} calls end as documented: {', '.join(u.name for u in USAGES)}")


def _fault(usage: Usage, done: Done) -> str:
    text, errors = done.stdout + done.stderr, len(done.stderr.splitlines())
    if TRACEBACK in text:
        return "a traceback"
    if done.status != usage.status:
        return f"exit status {done.status}, not {usage.status}"
    if usage.errors >= 0 and errors != usage.errors:
        return f"{errors} lines on standard error, not {usage.errors}"
    return "" if usage.says in " ".join(text.split()) or usage.says in text else f"it does not say «{usage.says}»"


def _mixed(bench: Bench) -> Iterator[Result]:
    """A bad picture costs its line, a good one on standard input is screened all the same."""
    from edge_mdda.models import DEMO_IMAGE

    done = bench.edge_mdda("screen", "--json", "--purify", "off", "cut.jpg", "-", stdin=DEMO_IMAGE.read_bytes())
    lines = done.stdout.splitlines()
    complaints = [
        line for line in done.stderr.splitlines() if line.startswith("edge-mdda: ")
    ]  # a runtime may talk, too
    good = done.status == 1 and len(complaints) == 1 and len(lines) == 1 and "probabilities" in lines[0]
    text = "a bad picture costs one line, a good one beside it is screened" if good else "not one line and one answer"
    yield judged("command line: good and bad", good, text, done)


def _json(done: Done) -> dict[str, Any]:
    """The JSON object that it printed; an empty one if it printed something else."""
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
