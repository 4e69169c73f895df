"""What ``edge-mdda doctor`` thinks of the board itself: memory, card, clock, camera, heat, power.

Each check reads files below ``root`` and judges; the reading is in :mod:`edge_mdda.hardware.inventory` and
:mod:`edge_mdda.hardware.sensors`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from edge_mdda.diagnostics.finding import FAILED, OK, UNKNOWN, WARNING, Finding
from edge_mdda.hardware import inventory, sensors
from edge_mdda.hardware.inventory import ROOT

MIB = 2**20
SCREENING_BYTES = 100 * MIB  # measured peak 75 to 82 MB with native kernels; doctor's own trial replaces this
MIN_FREE_BYTES, LOW_FREE_BYTES = 100 * MIB, 1024 * MIB
LOW_FREE_INODES = 0.02  # share
WARM_C, HOT_C = 75.0, 85.0  # where no trip point says otherwise; a Raspberry Pi slows from 80 on and holds 85
BELOW_TRIP_C = 5.0
EARLIEST = 1_735_689_600  # 2025-01-01: no clock of a board with this version can rightly be before
LATEST = 4_102_444_800  # 2100-01-01
VOLATILE = ("overlay", "tmpfs", "ramfs")
UNSAFE_OPTIONS = ("nobarrier", "barrier=0", "data=writeback")


def machine(root: Path = ROOT) -> list[Finding]:
    """64-bit system, board, emulation."""
    kernel, bits = os.uname().machine, inventory.pointer_bits()
    system = inventory.operating_system(root) or "unknown system"
    text = f"{system}, {kernel}, {bits}-bit Python"
    good = bits == 64 and kernel in ("aarch64", "x86_64")
    advice = "" if good else "install the 64-bit system: the runtimes have no packages for this one"
    findings = [Finding("system", OK if good else FAILED, text, advice)]

    name, cpu = inventory.model(root), inventory.cpu(root)
    text = f"{name or 'no model name'}, {cpu or 'unknown CPU'}, {inventory.cores(root)} cores"
    known = inventory.is_board(name)
    findings.append(
        Finding(
            "board", OK if known else UNKNOWN, text, "" if known else "not a Raspberry Pi or Jetson: sensors may lack"
        )
    )
    why = inventory.emulation(root)
    if why:
        advice = "times mean nothing here; set QEMU_CPU to the board's CPU, or results can be wrong"
        findings.append(Finding("emulation", WARNING, why, advice))
    return findings


def memory(root: Path = ROOT, needed: int | None = None) -> Finding:
    """Whether a screening fits into the memory that is free; ``needed`` is its measured peak in bytes."""
    sizes = inventory.memory(root)
    total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
    if total is None or available is None:
        return Finding("memory", UNKNOWN, "the system does not say", "look at: free -m")
    needed = needed or SCREENING_BYTES
    text = f"{available / MIB:.0f} of {total / MIB:.0f} MB free; one screening needs {needed / MIB:.0f}"
    if available < needed:
        status = WARNING if sizes.get("SwapFree", 0) > needed else FAILED
        return Finding("memory", status, text, "close other programs, or use native kernels in place of Numba")
    if available < 2 * needed:
        return Finding("memory", WARNING, text, "little is left beside it: close other programs")
    return Finding("memory", OK, text)


def swap(root: Path = ROOT) -> Finding:
    """Swap: none is fine if memory is; on an SD card it wears the card out."""
    found = inventory.swaps(root)
    if not found:
        return Finding("swap", OK, "none")
    text = ", ".join(f"{s.name} {s.size / MIB:.0f} MB, {s.used / MIB:.0f} used" for s in found)
    table = inventory.mounts(root)
    for one in found:
        mount = inventory.mount_of(one.name, table)
        on_card = "mmcblk" in one.name or (not one.name.startswith("/dev/") and mount is not None and mount.on_card)
        if on_card and one.used:
            return Finding("swap", WARNING, text, "swapping wears the SD card out: use zram (rpi-swap, zram-tools)")
    return Finding("swap", OK, text)


def clock(root: Path = ROOT, now: float | None = None) -> Finding:
    """Whether the date can be trusted: results are stored with it, and boards forget it when they are off."""
    now = time.time() if now is None else now
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if not EARLIEST <= now < LATEST:
        return Finding("clock", FAILED, shown, "the date is wrong: set it (sudo date -s 'YYYY-MM-DD HH:MM')")
    chips, synchronised = inventory.clock_chips(root), inventory.clock_synchronised(root)
    text = f"{shown}, {'synchronised' if synchronised else 'not synchronised'}"
    text += f", {', '.join(chips)} keeps it" if chips else ", no real-time clock"
    if synchronised or chips:
        return Finding("clock", OK, text)
    if synchronised is None:
        return Finding("clock", UNKNOWN, text, "compare it with a watch")
    return Finding(
        "clock", WARNING, text, "without network it is wrong after each start: add an RTC, or set it by hand"
    )


def root_file_system(root: Path = ROOT) -> Finding:
    """How the root file system is mounted, and the errors it has recorded."""
    table = inventory.mounts(root)
    mount = inventory.mount_of("/", table)
    if mount is None:
        return Finding("file system", UNKNOWN, "the system does not say", "look at: findmnt /")
    text = f"{mount.device} {mount.kind} ({','.join(mount.options)})"
    errors = inventory.file_system_errors(mount.device, root)
    if errors:
        return Finding(
            "file system", FAILED, f"{text}, {errors} errors recorded", "save the data, run fsck, replace the card"
        )
    if "ro" in mount.options:
        wanted = inventory.mount_of("/", [m for m in inventory.mounts(root, "etc/fstab") if m.folder == "/"])
        if wanted is not None and "ro" not in wanted.options:
            advice = (
                "it should be writable and is not, as after an error: run fsck, replace the card if it happens again"
            )
            return Finding("file system", FAILED, text, advice)
        return Finding("file system", WARNING, text, "read-only: results need another place (a second partition, USB)")
    if mount.kind in VOLATILE:
        return Finding("file system", WARNING, text, "what is written is lost at power off: keep results elsewhere")
    unsafe = [option for option in mount.options if option in UNSAFE_OPTIONS]
    if unsafe:
        return Finding("file system", WARNING, text, f"a power cut can lose data: remove {', '.join(unsafe)} in fstab")
    if mount.on_card and not {"noatime", "relatime"} & set(mount.options):
        return Finding("file system", WARNING, text, "every read writes to the card: add noatime in /etc/fstab")
    return Finding("file system", OK, text)


def disk(root: Path = ROOT) -> Finding:
    """Free space and inodes where the user's data goes."""
    home = os.path.expanduser("~")
    folder = Path(home if home.startswith("/") else "/") if root == ROOT else root
    try:
        status = os.statvfs(folder)
    except OSError as error:
        return Finding("disk", UNKNOWN, f"{folder}: {error.strerror}", "look at: df -h")
    inodes = status.f_favail / status.f_files if status.f_files else 1.0
    return judge_disk(str(folder), status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize, inodes)


