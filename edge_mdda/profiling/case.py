"""One measurement in a process of its own: ``python -m edge_mdda.profiling.case CASE``, with the case as JSON.

Prints JSON objects: ``{"done": share}`` now and then, and the result at the end. Calls are those of
:class:`edge_mdda.screening.Screener`, as a user's are; sensors are read between calls, never within one.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from edge_mdda.errors import EdgeMddaError, ProfileError
from edge_mdda.hardware import inventory, sensors
from edge_mdda.profiling.percentiles import histogram, percentile, summary

STAGES = ("decode", "resize", "purify", "classify", "other", "total")
MIB = 2**20
WINDOW_S = 1.0  # shortest time between two looks at the sensors
MAX_WINDOWS = 600  # in a whole run
REPORT_S = 0.25  # between two lines on progress
DETAIL_CALLS, DETAIL_S = 30, 5.0  # of the pass by block and scale


@dataclass(frozen=True)
class Case:
    """What to measure.

    Attributes
    ----------
    image : str
        Path of the image file.
    model : str or None
        Model file; None is the built-in one.
    preset : str
        The purifier's; ``off`` classifies the raw view alone.
    threads : int
        Threads of purifier and runtime.
    provider : str
        What ONNX Runtime runs on.
    warmup : int
        Calls that are not counted.
    calls : int or None
        Calls to measure, or:
    seconds : float or None
        Time to measure for.
    detail : bool
        Also time the purifier by block and scale.
    """

    image: str
    model: str | None = None
    preset: str = "balanced"
    threads: int = 1
    provider: str = "cpu"
    warmup: int = 5
    calls: int | None = None
    seconds: float | None = None
    detail: bool = False

    def __post_init__(self) -> None:
        if (self.calls is None) == (self.seconds is None):
            raise ProfileError("give either calls or seconds")
        if not (self.calls or self.seconds or 0) > 0:
            raise ProfileError("calls and seconds must be above zero")

    @classmethod
    def from_json(cls, text: str) -> Case:
        """The case that :meth:`to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


class _Timeline:
    """Times by window, each with a look at the sensors."""

    def __init__(self, expected_s: float) -> None:
        self.width = max(WINDOW_S, expected_s / MAX_WINDOWS)
        self.windows: list[dict[str, Any]] = []
        self._totals: list[float] = []
        # vcgencmd is a process each time: only where the power comes from nowhere else.
        self._firmware_power = not sensors.power(ask_firmware=False) and bool(sensors.power())
        self._began = self._opened = time.monotonic()

    def add(self, total_ms: float, now: float) -> None:
        """One more call; closes the window if it is over."""
        self._totals.append(total_ms)
        if now - self._opened >= self.width:
            self.close(now)

    def close(self, now: float) -> None:
        """End the window."""
        if not self._totals:
            return
        ordered = sorted(self._totals)
        resident = inventory.process_memory("VmRSS")
        self.windows.append(
            {
                "t_s": round(now - self._began, 2),
                "calls": len(ordered),
                "p50_ms": round(percentile(ordered, 0.5), 3),
                "max_ms": round(ordered[-1], 3),
                "rss_mb": None if resident is None else round(resident / MIB, 1),
                **sensors.sample(ask_firmware=self._firmware_power),
            }
        )
        self._totals = []
        self._opened = time.monotonic()


def measure(case: Case, report: Callable[[float], None] = lambda share: None) -> dict[str, Any]:
    """Run one case in this process.

    Parameters
    ----------
    case : Case
    report : callable
        Called with the share that is done, now and then.

    Returns
    -------
    dict
        ``stages`` (a summary each, ms), ``histogram`` of the totals, ``timeline``, ``open_ms`` (imports, model and
        workspace), ``first_call_ms``, ``runtime``, ``kernels``, ``peak_mb``, ``picture``, ``purify_detail``.

    Raises
    ------
    EdgeMddaError
        The image or the model cannot be used.
    """
    content = read_image(case.image)
    started = time.perf_counter()
    from edge_mdda.screening import Screener

    off = case.preset == "off"
    mode, preset = ("off", "balanced") if off else ("both", case.preset)
    with Screener(case.model, purify=mode, preset=preset, threads=case.threads, provider=case.provider) as screener:
        opened = time.perf_counter()
        stages = {name: array("d") for name in STAGES}

        def call(keep: bool) -> float:
            began = time.perf_counter_ns()
            result = screener.screen(content)
            total = (time.perf_counter_ns() - began) / 1e6
            if keep:
                times = result.timings_ms
                stages["decode"].append(times["decode"] - result.resize_ms)
                stages["resize"].append(result.resize_ms)
                stages["purify"].append(times["purify"])
                stages["classify"].append(times["classify"])
                stages["other"].append(max(total - times["total"], 0.0))
                stages["total"].append(total)
            return total

        first = call(keep=False)
        warm = first
        told = time.monotonic()
        for _ in range(case.warmup):
            warm = call(keep=False)
            if time.monotonic() - told >= REPORT_S:
                told = time.monotonic()
                report(0.0)  # a long warm-up is not taken for a hanging runtime
        timeline = _Timeline(case.seconds or (case.calls or 0) * warm / 1e3)
        _loop(case, call, timeline, report)
        answer = screener.screen(content, 1)
        detail = None
        if case.detail and not off:
            detail = _detail(case, content, screener.classifier.manifest)
        peak = inventory.process_memory("VmHWM")
        return {
            "stages": {name: summary(values) for name, values in stages.items() if not (off and name == "purify")},
            "histogram": histogram(stages["total"]),
            "timeline": timeline.windows,
            "open_ms": round((opened - started) * 1e3, 1),
            "first_call_ms": round(first, 1),
            "runtime": answer.model["runtime"],
            "model": {"name": answer.model["name"], "sha256": answer.model["sha256"]},
            "kernels": answer.kernels,
            "picture": {"sha256": answer.sha256, "bytes": len(content)},
            "peak_mb": None if peak is None else round(peak / MIB, 1),
            "purify_detail": detail,
        }


def read_image(image: str) -> bytes:
    """The image file's bytes, after a look at its header.

    Raises
    ------
    ProfileError
        It cannot be read or is none; the message names it.
    """
    from edge_mdda.files import read_bytes
    from edge_mdda.picture.decode import check_header

    try:
        content = read_bytes(image)
        check_header(content)
        return content
    except EdgeMddaError as error:
        raise ProfileError(f"{image}: {error}") from error


def _loop(case: Case, call: Callable[[bool], float], timeline: _Timeline, report: Callable[[float], None]) -> None:
    began = told = time.monotonic()
    done = 0
    while True:
        total = call(True)
        now = time.monotonic()
        done += 1
        timeline.add(total, now)
        share = done / case.calls if case.calls else (now - began) / (case.seconds or 1)
        if now - told >= REPORT_S:
            told = now
            report(min(share, 1.0))
        if share >= 1:
            break
    timeline.close(time.monotonic())


def _detail(case: Case, content: bytes, manifest: Any) -> dict[str, Any]:
    from edge_mdda.mdda.kernels import load_kernels
    from edge_mdda.mdda.params import PRESETS
    from edge_mdda.picture.decode import decode, fit
    from edge_mdda.profiling.kernel_times import purifier_detail

    picture = fit(decode(content), manifest.height, manifest.width, manifest.crop)
    params, kernels = PRESETS[case.preset], load_kernels()
    once = purifier_detail(picture, case.preset, params, kernels, 1)["total_ms"]
    calls = max(1, min(DETAIL_CALLS, case.calls or DETAIL_CALLS, int(DETAIL_S * 1e3 / max(once, 1e-3))))
    return purifier_detail(picture, case.preset, params, kernels, calls)


def main(text: str) -> int:
    """Measure and print; a user's mistake is one line on standard error."""
    from edge_mdda.hardware.child_process import no_core_dump

    no_core_dump()
    try:
        result = measure(Case.from_json(text), lambda share: print(json.dumps({"done": share}), flush=True))
    except (EdgeMddaError, ImportError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
