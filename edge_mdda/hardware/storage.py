"""The disk that a clinic's records lie on: its room, and whether it is encrypted."""

from __future__ import annotations

import os
from pathlib import Path

from edge_mdda.hardware import DATA_SETTING
from edge_mdda.hardware.inventory import ROOT, mount_of, mounts, text_of

VISIT_BYTES = 4 << 20  # a picture of 12 megapixels as JPEG, and the two views that the network saw
LOW_VISITS, MIN_VISITS = 500, 50  # a busy month, a busy day
ENCRYPTED_KINDS = ("ecryptfs", "fuse.gocryptfs", "fuse.cryfs", "fuse.encfs")


def records_folder() -> Path:
    """Where a station's records lie if nobody says otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(os.environ.get(DATA_SETTING) or os.path.join(base, "edge-mdda", "station"))


def room_for_visits(folder: Path) -> int:
    """How many more visits fit onto the disk of a folder, for a user who is not root; OSError where it is not there."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize // VISIT_BYTES


def is_encrypted(folder: Path, root: Path = ROOT) -> bool | None:
    """Whether the folder's partition is encrypted (LUKS, also below LVM), or None if it cannot be told."""
    mount = mount_of(str(folder.resolve()), mounts(root))
    if mount is None:
        return None
    if mount.kind in ENCRYPTED_KINDS:
        return True
    if not mount.device.startswith("/dev/"):
        return None  # an overlay or a network's disk: what lies below cannot be seen
    device = root / mount.device.lstrip("/")
    name = os.path.basename(os.path.realpath(device) if device.exists() else str(device))
    return _is_encrypted(name, root, set())


def _is_encrypted(name: str, root: Path, seen: set[str]) -> bool:
    block = root / "sys/class/block" / name
    if (text_of(block / "dm/uuid") or "").startswith("CRYPT-"):
        return True
    seen.add(name)
    below = [path.name for path in (block / "slaves").glob("*") if path.name not in seen]
    return bool(below) and all(_is_encrypted(one, root, seen) for one in below)
