"""``edge-mdda watch`` as a service: its manager's messages, hung, stopped, and without space, rights or folder."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from watch_folder import PATIENCE_S, WATCHDOG_S, drop, ended, files_in, once, options, results, started, until

from edge_mdda.watch.sd_notify import Notifier
from edge_mdda.watch.spool import MAX_ENDS, Spool

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.usefixtures("no_child_is_left")
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24  # linux/capability.h, linux/prctl.h


# -- the service --------------------------------------------------------------------------------------


def test_the_service_is_ready_feeds_the_watchdog_and_stops(inbox, model, manager):
    child = started("none", 0, options(inbox, model), env=manager.environment)
    manager.wait_for("READY=1")
    manager.wait_for("WATCHDOG=1")
    assert manager.said.index("READY=1") < len(manager.said) - 1
    drop(inbox, "mole.jpg")
    manager.wait_for("STATUS=waiting for images; 1 screened, 0 failed")
    drop(inbox, "note.txt", b"no picture")
    manager.wait_for("STATUS=waiting for images; 1 screened, 1 failed")
    manager.wait_for("WATCHDOG=1")  # also while there is nothing to do
    child.send_signal(signal.SIGTERM)
    manager.wait_for("STOPPING=1")
    status, out, said = ended(child)
    assert (status, len(out.splitlines()), len(said)) == (0, 2, 1)
    assert {"done/mole.jpg.json", "failed/note.txt.json"} <= files_in(inbox)


def test_sigterm_finishes_the_current_image_and_no_more(inbox, model, manager):
    for name in ("a.jpg", "b.jpg"):
        drop(inbox, name)
        os.utime(inbox / name, (ord(name[0]), 1))
    child = started("slow", 1.5, options(inbox, model), env=manager.environment)
    manager.wait_for("STATUS=screening")
    child.send_signal(signal.SIGTERM)
    assert ended(child)[0] == 0
    assert files_in(inbox) == {"b.jpg", "done/a.jpg", "done/a.jpg.json", "work/.lock"}
    interrupted = started("none", 0, options(inbox, model), env=manager.environment)
    manager.wait_for("READY=1")
    interrupted.send_signal(signal.SIGINT)
    assert ended(interrupted)[0] == 130


def test_a_hanging_classifier_starves_the_watchdog_and_does_not_block_the_rest(inbox, model, manager):
    """This plays systemd: no message for WATCHDOG_S means SIGABRT and a new start."""
    drop(inbox, "hang.jpg")
    os.utime(inbox / "hang.jpg", (1, 1))
    drop(inbox, "mole.jpg")
    for _ in range(MAX_ENDS):
        child = started("hang", "hang", options(inbox, model), env=manager.environment)
        manager.wait_for("STATUS=screening")
        while manager.hear(WATCHDOG_S) is not None:
            assert "done/mole.jpg" not in files_in(inbox)
        child.send_signal(signal.SIGABRT)
        assert child.wait(PATIENCE_S) == -signal.SIGABRT
        child.communicate()
    child = started("hang", "hang", options(inbox, model), env=manager.environment)
    until((inbox / "done/mole.jpg").exists, child)
    child.send_signal(signal.SIGTERM)
    assert ended(child)[0] == 0
    assert "watchdog" in results(inbox)["failed/hang.jpg.json"]["error"]


def test_a_vanished_folder_ends_the_service_with_one_line(inbox, model, manager):
    for replaced in (False, True):
        child = started("none", 0, options(inbox, model), env=manager.environment)
        manager.wait_for("READY=1")
        away = inbox.rename(inbox.with_name(f"away-{replaced}"))
        if replaced:
            inbox.mkdir()
        status, _, said = ended(child)
        assert (status, len(said)) == (1, 1), said
        assert ("taken its place" if replaced else "vanished") in said[0]
        if not replaced:
            away.rename(inbox)


def test_done_may_be_taken_away_while_the_service_runs(inbox, model, manager):
    child = started("none", 0, options(inbox, model), env=manager.environment)
    manager.wait_for("READY=1")
    for screened in (1, 2):
        drop(inbox, "mole.jpg")
        manager.wait_for(f"STATUS=waiting for images; {screened} screened")
        assert (inbox / "done/mole.jpg").exists()
        shutil.rmtree(inbox / "done")
    child.send_signal(signal.SIGTERM)
    assert ended(child)[0] == 0


# -- a model, a disk or rights that fail ---------------------------------------------------------------


def test_a_model_that_fails_is_no_image_s_fault(inbox, model):
    drop(inbox, "mole.jpg")
    status, out, said = once(inbox, model, "break", "-")
    assert (status, out, said) == (1, "", ["edge-mdda: error: the model cannot run"])
    assert files_in(inbox) == {"mole.jpg", "work/.lock"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a small file system to fill")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    path = folder / "ballast.part"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path


def test_a_full_disk_costs_no_image_and_the_service_goes_on(small_disk, model, manager):
    drop(small_disk, "mole.jpg")
    for folder in ("work", "done", "failed"):
        (small_disk / folder).mkdir()
    ballast = fill(small_disk)
    status, out, said = once(small_disk, model)
    assert (status, out, len(said)) == (1, "", 1)
    assert "disk is full" in said[0]
    assert files_in(small_disk) == {"mole.jpg", "ballast.part", "work/.lock"}
    child = started("retry", 0.2, options(small_disk, model), env=manager.environment)
    manager.wait_for("STATUS=no space")
    manager.wait_for("STATUS=no space")  # it tries again
    ballast.unlink()
    until((small_disk / "done/mole.jpg").exists, child)
    child.send_signal(signal.SIGTERM)
    status, _, said = ended(child)
    assert (status, len(said)) == (0, 1)  # said once, though tried several times


def without_rights() -> None:
    """In the child: a root that must obey permissions as everybody else."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")


