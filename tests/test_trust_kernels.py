"""Machine code: what was checked is what is loaded, and a damaged cache, or one on a full disk, costs time alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mdda.errors import KernelError
from edge_mdda.mdda.kernels import native

pytest.importorskip("numba")


# -- native: the checked bytes are loaded ------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> native.Library:
    pytest.importorskip("elftools", reason="the extra 'export' is not installed")
    from export.native.build import build

    return build("host", tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def library(built: native.Library, tmp_path: Path, monkeypatch) -> native.Library:
    """A copy, and nothing loaded yet."""
    for path in built.path.parent.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(native, "_shared", {})
    return native.read_descriptor(next(tmp_path.glob("kernels-*.json")))


EVIL = r"""
#include <stdio.h>
#include <stdlib.h>
__attribute__((constructor)) static void evil(void) { FILE *f = fopen(getenv("EVIL"), "w"); if (f) fclose(f); }
"""


@pytest.fixture
def evil(tmp_path: Path, monkeypatch) -> tuple[Path, Path]:
    """A library that writes a file as soon as it is loaded, and that file."""
    if not shutil.which("gcc"):
        pytest.skip("needs a compiler, to make a library that does harm")
    (tmp_path / "evil.c").write_text(EVIL)
    made, mark = tmp_path / "evil.so", tmp_path / "mark"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", made, tmp_path / "evil.c"], check=True)
    monkeypatch.setenv("EVIL", str(mark))
    return made, mark


def test_the_harm_would_be_seen(evil, tmp_path):
    import ctypes

    ctypes.CDLL(str(evil[0]))
    assert evil[1].exists()


@pytest.mark.parametrize("memory", [True, False])
def test_a_library_exchanged_between_check_and_load_is_not_loaded(library, evil, monkeypatch, memory):
    made, mark = evil
    check = native.check

    def exchanged(checked: native.Library) -> bytes:
        content = check(checked)
        os.replace(shutil.copy(made, made.with_name("copy.so")), checked.file)
        return content

    monkeypatch.setattr(native, "check", exchanged)
    if not memory:
        monkeypatch.setattr(
            native, "_from_memory", lambda content: (_ for _ in ()).throw(PermissionError(13, "noexec"))
        )
    functions = native.load(library)
    assert set(functions) == set(library.kernels)
    assert not mark.exists()
    monkeypatch.setattr(native, "check", check)
    with pytest.raises(KernelError, match="damaged"):
        native.load(library)
    assert not mark.exists()


def test_the_memory_that_is_loaded_cannot_be_changed(library):
    native.load(library)
    ((_, descriptor),) = native._shared.values()
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)


def test_two_libraries_stay_two(library):
    first = native.load(library)
    content = Path(library.file).read_bytes() + b"\0"  # another hash, the same code
    assert native._loaded(content) is not next(iter(native._shared.values()))[0]
    assert set(native.load(library)) == set(first)
    assert len(native._shared) == 2


def test_a_private_file_is_gone_afterwards(library, tmp_path, monkeypatch):
    import tempfile

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    native._from_private_file(Path(library.file).read_bytes())
    assert not list(folder.iterdir())


# -- Numba's cache -------------------------------------------------------------------------------------------


@pytest.fixture
def one_kernel(monkeypatch) -> None:
    """The smallest kernel alone: compiling all takes half a minute."""
    from edge_mdda.mdda.kernels import jit

    name = min(jit.REGISTRY, key=lambda name: len(jit.REGISTRY[name].signature))
    monkeypatch.setattr(jit, "REGISTRY", {name: jit.REGISTRY[name]})


@pytest.fixture
def cache(one_kernel, tmp_path: Path, monkeypatch) -> Path:
    from numba.core import config

    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def files_of(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*.nb[ic]"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("kind", [".nbi", ".nbc"])
def test_a_cache_that_was_cut_off_is_made_anew(cache, caplog, kind, share):
    from edge_mdda.mdda.kernels import jit

    assert jit.load()
    cut = next(path for path in files_of(cache) if path.suffix == kind)
    whole = cut.read_bytes()
    cut.write_bytes(whole[: int(share * len(whole))])
    caplog.clear()
    assert all(callable(kernel) for kernel in jit.load().values())
    assert len(caplog.messages) == 1 and "damaged" in caplog.messages[0]
    caplog.clear()
    jit.load()
    assert files_of(cache) and not caplog.records  # it is whole again


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_while_kernels_are_kept_is_one_line(cache, full_disk, monkeypatch, caplog):
    from edge_mdda.mdda.kernels import jit

    monkeypatch.setenv("XDG_CACHE_HOME", str(full_disk))
    kernels = jit.load()
    assert all(callable(kernel) for kernel in kernels.values())
    assert len(caplog.messages) == 1 and "No space left" in caplog.messages[0]
    assert not [path for path in full_disk.rglob("*") if ".tmp." in path.name]
