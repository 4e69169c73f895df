"""The systemd unit of the station: locked away, and printed with the right command."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "edge_mdda" / "station" / "edge-mdda-station.service"
MOST_EXPOSED = 1.5


def printed() -> str:
    words = [sys.executable, "-m", "edge_mdda", "serve", "unit"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


def test_it_is_printed_with_a_command_that_is_there():
    lines = [line for line in printed().splitlines() if line.startswith("ExecStart=")]
    assert len(lines) == 1 and lines[0].endswith(" serve --port 8080 --max-megapixels 16")
    assert Path(lines[0].removeprefix("ExecStart=").split()[0]).exists()
    others = [line for line in UNIT.read_text().splitlines() if not line.startswith("ExecStart=")]
    assert [line for line in printed().splitlines() if not line.startswith("ExecStart=")] == others


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_it_is_locked_away(tmp_path):
    def level(unit: Path) -> float:
        words = ["systemd-analyze", "--no-pager", "security", "--offline=true", "--threshold=100", str(unit)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        if done.returncode and "threshold" in done.stderr:
            pytest.skip("this systemd-analyze cannot judge a unit file offline")
        assert "ignoring" not in done.stderr, done.stderr
        return float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)[1])

    assert level(UNIT) <= MOST_EXPOSED
    weak = tmp_path / UNIT.name
    weak.write_text(
        "\n".join(line for line in UNIT.read_text().splitlines() if not line.startswith("SystemCallFilter"))
    )
    assert level(weak) > MOST_EXPOSED
