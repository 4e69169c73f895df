"""What ``edge-mdda doctor`` says of the installed release: is this the board that its bundle was made for?

A bundle's ``manifest.json`` lies beside the folder of models that ``EDGE_MDDA_MODELS`` names. It holds the board's
profile: memory, cores, and where its sensors are.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edge_mdda.classifier import MODELS_SETTING
from edge_mdda.diagnostics.finding import OK, UNKNOWN, WARNING, Finding
from edge_mdda.hardware import inventory
from edge_mdda.hardware.inventory import ROOT

MANIFEST = "manifest.json"
MIB = 2**20
MEMORY_SHARE = 0.75  # of what the profile says; firmware and graphics take the rest before Linux counts
OTHER = "made for another board? install the bundle that was made for this one (python -m deploy boards)"


def read_profile() -> dict[str, Any] | None:
    """The installed bundle's manifest; None where none is installed or it cannot be read."""
    folder = os.environ.get(MODELS_SETTING)
    if not folder:
        return None
    try:
        content = json.loads((Path(folder).parent / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def release(root: Path = ROOT) -> list[Finding]:
    """The installed release, and each thing of its board's profile that is otherwise here; empty without a bundle."""
    profile = read_profile()
    if profile is None:
        return []
    made_for = f"{profile.get('board_title', 'an unknown board')}, {profile.get('os_title', 'an unknown system')}"
    findings = [Finding("release", OK, f"{profile.get('version', '?')} for {made_for}")]
    findings += _expiry(profile.get("expires"))
    total, expected = inventory.memory(root).get("MemTotal"), profile.get("memory_mb")
    if total and isinstance(expected, int) and total < MEMORY_SHARE * expected * MIB:
        findings.append(Finding("release memory", WARNING, f"{total / MIB:.0f} MB, expected {expected}", OTHER))
    cores, wanted = inventory.cores(root), profile.get("cores")
    if isinstance(wanted, int) and cores < wanted:
        findings.append(Finding("release cores", WARNING, f"{cores}, expected {wanted}", OTHER))
    sensors = profile.get("sensors")
    for name, path in sorted(sensors.items()) if isinstance(sensors, dict) else ():
        place = str(path).lstrip("/")
        if not (root / place).exists():
            advice = "its values are missing from doctor and profile; a newer kernel or firmware may bring it back"
            findings.append(Finding(f"sensor {name}", UNKNOWN, f"expected at /{place}, not there", advice))
    return findings


def _expiry(expires: object) -> list[Finding]:
    """A bundle whose time is over still screens; that nothing newer has come is worth a word."""
    import calendar
    import time

    try:
        until = calendar.timegm(time.strptime(str(expires), "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:  # none, or of another version
        return []
    if time.time() <= until:
        return [Finding("release valid", OK, f"until {expires}")]
    return [Finding("release valid", WARNING, f"was until {expires}", "ask whoever makes the bundles for a newer one")]
