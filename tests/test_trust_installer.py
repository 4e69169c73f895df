"""The installer under fire: killed, or without room, at every call that changes the disk.

``EDGE_MDDA_TEST_POINTS=all`` tries every call; by default a few are drawn evenly over the installation.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nacl")
pytest.importorskip("installer")

from bundles import Place

from deploy.bundle import HERE

SOURCE = Path(__file__).with_name("failing_disk.c")
POINTS = os.environ.get("EDGE_MDDA_TEST_POINTS", "8")
RUNNING = ("1.0 tflite", "2.0 tflite")


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("needs a compiler, for the disk that fails")
    path = tmp_path_factory.mktemp("disk") / "failing_disk.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-w", "-o", path, SOURCE, "-ldl"], check=True)
    return path


class Disk:
    """Runs the installer on a disk that fails at one call."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.library, self.shared = library, folder / "shared"

    def install(self, place: Place, archive: Path, mode: str, wanted: int, *options: object):
        self.shared.write_bytes(struct.pack("<qq", 0, wanted))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_MDDA_")}
        clean |= {"LD_PRELOAD": str(self.library), "FAILING_DISK": str(self.shared), "FAILING_DISK_MODE": mode}
        command = ["sh", HERE / "install.sh", archive, *options, "--prefix", place.prefix, "--python", sys.executable]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, env=clean, start_new_session=True, check=False
        )
        self.count = struct.unpack("<qq", self.shared.read_bytes())[0]
        return done


@pytest.fixture
def disk(library, tmp_path) -> Disk:
    return Disk(library, tmp_path)


def points(count: int) -> list[int]:
    if POINTS == "all":
        return list(range(1, count + 1))
    number = min(int(POINTS), count)
    return sorted({1 + (count - 1) * n // (number - 1) for n in range(number)})


def fresh(base: tuple[Path, Path]) -> Place:
    prefix, kept = base
    shutil.rmtree(prefix, ignore_errors=True)
    shutil.copytree(kept, prefix, symlinks=True)
    return Place(prefix)


def test_the_disk_counts_over_all_processes(disk, base, store):
    place = fresh(base)
    done = disk.install(place, store["2"], "kill", 0)
    assert done.returncode == 0, done.stderr
    assert place.answer() == "2.0 tflite"
    assert disk.count > 100


@pytest.mark.parametrize("mode", ["kill", "full"])
def test_an_update_at_every_call(disk, base, store, mode):
    """Afterwards the old or the new release answers, and the same command again ends well."""
    disk.install(fresh(base), store["2"], mode, 0)
    count = disk.count
    tried = points(count)
    for point in tried:
        place = fresh(base)
        done = disk.install(place, store["2"], mode, point)
        if mode == "kill":
            assert done.returncode == -signal.SIGKILL, (point, done.stdout, done.stderr)
        else:
            assert done.returncode in (0, 1), (point, done.stderr)
            assert "Traceback" not in done.stderr, (point, done.stderr)
        assert place.answer() in RUNNING, (mode, point)
        again = place.install_sh(store["2"])
        assert again.returncode == 0, (mode, point, again.stderr)
        assert place.answer() == "2.0 tflite", (mode, point)
        assert place.status()["confirmed"] and not place.leftovers(), (mode, point)
    print(f"{mode}: {len(tried)} of {count} calls that change the disk")


def test_a_first_installation_killed_at_every_call(disk, store, tmp_path):
    place = Place(tmp_path / "board")
    disk.install(place, store["1"], "kill", 0, "--pubkey", store["key"])
    count = disk.count
    tried = points(count)
    for point in tried:
        shutil.rmtree(place.prefix)
        done = disk.install(place, store["1"], "kill", point, "--pubkey", store["key"])
        assert done.returncode == -signal.SIGKILL, (point, done.stdout, done.stderr)
        place.prefix.mkdir(exist_ok=True)
        again = place.install_sh(store["1"], "--pubkey", store["key"])
        assert again.returncode == 0, (point, again.stderr)
        assert place.answer() == "1.0 tflite", point
    print(f"first: {len(tried)} of {count} calls that change the disk")


def test_a_read_only_disk_is_one_line(base, store, tmp_path):
    mounted = tmp_path / "card"
    mounted.mkdir()
    kept = base[1]
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a file system")
    try:
        shutil.copytree(kept, mounted / "edge-mdda", symlinks=True)
        subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
        done = Place(mounted / "edge-mdda").install_sh(store["2"])
        assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "cannot write to" in done.stderr
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=False)
