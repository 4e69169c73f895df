"""``edge-mdda profile``: what one screening costs on this board, and how long it keeps that up.

Every measurement runs in a fresh process (:mod:`edge_mdda.profiling.case`), so that cases share nothing and a runtime
that crashes is a row in the report. This module loads neither NumPy nor a runtime.

What it does not show: a cold start after a power cut (the files are in memory after the first try), and, in
emulation or on a busy machine, anything about a board.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE, __version__
from edge_mdda.classifier import RUNTIMES, built_in
from edge_mdda.errors import EdgeMddaError, ProfileError
from edge_mdda.hardware import inventory, sensors
from edge_mdda.hardware.child_process import ChildError, environment, run_module
from edge_mdda.hardware.inventory import ROOT
from edge_mdda.mdda.params import PRESETS
from edge_mdda.packages import versions
from edge_mdda.profiling.case import MIB, Case, read_image

FORMAT = "edge-mdda profile 1"
STARTS = 3  # processes from which the start is taken
START_TIMEOUT_S = 600.0  # TensorRT builds an engine for minutes
SILENCE_S = 600.0  # without progress, for the same reason
SWEEP_SECONDS = 3.0  # a case, where neither calls nor seconds are given
STRAINED = 0.8  # load of the other programs a core, from which on the times are suspect

Report = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to profile.

    Attributes
    ----------
    case : Case
        The main measurement.
    models : tuple of Path
        Models that the sweep over runtimes may use, besides the built-in ones.
    sweep : tuple of str
        Any of ``threads``, ``runtimes``, ``presets``; all combinations are measured.
    sweep_case : Case
        What to measure of each combination.
    """

    case: Case
    models: tuple[Path, ...] = ()
    sweep: tuple[str, ...] = ()
    sweep_case: Case | None = None

    def cases(self) -> list[Case]:
        """The sweep's measurements."""
        if not self.sweep:
            return []
        base = self.sweep_case or replace(self.case, detail=False)
        threads = thread_counts(inventory.cores()) if "threads" in self.sweep else [base.threads]
        models = self._models() if "runtimes" in self.sweep else [base.model]
        presets = [*PRESETS, "off"] if "presets" in self.sweep else [base.preset]
        return [
            replace(base, threads=count, model=model, preset=preset, provider=_provider(model, base.provider))
            for model in models
            for preset in presets
            for count in threads
        ]

    def _models(self) -> list[str | None]:
        """One model for each runtime: a named one before a built-in one."""
        found: dict[str, str | None] = {}
        for path in self.models:
            found.setdefault(path.suffix.lower(), str(path))
        standard = built_in()
        found.setdefault(standard.suffix, None)
        for suffix in RUNTIMES.values():
            for path in sorted(standard.parent.glob(f"*{suffix}")):
                found.setdefault(suffix, str(path))
        return list(found.values())


