"""The price of inner loops by ``llvm-mca``: cycles as LLVM's model of a CPU predicts them, without the CPU.

An estimate: the model knows ports and latencies, but neither caches nor branches, and its table for a
Cortex-A76 is a cousin's. Good for comparing two loops, not for promising milliseconds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from edge_mdda.errors import EdgeMddaError
from edge_mdda.mdda.kernels.native import SYMBOL_PREFIX

TOOL = "llvm-mca"
ITERATIONS = 400  # of the loop; enough for the start to vanish

_LABEL = re.compile(r"^(\.LBB\w+):")
_BRANCH = re.compile(r"^\s+(?:b\.\w+|cbn?z|tbn?z)\s.*?(\.LBB\w+)\s*$")
_STORE = re.compile(r"^\s+(st\w+)\s+(.*)$")
_REGISTER_BYTES = {"q": 16, "d": 8, "s": 4, "h": 2, "b": 1, "x": 8, "w": 4}
_LANE_BYTES = {"b": 1, "h": 2, "s": 4, "d": 8}


class McaError(EdgeMddaError):
    """``llvm-mca`` is missing, does not know the CPU, or the loop was not found."""


@dataclass(frozen=True)
class Loop:
    """An innermost loop of a function."""

    instructions: tuple[str, ...]

    @property
    def stored_bytes(self) -> int:
        """Bytes that one iteration stores."""
        return sum(_bytes(*match.groups()) for match in map(_STORE.match, self.instructions) if match)


def _bytes(name: str, operands: str) -> int:
    """What one store instruction writes."""
    if name in ("strb", "sturb"):
        return 1
    if name in ("strh", "sturh"):
        return 2
    lists = re.match(r"\{(.*?)\}(\[\d+\])?", operands)
    if lists:  # st1 { v0.b }[3], st2 { v0.4s, v1.4s }
        lanes = [re.search(r"\.(\d*)([bhsd])", register) for register in lists[1].split(",")]
        return sum((int(lane[1]) if lane[1] else 1) * _LANE_BYTES[lane[2]] for lane in lanes if lane)
    registers = 2 if name in ("stp", "stnp") else 1
    return registers * _REGISTER_BYTES[operands[0]]


def version() -> str:
    """``llvm-mca`` and its version.

    Raises
    ------
    McaError
        It is not installed.
    """
    if not shutil.which(TOOL):
        raise McaError(f"{TOOL} is not installed: install Debian's package llvm")
    text = subprocess.run([TOOL, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"LLVM version (\S+)", text)
    return f"{TOOL} {found[1] if found else 'of unknown version'}"


def loops(assembly: str, kernel: str) -> list[Loop]:
    """Innermost loops of a kernel that store something, in order."""
    begin = re.search(rf"^{SYMBOL_PREFIX}{kernel}:", assembly, re.MULTILINE)
    if not begin:
        raise McaError(f"no function {kernel} in the assembly")
    body = assembly[begin.end() :].split("\n.Lfunc_end")[0]
    lines = [line.split("//")[0].rstrip() for line in body.splitlines()]
    labels = {match[1]: index for index, line in enumerate(lines) if (match := _LABEL.match(line))}
    found = []
    for index, line in enumerate(lines):
        match = _BRANCH.match(line)
        start = labels.get(match[1], index + 1) if match else index + 1
        if start > index or any(_LABEL.match(inner) for inner in lines[start + 1 : index]):
            continue
        instructions = tuple(text for text in lines[start + 1 : index + 1] if re.match(r"\s+[a-z]", text))
        if any(_STORE.match(text) for text in instructions):
            found.append(Loop(instructions))
    return found


def cycles(loop: Loop, cpu: str) -> float:
    """Predicted cycles of one iteration, many in a row.

    Raises
    ------
    McaError
        The tool is missing or refuses the loop.
    """
    version()
    done = subprocess.run(
        [TOOL, "-mtriple=aarch64", f"-mcpu={cpu}", f"-iterations={ITERATIONS}", "-"],
        input="\n".join(loop.instructions),
        capture_output=True,
        text=True,
        check=False,
    )
    total = re.search(r"^Total Cycles:\s+(\d+)", done.stdout, re.MULTILINE)
    if not total:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise McaError(f"{TOOL} cannot price the loop for {cpu}: {last}")
    return int(total[1]) / ITERATIONS
