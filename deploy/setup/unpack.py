"""A bundle, as archive or as folder, becomes a folder of verified files: nothing of it is used before that.

The order is signature, then board, then disk space, then the files, each hashed while it is copied: what was checked is
what lies in the new folder, whatever happens to the source meanwhile.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import stat
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ed25519 import verify

SUMS, SIGNATURE, SIGNER, MANIFEST = "SHA256SUMS", "SHA256SUMS.sig", "signer.pub", "manifest.json"
FIRST = (SIGNER, SIGNATURE, SUMS, MANIFEST)
"""The order at the beginning of an archive: what decides about the rest comes first."""

CONTEXT = b"edge_mdda bundle 1\n"
"""Signed before the sums, so that a signature over something else is never taken for one over a bundle."""

FORMAT = 1  # of the bundle
MAX_SMALL = 1 << 20  # bytes of each of the first files
MAX_FILE = 1 << 30  # bytes
MAX_FILES = 10_000
STEP = 1 << 20  # bytes copied at a time
SUM_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*)")
AGAIN = "copy it to this board again"


class BundleError(Exception):
    """The bundle is refused; the message is one line that says why and what to do."""


Member = tuple[str, int, BinaryIO]


def fingerprint(key: bytes) -> str:
    """``SHA256:`` and the key's hash in hexadecimal."""
    return "SHA256:" + hashlib.sha256(key).hexdigest()


def read_keys(path: str) -> list[bytes]:
    """Public keys of a file: hexadecimal, one a line; ``#`` begins a comment."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_SMALL).decode("ascii")
        keys = [bytes.fromhex(line.partition("#")[0]) for line in text.splitlines() if line.partition("#")[0].strip()]
    except OSError as error:
        raise BundleError(f"{path}: cannot read the public key ({error.strerror})") from None
    except ValueError:
        raise BundleError(f"{path}: holds no public key in hexadecimal (that is the file ending in .pub)") from None
    if not keys or any(len(key) != 32 for key in keys):
        raise BundleError(f"{path}: holds no public key of 32 bytes in hexadecimal")
    return keys


def _from_archive(path: str) -> Iterator[Member]:
    """Files of an archive in its order, without its one top folder. Nothing is written; only plain files are let in."""
    with gzip.open(path) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
        for member in archive:
            if member.isdir():
                continue
            _, slash, name = member.name.partition("/")
            content = archive.extractfile(member) if member.isreg() and slash else None
            if content is None:
                raise BundleError(f"{path}: holds something other than files in one folder; it is no bundle")
            yield name, member.size, content  # type: ignore[misc]
        while plain.read(STEP):  # to the end: the check sum stands there
            pass


def _from_folder(path: str) -> Iterator[Member]:
    names = []
    for folder, below, files in os.walk(path, onerror=_raise):
        for name in below + files:
            whole = os.path.join(folder, name)
            mode = os.lstat(whole).st_mode
            if stat.S_ISREG(mode):
                names.append(os.path.relpath(whole, path))
            elif not stat.S_ISDIR(mode):
                raise BundleError(f"{whole}: is neither a file nor a folder; unpack the bundle again")
    for name in [*(n for n in FIRST if n in names), *sorted(set(names) - set(FIRST))]:
        descriptor = os.open(os.path.join(path, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            yield name, os.fstat(descriptor).st_size, file


def _raise(error: OSError) -> None:
    raise error


class Trust:
    """Which keys may have signed: some public keys, or the fingerprint of one."""

    def __init__(self, keys: list[bytes], accepted: str = "") -> None:
        self.keys, self.accepted = keys, accepted

    def choose(self, claimed: bytes) -> bytes:
        """The trusted key that a bundle says it was signed with; BundleError where it is not trusted."""
        if claimed in self.keys or (not self.keys and self.accepted == fingerprint(claimed)):
            return claimed
        shown = fingerprint(claimed)
        if self.keys:
            raise BundleError(f"it is signed with another key ({shown}) than the trusted one; nothing was changed")
        if self.accepted:
            raise BundleError(f"its key has the fingerprint {shown}, not the one that you gave; nothing was changed")
        raise BundleError(
            f"no key is trusted here yet. Its key says: {shown} - compare that with what the maker of the bundle told "
            "you in another way, then add: --pubkey FILE (better) or --trust-fingerprint SHA256:..."
        )


def parse_sums(text: bytes) -> dict[str, str]:
    """Name to SHA-256; BundleError for anything that is not such a list."""
    sums: dict[str, str] = {}
    try:
        lines = text.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise BundleError(f"{SUMS} is damaged: {AGAIN}") from None
    for line in lines:
        match = SUM_LINE.fullmatch(line)
        if not match or match[2] in sums or match[2] in (SUMS, SIGNATURE):
            raise BundleError(f"{SUMS} is not a list of check sums: {AGAIN}")
        sums[match[2]] = match[1]
    if not {SIGNER, MANIFEST} <= set(sums) or len(sums) > MAX_FILES:
        raise BundleError(f"{SUMS} does not describe a bundle: {AGAIN}")
    return sums


def _small(members: Iterator[Member], wanted: str) -> bytes:
    name, size, content = next(members, ("", 0, None))
    if name != wanted or content is None:
        raise BundleError(f"this is no bundle, or not a whole one: {wanted} is missing")
    if size > MAX_SMALL:
        raise BundleError(f"{wanted} is too large: {AGAIN}")
    return content.read(MAX_SMALL)


def unpack(source: str, target: str, trust: Trust, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Copy a bundle's files to ``target``, a new folder, and return its manifest.

    Parameters
    ----------
    source : str
        A ``.tar.gz`` or a folder that was unpacked from one.
    target : str
        Is made; must not exist. On an error what was written stays for the caller to remove.
    trust : Trust
        Who may have signed.
    check : callable
        Called with the manifest, after the signature held and before anything large is copied; may raise BundleError.

    Raises
    ------
    BundleError
        One line.
    """
    members = _from_folder(source) if os.path.isdir(source) else _from_archive(source)
    try:
        return _unpack(members, target, trust, check)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile):
        raise BundleError(f"{source}: is damaged or cut off: {AGAIN}") from None
    except OSError as error:
        name = error.filename or source
        raise BundleError(f"{name}: {error.strerror or error}; nothing was changed") from None


