"""The ARM64 test bench itself: that emulation stops what a board's CPU would, and that a check can fail.

The whole proof, ``python -m deploy arm64-test``, is a step of its own in ``.ci/run``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip("elftools", reason="the extra 'export' is not installed")

from deploy.arm64 import hardware_checks, program_checks, rootfs
from deploy.arm64.bench import Bench, chosen, run_checks
from deploy.arm64.command import EXIT_FAILED, EXIT_UNAVAILABLE
from deploy.arm64.cpus import BASELINE, CPUS, Cpu, cpu_of
from deploy.arm64.enter import Board, Done, require_emulation
from deploy.arm64.errors import BenchError, UnavailableError
from deploy.arm64.plan import AFTER
from deploy.arm64.results import Result, all_passed, judged
from edge_mdda import __version__
from edge_mdda.diagnostics.finding import FAILED, OK, UNKNOWN
from edge_mdda.errors import EdgeMddaError
from edge_mdda.hardware import inventory
from edge_mdda.mdda.kernels.native import ARM_PARTS
from export.native.build import build

NOWHERE = Path("/nowhere")
CPU = "cortex-a72"


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A copy of the emulated bookworm."""
    try:
        with rootfs.copy_of(rootfs.prepared("bookworm", "3.11")) as copy:
            require_emulation(Board(copy, CPUS[CPU]))
            yield copy
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def bench(root: Path) -> Bench:
    """An emulated Raspberry Pi 4 with nothing installed."""
    return Bench(Board(root, CPUS[CPU], 4, "Raspberry Pi 4 Model B"), ("tflite", "onnx"), NOWHERE, NOWHERE)


@pytest.fixture(scope="module")
def program(root: Path) -> str:
    """This source tree on the board, with what purifying needs; kernels come from ``/program/kernels``."""
    from deploy.lock import lock_path, read_lock
    from deploy.profiles import find_board
    from deploy.wheels import cache_folder, fetch

    board = find_board("rpi4")
    system = board.system("bookworm")
    pins = [pin for pin in read_lock(lock_path(system, board.arch)) if pin.name in ("numpy", "opencv-python-headless")]
    try:
        wheels = fetch(pins, board, system, cache_folder())
    except EdgeMddaError as error:
        pytest.skip(str(error))
    site = root / "program/site"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    shutil.copytree(ROOT / "edge_mdda", site / "edge_mdda", ignore=shutil.ignore_patterns("__pycache__"))
    script = root / "program/edge-mdda"
    settings = "PYTHONPATH=/program/site EDGE_MDDA_KERNELS=native EDGE_MDDA_KERNELS_DIR=/program/kernels"
    script.write_text(f'#!/bin/sh\n{settings} exec python3 -m edge_mdda "$@"\n')
    script.chmod(0o755)
    return "/program/edge-mdda"


def only(found: Iterator[Result]) -> Result:
    (result,) = found
    return result


# -- the emulated board -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CPUS)
def test_cpuinfo_is_read_as_the_boards(name, tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(CPUS[name].cpuinfo(4))
    assert inventory.cores(tmp_path) == 4
    assert inventory.cpu(tmp_path) == name.replace("cortex-a", "Cortex-A")
    assert ARM_PARTS[inventory.cpuinfo(tmp_path)["CPU part"]] == name
    assert set(inventory.cpuinfo(tmp_path)["Features"].split()) == CPUS[name].features


@pytest.mark.parametrize("name", CPUS)
def test_every_cpu_stops_what_its_board_lacks(bench, name):
    result = only(hardware_checks.instructions(replace(bench, board=replace(bench.board, cpu=CPUS[name]))))
    assert result.status == OK, result
    assert ("asimddp" in result.text) == (name != "cortex-a76")


def test_an_emulator_that_can_do_too_much_fails_the_check(bench):
    """QEMU's "max" executes everything: the proof would be worth nothing."""
    generous = replace(bench.board, cpu=Cpu("max", 0xD08, 0, 3, BASELINE))
    results = list(hardware_checks.instructions(replace(bench, board=generous)))
    assert {result.status for result in results} == {FAILED}
    assert any("udot" in result.text for result in results)


def test_the_board_shows_itself_and_nothing_of_this_machine(root, monkeypatch):
    monkeypatch.setenv("EDGE_MDDA_SECRET", "of this machine")
    board = Board(root, CPUS[CPU], 4, "Raspberry Pi 4 Model B")
    script = (
        "uname -m; hostname; env | sort; cat /sys/firmware/devicetree/base/model; echo; ls /sys; ls -d /proc/[0-9]*;"
        "grep -c part /proc/cpuinfo; cut -d' ' -f2 /proc/mounts | sort"
    )
    done = board.run(["/bin/sh", "-c", script])
    assert done.status == 0, done
    lines = done.stdout.splitlines()
    assert lines[:2] == ["aarch64", "board"]
    assert "Raspberry Pi 4 Model B\0" in lines and f"QEMU_CPU={CPU}" in lines
    assert "EDGE_MDDA_SECRET" not in done.stdout
    assert sum(line.startswith("/proc/") and line[6:].isdigit() for line in lines) < 6  # a process space of its own
    assert str(root) not in Path("/proc/self/mounts").read_text()  # and mounts of its own


def test_the_network_is_cut_off_and_the_check_notices_one(bench):
    assert only(hardware_checks.network(bench)).status == OK

    class Connected(Board):
        """Runs on this machine, which has a loopback that leads to the check's server."""

        def run(self, command, **_):
            done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, check=False)
            return Done(tuple(command), done.returncode, done.stdout, done.stderr)

    result = only(hardware_checks.network(replace(bench, board=Connected(bench.board.root, CPUS[CPU]))))
    assert result.status == FAILED and result.command


