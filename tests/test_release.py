"""What doctor says of an installed release: nothing without one, and what differs from its board's profile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_mdda.diagnostics.finding import OK, UNKNOWN, WARNING
from edge_mdda.diagnostics.release import release

PROFILE = {
    "version": "1.0",
    "board_title": "a board",
    "os_title": "a system",
    "memory_mb": 1024,
    "cores": 4,
    "sensors": {"temperature": "sys/class/thermal/thermal_zone0/temp", "throttling": "sys/devices/throttled"},
}


@pytest.fixture
def board(tmp_path, monkeypatch) -> Path:
    """A root folder with memory, cores and a thermometer, and a release that was made for it."""
    root, models = tmp_path / "root", tmp_path / "release/models"
    models.mkdir(parents=True)
    (models.parent / "manifest.json").write_text(json.dumps(PROFILE))
    monkeypatch.setenv("EDGE_MDDA_MODELS", str(models))
    for path, text in {
        "proc/meminfo": "MemTotal:        945000 kB\nMemAvailable:    500000 kB\n",
        "proc/cpuinfo": "".join(f"processor\t: {n}\n" for n in range(4)),
        "sys/class/thermal/thermal_zone0/temp": "45000\n",
        "sys/devices/throttled": "0\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_the_board_that_the_bundle_was_made_for(board):
    found = release(board)
    assert [(f.name, f.status) for f in found] == [("release", OK)]
    assert found[0].value == "1.0 for a board, a system"


def test_what_differs_from_the_profile_is_named(board):
    (board / "proc/meminfo").write_text("MemTotal:        500000 kB\n")
    (board / "sys/devices/throttled").unlink()
    found = {f.name: f for f in release(board)}
    assert found["release memory"].status == WARNING
    assert found["release memory"].value == "488 MB, expected 1024"
    assert found["sensor throttling"].status == UNKNOWN
    assert "/sys/devices/throttled" in found["sensor throttling"].value
    assert "sensor temperature" not in found


def test_no_release_and_a_damaged_one_are_no_findings(board, monkeypatch):
    (board.parent / "release/manifest.json").write_text("[")
    assert release(board) == []
    monkeypatch.delenv("EDGE_MDDA_MODELS")
    assert release(board) == []
