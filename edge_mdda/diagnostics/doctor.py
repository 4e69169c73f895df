"""``edge-mdda doctor``: is this board fit to screen?

Whatever may crash (NumPy, OpenCV, a runtime, the kernels) is tried in a child process, so that an instruction which
the CPU lacks becomes a finding. Fit means: no finding has failed. What it does not show: whether the camera's pictures
are good, and whether the network is right.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_mdda import NOTICE, __version__
from edge_mdda.classifier import RUNTIMES, built_in
from edge_mdda.classifier.signature import signature_path, trusted_keys
from edge_mdda.classifier.verify import verify_model
from edge_mdda.diagnostics import checks
from edge_mdda.diagnostics.checks import MIB
from edge_mdda.diagnostics.finding import FAILED, OK, UNKNOWN, WARNING, Finding, is_fit
from edge_mdda.diagnostics.records import records
from edge_mdda.diagnostics.release import release
from edge_mdda.diagnostics.service import service
from edge_mdda.errors import ModelError
from edge_mdda.hardware import inventory
from edge_mdda.hardware.child_process import ChildError, run_module
from edge_mdda.hardware.inventory import ROOT
from edge_mdda.packages import MODULES, is_installed, versions
from edge_mdda.silence import OPT_OUTS, missing, trace_folder

PROBE = "edge_mdda.diagnostics.probe"
PROBE_TIMEOUT_S = 180.0  # under emulation the first compilation of the kernels takes a quarter of a minute
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
ELSEWHERE = "install another version of it, one whose package is made for this board's CPU and system"
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)([<>=!~0-9.,]*)\s*(?:;(.*))?")


def python() -> Finding:
    """The running Python."""
    here, text = sys.version_info[:2], f"{platform.python_implementation()} {platform.python_version()}"
    if OLDEST_PYTHON <= here <= NEWEST_PYTHON:
        return Finding("python", OK, text)
    tested = f"{'.'.join(map(str, OLDEST_PYTHON))} to {'.'.join(map(str, NEWEST_PYTHON))}"
    return Finding("python", WARNING, text, f"tested with {tested} only: use one of them")


def packages(installed: dict[str, str] | None = None, requirements: list[str] | None = None) -> Finding:
    """Versions and whether they go together; ``requirements`` is the package's own list."""
    installed = versions() if installed is None else installed
    if requirements is None:
        try:
            requirements = metadata.requires("edge-mdda") or []
        except metadata.PackageNotFoundError:  # run from its source folder
            requirements = []
    text = ", ".join(f"{name} {version}" for name, version in installed.items())
    numpy = _parts(installed.get("numpy", "0"))
    if "tflite-runtime" in installed and numpy >= (2,):
        alone = "ai-edge-litert" not in installed
        advice = "tflite-runtime cannot run with numpy 2: " + (
            "pip install 'numpy<2', or ai-edge-litert in its place"
            if alone
            else "uninstall it, ai-edge-litert is there"
        )
        return Finding("packages", FAILED if alone else WARNING, text, advice)
    for name, limits in _own_limits(requirements):
        version = installed.get(name)
        if version is not None and not all(_holds(version, limit) for limit in limits.split(",") if limit):
            advice = f"this program needs {name} {limits}: pip install '{name}{limits}'"
            return Finding("packages", WARNING, text, advice)
    return Finding("packages", OK, text)


def telemetry() -> Finding:
    """Whether the runtimes may report to their makers, and whether one has done so before."""
    silence = "off, " + " ".join(f"{name}={value}" for name, value in OPT_OUTS.items())
    if lacking := missing():
        return Finding("telemetry", WARNING, f"not switched off: {', '.join(lacking)}", "run this as a new process")
    if folder := trace_folder():
        advice = f"another program, or a version before this one, left a device ID there: rm -r {folder}"
        return Finding("telemetry", WARNING, f"{silence}; traces in {folder}", advice)
    return Finding("telemetry", OK, silence)


def _own_limits(requirements: list[str]) -> Iterator[tuple[str, str]]:
    for line in requirements:
        match = REQUIREMENT.fullmatch(line.replace(" ", ""))
        if match and "extra" not in (match[3] or ""):
            yield match[1], match[2]


