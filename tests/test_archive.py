"""Archives on Dask: each picture is one row whatever is killed, and the rows are those of the screener."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import archive_worker
import cv2
import numpy as np
import pytest

from edge_mdda.files import Limits
from edge_mdda.screening import Screener
from export.archive.listing import pictures_of, read_picture
from export.dataset import DatasetError

ROOT = Path(__file__).resolve().parents[1]
GOOD, PART, BATCH = 50, 8, 3
BAD = {"broken.jpg": b"no picture", "empty.png": b"", "photo.heic": b"\0\0\0\x18ftypheic"}
TIMEOUT_S = 240  # of one run; a busy machine starts processes slowly

pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'cluster' is not installed")
pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Drawn pictures, in folders, and some that are none."""
    root = tmp_path_factory.mktemp("archive") / "pictures"
    (root / "a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(GOOD):
        image = rng.normal((225, 180, 160), 4, (96, 96, 3)).clip(0, 255).astype(np.uint8)
        cv2.circle(image, (48, 48), int(rng.integers(15, 30)), tuple(map(int, rng.integers(0, 150, 3))), -1)
        cv2.imwrite(str(root / ("a" if k % 3 else ".") / f"{k}.png"), image[..., ::-1])
    for name, content in BAD.items():
        (root / name).write_bytes(content)
    (root / ".hidden.png").write_bytes(b"")
    return root


def command(source: Path | str, out: Path, model: Path, *more: str) -> list[str]:
    size = ["--part", str(PART), "--batch", str(BATCH)]
    where = [] if "--cluster" in more else ["--workers", "2"]
    return [sys.executable, "-m", "export", "archive", str(source), "--out", str(out), "--model", str(model), *size,
            *where, *more]  # fmt: skip


def environment(notes: Path | None = None, **more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    slow = {"DASK_DISTRIBUTED__WORKER__PRELOAD": "archive_worker", archive_worker.NOTES: str(notes)} if notes else {}
    return os.environ | {"PYTHONPATH": path} | slow | more


def archive(*args, notes: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args), cwd=ROOT, env=environment(notes, **more), capture_output=True, text=True, timeout=TIMEOUT_S
    )


def wait_for(condition) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def reference(folder, model, tmp_path_factory) -> tuple[Path, str]:
    """A run that nothing disturbs, and what it prints."""
    out = tmp_path_factory.mktemp("reference") / "results.parquet"
    done = archive(folder, out, model)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*.parquet")}


def test_each_picture_is_one_row_of_the_screener(folder, model, reference):
    out, printed = reference
    rows = pq.read_table(out).to_pylist()
    names = list(pictures_of(str(folder)))
    assert [row["path"] for row in rows] == names and len(names) == GOOD + len(BAD)
    assert [row["position"] for row in rows] == list(range(len(rows)))
    assert {Path(row["path"]).name for row in rows if row["reason"]} == set(BAD)
    assert all((row["advice"] is None) == (row["reason"] is not None) for row in rows)
    with Screener(model) as screener:
        for row in [row for row in rows if row["advice"]][::7]:
            found = screener.screen(row["path"], row["seed"])
            assert (row["advice"], row["label"], row["sha256"]) == (found.advice.action, found.label, found.sha256)
            assert row["purified_a"] == pytest.approx(found.probabilities["a"], abs=1e-6)
            assert row["raw_a"] == row["malignant_raw"] == pytest.approx(found.raw_probabilities["a"], abs=1e-6)
            assert row["seed"] == int(found.sha256[:16], 16)
    assert f"{len(names)} pictures" in printed and f"{len(BAD)} without an answer" in printed
    assert f"{sum(row['advice'] == 'refer' for row in rows)} REFER" in printed
    assert len(parts(out)) == -(-len(names) // PART)


def test_a_killed_worker_loses_no_picture_and_doubles_none(folder, model, reference, tmp_path):
    notes, out = tmp_path / "notes", tmp_path / "results.parquet"
    notes.mkdir()
    with subprocess.Popen(
        command(folder, out, model), cwd=ROOT, env=environment(notes), stdout=subprocess.PIPE, text=True
    ) as run:
        wait_for(lambda: len(parts(out)) >= 1 and len(list(notes.iterdir())) >= 2)
        os.kill(int(min(notes.iterdir()).name), signal.SIGKILL)
        run.communicate(timeout=TIMEOUT_S)
        assert run.returncode == 0
    assert len(list(notes.iterdir())) >= 3  # another worker took its place
    assert parts(out) == parts(reference[0])


def test_a_killed_run_goes_on_where_it_stopped(folder, model, reference, tmp_path):
    notes, out = tmp_path / "notes", tmp_path / "results.parquet"
    notes.mkdir()
    with subprocess.Popen(command(folder, out, model), cwd=ROOT, env=environment(notes)) as run:
        wait_for(lambda: len(parts(out)) >= 2)
        run.kill()
    there = parts(out)
    times = {name: (out / name).stat().st_mtime_ns for name in there}
    assert 2 <= len(there) < len(parts(reference[0]))
    assert pq.read_table(out).num_rows == PART * len(there)  # what is there can be read at any time
    wait_for(lambda: not any(Path(f"/proc/{path.name}").exists() for path in notes.iterdir()))  # no worker is left
    (out / ".0123456789abcdef.tmp").write_bytes(b"half")
    (out / "part-000000.parquet").write_bytes(b"PAR1 damaged PAR1")
    done = archive(folder, out, model)
    assert done.returncode == 0, done.stderr
    assert f"{PART * (len(there) - 1)} of {GOOD + len(BAD)} pictures are there already" in done.stderr
    assert parts(out) == parts(reference[0]) and not list(out.glob(".*"))
    kept = set(there) - {"part-000000.parquet"}
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == {name: times[name] for name in kept}
    again = archive(folder, out, model)  # all is there: no cluster starts
    assert again.returncode == 0 and "pictures/s" not in again.stdout


def test_a_picture_that_kills_its_workers_is_a_row_with_a_reason(folder, model, tmp_path):
    notes, source = tmp_path / "notes", tmp_path / "pictures"
    notes.mkdir()
    source.mkdir()
    for place, path in enumerate(sorted((folder / "a").iterdir())[:5]):
        shutil.copy(path, source / (f"{place}.png" if place != 2 else f"{place}-{archive_worker.KILLER}.png"))
    out = tmp_path / "results.parquet"
    done = archive(source, out, model, notes=notes, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(out).to_pylist()
    assert [bool(row["reason"]) for row in rows] == [False, False, True, False, False]
    assert "ended each time" in rows[2]["reason"]


def test_lists_folders_and_addresses(folder, tmp_path):
    names = list(pictures_of(str(folder)))
    assert len(names) == len(set(names)) and not any("hidden" in name for name in names)
    listed = tmp_path / "list.txt"
    (tmp_path / "near.png").touch()
    listed.write_text(f"near.png\n\n{names[0]}\nmemory://far/x.png\n")
    assert list(pictures_of(str(listed))) == [str(tmp_path / "near.png"), names[0], "memory://far/x.png"]
    assert list(pictures_of(folder.as_uri())) and read_picture(Path(names[0]).as_uri(), Limits())
    assert {Path(name).name for name in pictures_of(folder.as_uri())} - {Path(name).name for name in names} == set()


@pytest.mark.parametrize("source", ["nowhere", "memory://nowhere", "unheard-of://x"])
def test_sources_that_are_not_there(source):
    with pytest.raises(DatasetError):
        list(pictures_of(source))


def refusal(*args) -> str:
    done = archive(*args)
    assert done.returncode == 1 and done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO:")]  # what TFLite says of itself
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_another_setting_source_or_owner_is_refused(folder, model, reference, tmp_path):
    out, _ = reference
    before = parts(out)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(next(folder.glob("*.png")), other / "x.png")
    assert "another preset" in refusal(folder, out, model, "--preset", "mild")
    assert "another source" in refusal(other, out, model)
    with (out / "_lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run is writing there" in refusal(folder, out, model)
    assert "holds something else" in refusal(folder, other, model)
    assert "is a file" in refusal(folder, other / "x.png", model)
    assert parts(out) == before
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no pictures" in refusal(empty, tmp_path / "out", model)
    assert "no such folder or list" in refusal(tmp_path / "nowhere", tmp_path / "out", model)
    assert not (tmp_path / "out").exists()


def test_no_scheduler_at_the_address(folder, model, tmp_path):
    message = refusal(folder, tmp_path / "out", model, "--cluster", "tcp://127.0.0.1:9")
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in message


def test_the_cost_of_a_million_pictures_by_hand():
    from benchmarks.archive import cost

    # 10 pictures a second on two cores: 100,000 s, twice.
    assert cost(10, 2, 0.05) == {"core_hours_per_million": 55.6, "price_per_million": 2.78}
