"""Power cuts: a trace of what the station asks of the disk, cut anywhere, with unsynced writes lost or reordered.

``strace`` records the system calls of a writer. A model of a disk replays them up to a random call. What was synced is
there; of the rest, each written piece of a file survives or not by the toss of a coin (a later one without an earlier
one, too), pieces may be torn, and names made, changed or removed since their folder was synced survive in order up to a
random one, as a journalling file system does it. Then a station must start on what is left.

What it does not model: disks that say that they synced and did not, and rotten blocks.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.station.invariants import FIGURES, problems

SECTOR = 512  # bytes that a disk writes whole
CALLS = "openat,write,pwrite64,fsync,fdatasync,rename,unlink,ftruncate,mkdir,close,lseek,dup,pwritev,fallocate"
LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Inode:
    """A file: what the disk holds for sure, and what was written since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Offset and bytes; None cuts the file off there."""

    def sync(self) -> None:
        for change in self.pending:
            apply(self.durable, *change)
        self.pending.clear()

    def after(self, rng: random.Random) -> bytes:
        """What a power cut leaves of it."""
        left = bytearray(self.durable)
        for offset, content in self.pending:
            if content is None:
                if rng.random() < 0.5:
                    apply(left, offset, None)
                continue
            for start in range(0, len(content), SECTOR):
                if rng.random() < 0.5:
                    apply(left, offset + start, content[start : start + SECTOR])
        return bytes(left)


def apply(content: bytearray, offset: int, piece: bytes | None) -> None:
    """Write a piece, or cut off."""
    if piece is None:
        del content[offset:]
        content.extend(bytes(max(0, offset - len(content))))
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(piece)] = piece


@dataclass
class Disk:
    """Files and folders below one folder, as the calls so far have left them."""

    root: str
    names: dict[str, Inode | None] = field(default_factory=dict)
    """What programs see: a path, and its file or None for a folder."""
    durable: dict[str, Inode | None] = field(default_factory=dict)
    changes: list[tuple[str, str, Inode | None]] = field(default_factory=list)
    """``set`` or ``del``, path and file of names that are not synced yet, in order."""
    open: dict[int, tuple[str, Inode | None, int]] = field(default_factory=dict)
    """Path, file and position by descriptor."""
    said: list[str] = field(default_factory=list)
    """Lines on standard output: what was acknowledged."""

    def change(self, kind: str, path: str, inode: Inode | None) -> None:
        self.changes.append((kind, path, inode))
        _change(self.names, kind, path, inode)

    def sync_folder(self, path: str) -> None:
        kept = []
        for kind, name, inode in self.changes:
            if name.rpartition("/")[0] == path:
                _change(self.durable, kind, name, inode)
            else:
                kept.append((kind, name, inode))
        self.changes = kept

    def write_out(self, target: Path, rng: random.Random) -> None:
        """Lay out what a power cut now leaves."""
        names = dict(self.durable)
        for kind, path, inode in self.changes[: rng.randint(0, len(self.changes))]:
            _change(names, kind, path, inode)
        for path in sorted(names):
            inode, place = names[path], target / path[len(self.root) :].lstrip("/")
            if inode is None:
                place.mkdir(parents=True, exist_ok=True)
            elif place.parent.is_dir():
                place.write_bytes(inode.after(rng))


def _change(names: dict[str, Inode | None], kind: str, path: str, inode: Inode | None) -> None:
    if kind == "set":
        names[path] = inode
    else:
        names.pop(path, None)


def step(disk: Disk, call: str, words: str, result: int) -> None:
    """One system call."""
    texts = [bytes.fromhex(found.replace("\\x", "")) for found in TEXT.findall(words)]
    first = words.partition(",")[0]
    if result < 0:
        return
    if call in ("openat", "mkdir", "unlink"):
        path = texts[0].decode()
        if not path.startswith(disk.root):
            return
        if call == "mkdir":
            disk.change("set", path, None)
        elif call == "unlink":
            disk.change("del", path, None)
        else:
            if path not in disk.names and "O_CREAT" in words:
                disk.change("set", path, Inode())
            disk.open[result] = (path, disk.names.get(path), 0)
    elif call == "rename":
        before, after = (text.decode() for text in texts)
        inode = disk.names[before]
        disk.change("set", after, inode)
        disk.change("del", before, None)
    elif call == "write" and first == "1":
        disk.said += texts[0].decode().splitlines()
    elif first.isdigit() and int(first) in disk.open:
        _on_open_file(disk, call, words, int(first), texts, result)


def _on_open_file(disk: Disk, call: str, words: str, descriptor: int, texts: list[bytes], result: int) -> None:
    path, inode, position = disk.open[descriptor]
    if call == "close":
        del disk.open[descriptor]
    elif call in ("fsync", "fdatasync"):
        if inode is None:
            disk.sync_folder(path)
        else:
            inode.sync()
    elif inode is None:
        return
    elif call == "write":
        inode.pending.append((position, texts[0][:result]))
        disk.open[descriptor] = (path, inode, position + result)
    elif call == "pwrite64":
        inode.pending.append((int(words.rpartition(",")[2]), texts[0][:result]))
    elif call == "ftruncate":
        inode.pending.append((int(words.rpartition(",")[2]), None))
    elif call == "lseek":
        disk.open[descriptor] = (path, inode, result)
    else:
        raise RuntimeError(f"the model of a disk does not know {call}")


def trace(folder: Path, visits: int) -> list[tuple[str, str, int]]:
    """The system calls of a writer."""
    log = folder / "trace"
    words = [
        "strace", "-qq", "-xx", "-s", str(1 << 22), "-e", f"trace={CALLS}", "-o", str(log), sys.executable, "-m",
        "benchmarks.station.writer", str(folder / "data"), str(visits),
    ]  # fmt: skip
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    found = (LINE.match(line) for line in log.read_text().splitlines())
    calls = [(match[1], match[2], int(match[3])) for match in found if match]
    log.unlink()
    return calls


def run(cuts: int, seed: int, visits: int = 12, syncs: bool = True) -> dict[str, Any]:
    """Cut the power so often; counts of what did not hold.

    Without ``syncs`` the disk ignores every request to sync: then much must be found, or this finds nothing.
    """
    if shutil.which("strace") is None:
        raise RuntimeError("strace is not installed: apt-get install strace")
    rng = random.Random(seed)
    total = dict.fromkeys(FIGURES, 0)
    with tempfile.TemporaryDirectory(prefix="edge-mdda-power-") as place:
        calls = trace(Path(place), visits)
        if not syncs:
            calls = [call for call in calls if call[0] not in ("fsync", "fdatasync")]
        root = f"{place}/data"
        begin = next(k for k, (_, words, _) in enumerate(calls) if root.encode().hex() in words.replace("\\x", ""))
        for number, cut in enumerate(sorted(rng.sample(range(begin, len(calls)), min(cuts, len(calls) - begin)))):
            disk = Disk(root)
            for call in calls[:cut]:
                step(disk, *call)
            left = Path(place) / f"cut-{number}"
            disk.write_out(left, rng)
            for name, count in problems(left, disk.said).items():
                total[name] += count
            shutil.rmtree(left, ignore_errors=True)
    return {"cuts": cuts, "calls": len(calls) - begin, "acknowledged": len(disk.said), **total}
