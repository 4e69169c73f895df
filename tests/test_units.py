"""The units: how much they lock away, asked of systemd itself; and that screening lives with it, tried for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import restricted
import tiny_models
from conftest import ROOT

from edge_mdda import NOTICE
from edge_mdda.cli.main import build_parser
from edge_mdda.models import DEMO_IMAGE

UNITS = ROOT / "deploy" / "units"
WATCH = UNITS / "edge-mdda-watch.service"
SETUP = UNITS / "edge-mdda-setup.service"
MOST_EXPOSED = 1.0  # of 10; the goal
SMALLEST_BOARD_MB = 512
SCREEN = ["screen", "--json", "--seed", "1", "--threads", "2", "--demo"]
CHANGING = {"timings_ms": 0, "time": ""}  # what differs between two equal screenings
RUNTIMES = {"tflite": "ai_edge_litert", "onnx": "onnxruntime"}
RESTRICTED = Path(__file__).parent / "restricted.py"


def settings(unit: Path) -> dict[str, list[str]]:
    """Values by key; systemd allows a key more than once."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def analyze():
    """``systemd-analyze``, with what it said on failure."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed here")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["systemd-analyze", "--no-pager", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    if "--threshold" not in run("--help").stdout:
        pytest.skip("this systemd-analyze is older than 250: it cannot judge a unit file offline")
    return run


def exposure(analyze, unit: Path) -> float:
    """The overall exposure level, 0 (good) to 10."""
    done = analyze("security", "--offline=true", "--threshold=100", unit)
    assert done.returncode == 0, done.stderr
    assert "ignoring" not in done.stderr, done.stderr  # a setting that systemd does not know protects nothing
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert level, done.stdout
    return float(level[1])


def test_the_service_is_locked_away(analyze):
    assert exposure(analyze, WATCH) <= MOST_EXPOSED
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", WATCH)  # counts in tenths
    assert done.returncode == 0, done.stdout


def test_the_judgement_can_fail(analyze, tmp_path):
    weak = tmp_path / WATCH.name
    lines = [line for line in WATCH.read_text().splitlines() if not line.startswith(("SystemCallFilter", "Protect"))]
    weak.write_text("\n".join(lines))
    assert exposure(analyze, weak) > MOST_EXPOSED


def test_what_runs_once_as_root_is_locked_away_too(analyze):
    assert exposure(analyze, SETUP) <= 1.4  # it makes a user and gives folders to it; the unit says what that takes


def test_every_other_unit_is_locked_away(analyze):
    others = [unit for unit in sorted(UNITS.glob("*.service")) if unit not in (SETUP,)]
    assert len(others) >= 2
    for unit in others:
        assert exposure(analyze, unit) <= MOST_EXPOSED, unit.name


def test_a_unit_that_runs_as_root_says_why():
    for unit in UNITS.glob("*.service"):
        if "User" not in settings(unit):
            assert "Why it is not as locked away" in unit.read_text(), unit.name
            assert "root" in unit.read_text(), unit.name


def calls_of_group(group: str) -> set[str]:
    """System calls of one of systemd's groups."""
    done = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    words = [line.strip() for line in done.stdout.splitlines()[1:] if line.strip() and "#" not in line]
    return {call for word in words for call in (calls_of_group(word) if word.startswith("@") else {word})}


def test_user_and_folders_are_made_with_the_system_calls_that_the_unit_leaves(analyze, tmp_path):
    if not shutil.which("strace") or os.geteuid() != 0:
        pytest.skip("needs strace and root")
    refused = (calls_of_group("@privileged") | calls_of_group("@resources")) - calls_of_group("@chown")
    allowed = calls_of_group("@system-service") - refused
    (tmp_path / "etc").mkdir()
    for program, *arguments in (
        ["systemd-sysusers", UNITS / "edge-mdda.sysusers"],
        ["systemd-tmpfiles", "--create", UNITS / "edge-mdda.tmpfiles"],
    ):
        trace = tmp_path / program
        command = ["strace", "-f", "-o", trace, program, f"--root={tmp_path}", *arguments]
        subprocess.run(list(map(str, command)), capture_output=True, check=True, timeout=60)
        used = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", trace.read_text(), re.MULTILINE))
        assert len(used) > 10
        assert used <= allowed, used - allowed


def test_the_settings_that_the_service_depends_on():
    found = settings(WATCH)
    for key, value in {
        "Type": "notify",
        "MemoryDenyWriteExecute": "yes",
        "PrivateNetwork": "yes",
        "IPAddressDeny": "any",
        "RestrictAddressFamilies": "AF_UNIX",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "User": "edge-mdda",
        "Restart": "on-failure",
        "MemorySwapMax": "0",
        "LimitCORE": "0",
    }.items():
        assert found[key] == [value]
    memory = int(found["MemoryMax"][0].removesuffix("M"))
    assert int(found["MemoryHigh"][0].removesuffix("M")) < memory < 0.7 * SMALLEST_BOARD_MB
    assert int(found["WatchdogSec"][0]) > 0
    assert NOTICE.split(",")[0].lower() in WATCH.read_text().lower()
    assert "@" not in found["ExecStart"][0]  # nothing that an installer would have to fill in first


