"""Rows of the ARM cost table: cycles of each inner loop by ``llvm-mca``, instructions of a run by QEMU."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.arm_cost import mca, replay
from benchmarks.speed.image import benchmark_image
from export.native.build import build
from export.native.codegen import Builder, target_of

CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")
PROBES = "benchmarks.arm_cost.probes"
STORED_BYTES = {
    "rof_sweep": 12,
    "rof_fine_sweep": 12,
    "rof_first_sweep": 8,
    "filter_down": 4,
    "filter_across": 4,
    "filter_mix": 4,
    "rof_primal": 4,
    "noise_sample": 4,
    "weigh": 4,
    "down": 4,
    "blend_rows": 4,
    "up": 4,
    "smooth_down": 4,
    "smooth_across": 4,
}
"""Inner loops in :mod:`benchmarks.arm_cost.probes`, and how many bytes each stores for a pixel."""

SIZE, SEED = 224, 11
PRESETS = ("mild", "balanced", "strong")
PLUGIN_SOURCE = Path(__file__).with_name("icount.c")
EMULATOR = "qemu-aarch64"  # the dynamic one: the static one cannot load plugins


def cycle_rows() -> list[dict[str, Any]]:
    """``{kernel, cpu, cycles_per_pixel, source}`` of every probe and CPU; a sweep's are per pixel and iteration.

    Raises
    ------
    McaError
        ``llvm-mca`` is missing.
    """
    tool = mca.version()
    rows = []
    for cpu in CPUS:
        assembly = Builder(target_of(cpu), modules=(PROBES,)).assembly()
        for name, stored in STORED_BYTES.items():
            # The main loop stores most at a time; the others are its remainder and the edges.
            loop = max(mca.loops(assembly, name), key=lambda found: found.stored_bytes)
            cycles = mca.cycles(loop, cpu) / (loop.stored_bytes / stored)
            rows.append(
                {"kernel": name, "cpu": cpu, "cycles_per_pixel": round(cycles, 2), "source": f"{tool}, estimate"}
            )
    return rows


def instruction_rows() -> list[dict[str, Any]]:
    """``{run, cpu, instructions}`` of whole purifications, counted exactly: two in a row less one.

    Raises
    ------
    ReplayError
        A tool is missing, or a run failed.
    """
    if not shutil.which(EMULATOR) or not shutil.which("cc"):
        raise replay.ReplayError(f"no {EMULATOR} or no C compiler: install Debian's qemu-user and gcc")
    rows = []
    picture = benchmark_image(SIZE)
    with tempfile.TemporaryDirectory() as name:
        plugin = Path(name) / "icount.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", plugin, PLUGIN_SOURCE], check=True)
        for cpu in CPUS:
            library = build(cpu, Path(name))
            for preset in PRESETS:
                recording, _ = replay.record(picture, preset, SEED, library.kernels)
                once, twice = (
                    _count(
                        replay.replay(recording, library, cpu, repeats=n, emulator=(EMULATOR, "-plugin", str(plugin)))
                    )
                    for n in (1, 2)
                )
                rows.append({"run": f"purify {preset} {SIZE}x{SIZE}x3", "cpu": cpu, "instructions": twice - once})
    return rows


def _count(outcome: tuple[Any, str]) -> int:
    found = re.search(r"^instructions (\d+)$", outcome[1], re.MULTILINE)
    if not found:
        raise replay.ReplayError(f"{EMULATOR} did not run the counting plugin: it may be built without plugins")
    return int(found[1])
