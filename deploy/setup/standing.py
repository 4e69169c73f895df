"""A bundle's place in time, as its signed manifest tells it: release number, end of validity, keys that come and go.

A signature says who made a bundle and nothing about when. Whoever can hand a board an old bundle, signed long ago,
could bring back an old fault. So each bundle has a number; a board remembers the highest that was ever in force on it,
and refuses a smaller one. Going back to the release before this one (``rollback``) needs no bundle and stays.

What a release says of numbers and keys counts once it is in force and healthy, never before: :func:`adopt`. It may be
called again at any time and does the same; a kill between two of its writes is mended by the next call.

In ``etc`` below the installation's folder: ``release`` (the highest number), ``trusted.pub``, ``revoked.pub`` (for
good: no later bundle brings such a key back) and ``overrides.log`` (each check that a person has skipped).
"""

from __future__ import annotations

import calendar
import json
import os
import re
import time
from dataclasses import dataclass
from typing import Any

from unpack import MANIFEST, SIGNER, BundleError, read_keys

TRUSTED, REVOKED, HIGHEST, LOG = "trusted.pub", "revoked.pub", "release", "overrides.log"
TIME = "%Y-%m-%dT%H:%M:%SZ"
MAX_NUMBER = 2**53  # whole in every JSON reader; as seconds it is the year 285 million
MAX_KEYS = 16  # added or revoked by one bundle
KEY = re.compile("[0-9a-f]{64}")
NAME = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Standing:
    """``number``: of the release; ``expires``: seconds since 1970, or None; ``add``, ``revoke``: public keys."""

    number: int
    expires: float | None
    add: tuple[bytes, ...]
    revoke: tuple[bytes, ...]


def seconds(text: object) -> float:
    """Seconds since 1970 of ``2026-01-31T12:00:00Z``; ValueError otherwise."""
    return float(calendar.timegm(time.strptime(str(text), TIME)))


