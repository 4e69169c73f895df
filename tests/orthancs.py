"""A real Orthanc for the tests, on free ports of this machine, and DICOM photographs to send there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from edge_mdda.models import DEMO_IMAGE
from edge_mdda.picture.decode import decode

TITLE = "ORTHANC"
START_SECONDS = 60
WEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
"""Of Debian's package orthanc-dicomweb."""


def program() -> str | None:
    """Where Orthanc is; Debian keeps it out of a user's path."""
    return shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


class Orthanc:
    """Starts on first use of :meth:`start`; may be killed and started again with the same store."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder, (self.http, self.dicom) = folder, free_ports()
        self.process: subprocess.Popen[bytes] | None = None
        settings = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": self.http,
            "DicomPort": self.dicom,
            "DicomAet": TITLE,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomModalities": {"station": ["EDGE-MDDA", "127.0.0.1", 104]},
            "Plugins": [],
            **more,
        }
        folder.mkdir(exist_ok=True)
        self.configuration = folder.parent / f"{folder.name}.json"
        self.configuration.write_text(json.dumps(settings), encoding="utf-8")

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    @property
    def web_address(self) -> str:
        return f"{self.root}/dicom-web/"

    @property
    def address(self) -> str:
        return f"{TITLE}@127.0.0.1:{self.dicom}"

    def start(self) -> None:
        path = program()
        assert path
        self.process = subprocess.Popen(
            [path, str(self.configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.get("system")
                return
            except OSError:
                assert self.process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def get(self, path: str) -> Any:
        return json.loads(self._read(path))

    def file(self, instance: str) -> bytes:
        return self._read(f"instances/{instance}/file")

    def _read(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.root}/{path}", timeout=10) as answer:
            return bytes(answer.read())


class Gate(socketserver.ThreadingTCPServer):
    """TLS in front of a plain port: Debian's Orthanc 1.10.1 crashes at its first HTTPS request (with OpenSSL 3.0)."""

    daemon_threads = True

    def __init__(self, port: int, certificate: Path, key: Path) -> None:
        self.behind = port
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        super().__init__(("127.0.0.1", 0), _Through)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Through(socketserver.BaseRequestHandler):
    server: Gate

    def handle(self) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.server.behind)) as inner,
            self.server.context.wrap_socket(self.request, server_side=True) as outer,
        ):
            back = threading.Thread(target=_copy, args=(inner, outer), daemon=True)
            back.start()
            _copy(outer, inner)
            inner.shutdown(socket.SHUT_RDWR)  # wakes the other direction
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)


def photograph(number: int) -> bytes:
    """A VL photograph as DICOM, the built-in JPEG as it is, with identifiers made from a number."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    content = DEMO_IMAGE.read_bytes()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.4"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.3{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"2.25.1{number}", f"2.25.2{number}"
    dataset.PatientID, dataset.PatientName, dataset.Modality = f"P{number}", "Drawn^Dora", "XC"
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.Rows, dataset.Columns = decode(content).shape[:2]
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 3, 0, "YBR_FULL_422"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = encapsulate([content])
    dataset["PixelData"].VR = "OB"
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()
