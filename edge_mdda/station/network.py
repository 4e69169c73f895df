"""The station on the clinic's own network: the names it answers to, and its certificate."""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import subprocess
from pathlib import Path
from shutil import which

from edge_mdda.digest import sha256
from edge_mdda.errors import StationError

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
SIOCGIFADDR = 0x8915  # linux/sockios.h
IFREQ_BYTES, ADDRESS = 40, slice(20, 24)  # struct ifreq, and where its IPv4 address lies
TLS_FOLDER, CERTIFICATE, KEY = "tls", "certificate.pem", "key.pem"
DAYS = 3650  # a clinic without a network cannot renew often
HTTPS_PORT = 443


def own_addresses() -> list[str]:
    """The machine's IPv4 addresses, loopback left out; empty where none is known."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack(f"{IFREQ_BYTES}s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe, SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an address
            found.append(socket.inet_ntoa(answer[ADDRESS]))
    return [address for address in dict.fromkeys(found) if not address.startswith("127.")]


def names_of(more: list[str]) -> list[str]:
    """Names and addresses under which the machine is found on its network, the chosen ones first."""
    host = socket.gethostname().lower()
    return list(dict.fromkeys([*map(str.lower, more), f"{host}.local", host, *own_addresses()]))


def hosts_of(names: list[str], port: int, tls: bool) -> set[str]:
    """``Host`` headers that browsers send for these names."""
    hosts = {f"{name}:{port}" for name in names}
    return hosts | set(names) if tls and port == HTTPS_PORT else hosts


def make_certificate(folder: Path, names: list[str]) -> tuple[Path, Path]:
    """A certificate signed by itself, and its key, by the system's OpenSSL.

    Raises
    ------
    StationError
        There is one already, or OpenSSL is missing or fails.
    """
    place = folder / TLS_FOLDER
    certificate, key = place / CERTIFICATE, place / KEY
    if certificate.exists():
        raise StationError(f"{certificate} exists: remove it first if browsers should learn a new one")
    openssl = which("openssl")
    if openssl is None:
        raise StationError("openssl is not installed: install it, or bring your own certificate and key")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    kinds = [f"IP:{name}" if name.replace(".", "").isdigit() else f"DNS:{name}" for name in names]
    words = [
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days",
        str(DAYS), "-subj", "/CN=edge-mdda station", "-addext", f"subjectAltName={','.join(kinds)}",
        "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise StationError(f"openssl made no certificate ({said[-1]})")
    key.chmod(0o600)
    return certificate, key


def fingerprint(certificate: Path) -> str:
    """SHA-256 of a certificate as browsers show it."""
    try:
        content = ssl.PEM_cert_to_DER_cert(certificate.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise StationError(f"{certificate}: not a certificate in PEM ({error})") from None
    digest = sha256(content).hexdigest().upper()
    return ":".join(digest[k : k + 2] for k in range(0, len(digest), 2))


def check_pair(certificate: Path, key: Path) -> None:
    """StationError where the certificate or the key cannot be used, or they do not belong together."""
    for path in (certificate, key):
        if not path.is_file():
            raise StationError(f"{path}: no such file: run 'edge-mdda serve certificate', or name your own")
    if key.stat().st_mode & 0o077:
        raise StationError(f"{key}: others may read this key: chmod 600 it")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise StationError(f"{certificate}: this certificate and {key} cannot be used together ({error})") from None