def _parts(version: str) -> tuple[int, ...]:
    """``2.4.6rc1`` as ``(2, 4, 6)``: enough for limits such as ``>=1.26`` and ``<3``."""
    return tuple(int(digits) for digits in re.findall(r"\d+", re.split(r"[a-zA-Z+]", version)[0]))


def _holds(version: str, limit: str) -> bool:
    match = re.fullmatch(r"(>=|<)([0-9.]+)", limit)
    if not match:
        return True  # another kind of limit: pip's business
    have, bound = _parts(version), _parts(match[2])
    return have >= bound if match[1] == ">=" else have < bound


def model_integrity(path: Path) -> Finding:
    """Whether a model is whole, and signed where keys are trusted: what ``screen`` and ``verify`` ask of it.

    Where no key is trusted, a manifest that was altered together with the model passes: only a signature tells.
    """
    name = f"model {path.name}"
    with contextlib.suppress(ModelError):
        name = "model" if path == built_in() else name
    try:
        keys = trusted_keys()
    except ModelError as error:
        return Finding(name, FAILED, str(error), "mend the trusted keys: without them no model is opened")
    verdict = verify_model(path, keys)
    if not verdict.whole:
        return Finding(name, FAILED, verdict.text, "install the model again")
    if keys and not verdict.ok:
        return Finding(name, FAILED, verdict.text, "install a model that a trusted key signed")
    if not verdict.signed_by and signature_path(path).exists():
        return Finding(name, WARNING, verdict.text, "this signature says nothing: install model and signature again")
    return Finding(name, OK, verdict.text)


