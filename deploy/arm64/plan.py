"""Which checks there are, and in which order they run."""

from __future__ import annotations

from deploy.arm64 import hardware_checks, install_checks, program_checks
from deploy.arm64.bench import Check

FIRST: dict[str, Check] = {
    "instructions": hardware_checks.instructions,
    "network": hardware_checks.network,
    "install": install_checks.install,
}
"""Always, in this order: the emulation is what it says, then the program is there."""

AFTER: dict[str, Check] = {
    "doctor": program_checks.doctor,
    "selftest": program_checks.selftest,
    "screen": program_checks.screen,
    "kernels": program_checks.kernels,
    "command-line": program_checks.command_line,
    "scan": hardware_checks.scan,
}
"""Independent of each other; the longest first."""
