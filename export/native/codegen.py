"""Machine code of the kernels for any CPU that LLVM knows: one source, compiled ahead of time.

The IR comes from Numba, unoptimised, through a child process (:mod:`export.native.kernel_ir`). Here it is given
another target, a plain C entry for every kernel, and LLVM's whole optimisation pipeline.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from edge_mdda.errors import EdgeMddaError
from edge_mdda.mdda.kernels.native import SYMBOL_PREFIX
from edge_mdda.mdda.kernels.vectors import two_vectors_at_a_time

AARCH64, X86_64 = "aarch64", "x86_64"
CAN_BUILD = (AARCH64, X86_64)
BOARD_CPUS = ("cortex-a53", "cortex-a72", "cortex-a76", "cortex-a78ae")
"""Raspberry Pi Zero 2 W and 3, 4, 5; Jetson Orin."""

KERNEL_MODULES = tuple(f"edge_mdda.mdda.kernels.{name}" for name in ("aggregate", "block", "pack_and_blend"))
"""They register the purifier's kernels."""

OPTIONAL_FEATURES: Mapping[str, Mapping[str, str]] = {
    AARCH64: {
        "crc": "crc32",
        "lse": "atomics",
        "rdm": "asimdrdm",
        "fullfp16": "asimdhp",
        "dotprod": "asimddp",
        "rcpc": "lrcpc",
        "sve": "sve",
        "sve2": "sve2",
        "bf16": "bf16",
        "i8mm": "i8mm",
    },
    X86_64: {
        "sse4.1": "sse4_1",
        "avx": "avx",
        "avx2": "avx2",
        "fma": "fma",
        "f16c": "f16c",
        "bmi": "bmi1",
        "bmi2": "bmi2",
        "lzcnt": "abm",
        "avx512f": "avx512f",
        "avx512vl": "avx512vl",
        "avx512bw": "avx512bw",
        "avx512dq": "avx512dq",
    },
}
"""What a CPU of an architecture may lack: LLVM's name of it and the one that Linux gives to programs."""


OLDEST_LLVM = 20
"""Of llvmlite 0.45 and Numba 0.62: pointers without types, in the IR as in what is put around it here."""


class CodegenError(EdgeMddaError):
    """Kernels that cannot be compiled for a CPU."""


@dataclass(frozen=True)
class Target:
    """A CPU to compile for."""

    cpu: str
    """LLVM's name."""
    arch: str
    features: str = ""
    """LLVM's notation; empty means what the CPU's name implies."""

    @property
    def triple(self) -> str:
        """LLVM's name of architecture and system."""
        return f"{self.arch}-unknown-linux-gnu"


def target_of(cpu: str) -> Target:
    """The target of an LLVM CPU name, or of ``host``.

    Raises
    ------
    CodegenError
        LLVM knows no such CPU on the architectures that can be built for.
    """
    if llvm.llvm_version_info[0] < OLDEST_LLVM:
        raise CodegenError("this llvmlite is too old to compile ahead of time; run: pip install -U 'numba>=0.62'")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    if cpu == "host":
        arch = llvm.get_process_triple().split("-")[0]
        if arch not in CAN_BUILD:
            raise CodegenError(f"this machine is {arch}: native kernels exist for {' and '.join(CAN_BUILD)}")
        return Target(llvm.get_host_cpu_name(), arch, llvm.get_host_cpu_features().flatten())
    known = {arch: _cpu_names(arch) for arch in CAN_BUILD}
    for arch, names in known.items():
        if cpu in names:
            return Target(cpu, arch)
    from difflib import get_close_matches

    every = sorted(set().union(*known.values()))
    near = get_close_matches(cpu, every, 3) or list(BOARD_CPUS)
    raise CodegenError(f"LLVM knows no CPU {cpu!r}; nearest: {', '.join(near)}, or host")


