"""The outbox: nothing lost, nothing twice, whatever is killed; and a real Orthanc at its other end."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from orthancs import WEB_PLUGIN, Gate, Orthanc, photograph, program

from edge_mdda import NOTICE
from edge_mdda.errors import StationError
from edge_mdda.station.network import make_certificate
from edge_mdda.station.outbox import FIRST_WAIT, LONGEST_WAIT, NotReachedError, Outbox

ROOT = Path(__file__).resolve().parents[1]
KILLS = 60


def visit(folder: Path, number: int = 1) -> list[Path]:
    """Two files that stand for a picture and a result."""
    folder.mkdir(exist_ok=True)
    paths = [folder / "image.dcm", folder / "result.dcm"]
    for path in paths:
        path.write_bytes(f"{path.name} {number}".encode() * 1000)
    return paths


class Other:
    """An archive that keeps what it gets, and fails as told."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.fails: type[StationError] | None = None

    def __call__(self, files: list[Path]) -> None:
        if self.fails:
            raise self.fails("out of order")
        self.got += [path.read_bytes() for path in files]


def test_what_arrived_is_sent_once(tmp_path):
    outbox, other = Outbox(tmp_path / "box"), Other()
    files = visit(tmp_path / "visit")
    name = outbox.add(files, 0.0)
    assert outbox.add(files, 5.0) == name
    assert [item.files for item in outbox.items()] == [("image.dcm", "result.dcm")]
    assert outbox.send(other, 10.0) == (1, 0)
    assert other.got == [path.read_bytes() for path in files]
    assert outbox.add(files, 20.0) == name
    assert outbox.send(other, 30.0) == (0, 0)
    assert outbox.sent() == 1
    assert sorted(path.name for path in outbox.folder.iterdir()) == [".lock", "sent"]


def test_failures_wait_longer_each_time_and_are_kept(tmp_path):
    outbox, other = Outbox(tmp_path / "box"), Other()
    outbox.add(visit(tmp_path / "visit"), 0.0)
    other.fails = StationError
    now, waits = 0.0, []
    for _ in range(10):
        assert outbox.send(other, now) == (0, 1)
        (item,) = Outbox(tmp_path / "box").items()
        assert item.error == "out of order"
        waits.append(item.next_try - now)
        assert outbox.send(Other(), item.next_try - 1) == (0, 1)  # not yet
        now = item.next_try
    assert waits[:3] == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT]
    assert waits[-1] == LONGEST_WAIT
    other.fails = None
    assert outbox.send(other, now - 10 * LONGEST_WAIT) == (1, 0)  # the clock was set back: no wait of years
    assert len(other.got) == 2


def test_urgent_sends_before_its_time(tmp_path):
    outbox, other = Outbox(tmp_path / "box"), Other()
    outbox.add(visit(tmp_path / "visit"), 0.0)
    other.fails = StationError
    outbox.send(other, 0.0)
    other.fails = None
    assert outbox.send(other, 1.0) == (0, 1)
    assert outbox.send(other, 1.0, urgent=True) == (1, 0)


def test_one_bad_visit_does_not_hold_the_others_and_an_archive_that_is_away_is_asked_once(tmp_path):
    outbox, other = Outbox(tmp_path / "box"), Other()
    for number in range(3):
        outbox.add(visit(tmp_path / f"visit{number}", number), float(number))
    calls = []

    def picky(files: list[Path]) -> None:
        calls.append(files)
        if b" 0" in files[0].read_bytes():
            raise StationError("not this one")
        other(files)

    assert outbox.send(picky, 10.0) == (2, 1)
    assert len(calls) == 3
    away = Outbox(tmp_path / "away")
    for number in range(3):
        away.add(visit(tmp_path / f"visit{number}", number), float(number))
    other.fails, calls = NotReachedError, []
    assert away.send(picky, 10.0) == (0, 3)
    assert len(calls) <= 2


def test_two_senders_do_not_send_twice(tmp_path):
    outbox, other = Outbox(tmp_path / "box"), Other()
    outbox.add(visit(tmp_path / "visit"), 0.0)
    with outbox.alone() as first:
        assert first
        assert Outbox(tmp_path / "box").send(other, 10.0) == (0, 1)
    assert other.got == []
    assert outbox.send(other, 10.0) == (1, 0)


def test_bad_input_leaves_nothing(tmp_path):
    outbox = Outbox(tmp_path / "box")
    files = visit(tmp_path / "visit")
    for wrong in ([], [files[0], tmp_path / "none.dcm"], [files[0], files[0]], [tmp_path]):
        with pytest.raises(StationError):
            outbox.add(wrong, 0.0)
    assert sorted(path.name for path in outbox.folder.iterdir()) == ["sent"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StationError):
        Outbox(tmp_path / "file")


def test_an_item_with_a_damaged_note_is_not_lost(tmp_path):
    outbox, other = Outbox(tmp_path / "box"), Other()
    files = visit(tmp_path / "visit")
    name = outbox.add(files, 0.0)
    (outbox.folder / name / "item.json").write_text("{", encoding="utf-8")
    (item,) = outbox.items()
    assert "damaged" in item.error
    assert outbox.send(other, 10.0) == (1, 0)
    assert other.got == [path.read_bytes() for path in files]


