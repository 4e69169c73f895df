"""Nothing goes to the network and no file outside its places: every command under strace, with a home of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from edge_mdda import silence
from edge_mdda.diagnostics import doctor
from edge_mdda.diagnostics.finding import OK, WARNING

DEMO = ROOT / "edge_mdda" / "models" / "demo-synthetic.jpg"
TIMEOUT_S = 300
TRACED = (
    "trace=socket,connect,sendto,sendmsg,sendmmsg,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat"
)
INTERNET = re.compile(r"AF_INET6?\b|AF_PACKET|AF_NETLINK")
LOOK_UP = re.compile(r"resolv\.conf|nscd|/etc/hosts\"|host\.conf|systemd-resolve")
NEW_FILE = re.compile(
    r'(?:openat\(\w+, |open\()"([^"]+)", [^)]*O_CREAT|(?:creat|mkdir)\("([^"]+)"|mkdirat\(\w+, "([^"]+)"'
)
DEVICES = ("/dev/null", "/dev/shm/")
"""Python's semaphores lie in /dev/shm; they hold no data."""

PYTHON_USE = f"""
from edge_mdda import Purifier, Screener, decode
picture = decode(open({str(DEMO)!r}, "rb").read())
with Screener() as screener:
    screener.screen({str(DEMO)!r}, 1)
with Screener(runtime="tflite") as screener:
    screener.screen({str(DEMO)!r}, 1)
with Purifier(*picture.shape[:2]) as purifier:
    purifier.purify(picture, 1)
"""
COMMANDS = {
    "screen": ["-m", "edge_mdda", "screen", "--demo"],
    "screen tflite": ["-m", "edge_mdda", "screen", "--runtime", "tflite", "--demo"],
    "watch": ["-m", "edge_mdda", "watch", "--once", "--settle", "0", "OUT/inbox"],
    "purify": ["-m", "edge_mdda", "purify", str(DEMO), "OUT/out.png"],
    "profile": ["-m", "edge_mdda", "profile", "--calls", "2", "--warmup", "1"],
    "doctor": ["-m", "edge_mdda", "doctor"],
    "selftest": ["-m", "edge_mdda", "selftest"],
    "verify": ["-m", "edge_mdda", "verify"],
    "python": ["-c", PYTHON_USE],
}


def traced(command: list[str], tmp_path: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run Python under strace with a home and temporary folder below ``tmp_path``; the trace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    for name in ("home", "tmp", "out/inbox"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    log = tmp_path / "trace"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_MDDA_", "XDG_", "ORT_"))}
    clean |= {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "EDGE_MDDA_THREADS": "1",
    }
    done = subprocess.run(
        ["strace", "-f", "-qq", "-s", "400", "-e", TRACED, "-o", str(log), sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=tmp_path / "out",
        env={**clean, **environment},
    )
    if not log.exists() or "ptrace" in done.stderr:
        pytest.skip(f"strace cannot trace here: {done.stderr.strip()[:200]}")
    return done, log.read_text(errors="replace")


def offences(trace: str, tmp_path: Path) -> list[str]:
    """Lines of the trace that touch a network or make a file outside home's cache, TMPDIR and the named output."""
    places = [str(tmp_path / name) for name in ("home/.cache/edge-mdda", "tmp", "out")]
    found = []
    for line in trace.splitlines():
        if INTERNET.search(line) or LOOK_UP.search(line):
            found.append(line)
        if (match := NEW_FILE.search(line)) and " = -1 " not in line:
            path = next(group for group in match.groups() if group)
            whole = path if path.startswith("/") else str(tmp_path / "out" / path)
            if whole != str(tmp_path / "home/.cache") and not whole.startswith((*places, *DEVICES)):
                found.append(line)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_no_packet_and_no_file_outside_its_places(name, tmp_path):
    (tmp_path / "out" / "inbox").mkdir(parents=True)
    shutil.copy(DEMO, tmp_path / "out" / "inbox" / "mole.jpg")
    command = [part.replace("OUT", str(tmp_path / "out")) for part in COMMANDS[name]]
    done, trace = traced(command, tmp_path)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0 or name == "doctor", done.stderr  # a crowded test machine may be unfit to screen
    assert "openat(" in trace  # it was traced at all
    assert offences(trace, tmp_path) == []
    left = sorted(path.relative_to(tmp_path / "home").parts[:2] for path in (tmp_path / "home").rglob("*"))
    assert {parts for parts in left if len(parts) == 2} <= {(".cache", "edge-mdda")}
    assert list((tmp_path / "tmp").iterdir()) == []  # and nothing is left in the temporary folder


def test_the_watcher_sees_a_network_and_a_stray_file(tmp_path):
    """What the test above relies on: it would see both."""
    code = "import socket, pathlib; socket.socket(socket.AF_INET).close(); pathlib.Path.home().joinpath('x').touch()"
    _, trace = traced(["-c", code], tmp_path)
    found = offences(trace, tmp_path)
    assert any("AF_INET" in line for line in found) and any("home/x" in line for line in found)


def test_the_opt_outs_come_before_the_runtime_and_against_the_users_own(tmp_path):
    code = (
        "import json, os, sys, edge_mdda; assert 'onnxruntime' not in sys.modules;"
        f"print(json.dumps({{n: os.environ.get(n) for n in {list(silence.OPT_OUTS)!r}}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ORT_DISABLE_TELEMETRY": "0"},
    )
    assert json.loads(done.stdout) == silence.OPT_OUTS


@pytest.mark.parametrize("package", ["deploy", "export", "benchmarks"])
def test_the_workstations_packages_are_silent_too(package):
    """Whatever imports a runtime there has imported ``edge_mdda`` before."""
    code = f"import os, {package}"
    code += "; import sys; sys.exit(os.environ.get('ORT_DISABLE_TELEMETRY') != '1' or 'onnxruntime' in sys.modules)"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    assert subprocess.run([sys.executable, "-c", code], env={**clean, "PYTHONPATH": str(ROOT)}).returncode == 0


def test_doctor_says_whether_telemetry_is_off(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert doctor.telemetry().status == OK
    assert "ORT_DISABLE_TELEMETRY=1" in doctor.telemetry().value
    (tmp_path / silence.TRACE).mkdir(parents=True)
    found = doctor.telemetry()
    assert (found.status, str(tmp_path) in found.advice) == (WARNING, True)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert doctor.telemetry().status == WARNING


def test_verify_of_every_built_in_model_passes(capsys):
    from edge_mdda.cli.main import main

    for model in ("standard", "hardened", "broad"):
        assert main(["verify", model]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "not signed" in captured.out


def test_a_copy_of_the_built_in_model_elsewhere_is_not_trusted(tmp_path):
    from edge_mdda.classifier import built_in
    from edge_mdda.cli.main import main

    for path in built_in().parent.glob(f"{built_in().name}*"):
        shutil.copy(path, tmp_path)
    assert main(["verify", str(tmp_path / built_in().name)]) == 1
