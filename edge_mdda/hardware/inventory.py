"""What Linux says of the board: model, CPU, memory, mounts, cameras, clock, emulation.

Every function reads files below ``root`` and knows nothing of the program around it; what cannot be read is None or
empty, never an error: boards differ, and a container shows only a part.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
MAX_TEXT = 1 << 18  # bytes; the largest, /proc/cpuinfo of a server, has fewer
ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
}
"""``CPU part`` of CPUs by Arm (Main ID Register); others are shown by number."""

NO_CAMERAS = re.compile(r"codec|\bisp\b|hevc|rpivid|pispbe|decoder|encoder|loopback", re.IGNORECASE)
"""V4L2 devices that are no cameras: the video blocks of a Raspberry Pi and others, and virtual ones."""

ADJTIMEX_BYTES = 512  # more than any struct timex has
CLOCK_UNSYNCHRONISED = 5  # TIME_ERROR, adjtimex(2)


def text_of(path: Path) -> str | None:
    """A small text file without surrounding blanks and zero bytes (device tree), or None."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_TEXT).decode(errors="replace").strip("\0 \t\r\n")
    except OSError:  # a sensor that is asleep answers EAGAIN
        return None


def number_of(path: Path) -> int | None:
    """A whole number from a file, or None."""
    text = text_of(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


def natural(path: Path) -> list[object]:
    """Sorting key: ``zone2`` before ``zone10``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def entries(root: Path, folder: str, pattern: str) -> list[Path]:
    """What matches in a folder, in natural order."""
    try:
        return sorted((root / folder).glob(pattern), key=natural)
    except OSError:
        return []


# -- board and CPU ------------------------------------------------------------------------------------


def model(root: Path = ROOT) -> str | None:
    """``Raspberry Pi 4 Model B Rev 1.4`` from the device tree, or what a PC's firmware calls the machine."""
    for place in ("proc/device-tree/model", "sys/firmware/devicetree/base/model", "sys/class/dmi/id/product_name"):
        text = text_of(root / place)
        if text:
            return text
    return None


def is_board(name: str | None) -> bool:
    """Whether the model is one of the boards that this program is made for."""
    return bool(name and re.search(r"raspberry pi|jetson|orin", name, re.IGNORECASE))


def cpuinfo(root: Path = ROOT) -> dict[str, str]:
    """The first processor's lines of ``/proc/cpuinfo``."""
    first = (text_of(root / "proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def cpu(root: Path = ROOT) -> str | None:
    """Name of the CPU."""
    fields = cpuinfo(root)
    part = fields.get("CPU part")
    if part:
        arm = fields.get("CPU implementer") == "0x41"
        return ARM_PARTS.get(part.lower(), f"part {part}") if arm else f"part {part}"
    return fields.get("model name")


def cores(root: Path = ROOT) -> int:
    """Number of processors that the system shows; 1 if it shows none."""
    return len(re.findall(r"^processor\s*:", text_of(root / "proc/cpuinfo") or "", re.MULTILINE)) or 1


def pointer_bits() -> int:
    """64 or 32, of the running Python: a 64-bit kernel can carry a 32-bit system."""
    return 64 if sys.maxsize > 2**32 else 32


def operating_system(root: Path = ROOT) -> str | None:
    """``Debian GNU/Linux 12 (bookworm)``."""
    for place in ("etc/os-release", "usr/lib/os-release"):
        match = re.search(r'^PRETTY_NAME="?([^"\n]*)', text_of(root / place) or "", re.MULTILINE)
        if match:
            return match[1]
    return None


def emulation(root: Path = ROOT, machine: str | None = None) -> str | None:
    """Why this looks like a CPU in software (qemu-user), or None. It cannot see through a good disguise."""
    machine = machine or os.uname().machine
    arm = machine.startswith(("aarch64", "arm"))
    fields = cpuinfo(root)
    if fields and arm != ("CPU part" in fields or "CPU implementer" in fields or "Features" in fields):
        return f"the system says {machine}, /proc/cpuinfo describes another architecture"
    if root != ROOT:
        return None
    try:  # qemu-user fakes /proc/self/exe, not this one
        program = os.path.basename(os.readlink("/proc/thread-self/exe"))
    except OSError:
        return None
    return f"this program runs in {program}" if program.startswith("qemu-") else None


def virtual_machine(root: Path = ROOT) -> bool:
    """Whether a hypervisor stands between (x86 says so in the CPU's flags)."""
    return "hypervisor" in cpuinfo(root).get("flags", "").split()


# -- memory -------------------------------------------------------------------------------------------


def memory(root: Path = ROOT) -> dict[str, int]:
    """``/proc/meminfo`` in bytes."""
    pairs = re.findall(r"^(\w+):\s+(\d+) kB", text_of(root / "proc/meminfo") or "", re.MULTILINE)
    return {name: int(value) << 10 for name, value in pairs}


def process_memory(field: str) -> int | None:
    """``VmRSS`` or ``VmHWM`` of this process in bytes. (``getrusage`` keeps the parent's peak.)"""
    match = re.search(rf"^{field}:\s+(\d+) kB", text_of(Path("/proc/self/status")) or "", re.MULTILINE)
    return int(match[1]) << 10 if match else None


@dataclass(frozen=True)
class Swap:
    """One line of ``/proc/swaps``; sizes in bytes."""

    name: str
    size: int
    used: int


def swaps(root: Path = ROOT) -> list[Swap]:
    """Swap files and devices."""
    found = []
    for line in (text_of(root / "proc/swaps") or "").splitlines()[1:]:
        parts = line.split()
        if len(parts) >= 4 and parts[2].isdigit() and parts[3].isdigit():
            found.append(Swap(parts[0], int(parts[2]) << 10, int(parts[3]) << 10))
    return found


# -- storage ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mount:
    """One line of ``/proc/mounts`` or ``/etc/fstab``."""

    device: str
    folder: str
    kind: str
    options: tuple[str, ...]

    @property
    def on_card(self) -> bool:
        """Whether it lies on an SD card or eMMC."""
        return "mmcblk" in self.device


def mounts(root: Path = ROOT, table: str = "proc/mounts") -> list[Mount]:
    """Mounted file systems, or with ``etc/fstab`` those that should be."""
    found = []
    for line in (text_of(root / table) or "").splitlines():
        parts = line.split()
        if len(parts) >= 4 and not line.startswith("#"):
            folder = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), parts[1])
            found.append(Mount(parts[0], folder, parts[2], tuple(parts[3].split(","))))
    return found


def mount_of(folder: str, table: list[Mount]) -> Mount | None:
    """The mount that holds a folder; the last of several on one point is the one seen."""
    found = None
    for mount in table:
        inside = mount.folder == "/" or folder == mount.folder or folder.startswith(mount.folder + "/")
        if inside and (found is None or len(mount.folder) >= len(found.folder)):
            found = mount
    return found


def file_system_errors(device: str, root: Path = ROOT) -> int | None:
    """Errors that ext4 has recorded on a device, ever."""
    return number_of(root / "sys/fs/ext4" / os.path.basename(device) / "errors_count")


# -- camera -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Camera:
    """A device that gives pictures; a camera often has several."""

    name: str
    devices: tuple[str, ...]
    usable: bool
    """Whether this user may open one of them."""


def cameras(root: Path = ROOT) -> list[Camera]:
    """V4L2 cameras (USB and CSI) by name, without codecs and image processors."""
    by_name: dict[str, list[str]] = {}
    for entry in entries(root, "sys/class/video4linux", "video*"):
        name = text_of(entry / "name") or entry.name
        if not NO_CAMERAS.search(name):
            by_name.setdefault(name, []).append(entry.name)
    return [
        Camera(
            name,
            tuple(f"/dev/{device}" for device in devices),
            any(os.access(root / "dev" / device, os.R_OK | os.W_OK) for device in devices),
        )
        for name, devices in by_name.items()
    ]


# -- clock --------------------------------------------------------------------------------------------


def clock_chips(root: Path = ROOT) -> list[str]:
    """Real-time clocks: what keeps the time while the board is off."""
    return [text_of(entry / "name") or entry.name for entry in entries(root, "sys/class/rtc", "rtc*")]


def clock_synchronised(root: Path = ROOT) -> bool | None:
    """Whether the network has set the clock since the start, or None if the system does not say."""
    if (root / "run/systemd/timesync/synchronized").exists():
        return True
    if root != ROOT:
        return False if (root / "run/systemd").is_dir() else None
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(ADJTIMEX_BYTES))  # zeros: only reads
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != CLOCK_UNSYNCHRONISED
