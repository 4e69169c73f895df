"""The CPUs that are emulated: what Linux shows of them on the boards, and what they must not execute.

``Features`` are those that Linux lists on the board itself, not on any other with the same core: the CPUs of the
Raspberry Pi Zero 2 W and 4 lack the optional cryptography instructions.
"""

from __future__ import annotations

from dataclasses import dataclass

from deploy.arm64.errors import BenchError

ARM = 0x41
"""CPU implementer, Main ID Register."""

BASELINE = frozenset(("fp", "asimd", "evtstrm", "crc32", "cpuid"))
CRYPTOGRAPHY = frozenset(("aes", "pmull", "sha1", "sha2"))
ARMV8_2 = frozenset(("atomics", "fphp", "asimdhp", "asimdrdm", "lrcpc", "dcpop", "asimddp"))
FEATURE_ORDER = (
    *("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp"),
    *("cpuid", "asimdrdm", "lrcpc", "dcpop", "asimddp"),
)
"""As Linux lists them (arch/arm64/kernel/cpuinfo.c)."""


@dataclass(frozen=True)
class Cpu:
    """One CPU as its board's Linux describes it."""

    name: str
    """QEMU's and LLVM's name."""
    part: int
    variant: int
    revision: int
    features: frozenset[str]

    def cpuinfo(self, cores: int) -> str:
        """``/proc/cpuinfo`` of a board with so many cores."""
        features = " ".join(name for name in FEATURE_ORDER if name in self.features)
        return "\n".join(
            f"processor\t: {number}\n"
            "BogoMIPS\t: 108.00\n"
            f"Features\t: {features}\n"
            f"CPU implementer\t: 0x{ARM:02x}\n"
            "CPU architecture: 8\n"
            f"CPU variant\t: 0x{self.variant:x}\n"
            f"CPU part\t: 0x{self.part:03x}\n"
            f"CPU revision\t: {self.revision}\n"
            for number in range(cores)
        )


CPUS = {
    cpu.name: cpu
    for cpu in (
        Cpu("cortex-a53", 0xD03, 0x0, 4, BASELINE),
        Cpu("cortex-a72", 0xD08, 0x0, 3, BASELINE),
        Cpu("cortex-a76", 0xD0B, 0x4, 1, BASELINE | CRYPTOGRAPHY | ARMV8_2),
    )
}

INSTRUCTIONS = {
    "asimddp": (0x6E829420, "udot v0.4s, v1.16b, v2.16b"),
    "asimdhp": (0x4E421420, "fadd v0.8h, v1.8h, v2.8h"),
    "atomics": (0xB82103E0, "ldadd w1, w0, [sp]"),
    "sve": (0x04A00000, "add z0.s, z0.s, z0.s"),
    "i8mm": (0x4E82A420, "smmla v0.4s, v1.16b, v2.16b"),
    "bf16": (0x6E42FC20, "bfdot v0.4s, v1.8h, v2.8h"),
}
"""One instruction of each extension that compilers like to use: encoding and assembly (Arm Architecture Reference
Manual, DDI 0487)."""


def cpu_of(name: str) -> Cpu:
    """The CPU of that name.

    Raises
    ------
    BenchError
        It cannot be emulated here.
    """
    try:
        return CPUS[name]
    except KeyError:
        known = ", ".join(CPUS)
        raise BenchError(f"QEMU does not emulate {name!r} here: choose a board with one of {known}") from None
