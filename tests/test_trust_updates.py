"""Updates that cannot be turned back: release numbers, the end of validity, and keys that come and go.

With ``deploy/install.sh`` for real, on tiny bundles; which attack each test plays stands in ``deploy/README.md``.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("nacl")
pytest.importorskip("installer")

from bundles import OTHER_SEED, SEED, Place, one_line, public_key, tiny
from nacl.signing import SigningKey

from deploy.bundle import Request, standing_of
from deploy.errors import DeployError

A, B = (bytes(SigningKey(seed).verify_key).hex() for seed in (SEED, OTHER_SEED))
DAY = 86_400  # seconds


def at(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def trusted(place: Place, name: str = "trusted.pub") -> set[str]:
    path = place.prefix / "etc" / name
    return set(path.read_text().split()) if path.exists() else set()


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> dict[str, Path]:
    """Bundles by what is special about them."""
    folder = tmp_path_factory.mktemp("numbered")
    now = time.time()
    return {
        "5": tiny(folder, "5.0", release=5),
        "7": tiny(folder, "7.0", release=7),
        "ill 9": tiny(folder, "9.0", release=9, bad="health"),
        "adds B": tiny(folder, "10.0", release=10, trust={"add": [B], "revoke": []}),
        "revokes A": tiny(folder, "11.0", release=11, seed=OTHER_SEED, trust={"revoke": [A]}),
        "A again": tiny(folder, "12.0", release=12, seed=OTHER_SEED, trust={"add": [A]}),
        "late A": tiny(folder, "13.0", release=13),
        "expired": tiny(folder, "14.0", release=14, expires=at(now - DAY)),
        "valid": tiny(folder, "15.0", release=15, made=at(now + 20 * DAY), expires=at(now + 30 * DAY)),
        "too old for the board": tiny(folder, "16.0", release=16, expires=at(now + 10 * DAY)),
        "suicide": tiny(folder, "17.0", release=17, trust={"revoke": [A]}),
        "both": Path(shutil.copy(public_key(folder), folder / "both.pub")),
    }


def install(place: Place, archive: Path, *options: object) -> None:
    done = place.install_sh(archive, *options)
    assert done.returncode == 0, done.stderr


# -- rollback: an old bundle is no update ---------------------------------------------------------------


def test_an_older_bundle_is_refused_and_rollback_stays(place, numbered):
    install(place, numbered["5"])
    install(place, numbered["7"])
    line = one_line(place.install_sh(numbered["5"]))
    assert "release 5" in line and "older than 7" in line and "--allow-downgrade" in line
    assert place.answer() == "7.0 tflite"
    assert not place.leftovers()
    assert place.install_sh("rollback").returncode == 0
    assert place.answer() == "5.0 tflite"
    assert place.status()["highest"] == 7  # what was in force once is remembered
    install(place, numbered["5"])  # the one in force may be mended
    assert place.answer() == "5.0 tflite"
    assert not (place.prefix / "etc/overrides.log").exists()


def test_a_downgrade_that_a_person_asks_for_is_logged(place, numbered):
    install(place, numbered["7"])
    install(place, numbered["5"], "--allow-downgrade")
    assert place.answer() == "5.0 tflite"
    lines = (place.prefix / "etc/overrides.log").read_text().splitlines()
    assert len(lines) == 1 and "--allow-downgrade: release 5" in lines[0] and "by user" in lines[0]
    assert place.status()["highest"] == 7


def test_a_bundle_without_a_number_is_older_than_any_with_one(place, numbered, store):
    install(place, numbered["5"])
    assert "release 0" in one_line(place.install_sh(store["2"]))
    assert place.answer() == "5.0 tflite"


def test_the_number_counts_once_the_release_is_healthy(place, numbered):
    install(place, numbered["5"])
    assert place.install_sh(numbered["ill 9"]).returncode == 1
    assert place.status()["highest"] == 5
    install(place, numbered["7"])


def test_uninstalling_does_not_forget_the_number(place, numbered):
    install(place, numbered["7"])
    assert place.install_sh("uninstall").returncode == 0
    assert "older than 7" in one_line(place.install_sh(numbered["5"]))
    install(place, numbered["7"])


def test_killed_before_the_number_is_noted_it_is_noted_by_the_next_call(place, numbered):
    install(place, numbered["5"])
    assert place.install_sh(numbered["7"], EDGE_MDDA_INSTALL_STOP_AT="confirmed").returncode == -9
    assert place.status()["highest"] == 5
    assert "older than 7" in one_line(place.install_sh(numbered["5"]))


def test_a_damaged_note_of_the_number_refuses_everything(place, numbered):
    install(place, numbered["5"])
    (place.prefix / "etc/release").write_text("five\n")
    assert "holds no release number" in one_line(place.install_sh(numbered["7"]))
    assert place.answer() == "5.0 tflite"
    (place.prefix / "etc/release").write_text("5\n")
    install(place, numbered["7"])


# -- freeze: a bundle whose time is over ----------------------------------------------------------------


def test_an_expired_bundle_is_refused_or_logged(place, numbered):
    line = one_line(place.install_sh(numbered["expired"]))
    assert "was valid until" in line and "--allow-expired" in line
    assert place.answer() == "1.0 tflite"
    install(place, numbered["expired"], "--allow-expired")
    assert "--allow-expired: release 14" in (place.prefix / "etc/overrides.log").read_text()
    assert place.status()["expires"] is not None


def test_a_clock_that_is_slow_does_not_make_it_valid(place, numbered):
    """The release in force was made in 20 days, so it is later than that, though the clock says something else."""
    install(place, numbered["valid"])
    assert "was valid until" in one_line(place.install_sh(numbered["too old for the board"]))


# -- keys -----------------------------------------------------------------------------------------------


def test_a_second_key_may_sign_from_the_first_day(store, numbered, tmp_path):
    both = tmp_path / "both.pub"
    both.write_text(f"{A}  # at home\n{B}  # in the safe\n")
    place = Place(tmp_path / "board")
    install(place, numbered["5"], "--pubkey", both)
    assert len(place.status()["trusted"]) == 2
    install(place, numbered["revokes A"])
    assert trusted(place) == {B, "#", "in", "the", "safe"}


def test_a_signed_change_of_keys(place, numbered):
    """A adds B, B revokes A; nothing that A signs is installed any more, and no bundle brings A back."""
    assert "another key" in one_line(place.install_sh(numbered["revokes A"]))
    install(place, numbered["adds B"])
    assert trusted(place) == {A, B}
    install(place, numbered["revokes A"])
    assert (trusted(place), trusted(place, "revoked.pub")) == ({B}, {A})
    assert "was revoked" in one_line(place.install_sh(numbered["late A"]))
    assert place.answer() == "11.0 tflite"
    line = one_line(place.install_sh("rollback"))  # its models are signed with A
    assert "not trusted any more" in line
    install(place, numbered["A again"])
    assert trusted(place) == {B}
    given = public_key(numbered["both"].parent)
    assert "this key was revoked" in one_line(place.install_sh(numbered["A again"], "--pubkey", given))
    assert place.status()["revoked"] != []


def test_killed_before_the_keys_change_they_are_changed_by_the_next_call(place, numbered):
    install(place, numbered["adds B"])
    assert place.install_sh(numbered["revokes A"], EDGE_MDDA_INSTALL_STOP_AT="confirmed").returncode == -9
    assert trusted(place) == {A, B}
    assert "was revoked" in one_line(place.install_sh(numbered["late A"]))
    assert trusted(place) == {B}


def test_no_key_changes_for_a_release_that_is_not_healthy(place, tmp_path):
    ill = tiny(tmp_path, "20.0", release=20, bad="health", trust={"add": [B]})
    assert place.install_sh(ill).returncode == 1
    assert trusted(place) == {A}


def test_a_bundle_that_revokes_its_own_key_is_refused(place, numbered):
    assert "revokes the key that it is signed with" in one_line(place.install_sh(numbered["suicide"]))
    assert place.answer() == "1.0 tflite"


@pytest.mark.parametrize(
    "fields",
    [
        {"release": -1},
        {"release": 2**60},
        {"release": True},
        {"release": "7"},
        {"release": 1.5},
        {"expires": "soon"},
        {"expires": 7},
        {"trust": []},
        {"trust": {"add": "all"}},
        {"trust": {"add": ["00"]}},
        {"trust": {"revoke": ["0" * 64] * 17}},
    ],
)
def test_fields_that_mean_nothing_are_refused(place, tmp_path, fields):
    assert "'release', 'expires' or 'trust'" in one_line(place.install_sh(tiny(tmp_path, "7.0", **fields)))
    assert place.answer() == "1.0 tflite"
    assert not place.leftovers()


# -- what the workstation writes ------------------------------------------------------------------------


def request(tmp_path: Path, **more: object) -> Request:
    from deploy.profiles import find_board

    board = find_board("rpi4")
    return Request(board, board.system("bookworm"), tmp_path / "no.key", **more)  # type: ignore[arg-type]


def test_the_number_is_the_time_of_the_source_unless_it_is_given(tmp_path):
    assert standing_of(request(tmp_path), 1_700_000_000, SEED) == {"release": 1_700_000_000}
    now = int(time.time())
    found = standing_of(request(tmp_path, release=3, valid_days=2), now, SEED)
    assert found == {"release": 3, "expires": at(now + 2 * DAY)}
    json.dumps(found)


def test_what_no_board_would_take_is_not_made(tmp_path):
    key = public_key(tmp_path)
    for more, words in [
        ({"revoke": (key,)}, "cannot revoke"),
        (
            {"trust": (public_key(tmp_path, OTHER_SEED),), "revoke": (public_key(tmp_path, OTHER_SEED),)},
            "cannot revoke",
        ),
        ({"release": -1}, "release number"),
        ({"valid_days": 1}, "--valid-days"),
        ({"trust": (tmp_path / "none.pub",)}, "cannot read"),
    ]:
        with pytest.raises(DeployError, match=words):
            standing_of(request(tmp_path, **more), 1_700_000_000, SEED)
    found = standing_of(request(tmp_path, trust=(key,)), 1_700_000_000, OTHER_SEED)
    assert found["trust"] == {"add": [A], "revoke": []}
