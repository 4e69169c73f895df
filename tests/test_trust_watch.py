"""``edge-mdda watch`` never stands still and loses nothing: bad images, bad models, kills and failing disks.

``EDGE_MDDA_TEST_ROUNDS=1000`` asks for more rounds of the two tests that draw the moment by chance.
"""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from watch_folder import drop, ended, files_in, options, results, started, until

from edge_mdda.watch import atomic_steps, spool
from edge_mdda.watch.service import MAX_FAILURES
from edge_mdda.watch.spool import Spool

pytestmark = pytest.mark.usefixtures("no_child_is_left")
ROUNDS = int(os.environ.get("EDGE_MDDA_TEST_ROUNDS", "100"))
IMAGES = {"a.jpg": b"first", "b.jpg": b"second", "c.jpg": b"third"}
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


# -- a model that fails -------------------------------------------------------------------------------


def test_an_image_at_which_the_model_fails_is_set_aside_and_blocks_nothing(inbox, model):
    pytest.importorskip("ai_edge_litert")
    drop(inbox, "poison.jpg")
    os.utime(inbox / "poison.jpg", (1, 1))  # its turn comes first
    drop(inbox, "mole.jpg")
    child = started("fail", "poison", options(inbox, model))
    until((inbox / "failed/poison.jpg").exists, child)
    until((inbox / "done/mole.jpg").exists, child)
    drop(inbox, "later.jpg")
    until((inbox / "done/later.jpg").exists, child)
    child.send_signal(signal.SIGTERM)
    status, _, said = ended(child)
    assert (status, len(said)) == (0, 2), said  # at the first failure, and when it was set aside
    reason = results(inbox)["failed/poison.jpg.json"]["error"]
    assert f"failed {MAX_FAILURES} times at this image alone: the model cannot run" in reason
    assert files_in(inbox) & {"poison.jpg", "mole.jpg", "later.jpg"} == set()


def test_a_model_that_fails_at_every_image_is_degraded_and_goes_on_when_it_is_mended(inbox, model, manager, tmp_path):
    pytest.importorskip("ai_edge_litert")
    for name in ("a.jpg", "b.jpg"):
        drop(inbox, name)
    mended = tmp_path / "mended"
    child = started("mend", mended, options(inbox, model), env=manager.environment)
    for _ in range(2 * MAX_FAILURES):  # tried again, more often than an image may fail
        manager.wait_for("STATUS=degraded: the model fails at every image (the model cannot run)")
        manager.wait_for("STATUS=screening")
    until(lambda: not [name for name in files_in(inbox) if name.startswith("failed/")], child)
    drop(inbox, "c.jpg")
    mended.touch()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        until((inbox / "done" / name).exists, child)
    child.send_signal(signal.SIGTERM)
    status, _, said = ended(child)
    assert status == 0
    assert "degraded" in said[0] and "images stay" in said[0]
    # Mended between two images of one round, the model failed at the first alone: that one is taken again.
    assert all("taken again in" in line for line in said[1:]) and len(said) <= 1 + 2, said
    assert not [name for name in files_in(inbox) if name.startswith("failed/")]


# -- chance: kills and errors at any step -------------------------------------------------------------


def fresh(folder: Path) -> None:
    folder.mkdir()
    for name, content in IMAGES.items():
        (folder / name).write_bytes(content)


def screened(folder: Path) -> None:
    """All that is there, once; the result is no network's, and that does not matter for where things go."""
    with Spool(str(folder), 0.0) as found:
        for _ in found.recover():
            pass
        found.settled(0.0)
        for name in found.settled(1.0):
            claim = found.claim(name)
            if claim is not None:
                digest = atomic_steps.hash_of(claim.path)
                found.finish(claim, {"image": claim.name, "sha256": digest, "advice": "retake", "rule": "a test"})


def check_nothing_lost(folder: Path) -> None:
    """At any moment every content is there exactly once, and one in ``done`` has its whole result beside it."""
    for content in IMAGES.values():
        places = [path for path in files_in(folder) if (folder / path).read_bytes() == content]
        assert len(places) == 1, (content, places)
        if places[0].startswith("done/"):
            assert (folder / f"{places[0]}.json").is_file()
    results(folder)


def check_all_done(folder: Path) -> None:
    expected = {f"done/{name}{end}" for name in IMAGES for end in ("", ".json")}
    assert {name for name in files_in(folder) if not name.startswith("work/.")} == expected
    for name, content in IMAGES.items():
        assert (folder / "done" / name).read_bytes() == content
        assert results(folder)[f"done/{name}.json"]["image"] == name


class Chance:
    """Wraps each call that changes the disk, so that one of them, by number, does something else."""

    NAMES = ("rename", "replace", "link", "unlink", "fsync", "mkdir")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
        self.left, self.count, self.act = -1, 0, act
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))
        monkeypatch.setattr(os, "open", self.wrapped(os.open, lambda _, flags=0, *rest: bool(flags & os.O_CREAT)))
        monkeypatch.setattr(os, "write", self.wrapped(os.write))
        monkeypatch.setattr(spool, "rename_new", self.wrapped(spool.rename_new))

    def wrapped(self, call: Callable[..., Any], counts: Callable[..., bool] = lambda *_, **__: True) -> Any:
        def changed(*arguments: Any, **named: Any) -> Any:
            if counts(*arguments, **named):
                self.count += 1
                if self.left == 0:
                    self.left = -1
                    self.act()
                self.left -= self.left > 0
            return call(*arguments, **named)

        return changed


def steps_of_a_round(tmp_path: Path, chance: Chance) -> int:
    fresh(tmp_path / "whole")
    chance.count = 0
    screened(tmp_path / "whole")
    check_all_done(tmp_path / "whole")
    return chance.count


def test_killed_at_any_moment_each_image_is_judged_once(tmp_path, monkeypatch):
    draw = random.Random(1)
    chance = Chance(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    steps = steps_of_a_round(tmp_path, chance)
    assert steps > 40
    kills = 0
    folder = tmp_path / "killed"
    fresh(folder)
    while kills < ROUNDS:
        if (child := os.fork()) == 0:
            chance.left = draw.randrange(steps)
            try:
                screened(folder)
            finally:
                os._exit(0)
        draw.random()  # so that the parent draws on, too
        draw = random.Random(draw.random())
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        check_nothing_lost(folder)
        if not os.WIFSIGNALED(status):
            given_up = [name for name in files_in(folder) if name.startswith("failed/")]
            assert all(
                "the program ended" in result["error"] for at, result in results(folder).items() if at[:4] == "fail"
            )
            if not given_up:
                check_all_done(folder)
            folder = tmp_path / f"killed-{kills}"
            fresh(folder)
    print(f"{kills} kills")


def test_full_disks_and_errors_at_any_step_cost_no_image(tmp_path, monkeypatch):
    draw = random.Random(2)

    def fail() -> None:
        code = draw.choice(ERRORS)
        raise OSError(code, os.strerror(code))

    chance = Chance(monkeypatch, fail)
    steps = steps_of_a_round(tmp_path, chance)
    errors = 0
    for number in range(ROUNDS):
        folder = tmp_path / f"failing-{number}"
        fresh(folder)
        chance.left = draw.randrange(steps)
        try:
            screened(folder)
        except Exception as error:  # whatever it is told as: what counts is what lies on the disk
            errors += 1
            assert "Assertion" not in type(error).__name__
        chance.left = -1
        check_nothing_lost(folder)
        screened(folder)
        check_all_done(folder)
    assert errors > 0.8 * ROUNDS  # some are those that a missing right or call excuses
    print(f"{errors} errors")