CHILD = """
import sys, time
from pathlib import Path
from edge_mdda.station.outbox import Outbox
box, visits, other = (Path(text) for text in sys.argv[1:4])
def keep(files):
    for path in files:
        content = path.read_bytes()
        (other / ".part").write_bytes(content)
        (other / ".part").rename(other / (content[:16].decode().replace(" ", "-").replace(".", "-")))
outbox = Outbox(box)
for folder in sorted(visits.iterdir()):
    outbox.add(sorted(folder.glob("*.dcm")), time.time())
    print(folder.name, flush=True)
outbox.send(keep, time.time(), urgent=True)
"""


def test_kills_lose_nothing(tmp_path):
    visits, other, box = (tmp_path / name for name in ("visits", "other", "box"))
    visits.mkdir()
    other.mkdir()
    moments = random.Random(5)
    took = 0.3
    for number in range(KILLS):
        visit(visits / f"v{number:03}", 100 + number)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(box), str(visits), str(other)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(moments.uniform(0.03, took))
        child.send_signal(signal.SIGKILL)
        said, errors = child.communicate()
        assert "Traceback" not in errors
        outbox = Outbox(box)
        waiting = {item.name for item in outbox.items()}
        sent = {path.stem for path in (box / "sent").iterdir()}
        for acknowledged in said.split():
            name = outbox.add(sorted((visits / acknowledged).glob("*.dcm")), 0.0)
            assert name in waiting | sent, "an acknowledged visit was lost"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(box), str(visits), str(other)], cwd=ROOT, capture_output=True, check=True
    )
    assert len(done.stdout.split()) == KILLS
    assert Outbox(box).items() == []
    assert Outbox(box).sent() == KILLS
    assert len([path for path in other.iterdir() if not path.name.startswith(".")]) == 2 * KILLS


# --- a real archive -------------------------------------------------------------------------------------------------


@pytest.fixture
def orthanc(tmp_path):
    pytest.importorskip("pynetdicom", reason="the extra dicom is not installed")
    if program() is None:
        pytest.skip("Orthanc is not installed (Debian's package orthanc)")
    one = Orthanc(tmp_path / "orthanc")
    yield one
    one.kill()


