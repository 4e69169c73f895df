"""Native kernels: the same pictures as Numba's, here and on emulated boards; and everything that must be refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from edge_mdda.errors import KernelError
from edge_mdda.mdda import kernels
from edge_mdda.mdda.kernels import native
from edge_mdda.mdda.purifier import PRESETS, MddaParams, Purifier

pytest.importorskip("elftools", reason="the extra 'export' is not installed")

from benchmarks.arm_cost import replay
from export.native import codegen, linker
from export.native.build import build

BOARDS = ("cortex-a53", "cortex-a72", "cortex-a76")
SIZES = ((16, 16), (17, 31), (64, 50), (101, 224), (225, 223))  # odd, prime, not a multiple of a vector


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> native.Library:
    """The kernels, compiled for this machine."""
    return build("host", tmp_path_factory.mktemp("host"))


@pytest.fixture
def descriptor(library: native.Library, tmp_path: Path) -> tuple[Path, dict]:
    """A copy of the library to damage: the path of its descriptor and what that says."""
    (tmp_path / library.path.name).write_bytes(library.path.read_bytes())
    path = tmp_path / f"kernels-{library.cpu}.json"
    content = json.loads(next(library.path.parent.glob("kernels-*.json")).read_text())
    path.write_text(json.dumps(content))
    return path, content


@pytest.fixture
def back_end(monkeypatch: pytest.MonkeyPatch):
    """Chooses a back end as the environment would, and forgets it afterwards."""

    def choose(folder: Path, setting: str | None = None) -> kernels.Backend:
        monkeypatch.setenv(native.FOLDER_SETTING, str(folder))
        if setting is None:
            monkeypatch.delenv(kernels.SETTING, raising=False)
        else:
            monkeypatch.setenv(kernels.SETTING, setting)
        kernels.backend.cache_clear()
        return kernels.backend()

    yield choose
    kernels.backend.cache_clear()


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, cwd=ROOT
    )


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# -- the same results -------------------------------------------------------------------------------


def purified(picture: np.ndarray, preset: str, functions: dict | None = None) -> np.ndarray:
    with Purifier(*picture.shape[:2], PRESETS[preset], kernels=functions) as purifier:
        return purifier.purify(picture, seed=11)


@pytest.mark.parametrize("preset", PRESETS)
def test_native_equals_numba_on_photographs(library, kernels, photographs, preset):
    """Both compilers may fuse a multiplication and an addition or not, so now and then a pixel rounds otherwise."""
    for photograph in photographs:
        one, two = (purified(photograph, preset, functions) for functions in (native.load(library), kernels))
        assert difference(one, two) <= 1
        assert np.mean(one != two) < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_native_equals_numba_at_any_size(library, kernels, size):
    picture = np.random.default_rng(size).integers(0, 256, (*size, 3), np.uint8)
    one, two = (purified(picture, "balanced", functions) for functions in (native.load(library), kernels))
    assert difference(one, two) <= 1


def test_two_threads_give_the_same_picture(library, drawn_image):
    with Purifier(224, 224, threads=2, kernels=native.load(library)) as purifier:
        assert np.array_equal(purifier.purify(drawn_image, 11), purified(drawn_image, "balanced", native.load(library)))


@pytest.mark.parametrize("cpu", BOARDS)
def test_an_emulated_board_gives_the_same_picture(cpu, tmp_path, drawn_image, kernels):
    try:
        replay.find_tools()
        linker.find_linker(codegen.AARCH64)
    except (replay.ReplayError, linker.LinkError) as error:
        pytest.skip(str(error))
    board = build(cpu, tmp_path)
    assert (board.arch, board.cpu, board.features) == (codegen.AARCH64, cpu, ())  # none: any ARM board runs it
    for picture, preset in ((drawn_image, "balanced"), (drawn_image[:101, :67].copy(), "strong")):
        recording, here = replay.record(picture, preset, 11, board.kernels)
        there, _ = replay.replay(recording, board, cpu)
        assert difference(here, picture) > 0  # it did purify
        assert difference(there, here) <= 1


def test_an_instruction_that_the_board_lacks_stops_the_replay(monkeypatch, tmp_path, drawn_image):
    """A library for a CPU with SVE must not pass for one that a Cortex-A53 can run."""
    try:
        replay.find_tools()
    except replay.ReplayError as error:
        pytest.skip(str(error))
    monkeypatch.setattr("export.native.build.required_features", lambda target: ())  # as if nobody had looked
    wide = build("neoverse-v1", tmp_path)
    recording, _ = replay.record(drawn_image[:32, :32].copy(), "mild", 1, wide.kernels)
    with pytest.raises(replay.ReplayError):
        replay.replay(recording, wide, "cortex-a53")


# -- the library ------------------------------------------------------------------------------------


def test_the_library_needs_nothing_and_shows_only_its_kernels(library, kernels):
    from elftools.elf.elffile import ELFFile

    assert linker.undefined_symbols(library.path.read_bytes()) <= linker.FROM_C
    with library.path.open("rb") as file:
        dynamic = ELFFile(file)
        shown = {symbol.name for symbol in dynamic.get_section_by_name(".dynsym").iter_symbols() if symbol.name}
        assert not list(dynamic.get_section_by_name(".dynamic").iter_tags("DT_NEEDED"))
    assert shown - linker.FROM_C == {native.SYMBOL_PREFIX + name for name in kernels}


def test_a_build_is_reproducible_and_replaces_the_old_one(library, descriptor):
    path, content = descriptor
    old = path.with_name(f"kernels-{library.cpu}-{'0' * 12}.so")
    old.write_bytes(b"an older build")
    again = build("host", path.parent)
    assert again.sha256 == library.sha256
    assert not old.exists() and sorted(p.name for p in path.parent.iterdir()) == [content["library"], path.name]


def test_unknown_cpu_names_the_nearest(tmp_path):
    with pytest.raises(codegen.CodegenError, match="cortex-a72"):
        build("cortex-a772", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_no_linker_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(linker.LinkError, match="ziglang"):
        build("cortex-a53", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="the wheel ziglang is not installed")
def test_the_linker_of_the_zig_wheel_makes_the_same_kernels(monkeypatch, library, tmp_path, drawn_image):
    monkeypatch.setattr("shutil.which", lambda name: None)
    other = build("host", tmp_path)
    assert "ziglang" in linker.find_linker(library.arch)
    picture = drawn_image[:40, :56].copy()
    assert np.array_equal(
        purified(picture, "mild", native.load(other)), purified(picture, "mild", native.load(library))
    )


def test_foreign_symbols_are_refused():
    import llvmlite.binding as llvm

    target = codegen.target_of("cortex-a53")
    machine = llvm.Target.from_triple(target.triple).create_target_machine(cpu=target.cpu)
    caller = "declare void @puts(ptr)\ndefine void @f(ptr %text) {\n call void @puts(ptr %text)\n ret void\n}\n"
    module = llvm.parse_assembly(f'target triple = "{target.triple}"\n{caller}')
    with pytest.raises(linker.LinkError, match="puts"):
        linker.link(machine.emit_object(module), target.arch)


# -- which back end ---------------------------------------------------------------------------------


def test_a_library_that_fits_is_used(back_end, library):
    chosen = back_end(library.path.parent)
    assert (chosen.name, chosen.cpu, chosen.library) == ("native", library.cpu, str(library.path))
    assert back_end(library.path.parent, "numba").name == "numba"


def test_without_a_library_numba_is_used_in_silence(back_end, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert back_end("").name == "numba"
    assert not caplog.records


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_chosen_folder_without_a_library_is_named(back_end, tmp_path, caplog, name):
    (tmp_path / "empty").mkdir()
    assert back_end(tmp_path / name).name == "numba"
    assert str(tmp_path / name) in caplog.text


def test_a_named_pipe_is_no_descriptor(back_end, tmp_path, caplog):
    os.mkfifo(tmp_path / "kernels-pipe.json")
    assert back_end(tmp_path).name == "numba"
    assert "is no file" in caplog.text


def test_the_signatures_are_those_of_the_sources(kernels):
    from edge_mdda.mdda.kernels.registry import REGISTRY

    ours = {n: s.signature for n, s in REGISTRY.items() if s.function.__module__.startswith("edge_mdda.")}
    assert ours == native.SIGNATURES
    assert kernels.keys() == native.SIGNATURES.keys()


def test_every_optional_arm_feature_can_be_asked_of_the_system():
    known = native.ARM_HWCAP_BITS.keys() | native.ARM_HWCAP2_BITS.keys()
    assert set(codegen.OPTIONAL_FEATURES[codegen.AARCH64].values()) <= known


def test_native_kernels_without_denoising_and_with_all_stages(library, kernels, drawn_image):
    """Both pass an empty schedule, which has no address."""
    picture = drawn_image[:48, :40].copy()
    for params in (MddaParams(n_blocks=1, lam=0.0), MddaParams(n_blocks=2, lam=(0.0, 3.0, 3.0, 3.0))):
        one, two = (
            Purifier(48, 40, params, kernels=k).purify_stages(picture, 5) for k in (native.load(library), kernels)
        )
        assert one.keys() == two.keys()
        assert all(np.allclose(one[name], two[name], atol=1e-2) for name in one)


def test_native_can_be_demanded(back_end, tmp_path):
    with pytest.raises(KernelError, match="no native kernels found"):
        back_end(tmp_path, "native")
    with pytest.raises(KernelError, match="EDGE_MDDA_KERNELS must be native or numba"):
        back_end(tmp_path, "fast")


def change(key: str, value: object):
    return lambda path, content: path.write_text(json.dumps({**content, key: value}))


def damage(path: Path, content: dict) -> None:
    file = path.with_name(content["library"])
    file.write_bytes(file.read_bytes()[:-100])


def foreign(path: Path, content: dict) -> None:
    """A library that is none, with a descriptor that says it is right."""
    file = path.with_name(content["library"])
    file.write_bytes(b"\x7fELF but not really")
    change("sha256", hashlib.sha256(file.read_bytes()).hexdigest())(path, content)


BAD_LIBRARIES = {
    "other ABI": (change("abi", 0), "has ABI 0"),
    "other sources": (change("source_sha256", "0" * 64), "other kernel sources"),
    "other architecture": (change("arch", "riscv64"), "for Linux on riscv64"),
    "missing feature": (change("features", ["avx1024"]), "needs avx1024, which this CPU lacks"),
    "damaged": (damage, "is damaged"),
    "no library": (lambda path, content: path.with_name(content["library"]).unlink(), "No such file"),
    "not an ELF file": (foreign, "cannot be loaded"),
    "unknown kernel": (change("kernels", {"absent": "void(f4)"}), "other kernels than this version's"),
    "other signature": (
        change("kernels", native.SIGNATURES | {"pack": "void(i4)"}),
        "other kernels than this version's",
    ),
    "no kernels": (change("kernels", {}), "other kernels than this version's"),
    "a zero in the name": (change("library", "kernels\0.so"), "embedded null byte"),
    "no JSON": (lambda path, _: path.write_text("{"), "does not describe"),
    "a list": (lambda path, _: path.write_text("[]"), "does not describe"),
    "deep": (lambda path, _: path.write_text("[" * 60_000), "does not describe"),
    "huge": (lambda path, _: path.write_text(" " * 2**17), "does not describe"),
    "numbers": (change("cpu", 5), "does not describe"),
    "elsewhere": (change("library", "../kernels.so"), "does not describe"),
}


@pytest.mark.parametrize("case", BAD_LIBRARIES)
def test_a_library_that_does_not_fit_is_refused_in_one_line(back_end, descriptor, caplog, case):
    spoil, complaint = BAD_LIBRARIES[case]
    path, content = descriptor
    spoil(path, content)
    with caplog.at_level(logging.WARNING):
        assert back_end(path.parent).name == "numba"
    (record,) = caplog.records
    assert (complaint in record.getMessage() and str(path.parent) in record.getMessage()) or "argument" in complaint
    assert "\n" not in record.getMessage()
    with pytest.raises(KernelError):
        back_end(path.parent, "native")


def test_wrong_arrays_raise_and_do_not_reach_the_machine_code(library):
    plane, rgb = np.zeros((20, 20), np.float32), np.zeros((20, 20, 3), np.uint8)
    pack = native.load(library)["pack"]
    pack(plane, rgb, 0)
    for arguments in ((plane.astype(float), rgb, 0), (plane[0], rgb, 0), (plane[:, ::2], rgb, 0), (plane.T, rgb, 0)):
        with pytest.raises(TypeError):
            pack(*arguments)
    with pytest.raises((ValueError, TypeError)):
        pack(plane, rgb)


# -- programs ---------------------------------------------------------------------------------------

NO_NUMBA = "import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None;"
SCREEN = (
    "import sys; from edge_mdda.cli.main import main; sys.exit(main(['screen', '--demo', '--json', '--seed', '3']))"
)


def test_screening_needs_no_numba_with_native_kernels(library):
    done = python(NO_NUMBA + SCREEN, EDGE_MDDA_KERNELS_DIR=str(library.path.parent))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kernels"] == {"backend": "native", "cpu": library.cpu}
    other = python(SCREEN, EDGE_MDDA_KERNELS="numba")
    assert json.loads(other.stdout)["kernels"]["backend"] == "numba"


def test_without_any_kernels_one_line_says_what_to_do(tmp_path):
    done = python(NO_NUMBA + SCREEN, EDGE_MDDA_KERNELS_DIR=str(tmp_path))
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and "python -m export kernels" in done.stderr


def test_the_command_line_writes_a_library(tmp_path):
    command = [sys.executable, "-m", "export", "kernels", "--out", str(tmp_path / "made"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["file"]).is_file()
    bad = subprocess.run([*command[:4], "--cpu", "zx81"], capture_output=True, text=True, cwd=ROOT)
    assert bad.returncode == 1 and bad.stderr.startswith("export: LLVM knows no CPU 'zx81'")
