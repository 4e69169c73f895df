"""``edge-mdda watch``: real processes, killed at every step, hung, stopped, and without space, rights or folder."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models
from conftest import ROOT

from edge_mdda import NOTICE
from edge_mdda.cli import DEMO_IMAGE, main
from edge_mdda.errors import WatchError
from edge_mdda.service.notify import Notifier
from edge_mdda.service.spool import MAX_ENDS, Spool
from edge_mdda.service.steps import candidates, link_new, rename_new

pytest.importorskip("ai_edge_litert")
CHILD = Path(__file__).parent / "watch_child.py"
PATIENCE_S = 90.0  # for what must happen at some time; no test says how fast
WATCHDOG_S = 4.0
CHILDREN: list[subprocess.Popen[str]] = []
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24  # linux/capability.h, linux/prctl.h


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that opens at once."""
    return tiny_models.save(tmp_path_factory.mktemp("model"), "tiny.tflite", tiny_models.tflite_model())


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def options(folder: Path, model: Path, *more: object) -> list[str]:
    own = ["watch", "--model", model, "--purify", "off", "--settle", 0, "--poll", 0.05, "--json", *more, folder]
    return list(map(str, own))


def started(what: object, value: object, arguments: list[str], **more: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}  # type: ignore[dict-item]
    child: subprocess.Popen[str] = subprocess.Popen(
        [sys.executable, str(CHILD), str(what), str(value), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **more,  # type: ignore[call-overload]
    )
    CHILDREN.append(child)
    return child


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while CHILDREN:
        child = CHILDREN.pop()
        if child.poll() is None:
            child.kill()
            child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def ended(child: subprocess.Popen[str]) -> tuple[int, str, list[str]]:
    """Status, standard output, and what the program itself said on standard error."""
    out, said = child.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("edge-mdda: ") and "watched," not in line]
    return child.returncode, out, lines


def once(folder: Path, model: Path, what: object = "none", value: object = 0) -> tuple[int, str, list[str]]:
    return ended(started(what, value, options(folder, model, "--once")))


def until(true: object, child: subprocess.Popen[str] | None = None) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + PATIENCE_S
    while not true():  # type: ignore[operator]
        assert time.monotonic() < ends, "it never happened"
        assert child is None or child.poll() is None, child.communicate()
        time.sleep(0.02)


def drop(folder: Path, name: str, content: bytes | None = None) -> bytes:
    """Put a file there at once."""
    content = DEMO_IMAGE.read_bytes() if content is None else content
    hidden = folder / ".being-written"
    hidden.write_bytes(content)
    hidden.rename(folder / name)
    return content


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def results(folder: Path) -> dict[str, dict]:
    """Every JSON by its place; each must be whole. One that was dropped as an image has a JSON of its own."""
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())
        for name in ("done", "failed")
        for path in (folder / name).glob("*.json")
        if not path.with_name(f"{path.name}.json").exists()
    }


# -- the plain way ------------------------------------------------------------------------------------


