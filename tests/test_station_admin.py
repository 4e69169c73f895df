"""What an admin does on the command line: people, the certificate, the network, the audit log."""

from __future__ import annotations

import json
import shutil
import sqlite3
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nacl")
from station_site import ROOT, command

from edge_mdda.station import network


def serve(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "edge_mdda", "serve", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, input=stdin)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def answer(url: str, host: str, trusted: ssl.SSLContext):
    """Status, text and headers of a page that is refused."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host}), context=trusted, timeout=30)
    with caught.value as refused:
        return refused.code, refused.read().decode(), refused.headers


def test_people_are_named_and_the_audit_log_tells_and_shows_a_change(tmp_path):
    data = str(tmp_path / "data")
    assert "first one must be an admin" in one_line(
        serve("add-user", "Omar", "--role", "operator", "--data", data, stdin="918273\n")
    )
    assert serve("add-user", "Ada", "--role", "admin", "--data", data, stdin="473920\n").returncode == 0
    assert "somebody has this name" in one_line(
        serve("--data", data, "add-user", "ada", "--role", "admin", stdin="473920\n")
    )
    assert "PIN: 6 to 128" in one_line(serve("add-user", "Omar", "--role", "operator", "--data", data))
    done = serve("audit", "--data", data)
    assert done.returncode == 0 and "1 entries, unbroken. Head: " in done.stdout
    whole = json.loads(serve("--data", data, "audit", "--json").stdout)
    assert whole["entries"] == 1 and whole["broken"] is None and whole["head"] in done.stdout
    connection = sqlite3.connect(tmp_path / "data" / "station.sqlite")
    assert "473920" not in str(connection.execute("SELECT * FROM users").fetchall())
    connection.executescript("DROP TRIGGER audit_is_not_changed; UPDATE audit SET who = 'nobody'")
    connection.close()
    done = serve("audit", "--data", data)
    assert "entry 1 was changed" in one_line(done)
    assert "Traceback" not in done.stderr


def test_the_audit_of_nothing(tmp_path):
    assert "no such records" in one_line(serve("audit", "--data", str(tmp_path)))
    (tmp_path / "station.sqlite").write_bytes(b"no database" * 100)
    assert "cannot be read" in one_line(serve("audit", "--data", str(tmp_path)))


def test_lan_wants_a_certificate_and_a_pin(tmp_path):
    data = tmp_path / "data"
    assert "edge-mdda serve certificate" in one_line(serve("--lan", "--port", "0", "--data", str(data)))
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    assert serve("certificate", "--data", str(data)).returncode == 0
    assert "add-user" in one_line(serve("--lan", "--port", "0", "--data", str(data)))
    key = data / "tls" / "key.pem"
    key.chmod(0o644)
    assert "chmod 600" in one_line(serve("--lan", "--port", "0", "--data", str(data)))
    key.chmod(0o600)
    key.write_text("nonsense")
    assert "cannot be used together" in one_line(serve("--lan", "--port", "0", "--data", str(data)))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_on_the_network_everything_is_tls_and_asks_for_a_pin(tmp_path):
    data = str(tmp_path / "data")
    made = serve("certificate", "--data", data, "--name", "clinic.test")
    certificate = tmp_path / "data" / "tls" / "certificate.pem"
    assert network.fingerprint(certificate) in made.stdout and "clinic.test" in made.stdout
    assert "exists" in one_line(serve("certificate", "--data", data))
    serve("add-user", "Ada", "--role", "admin", "--data", data, stdin="473920\n")
    with command("--lan", "--name", "clinic.test", "--data", data) as (_, address):
        port = address.rpartition(":")[2]
        assert address == f"https://clinic.test:{port}"
        trusted = ssl.create_default_context(cafile=str(certificate))
        trusted.check_hostname = False
        status, page, headers = answer(f"https://127.0.0.1:{port}/", f"clinic.test:{port}", trusted)
        assert status == 401 and "Enter your PIN" in page and "; Secure" in headers["set-cookie"]
        assert answer(f"https://127.0.0.1:{port}/", "evil.test", trusted)[0] == 421
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)


@pytest.mark.parametrize("words", [["--demo", "--lan"], ["--certificate", "x"], ["--name", "x"], ["add-user", "A"]])
def test_wrong_usage(words):
    done = serve(*words)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_names_and_hosts():
    names = network.names_of(["Clinic.Test"])
    assert names[0] == "clinic.test" and len(names) >= 3
    assert network.hosts_of(["a"], 443, True) == {"a:443", "a"} and network.hosts_of(["a"], 8080, False) == {"a:8080"}
    assert not any(address.startswith("127.") for address in network.own_addresses())


def test_loopback_is_not_heard_elsewhere(tmp_path):
    import socket

    addresses = network.own_addresses()
    if not addresses:
        pytest.skip("this machine has no address but loopback")
    with command("--data", str(tmp_path / "data")) as (_, address), pytest.raises(OSError):
        socket.create_connection((addresses[0], int(address.rpartition(":")[2])), timeout=5)


def test_a_model_that_cannot_be_opened_is_told_at_the_start(tmp_path):
    with command("--data", str(tmp_path / "data"), "--model", str(tmp_path / "no.onnx")) as (process, address):
        line = process.stderr.readline()
        assert "pictures cannot be judged" in line and "no.onnx" in line
        with urllib.request.urlopen(f"{address}/healthz", timeout=30) as page:
            assert page.status == 200
    assert Path(tmp_path / "data" / "station.sqlite").is_file()