def test_no_process_outlives_its_program(root):
    marker = f"{os.getpid()}.5"  # seconds: a number that no other process sleeps for
    board = Board(root, CPUS[CPU])
    done = board.run(["/bin/sh", "-c", f"sleep {marker} & exit 3"])
    assert done.status == 3
    with pytest.raises(BenchError, match="no end within"):
        board.run(["/bin/sleep", marker], timeout=2)
    for _ in range(100):
        alive = [path for path in Path("/proc").glob("[0-9]*/cmdline") if marker.encode() in read(path)]
        if not alive:
            break
        time.sleep(0.1)  # process 1 of the board is told by the kernel that its parent has died
    assert not alive


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def test_ends_are_told_apart(root):
    board = Board(root, CPUS[CPU])
    assert board.run(["/bin/sh", "-c", "kill -SEGV $$"]).status == -11
    assert "SIGILL" in board.run(["/bin/sh", "-c", "kill -ILL $$"]).fate
    assert "SIGILL" in board.run(["/bin/sh", "-c", "(kill -ILL $(cut -d' ' -f4 /proc/self/stat)) ; exit 132"]).fate
    assert board.run(["/bin/cat"], stdin=b"hello").stdout == "hello"
    with pytest.raises(BenchError, match="/bin/absent in /"):
        board.run(["/bin/absent"])


def test_the_root_is_built_once(root):
    started = rootfs.prepared("bookworm", "3.11", mirror="http://nowhere.invalid/none")  # from the cache
    assert rootfs.packages_of(started)["python3.11"].startswith("3.11")
    assert (root / "usr/bin/python3.11").is_file()


# -- known bad, and the check fails -------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kernels for a CPU with SVE, described as if every ARM board could run them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.native.build.required_features", lambda target: ())
        return build("neoverse-v1", tmp_path_factory.mktemp("wide")).path.parent


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kernels for the board."""
    return build(CPU, tmp_path_factory.mktemp("right")).path.parent


def test_kernels_with_instructions_that_the_board_lacks_fail(bench, program, wide, right):
    place = bench.board.root / "program/kernels"
    for source, status in ((right, OK), (wide, FAILED)):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place)
        result = next(program_checks.kernels(replace(bench, program=program)))
        assert result.status == status, result
    assert "SIGILL" in result.text
    assert result.command[0] == program
    assert any("Illegal instruction" in line for line in result.output)


@pytest.mark.skipif(shutil.which("llvm-objdump") is None, reason="no llvm-objdump here: install Debian's llvm")
def test_the_scan_finds_them_without_running_them(wide, right):
    assert hardware_checks.scan_library(next(right.glob("*.so")), CPUS[CPU]).status == OK
    result = hardware_checks.scan_library(next(wide.glob("*.so")), CPUS[CPU])
    assert result.status == FAILED and "no instruction of cortex-a72" in result.text


@pytest.mark.skipif(shutil.which("llvm-objdump") is None, reason="no llvm-objdump here: install Debian's llvm")
def test_the_scan_knows_that_a_raspberry_pi_4_lacks_aes(tmp_path, right):
    """QEMU's Cortex-A72 has the cryptography instructions, so only the scan can tell."""
    from elftools.elf.elffile import ELFFile

    source = next(right.glob("*.so"))
    with source.open("rb") as file:
        offset = ELFFile(file).get_section_by_name(".text")["sh_offset"]
    content = bytearray(source.read_bytes())
    content[offset : offset + 4] = (0x4E284820).to_bytes(4, "little")  # aese v0.16b, v1.16b
    (tmp_path / "aes.so").write_bytes(content)
    assert hardware_checks.scan_library(tmp_path / "aes.so", CPUS["cortex-a76"]).status == OK
    assert hardware_checks.scan_library(tmp_path / "aes.so", CPUS[CPU]).status == FAILED


def test_a_board_without_kernels_fails_the_scan(bench):
    if (bench.board.root / "program/kernels").exists():
        shutil.rmtree(bench.board.root / "program/kernels")
    assert only(hardware_checks.scan(bench)).status == FAILED


# -- judging ------------------------------------------------------------------------------------------