class Examination:
    """All checks in order.

    Parameters
    ----------
    root : Path
        Where ``proc``, ``sys`` and ``etc`` lie.
    model : Path, optional
        The model that is going to be screened with. Default: the built-in one.
    timeout : float
        Seconds that each trial in a child process may take.
    """

    def __init__(self, root: Path = ROOT, model: Path | None = None, timeout: float = PROBE_TIMEOUT_S) -> None:
        self.root, self.timeout = root, timeout
        self.model, self._no_model = model, ""
        try:
            self.model = model or built_in()
        except ModelError as error:  # a setting that leads nowhere is a finding, not the end of the examination
            self._no_model = str(error)
        self.models = {self.model.suffix.lower(): self.model} if self.model else {}
        for runtime, suffix in RUNTIMES.items():
            with contextlib.suppress(ModelError):  # a folder of models need not have one for every runtime
                if (path := built_in(runtime)).exists():
                    self.models.setdefault(suffix, path)
        self._peak: int | None = None
        self._numpy_loads = True

    def steps(self) -> list[Callable[[], Finding | list[Finding]]]:
        """The checks; each returns what it found."""
        root = self.root
        return [
            lambda: checks.machine(root),
            lambda: release(root),
            service,
            python,
            packages,
            self.numpy,
            self.opencv,
            lambda: [self.runtime(name) for name in RUNTIMES],
            telemetry,
            self.kernels,
            self.integrity,
            self.screening,
            lambda: checks.memory(root, self._peak),
            lambda: checks.swap(root),
            lambda: checks.clock(root),
            lambda: checks.root_file_system(root),
            lambda: checks.disk(root),
            lambda: records(root),
            lambda: checks.camera(root),
            lambda: checks.temperature(root),
            lambda: checks.throttling(root),
            lambda: checks.cpu_clock(root),
            lambda: checks.power(root),
        ]

    def run(self, on_step: Callable[[], None] = lambda: None) -> list[Finding]:
        """Every finding; ``on_step`` is called after each step."""
        findings: list[Finding] = []
        for step in self.steps():
            found = step()
            findings += found if isinstance(found, list) else [found]
            on_step()
        return findings

    def _probe(self, part: str, model: Path | None = None) -> dict[str, Any]:
        return run_module(PROBE, [part, *([str(model)] if model else [])], self.timeout)

    def integrity(self) -> list[Finding]:
        """Whether every model is whole and signed; that there is one to screen with."""
        none = [Finding("model", FAILED, self._no_model, "mend this setting, or unset it")] if self._no_model else []
        return none + [model_integrity(path) for path in self.models.values()]

    def numpy(self) -> Finding:
        """NumPy loads and multiplies."""
        try:
            answer = self._probe("numpy")
        except ChildError as error:
            self._numpy_loads = False
            return Finding("numpy", FAILED, str(error), f"nothing works without it: {ELSEWHERE}")
        return Finding("numpy", OK, str(answer["version"]))

    def opencv(self) -> Finding:
        """OpenCV decodes the demo picture."""
        if not self._numpy_loads:
            return Finding("opencv", UNKNOWN, "not tried without numpy")
        try:
            answer = self._probe("opencv")
        except ChildError as error:
            return Finding("opencv", FAILED, str(error), f"no image can be read: {ELSEWHERE}")
        return Finding("opencv", OK, f"{answer['version']}, decodes")

    def runtime(self, name: str) -> Finding:
        """One runtime opens and runs its model; the provider is the one really used."""
        title, suffix = f"runtime {name}", RUNTIMES[name]
        model, needed = self.models.get(suffix), self.model is not None and self.model.suffix.lower() == suffix
        bad = FAILED if needed else WARNING
        if not is_installed(name):
            advice = f"pip install {MODULES[name][0].replace('_', '-')}" if needed else ""
            return Finding(title, FAILED if needed else UNKNOWN, "not installed", advice)
        if not self._numpy_loads:
            return Finding(title, UNKNOWN, "not tried without numpy")
        if self._no_model and model is None:
            return Finding(title, UNKNOWN, "not tried without a model")
        try:
            answer = self._probe(name, model)
        except ChildError as error:
            return Finding(title, bad, str(error), ELSEWHERE if needed else f"this model does not need it; {ELSEWHERE}")
        text = str(answer["runtime"])
        if answer["model"] is None:
            return Finding(title, UNKNOWN, f"{text} loads; no {suffix} model to try", f"--model FILE{suffix} tries it")
        others = [provider for provider in answer.get("available", []) if provider not in text]
        text += f" runs {answer['model']}" + (f"; available, not used: {', '.join(others)}" if others else "")
        return Finding(title, OK, text)

    def kernels(self) -> Finding:
        """Where the purifier's machine code comes from, after it has run once."""
        if not self._numpy_loads:
            return Finding("kernels", UNKNOWN, "not tried without numpy")
        try:
            answer = self._probe("kernels")
        except ChildError as error:
            return Finding("kernels", FAILED, str(error), "make them for this CPU: python -m export kernels --cpu NAME")
        text = f"{answer['backend']}, {answer['cpu']}" + (f", {answer['library']}" if answer["library"] else "")
        if not answer["change"] > 0:
            return Finding(
                "kernels", FAILED, f"{text}: they change nothing", "make them anew: python -m export kernels"
            )
        if answer["refused"]:
            refused = "; ".join(answer["refused"])
            return Finding("kernels", WARNING, f"{text}; {refused}", "install a library that fits this board")
        if answer["backend"] == "numba" and os.uname().machine == "aarch64":
            return Finding("kernels", WARNING, text, "native kernels save 130 MB of memory: python -m export kernels")
        return Finding("kernels", OK, text)

    def screening(self) -> Finding:
        """The whole way once, in a fresh process: from the demo picture to an answer."""
        if not self._numpy_loads:
            return Finding("screening", UNKNOWN, "not tried without numpy")
        if self._no_model:
            return Finding("screening", FAILED, "there is no model to screen with", "see the finding 'model'")
        try:
            answer = self._probe("screening", self.model)
        except ChildError as error:
            return Finding("screening", FAILED, str(error), "see the findings above; try: edge-mdda screen --demo")
        self._peak = answer["peak_bytes"]
        peak = f", peak memory {self._peak / MIB:.0f} MB" if self._peak else ""
        return Finding("screening", OK, f"demo picture in {answer['seconds']:.2f} s with {answer['runtime']}{peak}")


def to_dict(findings: list[Finding], root: Path = ROOT) -> dict[str, Any]:
    """What ``edge-mdda doctor --json`` prints."""
    return {
        "edge_mdda": __version__,
        "board": inventory.model(root),
        "fit": is_fit(findings),
        "findings": [finding.to_dict() for finding in findings],
        "notice": NOTICE,
    }