def test_an_image_without_read_permission_is_failed(inbox, model):
    drop(inbox, "mole.jpg")
    (inbox / "mole.jpg").chmod(0)
    status, _, said = ended(started("none", 0, options(inbox, model, "--once"), preexec_fn=without_rights))
    assert (status, len(said), "permission denied" in said[0]) == (1, 1, True)
    found = results(inbox)["failed/mole.jpg.json"]
    assert (found["sha256"], "permission denied" in found["error"]) == (None, True)


def test_a_folder_that_may_not_be_changed_is_one_line(inbox, model):
    inbox.chmod(0o500)
    status, _, said = ended(started("none", 0, options(inbox, model), preexec_fn=without_rights))
    assert (status, len(said), "permission denied" in said[0]) == (1, 1, True)
    inbox.chmod(0o700)
    with Spool(str(inbox), 0.0):
        pass
    drop(inbox, "mole.jpg")
    inbox.chmod(0o500)  # since the start: its folders are there, but nothing can be moved
    status, _, said = ended(started("none", 0, options(inbox, model, "--once"), preexec_fn=without_rights))
    inbox.chmod(0o700)
    assert (status, len(said), "mole.jpg: cannot be taken: permission denied" in said[0]) == (1, 1, True)
    assert (inbox / "mole.jpg").exists()


# -- messages -----------------------------------------------------------------------------------------


def test_an_abstract_socket_and_somebody_elses_watchdog():
    name = f"edge-mdda-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(PATIENCE_S)
        other = {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid() + 1)}
        notifier = Notifier(other)
        notifier.alive()  # meant for another process
        notifier.status("two\nlines")
        notifier.status("two\nlines")  # no news
        notifier.ready()
        assert [receiver.recv(100), receiver.recv(100)] == [b"STATUS=two lines", b"READY=1"]
        notifier.close()
        mine = Notifier({**other, "WATCHDOG_PID": str(os.getpid())})
        mine.alive()
        assert receiver.recv(100) == b"WATCHDOG=1"
        mine.close()


def test_without_a_service_manager_nothing_is_said(tmp_path):
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "nonsense"}):
        notifier = Notifier(environment)
        notifier.ready()
        notifier.alive()
        notifier.stopping()
        notifier.close()