def test_the_command_in_the_unit_is_one_that_there_is():
    program, *arguments = settings(WATCH)["ExecStart"][0].split()
    assert program == "/opt/edge-mdda/bin/edge-mdda"
    args = build_parser().parse_args(arguments)
    assert args.folder == settings(WATCH)["ReadWritePaths"][0]
    for line in settings(SETUP)["ExecStart"]:
        assert (UNITS / line.rpartition("/")[2]).is_file()
    assert args.folder in (UNITS / "edge-mdda.tmpfiles").read_text().split()


def test_user_and_folders_are_made(tmp_path):
    if not (shutil.which("systemd-sysusers") and shutil.which("systemd-tmpfiles")) or os.geteuid() != 0:
        pytest.skip("systemd-sysusers and systemd-tmpfiles need root, and to be there")
    (tmp_path / "etc").mkdir()
    for command in (
        ["systemd-sysusers", f"--root={tmp_path}", UNITS / "edge-mdda.sysusers"],
        ["systemd-tmpfiles", f"--root={tmp_path}", "--create", UNITS / "edge-mdda.tmpfiles"],
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    user = next(line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("edge-mdda:"))
    number = int(user.split(":")[2])
    inbox = tmp_path / "var/lib/edge-mdda/inbox"
    modes = {"": 0o3770, "work": 0o700, "done": 0o2770, "failed": 0o2770}
    for name, mode in modes.items():
        status = (inbox / name).stat()
        assert (status.st_mode & 0o7777, status.st_uid) == (mode, number), name


# -- memory that is written is never run ------------------------------------------------------------------


@pytest.fixture(scope="module")
def native_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kernels for this machine."""
    pytest.importorskip("numba")
    from export.native.build import build

    folder = tmp_path_factory.mktemp("kernels")
    build("host", folder)
    return folder


def under(
    how: list[str], arguments: list[str], kernels: Path, backend: str = "native"
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EDGE_MDDA_KERNELS_DIR": str(kernels)}
    done = subprocess.run(
        [sys.executable, str(RESTRICTED), *how, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**environment, "EDGE_MDDA_KERNELS": backend},
        check=False,
    )
    if done.returncode == restricted.UNAVAILABLE:
        pytest.skip(f"this machine has no {how[0]} (Linux 6.3 and libseccomp2 have)")
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def free(native_kernels: Path) -> dict[str, dict]:
    """Answers by runtime with nothing taken away."""
    return {
        runtime: json.loads(under(["nothing"], [*SCREEN, "--runtime", runtime], native_kernels).stdout)
        for runtime, module in RUNTIMES.items()
        if find_spec(module)
    }


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("how", [["mdwe"], ["seccomp"], ["unit", str(WATCH)]], ids=["mdwe", "seccomp", "unit"])
def test_screening_lives_with_it(how, runtime, native_kernels, free):
    pytest.importorskip(RUNTIMES[runtime])
    done = under(how, [*SCREEN, "--runtime", runtime], native_kernels)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["kernels"]["backend"] == "native"
    assert answer | CHANGING == free[runtime] | CHANGING


def test_the_service_itself_lives_with_its_unit(native_kernels, tmp_path):
    """Every step of the folder's protocol passes the unit's filter of system calls."""
    (tmp_path / "mole.jpg").write_bytes(DEMO_IMAGE.read_bytes())
    (tmp_path / "note.txt").write_bytes(b"no picture")
    arguments = settings(WATCH)["ExecStart"][0].split()[1:-1]
    done = under(["unit", str(WATCH)], [*arguments, "--once", "--settle", "0", str(tmp_path)], native_kernels)
    assert done.returncode == 1  # note.txt
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"done/mole.jpg", "done/mole.jpg.json", "failed/note.txt", "failed/note.txt.json", "work/.lock"}


def test_signatures_are_checked_with_it(native_kernels, tmp_path):
    """On a board keys are trusted, so PyNaCl and its foreign functions run under the unit, too."""
    pytest.importorskip("nacl")
    pytest.importorskip("ai_edge_litert")
    from nacl.signing import SigningKey

    from edge_mdda.classifier.signature import sign

    model = tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model())
    manifest = json.loads((tmp_path / "tiny.tflite.json").read_text())
    (tmp_path / "tiny.tflite.sig").write_text(sign(manifest, b"1" * 32))
    (tmp_path / "keys").write_text(bytes(SigningKey(b"1" * 32).verify_key).hex())
    arguments = ["verify", "--trusted-keys", str(tmp_path / "keys"), str(model)]
    done = under(["unit", str(WATCH)], arguments, native_kernels)
    assert (done.returncode, "signed by the trusted key" in done.stdout) == (0, True), done.stderr


def test_numba_cannot_and_says_so_in_one_line(native_kernels):
    done = under(["mdwe"], ["screen", "--demo"], native_kernels, backend="numba")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("edge-mdda: error: Numba may not make machine code here")
    assert "python -m export kernels" in last
