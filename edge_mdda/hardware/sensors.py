"""What a board measures of itself: temperature, clock, throttling, power.

The manner is that of :mod:`edge_mdda.hardware.inventory`.

Sources: thermal zones and cpufreq (all boards), the Raspberry Pi's firmware (sysfs or ``vcgencmd``), the Jetson's
INA3221 rails and over-current counters under hwmon.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mdda.hardware.inventory import ROOT, entries, memory, number_of, text_of

PI_FLAGS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of ``get_throttled``; 16 higher stand those that have been set since the start (Raspberry Pi documentation)."""

PI_STICKY = 16
JETSON_EVENTS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
"""Counters of ``soctherm_oc`` (Jetson Orin, platform power and performance guide)."""

VCGENCMD_TIMEOUT_S = 2
PMIC_LINE = re.compile(r"^\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.]+)[AV]", re.MULTILINE)
PLAUSIBLE_C = (-40.0, 150.0)  # a sensor without power answers with something outside


@dataclass(frozen=True)
class Zone:
    """One thermometer, degrees Celsius."""

    name: str
    celsius: float
    slows_at: float | None
    """Lowest passive trip point, from which on the kernel slows the board."""
    stops_at: float | None
    """Critical trip point, at which it shuts down."""


@dataclass(frozen=True)
class Clock:
    """One group of cores that share a clock, MHz."""

    cores: str
    governor: str | None
    now: float | None
    limit: float | None
    """What the governor may choose at most."""
    hardware: float | None
    """What the CPU can do at most."""


@dataclass(frozen=True)
class Throttling:
    """Why the board is or was slower than it could be."""

    source: str
    now: tuple[str, ...]
    since_start: tuple[str, ...]
    """Sticky: has happened since the board was started."""


