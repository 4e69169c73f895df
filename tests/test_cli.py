"""The commands as a user runs them: real processes, the real model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mdda import NOTICE, Purifier
from edge_mdda.mdda.params import PRESETS
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.picture.decode import decode

FIELDS = {
    "image", "sha256", "label", "probabilities", "raw_probabilities", "malignant", "disagreement", "advice", "purify",
    "model", "timings_ms",
}  # fmt: skip


def run(*arguments: object, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    completed = subprocess.run(
        [sys.executable, "-m", "edge_mdda", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=300,
        env=os.environ | environment,
    )
    assert b"Traceback" not in completed.stderr, completed.stderr.decode()
    return subprocess.CompletedProcess(
        completed.args, completed.returncode, completed.stdout.decode(), completed.stderr.decode()
    )


def test_demo_prints_the_whole_answer():
    result = run("screen", "--demo", "--seed", 7)
    assert result.returncode == 0
    assert result.stderr == ""
    for text in (
        "melanoma (mel)",
        "melanocytic naevus (nv)",
        "malignant share",
        "disagreement",
        "advice:",
        "seed 7",
        NOTICE,
    ):
        assert text in result.stdout
    assert "\033" not in result.stdout


def test_demo_as_json_has_every_field_and_replays():
    first, again = (json.loads(run("screen", "--demo", "--json", "--seed", 7).stdout) for _ in range(2))
    assert set(first) >= FIELDS
    assert first["purify"] == {"preset": "balanced", "seed": 7, "draws": 1}
    assert set(first["model"]) == {"name", "sha256", "runtime"}
    assert set(first["timings_ms"]) == {"decode", "purify", "classify", "total"}
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    for field in FIELDS - {"timings_ms"}:
        assert first[field] == again[field]


def test_files_folders_and_standard_input_in_one_run(tmp_path):
    for name in ("b.jpg", "a.JPG"):
        shutil.copy(DEMO_IMAGE, tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    result = run("screen", "--json", tmp_path, DEMO_IMAGE, "-", "--seed", 1, stdin=DEMO_IMAGE.read_bytes())
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["a.JPG", "b.jpg", DEMO_IMAGE.name, "-"]
    assert len({line["label"] for line in lines}) == 1


def test_bad_images_cost_one_line_each_and_the_others_are_screened(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes(DEMO_IMAGE.read_bytes()[:9000])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "none").mkdir()
    bad = [tmp_path / n for n in ("empty.jpg", "cut.jpg", "text.png", "missing.png", "none")] + [
        "/dev/null",
        "/dev/zero",
    ]
    result = run("screen", "--json", *bad, DEMO_IMAGE)
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 1
    lines = result.stderr.splitlines()
    assert len(lines) == len(bad)
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"edge-mdda: {path}: ")


def test_a_file_name_cannot_steer_the_terminal(tmp_path):
    name = tmp_path / "red\033[31m\nline.jpg"
    shutil.copy(DEMO_IMAGE, name)
    result = run("screen", name)
    assert result.returncode == 0
    assert "\033" not in result.stdout
    name.write_bytes(b"")
    result = run("screen", name)
    assert len(result.stderr.splitlines()) == 1
    assert "\033" not in result.stderr


def test_a_huge_picture_is_refused_before_anything_large_is_loaded(tmp_path):
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deflate = zlib.compressobj(9)
    rows = b"".join(deflate.compress(bytes(20001)) for _ in range(20000)) + deflate.flush()
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    probe = (
        "import sys; from edge_mdda.cli.main import main; status = main(['screen', sys.argv[1]]);"
        # Not ru_maxrss: that keeps the peak of the parent which forked.
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'));"
        "print(status, peak.split()[1])"
    )
    result = subprocess.run([sys.executable, "-c", probe, str(bomb)], capture_output=True, text=True, timeout=60)
    status, peak_kb = map(int, result.stdout.split())
    assert status == 1
    assert peak_kb < 100_000
    assert len(result.stderr.splitlines()) == 1


def test_save_purified_writes_what_the_classifier_saw(tmp_path):
    result = run("screen", "--demo", "--json", "--seed", 9, "--save-purified", tmp_path / "new")
    answer = json.loads(result.stdout)
    (written,) = (tmp_path / "new").iterdir()
    assert written.name == f"demo-synthetic-{answer['sha256'][:8]}.purified.png"
    picture = cv2.resize(decode(DEMO_IMAGE.read_bytes()), (224, 224), interpolation=cv2.INTER_AREA)
    expected = Purifier(224, 224, PRESETS["balanced"]).purify(picture, 9)
    np.testing.assert_array_equal(decode(written.read_bytes()), expected)


def test_save_purified_into_a_file_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    result = run("screen", "--demo", "--save-purified", tmp_path / "file")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_purify_keeps_the_size_and_replays(tmp_path):
    for name in ("1.png", "2.png"):
        result = run("purify", DEMO_IMAGE, tmp_path / name, "--preset", "mild", "--seed", 5)
        assert result.returncode == 0, result.stderr
        assert "seed 5" in result.stdout
    first, second = (decode((tmp_path / name).read_bytes()) for name in ("1.png", "2.png"))
    picture = decode(DEMO_IMAGE.read_bytes())
    assert first.shape == picture.shape
    np.testing.assert_array_equal(first, second)
    assert 0.2 < np.abs(first.astype(int) - picture).mean() < 8


def test_purify_refuses_what_it_cannot_do(tmp_path):
    assert run("purify", DEMO_IMAGE, tmp_path / "out.jpg").returncode == 2
    result = run("purify", DEMO_IMAGE, tmp_path / "no" / "folder.png")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.zeros((8, 8, 3), np.uint8))
    result = run("purify", small, tmp_path / "out.png")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["screen"],
        ["screen", "--seed", "-1", "--demo"],
        ["screen", "--threads", "0", "--demo"],
        ["screen", "--preset", "heroic", "--demo"],
        ["screen", "--max-megapixels", "0", "--demo"],
        ["screen", "--save-purified", "x", "--purify", "off", "--demo"],
        ["screen", "-", "-"],
        ["diagnose"],
        [],
    ],
)
def test_wrong_usage_has_status_2(arguments):
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""


def test_a_missing_model_is_one_line(tmp_path):
    result = run("screen", "--demo", "--model", tmp_path / "none.onnx")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_limits_can_be_changed():
    assert run("screen", "--demo", "--max-megapixels", "0.2").returncode == 1
    assert run("screen", "--demo", "--max-megabytes", "0.01").returncode == 1


def test_off_says_that_tampering_cannot_be_noticed():
    assert "tampering cannot be noticed" in run("screen", "--demo", "--purify", "off").stdout


def test_a_reader_that_goes_away_is_no_traceback():
    command = [sys.executable, "-m", "edge_mdda", "screen", "--json", *[str(DEMO_IMAGE)] * 3]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) != 0
    assert errors == b""


def test_closed_and_full_streams_are_one_line():
    for redirect, cause in (
        ("- <&-", "standard input"),
        (f"{DEMO_IMAGE} >&-", "closed"),
        (f"{DEMO_IMAGE} >/dev/full", "space"),
    ):
        command = f"{sys.executable} -m edge_mdda screen --json {redirect}"
        result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=120)
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert cause in result.stderr


def test_odd_names_and_encodings_are_no_traceback(tmp_path):
    result = run("screen", "a" * 300)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    name = tmp_path / "lésion.jpg"
    shutil.copy(DEMO_IMAGE, name)
    result = run("screen", name, PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert "###" in result.stdout


def test_a_failed_write_names_its_target_and_keeps_the_answer(tmp_path):
    target = tmp_path / "no" / "folder.png"
    assert run("purify", DEMO_IMAGE, target).stderr.startswith(f"edge-mdda: {target}: ")
    folder = tmp_path / "out"
    seed_run = json.loads(run("screen", "--demo", "--json", "--save-purified", folder).stdout)
    (written,) = folder.iterdir()
    written.unlink()
    written.mkdir()  # now the same image cannot be written again
    result = run("screen", "--demo", "--json", "--save-purified", folder)
    assert result.returncode == 1
    assert json.loads(result.stdout)["sha256"] == seed_run["sha256"]
    assert str(written) in result.stderr


def test_help_imports_neither_numpy_nor_numba():
    probe = (
        "import sys\n"
        "from edge_mdda.cli.main import main\n"
        "try:\n    main(['screen', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'numba', 'cv2', 'onnxruntime'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert result.stderr.strip() == "[]"
    assert "examples:" in result.stdout
    assert " ".join(NOTICE.split()) in " ".join(result.stdout.split())


def test_version_is_the_package_version():
    from edge_mdda import __version__

    assert run("--version").stdout.strip() == f"edge-mdda {__version__}"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/etc/edge-mdda/keys"), "/etc/edge-mdda/keys: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("something odd"), "something odd"),
    ],
)
def test_an_os_error_of_a_command_is_not_told_as_standard_output(error, line, monkeypatch, capsys):
    from edge_mdda.cli import main as command_line
    from edge_mdda.cli import selftest

    def broken(args: object) -> int:
        raise error

    monkeypatch.setattr(selftest, "_run_selftest", broken)
    assert command_line.main(["selftest"]) == 1
    said = capsys.readouterr().err
    assert said == f"edge-mdda: error: {line}\n"