def test_a_failed_check_tells_command_and_last_lines():
    done = Done(("/bin/tool", "--now"), -4, "", "\n".join(f"line {n}" for n in range(50)))
    result = judged("tool", False, "no answer", done)
    assert result.status == FAILED and "SIGILL" in result.text
    assert result.command == done.command and result.output[-1] == "line 49" and len(result.output) < 10
    assert not all_passed([Result("one", OK, ""), result])
    assert not all_passed([])


def test_other_answers_than_here_fail():
    here = program_checks._screened("onnx")
    there = json.loads(json.dumps(here)) | {"kernels": {"backend": "native", "cpu": CPU}}
    done = Done(("edge-mdda",), 0, "", "")

    def status(**changes: object) -> str:
        return program_checks._same_answer("screen", done, there | changes, here, CPU).status

    assert status() == OK
    moved = {label: share + 0.02 for label, share in here["raw_probabilities"].items()}
    for change in ({"label": "other"}, {"advice": "other"}, {"raw_probabilities": moved}, {"kernels": here["kernels"]}):
        assert status(**change) == FAILED, change
    assert status(model=here["model"] | {"sha256": "0"}) == FAILED


@pytest.mark.parametrize(
    ("done", "fault"),
    [
        (Done((), 0, f"edge-mdda {__version__}\n", ""), ""),
        (Done((), 1, __version__, ""), "exit status 1"),
        (Done((), 0, "0.0.0", ""), "does not say"),
        (Done((), 0, __version__, "a warning\n"), "1 lines on standard error"),
        (Done((), 0, __version__, "Traceback (most recent call last):\n"), "a traceback"),
    ],
)
def test_a_wrong_answer_of_the_command_line_is_a_fault(done, fault):
    version = next(usage for usage in program_checks.USAGES if usage.name == "version")
    assert (fault in program_checks._fault(version, done)) if fault else not program_checks._fault(version, done)


def test_a_check_that_breaks_is_a_failure_and_the_rest_is_not_hidden(tmp_path):
    bench = Bench(Board(tmp_path, CPUS[CPU]), ("onnx",), NOWHERE, NOWHERE)

    def broken(_):
        yield Result("half", OK, "")
        raise KeyError("answer")

    results = run_checks(bench, {"broken": broken}, AFTER)
    assert [(result.name, result.status) for result in results] == [
        ("half", OK),
        ("broken", FAILED),
        ("the rest", UNKNOWN),
    ]
    assert all(name in results[-1].text for name in AFTER)
    bench.program = "/bin/true"
    assert [r.status for r in run_checks(bench, {}, {"a": broken, "b": broken}, jobs=2)] == [OK, FAILED] * 2


def test_unknown_names_are_refused():
    with pytest.raises(BenchError, match="choose from doctor"):
        chosen(AFTER, ["doctor", "horoscope"])
    with pytest.raises(BenchError, match="cortex-a53"):
        cpu_of("cortex-a78ae")


# -- the command --------------------------------------------------------------------------------------


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy", "arm64-test", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_a_machine_that_cannot_emulate_says_so_in_one_line(tmp_path):
    done = command("--board", "rpi4", "--os", "bookworm", PATH=str(tmp_path))
    assert done.returncode == EXIT_UNAVAILABLE
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "skipped" in done.stderr and "qemu-user-static" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--board", "rpi9"), EXIT_FAILED, "rpi4"),
        (("--board", "rpi4", "--os", "buster"), EXIT_FAILED, "bookworm"),
        (("--board", "jetson-orin-nano"), EXIT_FAILED, "cortex-a76"),
        (("--board", "rpi4", "--only", "horoscope"), EXIT_FAILED, "doctor"),
        (("--all", "--bundle", "x", "--pubkey", "y"), EXIT_FAILED, "--board"),
        (("--board", "rpi4", "--bundle", "x"), 2, "--pubkey"),
        ((), 2, "--board"),
    ],
)
def test_wrong_usage_costs_one_line(arguments, status, text):
    done = command(*arguments)
    assert done.returncode == status and text in done.stderr and "Traceback" not in done.stderr
    assert status == 2 or len(done.stderr.splitlines()) == 1


def test_a_file_that_is_no_bundle_fails_the_installation(root, tmp_path):
    (tmp_path / "bad.tar.gz").write_bytes(b"not an archive")
    (tmp_path / "key.pub").write_text("00" * 32)
    names = ("--bundle", str(tmp_path / "bad.tar.gz"), "--pubkey", str(tmp_path / "key.pub"))
    done = command("--board", "rpi4", "--os", "bookworm", *names, "--json")
    assert done.returncode == EXIT_FAILED, done.stderr
    answer = json.loads(done.stdout)
    assert answer["passed"] is False and answer["boards"][0]["packages"]["python3.11"]
    failed = [check for check in answer["boards"][0]["checks"] if check["status"] == FAILED]
    assert [check["name"] for check in failed] == ["install"] and "bad.tar.gz" in failed[0]["text"]