def _vcgencmd(root: Path, command: str) -> str | None:
    """Answer of the Raspberry Pi's firmware, or None."""
    program = shutil.which("vcgencmd") if root == ROOT else None
    if not program:
        return None
    try:
        done = subprocess.run(
            [program, command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VCGENCMD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _hwmon(root: Path, name: str) -> Iterator[Path]:
    for folder in entries(root, "sys/class/hwmon", "hwmon*"):
        if text_of(folder / "name") == name:
            yield folder


def _thousandth(path: Path) -> float | None:
    value = number_of(path)
    return None if value is None else value / 1000


def zones(root: Path = ROOT) -> list[Zone]:
    """Thermometers of the thermal framework; of hwmon where there are none (PCs)."""
    found = []
    for folder in entries(root, "sys/class/thermal", "thermal_zone*"):
        celsius = _thousandth(folder / "temp")
        if celsius is None or not PLAUSIBLE_C[0] <= celsius <= PLAUSIBLE_C[1]:
            continue
        trips: dict[str, list[float]] = {}
        for kind in entries(folder, ".", "trip_point_*_type"):
            limit = _thousandth(kind.with_name(kind.name.replace("_type", "_temp")))
            if limit is not None and limit > 0:
                trips.setdefault(text_of(kind) or "", []).append(limit)
        found.append(
            Zone(
                text_of(folder / "type") or folder.name,
                celsius,
                min(trips.get("passive", []), default=None),
                min(trips.get("critical", []), default=None),
            )
        )
    if found:
        return found
    for folder in entries(root, "sys/class/hwmon", "hwmon*"):
        for file in entries(folder, ".", "temp*_input"):
            celsius = _thousandth(file)
            if celsius is not None and PLAUSIBLE_C[0] <= celsius <= PLAUSIBLE_C[1]:
                label = text_of(file.with_name(file.name.replace("_input", "_label"))) or file.name.split("_")[0]
                found.append(Zone(f"{text_of(folder / 'name') or folder.name} {label}", celsius, None, None))
    return found


def clocks(root: Path = ROOT) -> list[Clock]:
    """cpufreq's groups of cores; empty where the system does not govern the clock (virtual machines)."""
    folders = entries(root, "sys/devices/system/cpu/cpufreq", "policy*")
    folders = folders or entries(root, "sys/devices/system/cpu", "cpu0/cpufreq")
    return [
        Clock(
            text_of(folder / "related_cpus") or folder.name,
            text_of(folder / "scaling_governor"),
            _thousandth(folder / "scaling_cur_freq"),
            _thousandth(folder / "scaling_max_freq"),
            _thousandth(folder / "cpuinfo_max_freq"),
        )
        for folder in folders
    ]


def _pi_bits(root: Path, ask_firmware: bool) -> tuple[int | None, str]:
    """``get_throttled`` and where it came from.

    A kernel driver that polls the firmware may clear the sticky bits that another reader sees: both sources count.
    """
    bits, sources = None, []
    for file in entries(root, "sys/devices/platform", "soc*/*:firmware/get_throttled"):
        text = text_of(file)
        if text and re.fullmatch(r"(0x)?[0-9a-fA-F]+", text):
            bits = (bits or 0) | int(text, 16)
            sources = ["get_throttled (sysfs)"]
    if ask_firmware or bits is None:
        match = re.search(r"throttled=0x([0-9a-fA-F]+)", _vcgencmd(root, "get_throttled") or "")
        if match:
            bits = (bits or 0) | int(match[1], 16)
            sources.append("vcgencmd")
    return bits, ", ".join(sources)


def throttling(root: Path = ROOT, ask_firmware: bool = True) -> Throttling | None:
    """Throttling now and since the start, or None if the board does not tell.

    ``ask_firmware`` starts ``vcgencmd`` even where sysfs has an answer: complete, but a process each time.
    """
    sources: list[str] = []
    now: list[str] = []
    since: list[str] = []
    bits, source = _pi_bits(root, ask_firmware)
    if bits is not None:
        sources.append(source)
        now += [text for bit, text in PI_FLAGS.items() if bits >> bit & 1]
        since += [text for bit, text in PI_FLAGS.items() if bits >> (bit + PI_STICKY) & 1]
    for folder in _hwmon(root, "rpi_volt"):
        alarm = number_of(folder / "in0_lcrit_alarm")
        if alarm is not None:
            sources.append("rpi_volt")
            now += ["under-voltage"] if alarm and "under-voltage" not in now else []
    for folder in _hwmon(root, "soctherm_oc"):
        for name, text in JETSON_EVENTS.items():
            count = number_of(folder / f"{name}_event_cnt")
            if count is not None:
                sources += ["soctherm_oc"] if "soctherm_oc" not in sources else []
                since += [f"{text} ({count} events)"] if count else []
    for folder in entries(root, "sys/class/thermal", "cooling_device*"):
        kind, state = text_of(folder / "type") or "", number_of(folder / "cur_state")
        if "cpufreq" in kind and state is not None:
            sources += ["cooling devices"] if "cooling devices" not in sources else []
            now += [f"{kind} slowed by {state} steps"] if state > 0 else []
    for file in entries(root, "sys/devices/system/cpu", "cpu0/thermal_throttle/package_throttle_count"):
        count = number_of(file)
        if count is not None:
            sources.append("thermal_throttle")
            since += [f"hot ({count} events)"] if count else []
    return Throttling(", ".join(sources), tuple(now), tuple(since)) if sources else None


def power(root: Path = ROOT, ask_firmware: bool = True) -> dict[str, float]:
    """Watts by rail; empty where the board does not measure them. On Jetson ``VDD_IN`` is the whole module.

    The Raspberry Pi 5's PMIC has no reading of its own input current: its rails leave out what USB draws.
    """
    rails: dict[str, float] = {}
    for folder in _hwmon(root, "ina3221"):
        for file in entries(folder, ".", "in*_label"):
            index, label = file.name[2:-6], text_of(file)
            volts, amperes = _thousandth(folder / f"in{index}_input"), _thousandth(folder / f"curr{index}_input")
            if label and "sum" not in label.lower() and volts is not None and amperes is not None:
                rails[label] = round(volts * amperes, 3)
    for file in entries(root, "sys/bus/i2c/drivers/ina3221x", "*/iio:device*/rail_name_*"):  # JetPack 4
        watts = _thousandth(file.with_name(f"in_power{file.name.rsplit('_', 1)[1]}_input"))
        label = text_of(file)
        if label and watts is not None:
            rails[label] = watts
    if not rails and ask_firmware:
        values: dict[str, dict[str, float]] = {}
        for rail, unit, value in PMIC_LINE.findall(_vcgencmd(root, "pmic_read_adc") or ""):
            values.setdefault(rail, {})[unit] = float(value)
        rails = {rail: round(v["A"] * v["V"], 3) for rail, v in values.items() if len(v) == 2}
    return rails


def total_power(rails: dict[str, float]) -> float | None:
    """The whole board or module: its input rail where there is one, else the sum."""
    if not rails:
        return None
    for label in ("VDD_IN", "POM_5V_IN"):
        if label in rails:
            return rails[label]
    return round(sum(rails.values()), 3)


def sample(root: Path = ROOT, ask_firmware: bool = False) -> dict[str, Any]:
    """One moment for a time series; what the board does not show is None.

    ``ask_firmware`` starts ``vcgencmd`` for the power: wanted only where it has an answer (Raspberry Pi 5).

    Returns
    -------
    dict
        ``temperature_c`` (the hottest zone), ``clock_mhz`` (mean of the groups), ``throttled`` and
        ``throttled_since_start`` (lists), ``power_w``, ``available_mb``.
    """
    running = [clock.now for clock in clocks(root) if clock.now is not None]
    slowed = throttling(root, ask_firmware=False)
    available = memory(root).get("MemAvailable")
    return {
        "temperature_c": max((zone.celsius for zone in zones(root)), default=None),
        "clock_mhz": round(sum(running) / len(running), 1) if running else None,
        "throttled": None if slowed is None else list(slowed.now),
        "throttled_since_start": None if slowed is None else list(slowed.since_start),
        "power_w": total_power(power(root, ask_firmware)),
        "available_mb": None if available is None else round(available / 2**20, 1),
    }