def _keys(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > MAX_KEYS or not all(KEY.fullmatch(str(key)) for key in value):
        raise ValueError
    return tuple(bytes.fromhex(key) for key in value)


def read_standing(manifest: dict[str, Any]) -> Standing:
    """From a manifest; one without a number, of before there were any, has number 0."""
    number, expires, trust = manifest.get("release", 0), manifest.get("expires"), manifest.get("trust", {})
    try:
        if type(number) is not int or not 0 <= number <= MAX_NUMBER or not isinstance(trust, dict):
            raise ValueError
        until = None if expires is None else seconds(expires)
        add, revoke = _keys(trust.get("add", [])), _keys(trust.get("revoke", []))
    except ValueError:
        raise BundleError(f"{MANIFEST}: 'release', 'expires' or 'trust' is not usable: make the bundle again") from None
    return Standing(number, until, add, revoke)


def _manifest_of(release: str) -> dict[str, Any]:
    try:
        with open(os.path.join(release, MANIFEST), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def highest(prefix: str) -> int:
    """The highest number that was ever in force below this prefix; 0 for none.

    Raises
    ------
    BundleError
        The note of it is there and cannot be read: then everything is refused, for nobody knows what is older.
    """
    path = os.path.join(prefix, "etc", HIGHEST)
    try:
        with open(path, encoding="ascii") as file:
            text = file.read(32).strip()
    except FileNotFoundError:
        return 0
    except (OSError, ValueError):
        text = ""
    if not text.isdecimal():
        raise BundleError(
            f"{path}: holds no release number: write the number of the newest release that was installed into it "
            "(edge-mdda-install status shows that of the current one)"
        )
    return int(text)


def check(prefix: str, manifest: dict[str, Any], name: str, signer: bytes, allowed: set[str]) -> None:
    """Refuse a bundle that is older than what was in force, that is not valid any more, or that revokes its own key.

    Parameters
    ----------
    prefix : str
        Of the installation.
    manifest : dict
        Of the bundle; its signature has been checked.
    name : str
        Of the release that it becomes. The one in force may be installed again, whatever its number.
    signer : bytes
        Key that the bundle is signed with.
    allowed : set of str
        ``downgrade`` and ``expired``, where a person asked for that; each use is logged.
    """
    standing = read_standing(manifest)
    if signer in standing.revoke:
        raise BundleError(f"{MANIFEST}: revokes the key that it is signed with: sign the bundle with the new key")
    floor, current = highest(prefix), current_name(prefix)
    if standing.number < floor and re.sub(r"\.\d+$", "", current) != name:
        text = f"release {standing.number} ({name}) is older than {floor}, which was in force here"
        if "downgrade" not in allowed:
            raise BundleError(
                f"{text}: nothing was changed. To install it all the same, add --allow-downgrade, which is logged"
            )
        log(prefix, f"--allow-downgrade: {text}")
    now = max(time.time(), _made(prefix))  # a board without a battery begins in 1970
    if standing.expires is not None and standing.expires < now:
        text = f"release {standing.number} ({name}) was valid until {manifest['expires']}"
        if "expired" not in allowed:
            raise BundleError(
                f"{text}: get a newer bundle, and look at the clock (date). To install it all the same, add "
                "--allow-expired, which is logged"
            )
        log(prefix, f"--allow-expired: {text}")


def current_name(prefix: str) -> str:
    """The release in force, or an empty text."""
    try:
        return os.path.basename(os.readlink(os.path.join(prefix, "current")))
    except OSError:
        return ""


def _made(prefix: str) -> float:
    """When the release in force was made: it is later than that, whatever the clock says."""
    try:
        return seconds(_manifest_of(os.path.join(prefix, "current")).get("made"))
    except ValueError:
        return 0.0


def log(prefix: str, text: str) -> None:
    """One line that stays, here and in the system's journal; on the disk before anything else happens."""
    import syslog

    who = NAME.sub("?", os.environ.get("SUDO_USER", ""))[:32]
    line = f"{text}; by user {os.getuid()}{f' ({who})' if who else ''}"
    os.makedirs(os.path.join(prefix, "etc"), exist_ok=True)
    with open(os.path.join(prefix, "etc", LOG), "a", encoding="utf-8") as file:
        file.write(f"{time.strftime(TIME, time.gmtime())} {line}\n")
        file.flush()
        os.fsync(file.fileno())
    syslog.openlog("edge-mdda-install")
    syslog.syslog(syslog.LOG_WARNING, line)


# -- keys -----------------------------------------------------------------------------------------------


def revoked(prefix: str) -> list[bytes]:
    """Keys that are not trusted any more, for good."""
    path = os.path.join(prefix, "etc", REVOKED)
    return read_keys(path) if os.path.lexists(path) else []


def adopt(prefix: str) -> None:
    """The release in force is healthy: what it says of numbers and keys counts from now on."""
    etc = os.path.join(prefix, "etc")
    manifest = _manifest_of(os.path.join(prefix, "current"))
    if not manifest or not os.path.isdir(etc):
        return
    standing = read_standing(manifest)
    if standing.number > highest(prefix):
        _write(os.path.join(etc, HIGHEST), f"{standing.number}\n")
    before = revoked(prefix)
    gone = [*before, *(key for key in standing.revoke if key not in before)]
    if len(gone) > len(before):  # before the trusted ones change: a kill in between leaves one that is in both
        _write(os.path.join(etc, REVOKED), "".join(f"{key.hex()}\n" for key in gone))
    _change_trusted(os.path.join(etc, TRUSTED), standing.add, gone)


def _change_trusted(path: str, add: tuple[bytes, ...], gone: list[bytes]) -> None:
    """Whoever wrote comments into the file keeps them."""
    if not os.path.exists(path):
        return
    with open(path, encoding="ascii") as file:
        text = file.read()

    def key_of(line: str) -> bytes:
        return bytes.fromhex(line.partition("#")[0])

    lines = [line for line in text.splitlines() if key_of(line) not in gone]
    there = {key_of(line) for line in lines}
    lines += [key.hex() for key in dict.fromkeys(add) if key not in there and key not in gone]
    if any(key_of(line) for line in lines) and (changed := "".join(f"{line}\n" for line in lines)) != text:
        _write(path, changed)


def require_signer(prefix: str, release: str) -> None:
    """Refuse to go back to a release whose key is not trusted any more: its models would be refused then."""
    signer = read_keys(os.path.join(prefix, "releases", release, SIGNER))[0]
    if signer in revoked(prefix) or signer not in read_keys(os.path.join(prefix, "etc", TRUSTED)):
        raise BundleError(
            f"{release} is signed with a key that is not trusted any more: nothing was changed. "
            "Install a bundle that is signed with the new key"
        )


def _write(path: str, text: str) -> None:
    """Wholly or not at all."""
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(f"{path}.new", 0o644)
    os.replace(f"{path}.new", path)
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
