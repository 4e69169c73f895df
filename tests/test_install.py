"""``deploy/install.sh`` for real: installs, updates, goes back when told to, and refuses what it cannot trust.

What goes wrong on the way is in test_install_failures.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nacl")
pytest.importorskip("installer")

from bundles import Place, one_line, tiny

from deploy.bundle import HERE

# -- the ways that end well ----------------------------------------------------------------------------


def test_install_update_rollback_uninstall(place, store):
    assert place.answer() == "1.0 tflite"
    done = place.install_sh(store["2"])
    assert done.returncode == 0, done.stderr
    assert "never a diagnosis" in done.stdout
    assert place.answer() == "2.0 tflite"
    status = place.status()
    assert (status["version"], status["confirmed"], len(status["releases"])) == ("2.0", True, 2)
    assert status["previous"].startswith("1.0-")
    assert place.install_sh("rollback").returncode == 0
    assert place.answer() == "1.0 tflite"
    assert place.status()["previous"].startswith("2.0-")
    assert place.install_sh("uninstall").returncode == 0
    assert sorted(path.name for path in place.prefix.rglob("*")) == ["edge-mdda.env", "etc", "trusted.pub"]
    assert "no release" not in place.install_sh("status").stdout
    assert place.install_sh(store["1"]).returncode == 0  # the key is still trusted
    assert place.install_sh("uninstall", "--purge").returncode == 0
    assert not place.prefix.exists()


def test_installing_again_changes_nothing(place, store):
    before = place.status()
    inode = (place.prefix / "releases" / before["current"]).stat().st_ino
    done = place.install_sh(store["1"])
    assert done.returncode == 0, done.stderr
    assert place.status() == before
    assert (place.prefix / "releases" / before["current"]).stat().st_ino == inode
    assert not place.leftovers()


def test_only_the_last_two_releases_stay(place, store, tmp_path):
    assert place.install_sh(store["2"]).returncode == 0
    assert place.install_sh(tiny(tmp_path, "6.0")).returncode == 0
    assert [name.split("-")[0] for name in place.status()["releases"]] == ["2.0", "6.0"]


def test_a_damaged_running_release_is_installed_anew_beside(place, store):
    current = place.status()["current"]
    (place.prefix / "releases" / current / "models" / "bad.txt").write_text("selftest")
    done = place.install_sh(store["1"])
    assert done.returncode == 0, done.stderr
    assert place.status()["current"] == f"{current}.2"
    assert place.answer() == "1.0 tflite"


@pytest.mark.parametrize("shell", ["dash", "busybox sh", "bash --posix"])
def test_from_the_unpacked_folder_with_the_simplest_words(shell, store, tmp_path):
    if not shutil.which(shell.split()[0]):
        pytest.skip(f"no {shell.split()[0]} here")
    subprocess.run(["tar", "xf", store["1"]], cwd=tmp_path, check=True)
    place = Place(tmp_path / "board", shell)
    script = next(tmp_path.glob("edge-mdda-*")) / "install.sh"
    done = place.install_sh("--pubkey", store["key"], script=script)
    assert done.returncode == 0, done.stderr
    assert place.answer() == "1.0 tflite"


def test_the_installed_installer_updates(place, store):
    command = [place.prefix / "bin/edge-mdda-install", store["2"], "--python", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert place.answer() == "2.0 tflite"


def test_for_one_user(store, tmp_path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_MDDA_", "XDG_"))}
    command = ["sh", HERE / "install.sh", store["1"], "--user", "--pubkey", store["key"], "--python", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**clean, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    link = tmp_path / ".local/bin/edge-mdda"
    assert subprocess.run([link, "version"], capture_output=True, text=True, check=True).stdout == "1.0 tflite\n"
    assert (tmp_path / ".local/share/edge-mdda/current").is_symlink()


def test_settings_go_before_the_boards_and_stay(place, store):
    settings = place.prefix / "etc/edge-mdda.env"
    settings.write_text("# mine\nEDGE_MDDA_RUNTIME=onnx\nEDGE_MDDA_$(touch /tmp/x)=1\nPATH=/nowhere\n")
    assert place.answer() == "1.0 onnx"
    assert place.install_sh(store["2"]).returncode == 0
    assert place.answer() == "2.0 onnx"
    command = [place.prefix / "bin/edge-mdda", "version"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "EDGE_MDDA_RUNTIME": "tflite"})
    assert done.stdout == "2.0 tflite\n"


def test_a_setting_without_a_final_newline_counts(place):
    (place.prefix / "etc/edge-mdda.env").write_bytes(
        b"# a comment\r\nEDGE_MDDA_PRESET=strong\r\nEDGE_MDDA_RUNTIME=onnx"
    )
    assert place.answer() == "1.0 onnx"


# -- who is trusted -------------------------------------------------------------------------------------


def test_without_a_key_the_fingerprint_is_shown_and_nothing_done(store, tmp_path):
    place = Place(tmp_path / "board")
    line = one_line(place.install_sh(store["1"]))
    shown = re.search(r"SHA256:[0-9a-f]{64}", line)
    assert shown and "--pubkey" in line
    assert not list((place.prefix / "releases").iterdir())
    wrong = "SHA256:" + "0" * 64
    assert shown[0] in one_line(place.install_sh(store["1"], "--trust-fingerprint", wrong))
    assert place.install_sh(store["1"], "--trust-fingerprint", shown[0]).returncode == 0
    assert place.status()["trusted"] == [shown[0]]


def test_an_update_by_another_key_is_refused(place, store):
    assert "another key" in one_line(place.install_sh(store["foreign"]))
    assert "another key" in one_line(place.install_sh(store["foreign"], "--pubkey", store["other key"]))
    assert place.answer() == "1.0 tflite"
    assert not place.leftovers()


def changed_stage(store, tmp_path: Path) -> Path:
    subprocess.run(["tar", "xf", store["2"]], cwd=tmp_path, check=True)
    return next(tmp_path.glob("edge-mdda-*"))


def test_bad_signature(place, store, tmp_path):
    stage = changed_stage(store, tmp_path)
    signature = bytearray((stage / "SHA256SUMS.sig").read_bytes())
    signature[5] ^= 1
    (stage / "SHA256SUMS.sig").write_bytes(signature)
    assert "signature does not hold" in one_line(place.install_sh(stage))
    assert place.answer() == "1.0 tflite"


@pytest.mark.parametrize("name", ["install.sh", "config.env", "manifest.json", "setup/helper.py"])
def test_an_altered_file_is_refused(place, store, tmp_path, name):
    stage = changed_stage(store, tmp_path)
    with (stage / name).open("ab") as file:
        file.write(b"\n")
    assert f"{name}: is damaged or was altered" in one_line(place.install_sh(stage))
    assert not place.leftovers()


def test_a_file_too_many_one_too_few_and_a_link_are_refused(place, store, tmp_path):
    stage = changed_stage(store, tmp_path)
    (stage / "wheels/more.whl").write_bytes(b"x")
    assert "wheels/more.whl: the signed list does not name this file" in one_line(place.install_sh(stage))
    (stage / "wheels/more.whl").unlink()
    (stage / "config.env").rename(tmp_path / "config.env")
    assert "config.env: is missing" in one_line(place.install_sh(stage))
    (stage / "config.env").symlink_to(tmp_path / "config.env")
    assert "neither a file nor a folder" in one_line(place.install_sh(stage))
    assert place.answer() == "1.0 tflite"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97, 0.9999])
def test_a_truncated_archive_is_refused(place, store, tmp_path, share):
    whole = store["2"].read_bytes()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole[: int(len(whole) * share)])
    assert re.search("damaged|cut off|not a whole one", one_line(place.install_sh(cut)))
    assert place.answer() == "1.0 tflite"
    assert not place.leftovers()


# -- usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["--pubkey"], ["install", "rollback"], ["rollback", "x.tar.gz"], ["--prefix", "/tmp/a b"], []],
)
def test_wrong_usage_costs_one_line(arguments):
    done = subprocess.run(["sh", HERE / "install.sh", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_has_examples_and_says_what_it_is_not():
    done = subprocess.run(["sh", HERE / "install.sh", "--help"], capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout
    assert "never a diagnosis" in done.stdout


def test_shellcheck_finds_nothing():
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here")
    command = ["shellcheck", "-x", "-s", "sh", "deploy/install.sh"]  # -x: with the parts that it reads
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
    assert done.stdout == ""