def judge_disk(folder: str, free: int, total: int, inodes: float) -> Finding:
    """The verdict on ``free`` of ``total`` bytes and a share of free inodes."""
    text = f"{free / MIB:.0f} of {total / MIB:.0f} MB free at {folder}"
    if free < MIN_FREE_BYTES:
        return Finding("disk", FAILED, text, "delete what is not needed, or use a larger card")
    if free < LOW_FREE_BYTES:
        return Finding("disk", WARNING, text, "free some space: results and updates need it")
    if inodes < LOW_FREE_INODES:
        return Finding("disk", WARNING, f"{text}, {inodes:.0%} of the inodes", "delete old small files")
    return Finding("disk", OK, text)


def camera(root: Path = ROOT) -> Finding:
    """Cameras that the system sees; screening files needs none."""
    found = inventory.cameras(root)
    if not found:
        return Finding(
            "camera", UNKNOWN, "none seen", "check cable and drivers if one is attached; files can be screened"
        )
    text = "; ".join(f"{one.name} ({', '.join(one.devices)})" for one in found)
    if not any(one.usable for one in found):
        return Finding("camera", WARNING, text, "this user may not open it: sudo usermod -aG video $USER, log in again")
    return Finding("camera", OK, text)


def temperature(root: Path = ROOT) -> Finding:
    """The zone that is closest to its limit."""
    zones = sensors.zones(root)
    if not zones:
        return Finding("temperature", UNKNOWN, "this machine shows none")

    def limits(zone: sensors.Zone) -> tuple[float, float]:
        # Without a passive trip point the firmware slows the board, and far below the critical one (Raspberry Pi).
        hot = zone.slows_at or min(HOT_C, (zone.stops_at or HOT_C + BELOW_TRIP_C) - BELOW_TRIP_C)
        return hot - BELOW_TRIP_C if zone.slows_at else min(WARM_C, hot - BELOW_TRIP_C), hot

    worst = max(zones, key=lambda zone: zone.celsius - limits(zone)[1])
    warm, hot = limits(worst)
    text = ", ".join(f"{zone.name} {zone.celsius:.1f} °C" for zone in zones) + f"; limit {hot:.0f} °C"
    if worst.celsius >= hot:
        return Finding(
            "temperature", FAILED, text, f"{worst.name} is too hot: add a heat sink or a fan, free the vents"
        )
    if worst.celsius >= warm:
        return Finding(
            "temperature", WARNING, text, f"{worst.name} is warm: under load the board will slow down; cool it"
        )
    return Finding("temperature", OK, text)


