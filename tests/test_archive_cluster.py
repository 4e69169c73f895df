"""Archives on a cluster that is there already: a scheduler and its workers, started as their owner would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mdda.screening import Screener

pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'cluster' is not installed")
pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")

ROOT = Path(__file__).resolve().parents[1]
PICTURES = 12
START_S, RUN_S = 60, 200  # seconds at most; a busy machine is slow
NO_NANNY = ["--no-nanny", "--nthreads", "2", "--host", "127.0.0.1", "--no-dashboard"]


@contextmanager
def started(*command: str, cwd: Path = ROOT) -> Iterator[subprocess.Popen[bytes]]:
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # where it starts counts
    with subprocess.Popen([sys.executable, "-m", *command], cwd=cwd, env=bare, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler on this machine alone, and its address."""
    note = folder / "scheduler.json"
    here = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with started("distributed.cli.dask_scheduler", *here, "--scheduler-file", str(note)) as process:
        end = time.monotonic() + START_S
        while not (note.exists() and note.read_text()):
            assert time.monotonic() < end
            time.sleep(0.05)
        yield json.loads(note.read_text())["address"], process


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    with scheduler(tmp_path_factory.mktemp("scheduler")) as (at, _):
        yield at


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for k in range(PICTURES):
        picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (120, 90), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / f"{k:02}.png"), picture)
    return root


def archive(folder: Path, out: Path, model: Path, address: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "export", "archive", str(folder), "--out", str(out), "--model", str(model)]
    more = ["--cluster", address, "--batch", "2", "--part", "5"]
    return subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=RUN_S)


def test_workers_of_two_threads_give_the_same_answers(folder, address, model, tmp_path):
    out = tmp_path / "results.parquet"
    with started("distributed.cli.dask_worker", address, *NO_NANNY):
        done = archive(folder, out, model, address)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(out).to_pylist()
    assert [row["path"] for row in rows] == [str(path) for path in sorted(folder.iterdir())]
    with Screener(model) as screener:
        for row in rows:
            found = screener.screen(row["path"], row["seed"])
            assert (row["advice"], row["label"]) == (found.advice.action, found.label)
            assert row["purified_a"] == pytest.approx(found.probabilities["a"], abs=1e-6)


def test_workers_without_this_program_are_told_of(folder, address, model, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with started("distributed.cli.dask_worker", address, *NO_NANNY, cwd=elsewhere):
        done = archive(folder, tmp_path / "out", model, address)
    assert done.returncode == 1
    assert "start it in the project's folder" in done.stderr.splitlines()[-1], done.stderr


def test_another_model_on_a_worker_ends_the_run(model, tmp_path):
    from dataclasses import replace

    from export.archive.rows import Settings, screen_batch
    from export.errors import ExportError

    settings = Settings(str(model), None, "balanced", "0" * 64)
    with pytest.raises(ExportError, match="another model file"):
        screen_batch(settings, ["x.png"])
    with pytest.raises(ExportError, match="a worker runs edge_mdda"):
        screen_batch(replace(settings, version="0.0"), ["x.png"])


def test_a_scheduler_that_dies_ends_the_run_in_one_line(folder, model, tmp_path):
    many = tmp_path / "many.txt"
    many.write_text("".join(f"{path}\n" for path in sorted(folder.iterdir()) * 100))
    out = tmp_path / "results.parquet"
    command = [sys.executable, "-m", "export", "archive", str(many), "--out", str(out), "--model", str(model)]
    with (
        scheduler(tmp_path) as (at, process),
        started("distributed.cli.dask_worker", at, *NO_NANNY),
        subprocess.Popen(
            [*command, "--cluster", at, "--batch", "2", "--part", "5"], cwd=ROOT, stderr=subprocess.PIPE, text=True
        ) as run,
    ):
        end = time.monotonic() + RUN_S
        while len(list(out.glob("part-*.parquet"))) < 3:
            assert time.monotonic() < end and run.poll() is None
            time.sleep(0.02)
        process.kill()
        _, error = run.communicate(timeout=RUN_S)
    assert run.returncode == 1 and "Traceback" not in error, error
    assert error.splitlines()[-1].startswith("export: the cluster is gone")
    assert pq.read_table(out).num_rows == 5 * len(list(out.glob("part-*.parquet")))


def test_two_threads_that_load_the_kernels_share_the_cache_folder(monkeypatch):
    """Workers of several threads open a screener in each; Numba's folder is a setting of the whole process."""
    from concurrent.futures import ThreadPoolExecutor

    from numba.core import config

    from edge_mdda.mdda.kernels import jit

    before, seen = config.CACHE_DIR, []

    def compiled(spec, faults):
        time.sleep(0.01)
        seen.append(config.CACHE_DIR)

    monkeypatch.setattr(jit, "_compile", compiled)
    monkeypatch.setattr(jit, "REGISTRY", dict.fromkeys("abc"))
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: jit.load(), range(4)))
    assert len(seen) == 12 and len(set(seen)) == 1 and jit.CACHE_PREFIX in seen[0]
    assert before == config.CACHE_DIR
