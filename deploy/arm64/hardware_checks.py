"""Checks of the emulation itself: the CPU refuses what the board's would, no network, no foreign instruction.

What emulation cannot show: QEMU's Cortex-A53 and A72 execute the cryptography instructions that the Raspberry Pi's
lack, so code that uses those without asking passes here; only the kernels' scan would see them.  Nor does it show
speed, heat, memory pressure or what differs between two kernels of Linux.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from deploy.arm64.bench import Bench
from deploy.arm64.cpus import CRYPTOGRAPHY, INSTRUCTIONS, Cpu
from deploy.arm64.results import Result, judged
from edge_mdda.diagnostics.finding import UNKNOWN

LOAD_ADDRESS = 0x400000
EXIT = (0xD2800BA8, 0xD2800000, 0xD4000001)  # mov x8, #93 (exit); mov x0, #0; svc #0
NOP = 0xD503201F
SIGILL = 4
PYTHON = "/usr/bin/python3"
DOCUMENTATION_ADDRESS = "192.0.2.1"  # RFC 5737: belongs to nobody
LLVM_FEATURES = {"aes": "aes", "sha2": "sha2"}
"""Features in LLVM's CPUs that a board may lack, by Linux's name."""

KERNEL_FILES = re.compile(r"kernels-.*\.so")


def program_with(word: int) -> bytes:
    """An ELF program for Linux on ARM64 that executes one instruction and ends with status 0.

    References
    ----------
    ELF-64 Object File Format, version 1.5: file header and program header.
    """
    code = struct.pack("<4I", word, *EXIT)
    header_size, entry_size = 64, 56
    size = header_size + entry_size + len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    file_header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 2, 183, 1, LOAD_ADDRESS + header_size + entry_size, header_size, 0, 0, 64, 56, 1, 0, 0, 0
    )
    program_header = struct.pack("<IIQQQQQQ", 1, 5, 0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1000)
    return file_header + program_header + code


def instructions(bench: Bench) -> Iterator[Result]:
    """An instruction that the board lacks stops a program; one that it has, and none at all, do not."""
    cpu, wrong, stopped = bench.board.cpu, [], []
    for feature, (word, text) in {"none": (NOP, "nop"), **INSTRUCTIONS}.items():
        file = bench.exchange / f"instruction-{feature}"
        file.write_bytes(program_with(word))
        file.chmod(0o755)
        done = bench.board.run([str(Path("/") / file.relative_to(bench.board.root))])
        expected = 0 if feature == "none" or feature in cpu.features else -SIGILL
        if done.status != expected:
            wrong.append(judged("instructions", False, f"«{text}» was to end with {expected}, not {done.status}", done))
        elif expected:
            stopped.append(feature)
    yield from wrong
    if not wrong:
        blind = "" if cpu.features >= CRYPTOGRAPHY else "; it does not stop aes and sha, which the board lacks"
        text = f"{cpu.name} stops {', '.join(stopped)} with an illegal instruction (SIGILL){blind}"
        yield judged("instructions", True, text)


_ASK_NETWORK = """\
import json, socket, sys
def reached(address):
    with socket.socket() as door:
        door.settimeout(2)
        return door.connect_ex(address) == 0
answer = {"interfaces": [name for _, name in socket.if_nameindex()],
          "routes": open("/proc/net/route").read().count("\\n") - 1,
          "this_machine": reached(("127.0.0.1", int(sys.argv[1]))), "anybody": reached((sys.argv[2], 80))}
print(json.dumps(answer))
"""


def network(bench: Bench) -> Iterator[Result]:
    """The board reaches nobody, not even a server on this machine that others reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 5):  # it does answer
            pass
        done = bench.board.run([PYTHON, "-c", _ASK_NETWORK, str(port), DOCUMENTATION_ADDRESS])
    cut = {"interfaces": ["lo"], "routes": 0, "this_machine": False, "anybody": False}
    good = done.status == 0 and json.loads(done.stdout) == cut
    yield judged("network", good, "cut off: only a loopback, no route" if good else "the board has a network", done)


def scan(bench: Bench) -> Iterator[Result]:
    """Every word of the kernels is an instruction of this CPU: they never ask what the CPU has."""
    found = (path for path in bench.board.root.rglob("kernels-*.so") if bench.exchange not in path.parents)
    libraries = sorted(path for path in found if KERNEL_FILES.fullmatch(path.name))
    if not libraries:
        yield judged("scan", False, "no native kernels are installed")
    for library in libraries:
        yield scan_library(library, bench.board.cpu)


def scan_library(library: Path, cpu: Cpu) -> Result:
    """Disassemble a library as that CPU would read it."""
    name, tool = "scan", shutil.which("llvm-objdump")
    if tool is None:
        return Result(name, UNKNOWN, "not tried: no llvm-objdump here (Debian's llvm)")
    lacking = [f"-{flag}" for feature, flag in LLVM_FEATURES.items() if feature not in cpu.features]
    command = [tool, "--disassemble", "--no-show-raw-insn", "--triple=aarch64-linux-gnu", f"--mcpu={cpu.name}"]
    command += [f"--mattr={','.join(lacking)}"] if lacking else []
    done = subprocess.run([*command, str(library)], capture_output=True, text=True, check=False)
    words = re.findall(r"^\s*[0-9a-f]+:\s+(.*)$", done.stdout, re.MULTILINE)
    foreign = sum("<unknown>" in word for word in words)
    if done.returncode or not words:
        return judged(name, False, f"{library.name} cannot be disassembled: {done.stderr.strip()}")
    if foreign:
        return judged(name, False, f"{library.name}: {foreign} of {len(words)} words are no instruction of {cpu.name}")
    return judged(name, True, f"{library.name}: all {len(words)} words are instructions that {cpu.name} has")