def throttling(root: Path = ROOT) -> Finding:
    """Under-voltage and throttling, now and since the start."""
    found = sensors.throttling(root)
    if found is None:
        return Finding("throttling", UNKNOWN, "this machine does not tell")
    now, before = ", ".join(found.now), ", ".join(found.since_start)
    text = f"now: {now or 'none'}; since the start: {before or 'none'} [{found.source}]"
    advice = (
        "use the board's own power supply and a short cable" if "under-voltage" in now + before else "cool the board"
    )
    if found.now:
        return Finding("throttling", FAILED, text, advice)
    if found.since_start:
        return Finding("throttling", WARNING, text, f"{advice}; start it anew and look again after some load")
    return Finding("throttling", OK, text)


def cpu_clock(root: Path = ROOT) -> Finding:
    """Governor and clock of every group of cores."""
    groups = sensors.clocks(root)
    if not groups:
        return Finding("cpu clock", UNKNOWN, "the system does not govern it")
    text = "; ".join(f"cores {c.cores}: {c.governor or '?'}, {_mhz(c.now)} of {_mhz(c.limit)} MHz" for c in groups)
    if any(c.governor == "powersave" and c.now and c.limit and c.now < c.limit / 2 for c in groups):
        return Finding("cpu clock", WARNING, text, "powersave holds the lowest clock: choose ondemand or schedutil")
    if any(c.limit and c.hardware and c.limit < c.hardware for c in groups):
        return Finding("cpu clock", WARNING, text, "the clock is capped below what the CPU can do: see the power mode")
    return Finding("cpu clock", OK, text)


def _mhz(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"


def power(root: Path = ROOT) -> Finding:
    """What the board draws, by rail."""
    rails = sensors.power(root)
    if not rails:
        return Finding("power", UNKNOWN, "this machine does not measure it")
    total = sensors.total_power(rails)
    return Finding("power", OK, f"{total:.2f} W: " + ", ".join(f"{name} {watts:.2f}" for name, watts in rails.items()))
