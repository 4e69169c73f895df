"""DICOMweb: objects are stored by STOW-RS and asked for by QIDO-RS (PS3.18, 10), with the standard library's client.

No redirect is followed and no proxy asked: pictures go where they were told to go.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from edge_mdda.errors import StationError
from edge_mdda.station.outbox import NotReachedError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from edge_mdda.station.dicom_send import Archive

TOKEN_SETTING = "EDGE_MDDA_ARCHIVE_TOKEN"
"""Environment variable with a bearer token, for an archive that wants one."""
TIMEOUT = 60.0  # seconds without a byte
MAX_ANSWER = 1 << 22  # bytes
JSON = "application/dicom+json"
SOP_INSTANCE, FAILED = "00080018", "00081198"  # SOP Instance UID, Failed SOP Sequence (PS3.6)


class Web:
    """A connection to one archive."""

    def __init__(self, to: Archive) -> None:
        self.to, self.path = to, urlsplit(to.title).path
        token = os.environ.get(TOKEN_SETTING, "")
        if not token.isascii() or not token.isprintable():
            raise StationError(f"{TOKEN_SETTING}: not a token: one line of ASCII is expected")
        self.headers = {"Accept": JSON, **({"Authorization": f"Bearer {token}"} if token else {})}
        self.connection: http.client.HTTPConnection
        if to.tls:
            self.connection = http.client.HTTPSConnection(to.host, to.port, timeout=TIMEOUT, context=to.context())
        else:
            self.connection = http.client.HTTPConnection(to.host, to.port, timeout=TIMEOUT)

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, Any]:
        """The status of an answer, and its JSON where there is one."""
        headers = {**self.headers, **({"Content-Type": kind} if kind else {})}
        try:
            self.connection.request(method, self.path + path, body, headers)
            answer = self.connection.getresponse()
            content = answer.read(MAX_ANSWER)
            rest = answer.read(1)
        except ssl.SSLCertVerificationError as error:
            raise NotReachedError(f"{self.to.title}: its certificate is not trusted ({error.verify_message})") from None
        except (OSError, http.client.HTTPException) as error:
            raise NotReachedError(f"{self.to.title}: not reached ({error or type(error).__name__})") from None
        if rest:
            raise StationError(f"{self.to.title}: its answer is too long")
        try:
            return answer.status, json.loads(content) if content.strip() else []
        except ValueError:
            return answer.status, []

    def has(self, dataset: Dataset) -> bool:
        """Whether the archive knows the object."""
        study, series, instance = (
            quote(str(uid), safe="")
            for uid in (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
        )
        path = f"/studies/{study}/series/{series}/instances?SOPInstanceUID={instance}"
        status, found = self.ask("GET", path)
        if status in (204, 404):  # nothing found: both are in use for a study that is not there
            return False
        if status != 200 or not isinstance(found, list):
            raise StationError(f"{self.to.title}: answered a query with status {status}")
        return any(
            isinstance(one, dict) and str(dataset.SOPInstanceUID) in one.get(SOP_INSTANCE, {}).get("Value", [])
            for one in found
        )


def send(files: Sequence[Path], datasets: Sequence[Dataset], to: Archive) -> None:
    """Send what is not there; on return all is.

    Raises
    ------
    StationError
        Something is not; one line that says why.
    """
    web = Web(to)
    try:
        if not files:
            status, _ = web.ask("GET", "/studies?limit=1")
            if status not in (200, 204):
                raise StationError(f"{to.title}: answered a query with status {status}")
        wanted = [path for path, dataset in zip(files, datasets, strict=True) if not web.has(dataset)]
        if wanted:
            boundary = os.urandom(16).hex()
            parts = [
                f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + path.read_bytes() + b"\r\n"
                for path in wanted
            ]
            body = b"".join(parts) + f"--{boundary}--\r\n".encode()
            kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
            status, answer = web.ask("POST", "/studies", body, kind)
            if status not in (200, 202) or (isinstance(answer, dict) and answer.get(FAILED, {}).get("Value")):
                raise StationError(f"{to.title}: refused the objects with status {status}")
        for path, dataset in zip(files, datasets, strict=True):
            if path in wanted and not web.has(dataset):
                raise StationError(f"{to.title}: accepted {path.name}, but has no such object")
    finally:
        web.connection.close()
