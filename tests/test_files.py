"""Bytes in and out: every way in which a path or a stream can be bad."""

from __future__ import annotations

import io
import os
import socket
import stat
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from made_files import (
    SAMPLES,
    picture,
    refusal,
    run_python,
)

from edge_mdda import files
from edge_mdda.errors import ImageTooLargeError, UnreadableImageError
from edge_mdda.picture.decode import Limits, decode, write_png

# --- bad paths and streams ------------------------------------------------------------------------------------------


def test_bad_paths(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    cases = {
        str(tmp_path / "missing.jpg"): "no such file",
        str(empty): "empty",
        str(empty / "below"): "not a folder",
        str(tmp_path): "folder",
        str(fifo): "pipe",
        "/dev/null": "device",
        "/dev/zero": "device",
        str(loop): "circle",
        "x" * 5000: "too long",
        "nul\0byte": "impossible character",
        "": "no such file",
    }
    started = time.monotonic()
    for path, words in cases.items():
        message = refusal(path)
        assert words in message
        assert not path or path not in message  # the caller names the file
        with pytest.raises(UnreadableImageError):
            files.read_bytes(path)
    assert time.monotonic() - started < 10


def test_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert "socket" in refusal("s")


def test_a_pipe_put_in_place_between_check_and_open_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo, plain = tmp_path / "fifo", tmp_path / "plain"
    os.mkfifo(fifo)
    plain.write_bytes(b"x")
    real = os.stat(plain)
    monkeypatch.setattr(files.os, "stat", lambda path: real)
    assert "pipe" in refusal(fifo)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(SAMPLES["PNG"]())
    path.chmod(0)
    assert "permission" in refusal(path)


@pytest.mark.parametrize("number", [13, 5])
def test_system_errors_become_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"x")

    def fail(*_: object) -> int:
        raise OSError(number, "raw words of the system")

    monkeypatch.setattr(files.os, "open", fail)
    assert {13: "permission", 5: "card"}[number] in refusal(path)


def test_too_large_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    monkeypatch.setattr(files, "_read_all", lambda *_: pytest.fail("was read"))
    assert "limit of 32 MiB" in refusal(path)


def test_read_stream() -> None:
    data = SAMPLES["PNG"]()
    limits = Limits(max_bytes=len(data))
    assert files.read_stream(io.BytesIO(data), limits) == data
    endless = io.BytesIO(data + bytes(1000))
    with pytest.raises(ImageTooLargeError):
        files.read_stream(endless, limits)
    assert endless.tell() == len(data) + 1
    closed = io.BytesIO(data)
    closed.close()
    for stream, words in ((io.BytesIO(), "empty"), (closed, "closed"), (io.StringIO("text"), "text")):
        with pytest.raises(UnreadableImageError, match=words):
            files.read_stream(stream)  # type: ignore[arg-type]


def test_read_stream_takes_short_reads_together() -> None:
    reader, writer = os.pipe()
    data = SAMPLES["BMP"]()

    def feed() -> None:
        with open(writer, "wb", buffering=0) as out:
            for at in range(0, len(data), 1000):
                out.write(data[at : at + 1000])

    thread = threading.Thread(target=feed)
    thread.start()
    with open(reader, "rb", buffering=0) as stream:
        assert files.read_stream(stream) == data
    thread.join()


# --- write_png ------------------------------------------------------------------------------------------------------


def test_write_png_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"old")
    write_png(path, picture())
    assert np.array_equal(decode(path.read_bytes()), picture())
    write_png(str(path), picture()[:, ::-1])  # a view
    assert np.array_equal(decode(path.read_bytes()), picture()[:, ::-1])
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    link = tmp_path / "link.png"
    link.symlink_to(path)
    write_png(link, picture())
    assert link.is_symlink() and np.array_equal(decode(path.read_bytes()), picture())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.png", "out.png"]


def test_write_png_bad_targets(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for target, words in (
        (tmp_path / "none" / "out.png", "check the name"),
        (tmp_path / "file" / "out.png", "not a folder"),
        (tmp_path, "folder"),
        (tmp_path / "fifo", "pipe"),
        ("nul\0", "impossible"),
    ):
        with pytest.raises(UnreadableImageError, match=words):
            write_png(target, picture())
    # Devices are not tried: were the check ever lost, root would replace a real one by a file.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fifo", "file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_write_png_leaves_the_old_file_when_the_disk_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "raw words")

    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(UnreadableImageError, match="disk is full"):
        write_png(path, picture())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_png_when_the_disk_is_really_full() -> None:
    """A file size limit makes the write itself fail, as a full disk does."""
    program = """
        import os, resource, signal, sys, tempfile
        import numpy as np
        from edge_mdda.errors import ImageError
        from edge_mdda.picture.decode import write_png
        folder = tempfile.mkdtemp()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_png(folder + "/out.png", noise)
        except ImageError as error:
            print(len(str(error).splitlines()), os.listdir(folder))
        os.rmdir(folder)
    """
    assert run_python(program).stdout.strip() == "1 []"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_write_png_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UnreadableImageError, match="permission"):
        write_png(tmp_path / "out.png", picture())


def test_write_png_refuses_other_arrays(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "out.png", picture().astype(np.float32))
    assert not list(tmp_path.iterdir())