def send(box: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_mdda", "serve", "send", "--outbox", str(box), "--now", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def photographs(folder: Path, *numbers: int) -> list[str]:
    """Folders of one picture each."""
    made = []
    for number in numbers:
        (folder / f"p{number}").mkdir()
        (folder / f"p{number}" / "image.dcm").write_bytes(photograph(number))
        made.append(str(folder / f"p{number}"))
    return made


def test_orthanc_away_then_there_then_killed(tmp_path, orthanc):
    import pydicom
    from pydicom.encaps import generate_frames

    box = tmp_path / "box"
    made = photographs(tmp_path, 1, 2, 3)
    away = send(box, *made, "--to", orthanc.address)
    assert away.returncode == 1
    assert "3 wait" in away.stdout
    assert "not reached" in away.stderr
    assert "Traceback" not in away.stderr
    assert send(box, "--check", "--to", orthanc.address).returncode == 1
    orthanc.start()
    assert "answers" in send(box, "--check", "--to", orthanc.address).stdout
    there = send(box, "--to", orthanc.address)
    assert there.returncode == 0, there.stderr
    assert "3 arrived, 0 wait" in there.stdout
    assert NOTICE in there.stderr
    (instance, *_) = orthanc.get("instances")
    assert len(orthanc.get("instances")) == len(orthanc.get("studies")) == 3
    stored = pydicom.dcmread(io.BytesIO(orthanc.file(instance)))
    ours = pydicom.dcmread(Path(made[0]) / "image.dcm")
    assert next(generate_frames(stored.PixelData, number_of_frames=1)) == next(
        generate_frames(ours.PixelData, number_of_frames=1)
    )
    orthanc.kill()
    more = photographs(tmp_path, 4, 5)
    assert send(box, *more, *made, "--to", orthanc.address).returncode == 1
    orthanc.start()
    answer = json.loads(send(box, "--to", orthanc.address, "--json").stdout)
    assert (answer["arrived"], answer["waiting"]) == (2, [])
    assert len(orthanc.get("instances")) == 5  # each once


def test_a_drawn_visit_arrives_whole(tmp_path, orthanc):
    pytest.importorskip("highdicom", reason="the extra dicom is not installed")
    pytest.importorskip("reportlab", reason="the extra report is not installed")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "edge_mdda", "serve", "demo-visit", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    orthanc.start()
    done = send(tmp_path / "box", str(out), "--to", orthanc.address)
    assert done.returncode == 0, done.stderr
    assert len(orthanc.get("studies")) == 1
    instances = [orthanc.get(f"instances/{one}/simplified-tags") for one in orthanc.get("instances")]
    assert sorted(tags["Modality"] for tags in instances) == ["DMS", "DOC", "SR"]
    assert len({tags["PatientID"] for tags in instances}) == 1


def test_a_visit_that_arrived_before_the_kill_is_not_sent_again(tmp_path, orthanc):
    orthanc.start()
    made = photographs(tmp_path, 1)
    assert send(tmp_path / "box", *made, "--to", orthanc.address).returncode == 0
    changes = orthanc.get("changes")["Last"]
    # Another outbox stands for one whose line of what was sent a kill has prevented.
    assert send(tmp_path / "again", *made, "--to", orthanc.address).returncode == 0
    assert orthanc.get("changes")["Last"] == changes
    assert len(orthanc.get("instances")) == 1


def test_an_archive_that_accepts_and_drops_is_noticed_and_a_stranger_is_told(tmp_path):
    pytest.importorskip("pynetdicom", reason="the extra dicom is not installed")
    if program() is None:
        pytest.skip("Orthanc is not installed (Debian's package orthanc)")
    script = tmp_path / "drop.lua"
    script.write_text("function ReceivedInstanceFilter(dicom, origin, info) return false end\n", encoding="utf-8")
    careless = Orthanc(tmp_path / "careless", LuaScripts=[str(script)], DicomCheckCalledAet=True)
    careless.start()
    try:
        done = send(tmp_path / "box", *photographs(tmp_path, 1), "--to", careless.address)
        assert done.returncode == 1
        assert "0 arrived, 1 wait" in done.stdout
        assert "but has no such object" in done.stderr
        assert careless.get("instances") == []
        stranger = send(tmp_path / "box", "--to", f"NOBODY@127.0.0.1:{careless.dicom}")
        assert stranger.returncode == 1
        assert "refused" in stranger.stderr
    finally:
        careless.kill()


@pytest.fixture
def web_plugin():
    pytest.importorskip("pydicom", reason="the extra dicom is not installed")
    if program() is None or not WEB_PLUGIN.exists():
        pytest.skip("Orthanc with DICOMweb is not installed (Debian's package orthanc-dicomweb)")
    return {"Plugins": [str(WEB_PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}


def test_a_web_archive(tmp_path, web_plugin):
    one = Orthanc(tmp_path / "web", **web_plugin)
    box = tmp_path / "box"
    made = photographs(tmp_path, 1, 2)
    away = send(box, *made, "--to", one.web_address)
    assert away.returncode == 1
    assert "not reached" in away.stderr
    one.start()
    try:
        assert send(box, "--check", "--to", one.web_address).returncode == 0
        assert one.get("instances") == []
        assert send(box, "--to", one.web_address).returncode == 0
        assert len(one.get("instances")) == 2
        changes = one.get("changes")["Last"]
        assert send(tmp_path / "again", *made, "--to", one.web_address).returncode == 0
        assert one.get("changes")["Last"] == changes
        wrong = send(tmp_path / "other", *photographs(tmp_path, 3), "--to", f"{one.root}/elsewhere")
        assert wrong.returncode == 1
        assert "status 404" in wrong.stderr
    finally:
        one.kill()


def test_encrypted_ways(tmp_path, web_plugin):
    certificate, key = make_certificate(tmp_path, ["127.0.0.1"])
    secure = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(certificate),
        "DicomTlsPrivateKey": str(key),
        "DicomTlsTrustedCertificates": str(certificate),
        "DicomTlsRemoteCertificateRequired": False,
    }
    one = Orthanc(tmp_path / "secure", **web_plugin, **secure)
    one.start()
    try:
        with Gate(one.http, certificate, key) as gate:
            web = f"https://127.0.0.1:{gate.server_address[1]}/dicom-web"
            for number, address in enumerate((one.address, web)):
                made = photographs(tmp_path, 20 + number)
                stranger = send(tmp_path / f"box{number}", *made, "--to", address, "--tls")
                assert stranger.returncode == 1  # its certificate is not signed by anybody that the system knows
                assert len(one.get("instances")) == number
                done = send(tmp_path / f"box{number}", "--to", address, "--ca", str(certificate))
                assert done.returncode == 0, done.stderr
                assert len(one.get("instances")) == number + 1
            gate.shutdown()
        open_way = send(tmp_path / "plain", *photographs(tmp_path, 30), "--to", one.address)
        assert open_way.returncode == 1  # not without encryption, where the archive wants it
    finally:
        one.kill()


def test_bad_addresses_cost_one_line(tmp_path):
    for address in ("PACS", "PACS@host", "PACS@host:0", "@host:104", "A" * 17 + "@host:104", "PACS@ho st:104",
                    "http://pacs.example/dicom-web", "https://", "https://me@host/", "https://host:x/"):  # fmt: skip
        done = send(tmp_path / "box", "--to", address)
        assert done.returncode == 1
        assert len(done.stderr.strip().splitlines()) == 1
    assert not os.path.exists(tmp_path / "box")
    lost = send(tmp_path / "box", "--to", "PACS@127.0.0.1:1", "--ca", str(tmp_path / "none.pem"), "--json")
    assert json.loads(lost.stdout)["waiting"] == []  # nothing to send, nothing to complain of