def test_images_end_in_done_or_failed_with_their_json(inbox, model):
    content = drop(inbox, "mole.jpg")
    drop(inbox, "cut.jpg", content[: len(content) // 2])
    drop(inbox, "notes.txt", b"no picture")
    drop(inbox, "empty.png", b"")
    for name in (".hidden.jpg", "copy.jpg.part", "a.TMP", "b.jpg~"):
        (inbox / name).write_bytes(content)
    (inbox / "visit").mkdir()
    (inbox / "visit" / "deep.jpg").write_bytes(content)
    (inbox / "link.jpg").symlink_to(DEMO_IMAGE)
    os.mkfifo(inbox / "pipe.jpg")
    left = files_in(inbox) - {"mole.jpg", "cut.jpg", "notes.txt", "empty.png"}
    status, out, said = once(inbox, model)
    assert status == 1
    assert files_in(inbox) == left | {"work/.lock", "done/mole.jpg", "done/mole.jpg.json"} | {
        f"failed/{name}{end}" for name in ("cut.jpg", "notes.txt", "empty.png") for end in ("", ".json")
    }
    assert (inbox / "link.jpg").is_symlink()
    found = results(inbox)
    assert (inbox / "done/mole.jpg").read_bytes() == content
    screened = subprocess.run(
        [sys.executable, "-m", "edge_mdda", "screen", "--json", "--model", model, "--purify", "off", DEMO_IMAGE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    changing = {"image": "mole.jpg", "timings_ms": found["done/mole.jpg.json"]["timings_ms"]}
    assert found["done/mole.jpg.json"] == json.loads(screened.stdout) | changing
    for name in ("cut.jpg", "notes.txt", "empty.png"):
        failed = found[f"failed/{name}.json"]
        assert (failed["image"], failed["notice"]) == (name, NOTICE)
        assert any(failed["error"] in line for line in said)
    assert len(said) == 3
    assert sorted(json.loads(line)["image"] for line in out.splitlines()) == [
        "cut.jpg",
        "empty.png",
        "mole.jpg",
        "notes.txt",
    ]


def test_nothing_there_is_fine_and_opens_no_model(inbox, tmp_path):
    assert once(inbox, tmp_path / "none.tflite") == (0, "", [])


def test_text_for_people_has_advice_and_notice(inbox, capfd):
    drop(inbox, "mole.jpg")
    assert main(["watch", "--once", "--settle", "0", "--purify", "off", str(inbox)]) == 0
    out, said = capfd.readouterr()
    assert out.startswith("mole.jpg: ROUTINE, because ")
    assert out.endswith("(done/mole.jpg)\n")
    assert NOTICE in said


def test_a_taken_name_gets_a_number_and_nothing_is_overwritten(inbox, model):
    for folder in ("done", "failed"):
        (inbox / folder).mkdir()
    (inbox / "done/mole.jpg").write_text("an earlier one")
    (inbox / "done/mole-2.jpg.json").write_text("{}")
    os.mkfifo(inbox / "done/mole-3.jpg.json")
    (inbox / "done/mole-4.jpg").symlink_to("nowhere")
    drop(inbox, "mole.jpg")
    assert once(inbox, model)[0] == 0
    assert (inbox / "done/mole.jpg").read_text() == "an earlier one"
    assert (inbox / "done/mole-2.jpg.json").read_text() == "{}"
    assert (inbox / "done/mole-4.jpg").is_symlink()
    assert json.loads((inbox / "done/mole-5.jpg.json").read_text())["image"] == "mole.jpg"
    assert (inbox / "done/mole-5.jpg").read_bytes() == DEMO_IMAGE.read_bytes()


def test_odd_names_go_their_way(inbox, model):
    names = [
        "a" * 251 + ".jpg",
        "ü" * 120 + ".jpg",
        "x." + "y" * 250,
        "new\nline\033[31m.jpg",
        "-rf.jpg",
        "two  blanks.jpg",
    ]
    for name in names:
        drop(inbox, name)
    strange = os.fsdecode(b"caf\xe9.jpg")
    drop(inbox, strange)
    drop(inbox, "result.json", b"{}")
    drop(inbox, "work.jpg")
    status, out, _ = once(inbox, model)
    assert status == 1  # result.json is no image
    assert sorted(json.loads(line)["image"] for line in out.splitlines()) == sorted(
        [*names, strange, "result.json", "work.jpg"]
    )
    for path, result in results(inbox).items():
        assert (inbox / path.removesuffix(".json")).is_file(), path
        assert path.startswith("failed/") == ("error" in result)
    assert {path.name for path in inbox.iterdir()} == {"work", "done", "failed"}
    assert "\033" not in out


def test_candidates_fit_into_a_name_and_stay_readable():
    assert list(itertools.islice(candidates("mole.jpg"), 3)) == ["mole.jpg", "mole-2.jpg", "mole-3.jpg"]
    for name in ("a" * 300, "ü" * 200 + ".jpg", "x." + "y" * 253):
        for candidate in itertools.islice(candidates(name), 3):
            assert len(os.fsencode(candidate + ".json")) <= 255
            assert "\ufffd" not in candidate


# -- when a file is whole -----------------------------------------------------------------------------


def test_a_file_is_left_alone_until_it_rests(inbox):
    with Spool(str(inbox), settle=2.0) as spool:
        path = inbox / "growing.jpg"
        path.write_bytes(b"1")
        assert spool.settled(10.0) == []
        path.write_bytes(b"12")
        assert spool.settled(12.0) == []  # it grew: the wait begins anew
        os.utime(path, (1, 1))
        assert spool.settled(14.0) == []  # its time changed
        assert spool.settled(15.9) == []
        assert spool.settled(16.0) == ["growing.jpg"]
        other = inbox / "new"
        other.write_bytes(b"12")
        os.utime(other, (1, 1))
        other.rename(path)  # the same size and time, another file
        assert spool.settled(16.1) == []
        assert spool.settled(18.1) == ["growing.jpg"]
        path.unlink()
        assert spool.settled(30.0) == []


def test_the_oldest_comes_first(inbox):
    for name, when in (("b.jpg", 3), ("a.jpg", 3), ("z.jpg", 1)):
        (inbox / name).write_bytes(b"1")
        os.utime(inbox / name, (when, when))
    with Spool(str(inbox), settle=0.0) as spool:
        assert spool.settled(0.0) == ["z.jpg", "a.jpg", "b.jpg"]


def test_an_image_that_is_written_while_it_is_screened_is_put_back(inbox, model):
    drop(inbox, "mole.jpg")
    child = started("slow", 1.5, options(inbox, model, "--once"))
    until((inbox / "work/mole.jpg").exists, child)
    with (inbox / "work/mole.jpg").open("ab") as file:  # its writer has it open, wherever it lies
        file.write(b"more")
    status, _, said = ended(child)
    assert (status, len(said), "someone still writes" in said[0]) == (1, 1, True)
    assert (inbox / "mole.jpg").read_bytes() == DEMO_IMAGE.read_bytes() + b"more"
    assert results(inbox) == {}


# -- exactly once, whatever kills it ------------------------------------------------------------------


def two_images(folder: Path) -> None:
    """A good one whose name is taken, and a bad one."""
    (folder / "done").mkdir(parents=True)
    (folder / "done/mole.jpg").write_text("an earlier one")
    drop(folder, "mole.jpg")
    drop(folder, "note.txt", b"no picture")


def check_meanwhile(folder: Path) -> None:
    """Holds at every moment: no image is lost or doubled, and those in done and failed have a whole JSON."""
    contents = {"mole": DEMO_IMAGE.read_bytes(), "note": b"no picture"}
    for content in contents.values():
        places = [path for path in files_in(folder) if (folder / path).read_bytes() == content]
        assert len(places) == 1, places
        if places[0].startswith(("done/", "failed/")):
            assert (folder / f"{places[0]}.json").is_file()
    for path, result in results(folder).items():
        assert result["image"] == ("mole.jpg" if path.startswith("done/") else "note.txt")


def check_end(folder: Path) -> None:
    """Everything is where it belongs, and nothing else is there."""
    check_meanwhile(folder)
    expected = {"done/mole.jpg", "work/.lock"}
    expected |= {f"{place}{end}" for place in ("done/mole-2.jpg", "failed/note.txt") for end in ("", ".json")}
    assert files_in(folder) - {"work/.ends"} == expected
    ends = folder / "work/.ends"
    assert not ends.exists() or json.loads(ends.read_text()) == {}
    assert (folder / "done/mole.jpg").read_text() == "an earlier one"


def test_killed_at_every_step_each_image_ends_once(tmp_path, model):
    half_done: Path | None = None
    for step in itertools.count():
        folder = tmp_path / f"step-{step}"
        two_images(folder)
        child = started("kill", step, options(folder, model, "--once"))
        _, said = child.communicate(timeout=PATIENCE_S)
        if child.returncode == 1:
            assert step >= int(said.splitlines()[-1])  # nothing was left to kill it at
            check_end(folder)
            break
        assert child.returncode == -signal.SIGKILL, said
        check_meanwhile(folder)
        if half_done is None and (folder / "done/mole-2.jpg.json").exists():
            half_done = shutil.copytree(folder, tmp_path / "half-done")
            assert (half_done / "work/mole.jpg").exists()
        main(options(folder, model, "--once"))
        check_end(folder)
    assert step > 30
    assert half_done is not None
    before = (half_done / "done/mole-2.jpg.json").read_bytes()
    for step in itertools.count():  # and now the recovery is killed, too
        folder = shutil.copytree(half_done, tmp_path / f"again-{step}")
        child = started("kill", step, options(folder, model, "--once"))
        child.communicate(timeout=PATIENCE_S)
        check_meanwhile(folder)
        main(options(folder, model, "--once"))
        check_end(folder)
        assert (folder / "done/mole-2.jpg.json").read_bytes() == before  # finished, not screened again
        if child.returncode != -signal.SIGKILL or step > 8:
            break


def test_a_result_for_another_content_is_thrown_away(inbox, model):
    two_images(inbox)
    (inbox / "work").mkdir()
    (inbox / "mole.jpg").rename(inbox / "work/mole.jpg")
    (inbox / "work/.result").write_text('{"image": "mole.jpg", "sha256": "00"}\n')
    (inbox / "work/.0123456789abcdef.tmp").write_text('{"image": "mo')
    status, _, said = once(inbox, model)
    assert (status, "screened again" in said[0]) == (1, True)
    check_end(inbox)
    assert results(inbox)["done/mole-2.jpg.json"]["sha256"] != "00"


def test_an_image_that_always_ends_the_program_is_given_up(inbox, model, manager):
    drop(inbox, "poison.jpg")
    os.utime(inbox / "poison.jpg", (1, 1))  # the oldest: its turn comes first
    drop(inbox, "mole.jpg")
    for _ in range(MAX_ENDS):
        child = started("hang", "poison", options(inbox, model, "--once"), env=manager.environment)
        manager.wait_for("STATUS=screening")
        child.kill()
        child.communicate()
    status, _, said = once(inbox, model, "hang", "poison")
    assert (status, len(said)) == (1, 1)
    assert f"ended {MAX_ENDS} times" in results(inbox)["failed/poison.jpg.json"]["error"]
    assert "done/mole.jpg" in files_in(inbox)
    assert json.loads((inbox / "work/.ends").read_text()) == {}


def test_only_one_process_has_a_folder(inbox):
    with Spool(str(inbox), 0.0), pytest.raises(WatchError, match="another edge-mdda watches it"):
        Spool(str(inbox), 0.0).__enter__()
    with Spool(str(inbox), 0.0):
        pass  # released


def test_file_systems_without_links_or_renameat2(tmp_path, monkeypatch):
    """What vfat answers."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "a").write_bytes(b"content")
    monkeypatch.setattr("edge_mdda.service.steps._renameat2", lambda: None)
    monkeypatch.setattr(os, "link", refuse)
    link_new(str(tmp_path / "a"), str(tmp_path / "b"), b"content")
    assert (tmp_path / "b").read_bytes() == b"content"
    with pytest.raises(FileExistsError):
        link_new(str(tmp_path / "a"), str(tmp_path / "b"), b"other")
    with pytest.raises(FileExistsError):
        rename_new(str(tmp_path / "a"), str(tmp_path / "b"))
    rename_new(str(tmp_path / "a"), str(tmp_path / "c"))
    assert files_in(tmp_path) == {"b", "c"}


# -- the service --------------------------------------------------------------------------------------


class Manager:
    """What systemd is for a service: a socket for its messages, and a watchdog."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        self.said: list[str] = []

    def hear(self, seconds: float) -> str | None:
        """The next message, or None after so long a silence."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return None
        self.said.append(self.socket.recv(4096).decode())
        return self.said[-1]

    def wait_for(self, beginning: str) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not (self.hear(PATIENCE_S) or "").startswith(beginning):
            assert time.monotonic() < ends, self.said


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.socket.close()


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


@pytest.mark.parametrize("kind", ["missing", "file", "done is a link", "work is a file"])
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, model, kind, capsys):
    folder = tmp_path / "inbox"
    if kind == "file":
        folder.write_bytes(b"")
    elif kind != "missing":
        folder.mkdir()
    if kind == "done is a link":
        (folder / "done").symlink_to(tmp_path)
    if kind == "work is a file":
        (folder / "work").write_bytes(b"")
    assert main(options(folder, model)) == 1
    out, said = capsys.readouterr()
    lines = [line for line in said.splitlines() if line.startswith("edge-mdda: ") and "watched," not in line]
    assert (out, len(lines), str(folder) in lines[0]) == ("", 1, True)


@pytest.mark.parametrize(
    "arguments",
    [[], ["a", "b"], ["--settle", "-1", "a"], ["--poll", "0", "a"], ["--poll", "nan", "a"], ["--seed", "1", "a"]],
)
def test_wrong_usage_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(["watch", *arguments])
    assert error.value.code == 2
    assert capsys.readouterr().out == ""


def test_help_shows_examples_and_says_what_it_is_not(capsys):
    with pytest.raises(SystemExit) as error:
        main(["watch", "--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert "edge-mdda watch --once inbox/" in text
    assert "never a diagnosis" in " ".join(text.split())


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
