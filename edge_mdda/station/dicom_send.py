"""Send DICOM files to an archive and prove that they arrived: ``python -m edge_mdda.station.dicom_send REQUEST``.

By C-STORE, or by DICOMweb (:mod:`edge_mdda.station.stow`) where the archive's address begins with ``https``. It is a
short-lived child: pynetdicom and pydicom cost 41 MB. A receipt alone proves little (an archive may accept an object and
lose it), so each object is asked for by C-FIND or QIDO-RS, before and after: what is there already is not sent again.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge_mdda.errors import StationError
from edge_mdda.station.outbox import NotReachedError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TIMEOUT = 30.0  # seconds for one answer of the archive
LOOPBACK = ("127.0.0.1", "::1", "localhost")
CHILD_TIMEOUT = 600.0  # seconds for all files of one visit
SUCCESS, PENDING = 0x0000, (0xFF00, 0xFF01)  # statuses (PS3.7, annex C)
WARNINGS = (0xB000, 0xB006, 0xB007)  # stored, with coerced or dropped elements
FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve Information Model - FIND (PS3.4, C.6.2)
ECHO = "1.2.840.10008.1.1"  # Verification (PS3.4, A.4)
_ARCHIVE = re.compile(r"([!-\[\]-~]{1,16})@([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")


@dataclass(frozen=True)
class Archive:
    """Where to send.

    Attributes
    ----------
    title : str
        The archive's application entity title, 1 to 16 characters; of a web archive, its address.
    host : str
    port : int
    own_title : str
        Ours, as the archive knows it.
    tls : bool
        Encrypt, and accept no certificate but one that ``authority`` has signed.
    authority : str
        PEM file; empty: the system's.
    certificate, key : str
        PEM files of our own certificate; empty: none.
    """

    title: str
    host: str
    port: int
    own_title: str = "EDGE-MDDA"
    tls: bool = False
    authority: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def web(self) -> bool:
        """Whether it is spoken to by DICOMweb."""
        return self.title.startswith("http")

    def context(self) -> ssl.SSLContext:
        """How to encrypt.

        Raises
        ------
        StationError
            A PEM file cannot be used.
        """
        try:
            made = ssl.create_default_context(cafile=self.authority or None)
            if self.certificate:
                made.load_cert_chain(self.certificate, self.key or None)
        except OSError as error:  # SSLError is one
            names = ", ".join(name for name in (self.authority, self.certificate, self.key) if name)
            raise StationError(f"{names}: cannot be used ({error.strerror or error}): name PEM files") from None
        return made


def archive(text: str, own_title: str = "EDGE-MDDA", tls: bool = False, **pem: str) -> Archive:
    """``TITLE@HOST:PORT`` or ``https://HOST[:PORT]/PATH`` as an archive.

    Raises
    ------
    StationError
        It is neither, or would send pictures of patients over a network unencrypted by the web's protocol.
    """
    if text.startswith(("http://", "https://")):
        return _web(text, own_title, pem)
    found = _ARCHIVE.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 65536:
        raise StationError(
            f"expected TITLE@HOST:PORT or https://HOST/PATH, such as PACS@192.168.1.20:104, got {text!r}"
        )
    return Archive(found[1], found[2].strip("[]"), int(found[3]), own_title, tls or bool(pem.get("authority")), **pem)


def _web(text: str, own_title: str, pem: dict[str, str]) -> Archive:
    try:
        parts = urlsplit(text)
        host, port, tls = parts.hostname or "", parts.port, parts.scheme == "https"
    except ValueError:
        host = ""
    if not host or parts.username or parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise StationError(f"expected https://HOST/PATH without user or query, got {text!r}")
    if not tls and host not in LOOPBACK:
        raise StationError(f"{text}: pictures of patients do not go over a network unencrypted: use https")
    return Archive(text.rstrip("/"), host, port or (443 if tls else 80), own_title, tls, **pem)


def send(files: Sequence[Path], to: Archive) -> None:
    """Send in a child; on return every object is in the archive. Without files, only ask whether it answers (C-ECHO).

    Raises
    ------
    StationError
        One is not; one line that says why.
    """
    from edge_mdda.hardware.child_process import ChildError, run_module

    arguments = [json.dumps({"files": [str(path) for path in files], "to": asdict(to)})]
    try:
        answer = run_module("edge_mdda.station.dicom_send", arguments, CHILD_TIMEOUT)
    except ChildError as error:
        raise StationError(f"sending failed: {error}") from None
    if answer.get("error"):
        raise (StationError if answer["reached"] else NotReachedError)(str(answer["error"]))


def _send(files: Sequence[Path], to: Archive) -> None:
    from pydicom import dcmread
    from pydicom.uid import UID

    datasets = [dcmread(path) for path in files]
    if to.web:
        from edge_mdda.station import stow

        stow.send(files, datasets, to)
        return
    from pynetdicom import AE

    entity = AE(ae_title=to.own_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = TIMEOUT
    entity.add_requested_context(UID(FIND))
    entity.add_requested_context(UID(ECHO))
    # Each object in the form that it is stored in, and in no other: nothing is decoded or encoded anew.
    for kind in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}:
        entity.add_requested_context(*kind)
    place = f"{to.title} at {to.host}:{to.port}"
    tls = (to.context(), to.host) if to.tls else None
    association = entity.associate(to.host, to.port, ae_title=to.title, tls_args=tls)
    if not association.is_established:
        why = (
            "refused" if association.is_rejected else "not reached" if not to.tls else "not reached, or no TLS with it"
        )
        raise NotReachedError(f"{place}: {why}: check that it runs, its address, and that it knows {to.own_title}")
    try:
        if not files and association.send_c_echo().get("Status", -1) != SUCCESS:
            raise StationError(f"{place}: does not answer an echo")
        for path, dataset in zip(files, datasets, strict=True):
            if _is_there(association, dataset, place):
                continue
            try:
                status = int(association.send_c_store(dataset).get("Status", -1))
            except ValueError:
                raise StationError(f"{place}: does not take {dataset.SOPClassUID.name} as it is stored") from None
            if status not in (SUCCESS, *WARNINGS):
                said = "gave no answer" if status < 0 else f"refused {path.name} with status 0x{status:04X}"
                raise StationError(f"{place}: {said}")
            if not _is_there(association, dataset, place):
                raise StationError(f"{place}: accepted {path.name}, but has no such object")
    finally:
        if association.is_established:
            association.release()


def _is_there(association: Any, dataset: Dataset, place: str) -> bool:
    """Whether the archive knows the object; asked at its own level, with all identifiers above it."""
    from pydicom.dataset import Dataset as Query
    from pydicom.uid import UID

    query = Query()
    query.QueryRetrieveLevel = "IMAGE"
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(query, name, getattr(dataset, name))
    try:
        answers = list(association.send_c_find(query, UID(FIND)))
    except ValueError:
        raise StationError(f"{place}: answers no queries, so that nothing proves what arrives there") from None
    statuses = [int(status.get("Status", -1)) for status, _ in answers]
    if not statuses or statuses[-1] != SUCCESS:
        raise StationError(f"{place}: gave no whole answer to a query")
    return any(
        status in PENDING and found is not None and found.get("SOPInstanceUID") == dataset.SOPInstanceUID
        for status, (_, found) in zip(statuses, answers, strict=True)
    )


def main() -> int:
    """Send what the argument names; print ``{}`` or an error as JSON."""
    request = json.loads(sys.argv[1])
    try:
        _send([Path(name) for name in request["files"]], Archive(**request["to"]))
    except StationError as error:
        print(json.dumps({"error": str(error), "reached": not isinstance(error, NotReachedError)}))
    except Exception as error:  # of the network's library, which names no set of its own
        said = f"sending failed: {type(error).__name__}: {' '.join(str(error).split())}"
        print(json.dumps({"error": said, "reached": True}))
    else:
        print("{}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
