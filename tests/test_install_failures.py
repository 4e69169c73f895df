"""``deploy/install.sh`` when things fail: wrong boards, a full disk, ill releases, kills at every step, two at once."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("nacl")
pytest.importorskip("installer")

from bundles import Place, one_line, tiny

from deploy.bundle import HERE

STEPS = re.findall(r"(?:^ *|&& )step ([a-z]+)", (HERE / "install.sh").read_text(), re.MULTILINE)
AFTER_SWITCH = ["switched", "restarted", "healthy", "previous", "confirmed", "adopted", "pruned"]


# -- the wrong board, the full disk -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"arch": "riscv64"}, "this machine is"),
        ({"cpu": "cortex-x", "cpu_parts": ["0xfff"]}, "--force-board"),
        ({"python": "3.99"}, "needs Python 3.99"),
        ({"glibc": "2.99"}, "needs glibc 2.99"),
        ({"installed_bytes": 10**15}, "MB are needed"),
        ({"format": 2}, "format 2"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(place, tmp_path, manifest, words):
    assert words in one_line(place.install_sh(tiny(tmp_path, "7.0", **manifest)))
    assert place.answer() == "1.0 tflite"
    assert not place.leftovers()


def test_another_cpu_by_force(place, tmp_path):
    archive = tiny(tmp_path, "7.0", cpu_parts=["0xfff"])
    assert place.install_sh(archive, "--force-board").returncode == 0
    assert place.answer() == "7.0 tflite"


def test_a_full_disk_leaves_the_old_release(store, tmp_path):
    mounted = tmp_path / "card"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small file system")
    try:
        place = Place(mounted / "edge-mdda")
        assert place.install_sh(store["1"], "--pubkey", store["key"]).returncode == 0
        filler = mounted / "filler"
        for left in (40_000, 150_000, 400_000):  # bytes: it gives up at another place each time
            free = shutil.disk_usage(mounted).free
            filler.write_bytes(b"\0" * max(0, free - left))
            done = place.install_sh(store["2"], "--no-space-check")
            assert done.returncode == 1, (left, done.stdout)
            assert "No space left" in done.stderr
            filler.unlink()
            assert place.answer() == "1.0 tflite"
        assert place.install_sh(store["2"]).returncode == 0
        assert place.answer() == "2.0 tflite"
        assert not place.leftovers()
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=False)


# -- going back by itself ---------------------------------------------------------------------------------


def test_a_failed_self_test_switches_nothing(place, store):
    done = place.install_sh(store["selftest"])
    assert done.returncode == 1
    assert "self-test failed" in done.stderr
    assert place.answer() == "1.0 tflite"
    assert [name.split("-")[0] for name in place.status()["releases"]] == ["1.0"]


def test_an_unhealthy_release_is_rolled_back(place, store):
    done = place.install_sh(store["health"])
    assert done.returncode == 1
    assert "is in force again" in done.stderr
    assert place.answer() == "1.0 tflite"
    assert place.status()["confirmed"] is True
    assert [name.split("-")[0] for name in place.status()["releases"]] == ["1.0"]


def test_an_unhealthy_first_release_leaves_none(store, tmp_path):
    place = Place(tmp_path / "board")
    assert place.install_sh(store["health"], "--pubkey", store["key"]).returncode == 1
    assert place.status()["current"] is None
    assert place.install_sh(store["1"], "--pubkey", store["key"]).returncode == 0


def test_a_release_that_rots_before_its_health_check_is_left_again(place, store):
    """Killed right after the switch; then the card loses a part of the new release."""
    assert place.install_sh(store["2"], EDGE_MDDA_INSTALL_STOP_AT="switched").returncode == -9
    status = place.status()
    assert (status["version"], status["confirmed"]) == ("2.0", False)
    (place.prefix / "current/models/bad.txt").write_text("selftest")
    done = place.install_sh(store["1"])
    assert done.returncode == 0, done.stderr
    assert "is not healthy: going back" in done.stdout
    assert place.answer() == "1.0 tflite"


# -- kill -9 at every step --------------------------------------------------------------------------------


def test_every_step_is_known():
    assert len(STEPS) == len(set(STEPS)) == 16
    assert set(AFTER_SWITCH) < set(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_the_board_still_screens_and_the_next_try_succeeds(place, store, step):
    done = place.install_sh(store["2"], EDGE_MDDA_INSTALL_STOP_AT=step)
    assert done.returncode == -9, (done.stdout, done.stderr)
    assert place.answer() == ("2.0 tflite" if step in AFTER_SWITCH else "1.0 tflite")
    done = place.install_sh(store["2"])
    assert done.returncode == 0, done.stderr
    assert place.answer() == "2.0 tflite"
    status = place.status()
    assert status["confirmed"] is True
    assert status["previous"].startswith("1.0-")
    assert not place.leftovers()


@pytest.mark.parametrize("step", STEPS)
def test_a_first_installation_killed_at_a_step_succeeds_when_repeated(store, tmp_path, step):
    place = Place(tmp_path / "board")
    assert place.install_sh(store["1"], "--pubkey", store["key"], EDGE_MDDA_INSTALL_STOP_AT=step).returncode == -9
    done = place.install_sh(store["1"], "--pubkey", store["key"])
    assert done.returncode == 0, done.stderr
    assert place.answer() == "1.0 tflite"
    assert not place.leftovers()


def test_killed_while_it_rolls_back(place, store):
    assert place.install_sh(store["2"]).returncode == 0
    for step in ("pending", "switched", "healthy"):
        assert place.install_sh("rollback", EDGE_MDDA_INSTALL_STOP_AT=step).returncode == -9
        assert place.answer() in ("1.0 tflite", "2.0 tflite")
        assert place.install_sh(store["2"]).returncode == 0
        assert place.answer() == "2.0 tflite"
        assert place.status()["previous"].startswith("1.0-")


def test_a_rollback_that_was_interrupted_is_finished_when_repeated(place, store):
    for step in ("configured", "pending", "switched", "restarted", "healthy", "previous"):
        assert place.install_sh(store["2"]).returncode == 0
        assert place.answer() == "2.0 tflite"
        assert place.install_sh("rollback", EDGE_MDDA_INSTALL_STOP_AT=step).returncode == -9
        done = place.install_sh("rollback")
        assert done.returncode == 0, (step, done.stderr)
        assert place.answer() == "1.0 tflite", step


# -- two at once ------------------------------------------------------------------------------------------


def test_a_second_installer_is_refused_while_one_runs(place, store):
    with (place.prefix / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another installation is running" in one_line(place.install_sh(store["2"]))
        assert "another installation is running" in one_line(place.install_sh("uninstall"))
    assert place.install_sh(store["2"]).returncode == 0


def test_two_installers_at_once(place, store):
    command = ["sh", HERE / "install.sh", store["2"], "--prefix", place.prefix, "--python", sys.executable]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(process.communicate()[1], process.returncode) for process in pair]
    assert sorted(status for _, status in ends) in ([0, 0], [0, 1]), ends
    assert all("another installation is running" in text for text, status in ends if status)
    assert place.answer() == "2.0 tflite"
    assert place.status()["previous"].startswith("1.0-")
    assert not place.leftovers()
