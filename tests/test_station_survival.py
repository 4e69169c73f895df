"""Kills and power cuts in small numbers; ``python -m benchmarks.station`` makes many."""

from __future__ import annotations

import random
import shutil

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nacl")
from benchmarks.station import kills, power
from benchmarks.station.invariants import FIGURES


def test_nothing_is_lost_to_kills():
    found = kills.run(8, seed=3)
    assert found["acknowledged"] > 8 and not any(found[name] for name in FIGURES), found


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@needs_strace
def test_nothing_is_lost_to_power_cuts():
    found = power.run(30, seed=4, visits=3)
    assert found["acknowledged"] > 5 and not any(found[name] for name in FIGURES), found


@needs_strace
def test_a_disk_that_ignores_syncs_is_found_out():
    found = power.run(30, seed=5, visits=3, syncs=False)
    assert found["lost"] > 0 and found["lost"] + found["half"] + found["unsound"] > 5, found


def test_the_model_of_a_disk_loses_what_is_not_synced():
    inode = power.Inode()
    inode.pending.append((0, b"a" * 1024))
    inode.sync()
    inode.pending.append((512, b"b" * 512))
    left = {inode.after(random.Random(seed)) for seed in range(20)}
    assert left == {b"a" * 1024, b"a" * 512 + b"b" * 512}
    disk = power.Disk("/d")
    disk.change("set", "/d/x", inode)
    assert "/d/x" not in disk.durable
    disk.sync_folder("/d")
    assert "/d/x" in disk.durable and not disk.changes