@cache
def _cpu_names(arch: str) -> frozenset[str]:
    """LLVM lists an architecture's CPUs only as a help text on standard error, so a child asks."""
    code = (
        "import llvmlite.binding as l; l.initialize_all_targets(); l.initialize_all_asmprinters();"
        f"l.Target.from_triple('{arch}-unknown-linux-gnu').create_target_machine(cpu='help')"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    listed = text.partition("Available CPUs")[2].partition("Available features")[0]
    return frozenset(re.findall(r"^\s+(\S+)\s+- Select the", listed, re.MULTILINE))


@cache
def portable_ir(modules: tuple[str, ...] = KERNEL_MODULES) -> Mapping[str, Mapping[str, str]]:
    """``{kernel: {"signature", "ir"}}`` from the child process; some seconds on its first call."""
    child = subprocess.run(
        [sys.executable, "-m", "export.native.kernel_ir", *modules],
        env={**os.environ, "NUMBA_OPT": "0", "EDGE_MDDA_KERNELS": "numba"},
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise CodegenError(f"Numba could not compile the kernels: {last}")
    result: dict[str, dict[str, str]] = json.loads(child.stdout)
    return result


class Builder:
    """The kernels, compiled for one target.

    Parameters
    ----------
    target : Target
    without : tuple of str
        LLVM features that the code must do without.
    modules : tuple of str
        That register the kernels.
    """

    def __init__(
        self, target: Target, without: tuple[str, ...] = (), modules: tuple[str, ...] = KERNEL_MODULES
    ) -> None:
        self.target = target
        features = ",".join(filter(None, (target.features, *(f"-{name}" for name in without))))
        self._machine = llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=features, opt=3, reloc="pic", codemodel="default"
        )
        module: Any = None
        for name, source in portable_ir(modules).items():
            part = self._retargeted(name, source["ir"])
            if module is None:
                module = part
            else:
                module.link_in(part)
        # Helpers first, each by itself: there LLVM knows that rows do not overlap, once they are inlined it doubts it.
        self._optimise(module)
        self._module = llvm.parse_assembly(str(module).replace(" noinline ", " alwaysinline "))
        self._optimise(self._module)

    def object_code(self) -> bytes:
        """An ELF relocatable file."""
        code: bytes = self._machine.emit_object(self._module)
        return code

    def assembly(self) -> str:
        """The same as text, for :mod:`benchmarks.arm_cost`."""
        text: str = self._machine.emit_assembly(self._module)
        return text

    def _retargeted(self, kernel: str, ir: str) -> Any:
        """One kernel as a module for the target: only its C entry is visible."""
        ir = re.sub(r'target triple = ".*"', f'target triple = "{self.target.triple}"', ir)
        ir = re.sub(r'target datalayout = ".*"', f'target datalayout = "{self._machine.target_data}"', ir)
        ir = re.sub(r'"target-(cpu|features)"="[^"]*"', "", ir)
        ir = re.sub(rf"^(define linkonce_odr .*@_ZN{_HELPER}.*) \{{$", r"\1 noinline {", ir, flags=re.MULTILINE)
        # Arrays come from C and own no memory: there is nothing to count or to free.
        ir = re.sub(r"^\s+call void @NRT_(?:inc|dec)ref\(.*$", "", ir, flags=re.MULTILINE)
        module = llvm.parse_assembly(ir)
        defined = [function for function in module.functions if not function.is_declaration]
        mangled = next(f.name for f in defined if f.name.startswith("cfunc."))[len("cfunc.") :]
        inner = next(f for f in defined if f.name == mangled)
        inner.name = f"inner_{kernel}"
        for symbol in (*defined, *(v for v in module.global_variables if not v.is_declaration)):
            symbol.linkage = "internal"
        # Numba's own convention has two pointers in front, for a result and an exception; these kernels have neither.
        types = [str(argument.type) for argument in inner.arguments][2:]
        entry = _ENTRY.format(
            triple=self.target.triple,
            layout=self._machine.target_data,
            symbol=SYMBOL_PREFIX + kernel,
            inner=inner.name,
            types=", ".join(types),
            loads="\n".join(
                f"  %p{n} = getelementptr i64, ptr %slots, i64 {n}\n  %a{n} = load {kind}, ptr %p{n}"
                for n, kind in enumerate(types)
            ),
            arguments=", ".join(f"{kind} %a{n}" for n, kind in enumerate(types)),
        )
        inner.linkage = "external"
        module.link_in(llvm.parse_assembly(entry))
        module.get_function(f"inner_{kernel}").linkage = "internal"
        module.verify()
        return module

    def _optimise(self, module: Any) -> None:
        tuning = llvm.create_pipeline_tuning_options(speed_level=3)
        tuning.loop_vectorization = tuning.slp_vectorization = True
        tuning.loop_interleaving = tuning.loop_unrolling = True
        builder = llvm.create_pass_builder(self._machine, tuning)
        with two_vectors_at_a_time():
            builder.getModulePassManager().run(module, builder)


_HELPER = r"(?:9edge_mdda7kernels|10benchmarks8arm_cost)"
"""How the names of row helpers begin, mangled: the packages that they are from."""

_ENTRY = """\
target triple = "{triple}"
target datalayout = "{layout}"
declare i32 @{inner}(ptr, ptr, {types})
define void @{symbol}(ptr %slots) {{
{loads}
  %result = alloca ptr
  %exception = alloca ptr
  %status = call i32 @{inner}(ptr %result, ptr %exception, {arguments})
  ret void
}}
"""


def required_features(target: Target) -> tuple[str, ...]:
    """Linux's names of the optional features that the code for a target needs.

    For a CPU by name, a feature counts as used where the machine code changes without it: most ARM
    libraries use none. The host has what it has, so there all that it has count.
    """
    optional = OPTIONAL_FEATURES[target.arch]
    if target.features:
        return tuple(linux for name, linux in optional.items() if f"+{name}" in target.features.split(","))
    code = Builder(target).assembly()
    if Builder(target, tuple(optional)).assembly() == code:
        return ()
    return tuple(linux for name, linux in optional.items() if Builder(target, (name,)).assembly() != code)
