"""The command itself, in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("nacl")
from station_site import ROOT, command

from benchmarks.station.load import Client
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.station import audit
from edge_mdda.station.store import Store


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.status == 200
        return answer.read().decode()


def serve(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "edge_mdda", "serve", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, **environ})


def test_demo_for_a_newcomer(tmp_path):
    with command("--demo", TMPDIR=str(tmp_path)) as (process, address):
        assert '"ok"' in get(f"{address}/healthz")
        page = get(f"{address}/")
        assert "Drawn Dora" in page and "REFER" in page and "RETAKE" in page
        assert len(list(tmp_path.iterdir())) == 1
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        server_maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "onnxruntime" not in server_maps and "numpy" not in server_maps and "cv2" not in server_maps
        assert any("onnxruntime" in Path(f"/proc/{child}/maps").read_text() for child in children)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode in (0, 130) and "Traceback" not in err and "Drawn" not in out + err
    assert list(tmp_path.iterdir()) == []
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_records_outlive_the_command(tmp_path):
    for _ in range(2):
        with command("--data", str(tmp_path / "data")) as (process, address):
            assert "No pictures today" in get(address + "/")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def test_a_port_in_use_is_one_line_and_leaves_nothing_behind(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = serve("--demo", "--port", str(taken.getsockname()[1]), TMPDIR=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert done.returncode == 1 and "choose another with --port" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("--port", "70000"), ("--demo", "--data", "x"), ("nonsense",)])
def test_wrong_usage(arguments):
    done = serve(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_missing_model_is_one_line(tmp_path):
    done = serve("--demo", "--port", "0", "--model", str(tmp_path / "no.onnx"), TMPDIR=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert done.returncode == 1 and done.stderr.strip().count("\n") == 0 and "no.onnx" in done.stderr


def test_screening_alone_loads_nothing_of_the_station():
    words = (
        "import sys; from edge_mdda.cli.main import main; code = main(['screen', '--demo']);"
        "print(code, sorted(m for m in sys.modules if m.split('.')[0] in ('sqlite3', 'starlette', 'uvicorn', 'jinja2',"
        " 'nacl', 'anyio') or m.startswith('edge_mdda.station')))"
    )
    done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("0 []"), done.stdout + done.stderr


def test_the_package_data_is_declared():
    text = (ROOT / "pyproject.toml").read_text()
    declared = re.search(r'"edge_mdda.station" = \[(.*)\]', text)[1]
    found = {
        path.relative_to(ROOT / "edge_mdda/station")
        for path in (ROOT / "edge_mdda/station").rglob("*")
        if path.is_file()
    }
    patterns = re.findall(r'"([^"]+)"', declared)
    data = [path for path in found if path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts]
    assert data and all(any(path.match(pattern) for pattern in patterns) for path in data)


def send_pictures(address: str, lesion: str, mark: str, acknowledged: list[str]) -> None:
    """Send one picture after the other until the station is gone."""
    with contextlib.closing(Client(address.removeprefix("http://"))) as client:
        client.get("/")
        for count in range(1000):
            try:
                content = DEMO_IMAGE.read_bytes() + f"{mark}-{count}".encode()
                acknowledged.append(client.post(f"{lesion}/pictures", {}, content))
            except (OSError, RuntimeError, http.client.HTTPException):
                return


def test_killed_while_pictures_are_sent_it_keeps_what_it_acknowledged(tmp_path):
    acknowledged: list[str] = []
    for attempt in range(3):
        with command("--data", str(tmp_path / "data")) as (process, address):
            with contextlib.closing(Client(address.removeprefix("http://"))) as client:
                client.get("/")
                patient = client.post("/patients", {"own_id": f"K-{attempt}", "sex": "unknown"})
                lesion = client.post(f"{patient}/lesions", {"site": "face-front"})
            acknowledged += [patient, lesion]
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

            threads = [
                threading.Thread(target=send_pictures, args=(address, lesion, f"{attempt}-{number}", acknowledged))
                for number in range(2)
            ]
            for thread in threads:
                thread.start()
            before = len(acknowledged)
            end = time.monotonic() + 60
            while len(acknowledged) < before + 3 and time.monotonic() < end:
                time.sleep(0.01)
            process.kill()
            for thread in threads:
                thread.join()
            process.wait()
        end = time.monotonic() + 30
        while any(Path(f"/proc/{child}/cmdline").exists() for child in children):  # the worker ends by itself
            assert time.monotonic() < end
            time.sleep(0.05)
    store = Store(tmp_path / "data")
    there = {
        f"/{kind}/{row[0]}"
        for kind in ("patients", "lesions", "pictures")
        for row in store.rows(f"SELECT id FROM {kind}")
    }
    assert len(acknowledged) >= 15 and set(acknowledged) <= there
    assert (
        not store.missing
        and store.row("PRAGMA integrity_check")[0] == "ok"
        and audit.verify(store._connection).broken is None
    )
    assert set(store.blobs.names()) == {row[0] for row in store.rows("SELECT sha256 FROM files")}
    store.close()
