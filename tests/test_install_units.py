"""The installer and systemd: a stand-in for ``systemctl`` that notes its calls and says which units have died.

Real units under a real systemd are not run here; that the unit files themselves are good is in test_units.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("nacl")

from tests.bundles import Place, public_key, tiny

SYSTEMCTL = """\
#!/bin/sh
printf '%s\\n' "$*" >>"$FAKE/calls"
case $1 in
    is-active) shift; [ "$1" != --quiet ] || shift; ! grep -qx "$1" "$FAKE/dead" ;;
    restart) ! grep -qx "$2" "$FAKE/broken" ;;
esac
"""


class WithSystemd(Place):
    """A prefix on a machine whose systemd is a shell script."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "board")
        self.fake, self.units = root / "fake", root / "units"
        for folder in (self.fake / "bin", self.fake / "run", self.units):
            folder.mkdir(parents=True)
        (self.fake / "bin/systemctl").write_text(SYSTEMCTL)
        (self.fake / "bin/systemctl").chmod(0o755)
        for name in ("calls", "dead", "broken"):
            (self.fake / name).touch()

    def run(self, *arguments: object, **environment: str):
        """Run the installer there; returns it and the calls of ``systemctl`` that it made."""
        (self.fake / "calls").write_text("")
        done = self.install_sh(
            *arguments,
            PATH=f"{self.fake / 'bin'}:{os.environ['PATH']}",
            FAKE=str(self.fake),
            EDGE_MDDA_TEST_SYSTEMD=str(self.fake / "run"),
            EDGE_MDDA_TEST_UNITS=str(self.units),
            EDGE_MDDA_TEST_SETTLE_S="0",
            **environment,
        )
        return done, (self.fake / "calls").read_text().splitlines()

    def installed(self) -> dict[str, str]:
        """Units by name, with the version that each is of."""
        return {path.name: path.read_text().split()[1] for path in self.units.iterdir()}


@pytest.fixture
def board(tmp_path) -> WithSystemd:
    if os.getuid():
        pytest.skip("only root may change a system's units")
    return WithSystemd(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("store")
    return {
        "1": tiny(folder, "1.0", units=("a.service", "old.service")),
        "2": tiny(folder, "2.0", units=("a.service", "new.service")),
        "ill": tiny(folder, "3.0", bad="health", units=("a.service", "b-settle.service")),
        "key": public_key(folder),
    }


def test_units_come_with_their_release_and_leave_with_it(board, store):
    done, calls = board.run(store["1"], "--pubkey", store["key"], "--units")
    assert done.returncode == 0, done.stderr
    assert board.installed() == {"a.service": "1.0", "old.service": "1.0"}
    assert f"ExecStart={board.prefix}/bin/edge-mdda watch" in (board.units / "a.service").read_text()
    assert "enable --quiet a.service" in calls
    assert calls.index("daemon-reload") < calls.index("restart a.service")
    done, calls = board.run(store["2"], "--units")
    assert done.returncode == 0, done.stderr
    assert board.installed() == {"a.service": "2.0", "new.service": "2.0"}
    assert "disable --now --quiet old.service" in calls
    assert board.run("rollback", "--units")[0].returncode == 0
    assert board.installed() == {"a.service": "1.0", "old.service": "1.0"}
    done, calls = board.run("uninstall", "--units")
    assert done.returncode == 0, done.stderr
    assert board.installed() == {}
    assert "disable --now --quiet a.service" in calls


@pytest.mark.parametrize("how", ["dead", "broken"])
def test_a_unit_that_does_not_run_brings_the_old_release_back(board, store, how):
    assert board.run(store["1"], "--pubkey", store["key"], "--units")[0].returncode == 0
    (board.fake / how).write_text("new.service\n")
    done, _ = board.run(store["2"], "--units")
    assert done.returncode == 1
    assert "is in force again" in done.stderr
    assert board.answer() == "1.0 tflite"
    assert board.installed() == {"a.service": "1.0", "old.service": "1.0"}


def test_a_first_installation_that_fails_leaves_no_unit_and_no_key(board, store):
    (board.fake / "dead").write_text("a.service\n")
    done, calls = board.run(store["1"], "--pubkey", store["key"], "--units")
    assert done.returncode == 1
    assert board.installed() == {}
    assert "disable --now --quiet a.service" in calls
    assert not (board.prefix / "etc/trusted.pub").exists()
    assert not (board.prefix / "current").is_symlink()


def test_another_prefix_leaves_the_units_of_the_usual_one_alone(board, store):
    (board.units / "a.service").write_text("# usual\n")
    done, calls = board.run(store["1"], "--pubkey", store["key"])
    assert done.returncode == 0, done.stderr
    assert "units were left out" in done.stdout
    assert board.run("uninstall")[0].returncode == 0
    assert not calls
    assert board.installed() == {"a.service": "usual"}


def test_an_update_remembers_what_the_first_installation_chose(board, store):
    assert board.run(store["1"], "--pubkey", store["key"], "--no-units")[0].returncode == 0
    assert "--no-units" in (board.prefix / "bin/edge-mdda-install").read_text()


@pytest.mark.parametrize(("update", "ends_with"), [("2", "2.0 tflite"), ("ill", "1.0 tflite")])
def test_an_update_that_a_power_cut_interrupted_is_settled_at_boot(board, store, update, ends_with):
    assert board.run(store["1"], "--pubkey", store["key"], "--units")[0].returncode == 0
    assert board.run(store[update], "--units", EDGE_MDDA_INSTALL_STOP_AT="switched")[0].returncode == -9
    done, _ = board.run("settle", "--units")
    assert done.returncode == 0, done.stderr
    assert board.answer() == ends_with
    assert not (board.prefix / "pending").exists()
    assert board.installed()["a.service"] == ends_with.split()[0]
    done, calls = board.run("settle", "--units")
    assert (done.returncode, done.stdout, calls) == (0, "", [])  # at every other boot there is nothing to do


def test_the_settling_unit_is_enabled_and_not_started_by_what_it_may_be_called_from(board, tmp_path, store):
    archive = tiny(tmp_path, "4.0", units=("a.service", "b-settle.service"))
    (board.fake / "dead").write_text("b-settle.service\n")  # it only runs at boot
    done, calls = board.run(archive, "--pubkey", store["key"], "--units")
    assert done.returncode == 0, done.stderr
    assert "enable --quiet b-settle.service" in calls
    assert "restart b-settle.service" not in calls