def _unpack(
    members: Iterator[Member], target: str, trust: Trust, check: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    first = {name: _small(members, name) for name in FIRST[:3]}
    try:
        claimed = bytes.fromhex(first[SIGNER].decode("ascii"))
    except ValueError:
        raise BundleError(f"{SIGNER} is damaged: {AGAIN}") from None
    key = trust.choose(claimed)
    if not verify(key, CONTEXT + first[SUMS], first[SIGNATURE]):
        raise BundleError(f"its signature does not hold: it was altered or damaged. {AGAIN.capitalize()}")
    sums = parse_sums(first[SUMS])
    first[MANIFEST] = _small(members, MANIFEST)
    for name in (SIGNER, MANIFEST):
        _require(hashlib.sha256(first[name]).hexdigest() == sums.pop(name), name)
    manifest = read_manifest(first[MANIFEST])
    check(manifest)
    os.mkdir(target)
    for name, content in first.items():
        _write(os.path.join(target, name), iter([content]))
    for name, size, file in members:
        if name not in sums:
            raise BundleError(
                f"{name}: the signed list does not name this file; unpack the bundle into an empty folder"
            )
        if size > MAX_FILE:
            raise BundleError(f"{name}: is too large")
        path = os.path.join(target, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _require(_write(path, iter(lambda file=file: file.read(STEP), b"")) == sums.pop(name), name)  # type: ignore[misc]
    if sums:
        raise BundleError(f"{sorted(sums)[0]}: is missing: {AGAIN}")
    return manifest


def _require(good: bool, name: str) -> None:
    if not good:
        raise BundleError(f"{name}: is damaged or was altered: {AGAIN}")


def _write(path: str, parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    with open(path, "xb") as file:
        for part in parts:
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def read_manifest(text: bytes) -> dict[str, Any]:
    """The manifest, which is trusted by now but may be of another version."""
    try:
        manifest: dict[str, Any] = json.loads(text)
        number = manifest["format"]
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{MANIFEST} is not usable: make the bundle again") from None
    if number != FORMAT:
        raise BundleError(
            f"the bundle has format {number}, this installer knows {FORMAT}: use the bundle's own install.sh"
        )
    return manifest


if __name__ == "__main__":
    sys.exit("used by helper.py")
