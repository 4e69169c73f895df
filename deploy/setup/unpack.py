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
from collections.abc import Callable, Iterator, Sequence
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
MAX_BETWEEN = 1 << 20  # bytes of headers and padding between two files, and after the last one
MAX_BESIDE = 16 << 20  # bytes of what the manifest's size leaves out: itself, sums, bill of materials
PLAIN_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)  # a sparse file is none: its size is no measure of the archive's
STEP = 1 << 20  # bytes copied at a time
SUM_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*)")
MAX_TEXT = 200  # characters of a manifest's text
MAX_SIZE = 2**53  # bytes: whole in every JSON reader
VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")  # what the shell is given
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


class _Bounded:
    """An unpacked archive that ends with an error after so many bytes: headers, gaps and what follows are small.

    Without it a few kilobytes, which unpack to a header or an end of any length, fill the memory or never end.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file, self._path, self.left = file, path, 0

    def read(self, size: int) -> bytes:
        found = self._file.read(size)
        self.left -= len(found)
        if self.left < 0:
            raise BundleError(f"{self._path}: unpacks to something that no bundle holds; nothing was changed")
        return found


def _from_archive(path: str) -> Iterator[Member]:
    """Files of an archive in its order, without its one top folder. Nothing is written; only plain files are let in."""
    with gzip.open(path) as unbounded:
        plain = _Bounded(unbounded, path)  # type: ignore[arg-type]
        plain.left = MAX_BETWEEN
        with tarfile.open(fileobj=plain, mode="r|") as archive:  # type: ignore[call-overload]
            for _ in range(2 * MAX_FILES):
                member = archive.next()
                archive.members = []  # else it keeps every one
                if member is None:
                    break
                if member.isdir():
                    continue
                _, slash, name = member.name.partition("/")
                content = archive.extractfile(member) if member.type in PLAIN_FILES and slash else None
                if content is None:
                    raise BundleError(f"{path}: holds something other than files in one folder; it is no bundle")
                plain.left = min(member.size, MAX_FILE) + MAX_BETWEEN
                yield name, member.size, content
            else:
                raise BundleError(f"{path}: holds too many files; it is no bundle")
            plain.left = MAX_BETWEEN
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

    def __init__(self, keys: list[bytes], accepted: str = "", revoked: Sequence[bytes] = ()) -> None:
        self.keys, self.accepted, self.revoked = keys, accepted, revoked

    def choose(self, claimed: bytes) -> bytes:
        """The trusted key that a bundle says it was signed with; BundleError where it is not trusted."""
        if claimed in self.revoked:
            raise BundleError(f"it is signed with a key that was revoked ({fingerprint(claimed)}); nothing was changed")
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


Check = Callable[[dict[str, Any], bytes, bytes], None]
"""Called with manifest, text of the check sums and key of the signature."""


def sums_id(text: bytes) -> str:
    """What tells one bundle of a version from another: the beginning of the hash over its check sums."""
    return hashlib.sha256(text).hexdigest()[:12]


def unpack(source: str, target: str, trust: Trust, check: Check) -> dict[str, Any]:
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
        Called after the signature held and before anything large is copied; may raise BundleError.

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


def _unpack(members: Iterator[Member], target: str, trust: Trust, check: Check) -> dict[str, Any]:
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
    check(manifest, first[SUMS], key)
    room = manifest["bundle_bytes"] + MAX_BESIDE
    os.mkdir(target)
    for name, content in first.items():
        _write(os.path.join(target, name), iter([content]))
    for name, size, file in members:
        if name not in sums:
            raise BundleError(
                f"{name}: the signed list does not name this file; unpack the bundle into an empty folder"
            )
        room -= size
        if not 0 <= size <= MAX_FILE or room < 0:
            raise BundleError(f"{name}: is too large: the bundle says that it is smaller. {AGAIN.capitalize()}")
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


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_SIZE


def _is_value(value: object) -> bool:
    return isinstance(value, str) and bool(VALUE.fullmatch(value))


def _is_wheel(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_value(value.get("file"))
        and not str(value["file"]).startswith(".")
        and isinstance(value.get("installed"), bool)
    )


def _is_pattern(value: object) -> bool:
    return _is_text(value) and not str(value).startswith("/") and ".." not in str(value).split("/")


def _are(each: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and len(value) <= MAX_FILES and all(map(each, value))


FIELDS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("board_title", "os_title", "arch", "cpu", "glibc"), _is_text),
    **dict.fromkeys(("version", "board", "os", "python"), _is_value),
    **dict.fromkeys(("bundle_bytes", "installed_bytes"), _is_size),
    "cpu_parts": _are(_is_text),
    "runtimes": _are(_is_value),
    "wheels": _are(_is_wheel),
    "trim": _are(_is_pattern),
}
"""What the installer reads of a manifest, and what it must be."""


def read_manifest(text: bytes) -> dict[str, Any]:
    """The manifest, which is trusted by now but may be of another version, or made by something that is broken.

    Raises
    ------
    BundleError
        No JSON, another format, or a field that is not what :data:`FIELDS` says.
    """
    try:
        manifest: dict[str, Any] = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
        number = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BundleError(f"{MANIFEST} is not usable: make the bundle again") from None
    if number != FORMAT:
        shown = number if _is_size(number) else "unknown"
        raise BundleError(
            f"the bundle has format {shown}, this installer knows {FORMAT}: use the bundle's own install.sh"
        )
    for name, good in FIELDS.items():
        if not good(manifest.get(name)):
            raise BundleError(f"{MANIFEST}: '{name}' is missing or has an unusable value: make the bundle again")
    return manifest


if __name__ == "__main__":
    sys.exit("used by helper.py")