def _provider(model: str | None, provider: str) -> str:
    """Providers are those of ONNX Runtime; LiteRT runs on the CPU."""
    return provider if model is None or model.lower().endswith(RUNTIMES["onnx"]) else "cpu"


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4, ... and all cores."""
    counts = [1]
    while counts[-1] * 2 <= cores:
        counts.append(counts[-1] * 2)
    return counts if counts[-1] == cores else [*counts, cores]


def hardware(root: Path = ROOT) -> dict[str, Any]:
    """The machine, as far as it decides how long things take."""
    clocks = sensors.clocks(root)
    total = inventory.memory(root).get("MemTotal")
    return {
        "model": inventory.model(root),
        "machine": os.uname().machine,
        "cpu": inventory.cpu(root),
        "cores": inventory.cores(root),
        "memory_mb": None if total is None else round(total / MIB),
        "governor": ", ".join(sorted({c.governor for c in clocks if c.governor})) or None,
        "max_clock_mhz": max((c.limit for c in clocks if c.limit), default=None),
        "system": inventory.operating_system(root),
        "kernel": os.uname().release,
        "emulation": inventory.emulation(root),
        "virtual_machine": inventory.virtual_machine(root),
    }


def missing(root: Path = ROOT) -> list[str]:
    """What this machine does not show, and what its times do not mean; one sentence each."""
    notes = []
    why = inventory.emulation(root)
    if why:
        notes.append(f"Emulated CPU ({why}): every time here is meaningless for a board.")
    elif not inventory.is_board(inventory.model(root)):
        notes.append("Not a Raspberry Pi or Jetson: the ratios of its stages may differ from those of a board.")
    if inventory.virtual_machine(root):
        notes.append("Virtual machine: the host's other work shows up as slow calls.")
    lacking = [
        name
        for name, found in (
            ("temperature", sensors.zones(root)),
            ("clock and governor", sensors.clocks(root)),
            ("throttling", sensors.throttling(root)),
            ("power", sensors.power(root)),
        )
        if not found
    ]
    if lacking:
        notes.append(f"This machine does not show: {', '.join(lacking)}.")
    return notes


def start_times(case: Case, times: int = STARTS, on_step: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """From starting ``edge-mdda screen`` to its printed answer, in fresh processes.

    Raises
    ------
    ProfileError
        It gave no answer.
    """
    off = case.preset == "off"
    command = [sys.executable, "-m", "edge_mdda", "screen", "--json", "--threads", str(case.threads)]
    command += ["--purify", "off"] if off else ["--preset", case.preset]
    command += ["--model", case.model] if case.model else []
    command += ["--provider", case.provider]
    seconds, first = [], []
    for _ in range(times):
        began = time.monotonic()
        try:
            done = subprocess.run(
                [*command, "--", case.image],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=environment(),
                timeout=START_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ProfileError(
                f"screening gave no answer within {START_TIMEOUT_S:g} s: try edge-mdda doctor"
            ) from error
        ended = time.monotonic()
        try:
            first.append(float(json.loads(done.stdout)["timings_ms"]["total"]))
        except (ValueError, KeyError, TypeError) as error:
            last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            cause = last.removeprefix("edge-mdda: ").removeprefix("error: ")
            raise ProfileError(f"screening does not work here ({cause}): try edge-mdda doctor") from error
        seconds.append(ended - began)
        on_step()
    return {
        "to_first_result_s": [round(value, 3) for value in seconds],
        "median_s": round(statistics.median(seconds), 3),
        "first_call_ms": round(statistics.median(first), 1),
    }


class _Share:
    """Progress over several measurements of unequal length, on a bar of hundredths."""

    def __init__(self, weights: list[float], draw: Callable[[float], None]) -> None:
        self._ends: Iterator[float] = iter(weights)
        self._total, self._before, self._now, self._draw = sum(weights) or 1.0, 0.0, 0.0, draw

    def next(self) -> None:
        """Another measurement begins."""
        self._before += self._now
        self._now = next(self._ends, 0.0)
        self.part(0.0)

    def part(self, share: float) -> None:
        """So much of it is done."""
        self._draw((self._before + share * self._now) / self._total)


def _run(case: Case, part: Callable[[float], None]) -> dict[str, Any]:
    def on_line(line: dict[str, Any]) -> None:
        if isinstance(line.get("done"), (int, float)):
            part(line["done"])

    return run_module("edge_mdda.profiling.case", [case.to_json()], on_line=on_line, silence=SILENCE_S)


def profile(plan: Plan, draw: Callable[[float], None] = lambda share: None) -> Report:
    """Measure everything that the plan says.

    Parameters
    ----------
    plan : Plan
    draw : callable
        Called with the share that is done, 0 to 1.

    Returns
    -------
    dict
        As ``--json`` writes it; see ``format``.

    Raises
    ------
    ProfileError
        The main measurement failed; a failed case of the sweep is a row.
    """
    case, sweep = plan.case, plan.cases()
    read_image(case.image)  # a wrong name costs no measuring

    def weight(one: Case) -> float:
        return (one.seconds or (one.calls or 0) * 0.05) + 2.0  # of a call and of a start, roughly: for the bar alone

    share = _Share([3.0, weight(case), *map(weight, sweep)], draw)
    load_before = os.getloadavg()[0]
    slowed_before = sensors.throttling()
    share.next()
    start = start_times(case)
    share.next()
    try:
        main = _run(case, share.part)
    except ChildError as error:
        raise ProfileError(f"the measurement failed: {error}; try edge-mdda doctor") from error
    slowed_after = sensors.throttling()
    rows = []
    for one in sweep:
        share.next()
        rows.append(_sweep_row(one, share.part))
    busy = load_before / inventory.cores()
    notes = missing()
    if busy >= STRAINED:
        notes.append(
            f"Other programs kept the machine busy ({load_before:.1f} processes before the start): times are high."
        )
    return {
        "format": FORMAT,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "edge_mdda": __version__,
        "hardware": hardware(),
        "software": {"python": platform.python_version(), **versions()},
        "settings": {
            "image": os.path.basename(case.image),
            "picture": main["picture"],
            "preset": case.preset,
            "threads": case.threads,
            "warmup": case.warmup,
            "calls": case.calls,
            "seconds": case.seconds,
            "model": main["model"],
            "runtime": main["runtime"],
            "kernels": main["kernels"],
        },
        "start": {**start, "open_ms": main["open_ms"], "first_call_in_run_ms": main["first_call_ms"]},
        "stages": main["stages"],
        "histogram": main["histogram"],
        "purify_detail": main["purify_detail"],
        "timeline": main["timeline"],
        "throttling": {
            "before": _slowed(slowed_before),
            "after": _slowed(slowed_after),
            "during": sorted({flag for window in main["timeline"] for flag in window["throttled"] or ()}),
        },
        "memory": {"peak_mb": main["peak_mb"]},
        "load_before": round(load_before, 2),
        "sweep": rows,
        "notes": notes,
        "notice": NOTICE,
    }


def _slowed(found: sensors.Throttling | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"source": found.source, "now": list(found.now), "since_start": list(found.since_start)}


def _sweep_row(case: Case, part: Callable[[float], None]) -> dict[str, Any]:
    model = Path(case.model) if case.model else built_in()
    runtime = {suffix: name for name, suffix in RUNTIMES.items()}.get(model.suffix.lower(), model.suffix)
    row: dict[str, Any] = {"runtime": runtime, "model": model.name, "preset": case.preset, "threads": case.threads}
    try:
        result = _run(case, part)
    except ChildError as error:
        return {**row, "failed": str(error)}
    temperatures = [w["temperature_c"] for w in result["timeline"] if w["temperature_c"] is not None]
    return {
        **row,
        "runtime": result["runtime"],
        "stages": result["stages"],
        "peak_mb": result["peak_mb"],
        "temperature_c": max(temperatures, default=None),
    }


# -- files --------------------------------------------------------------------------------------------


def check_target(path: Path) -> None:
    """Make sure, before minutes of measuring, that a file can be written.

    Raises
    ------
    ProfileError
        It cannot; one line.
    """
    from edge_mdda.files import from_os

    folder = path.absolute().parent
    if path.is_dir():
        raise ProfileError(f"{path}: this is a folder: name a file")
    if path.exists() and not path.is_file():
        raise ProfileError(f"{path}: this is no ordinary file: name one")
    if not folder.is_dir():
        raise ProfileError(f"{path}: there is no folder {folder}: make it, or name another")
    try:  # tried, not asked: permission is only one of the reasons
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".tmp"):
            pass
    except OSError as error:
        raise ProfileError(f"{path}: {from_os(error)}") from error


def write(path: Path, text: str) -> None:
    """Write a whole file or none.

    Raises
    ------
    ProfileError
        The disk is full, or the like.
    """
    from edge_mdda.files import from_os, replace_file

    try:
        replace_file(os.path.realpath(path), text.encode())
    except EdgeMddaError as error:
        raise ProfileError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path}: {from_os(error)}") from error
