"""Hostile bundles: each is refused in one line, with little memory, and nothing of it stays.

Archives are made by hand, byte by byte where a packer would not do it. What is signed here is signed with the trusted
key: the unpacker must not lean on the maker of a bundle being careful.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("nacl")
pytest.importorskip("installer")

from bundles import SEED, one_line, tiny
from nacl.signing import SigningKey

from deploy.bundle import HERE
from deploy.setup import FIRST, signed_text

MIB = 1 << 20  # bytes
MEMORY = 256 * MIB  # of address space, with the Python that unpacks
TOP = "edge-mdda-8.0-tiny-here"


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {m.name.partition("/")[2]: opened.extractfile(m).read() for m in opened if m.isreg()}  # type: ignore[union-attr]


def signed(files: dict[str, bytes], sums: bytes | None = None) -> dict[str, bytes]:
    """Sums and signature, anew."""
    files = {name: content for name, content in files.items() if not name.startswith("SHA256SUMS")}
    if sums is None:
        sums = b"".join(f"{hashlib.sha256(c).hexdigest()}  {n}\n".encode() for n, c in sorted(files.items()))
    signature = SigningKey(SEED).sign(signed_text(sums)).signature
    return {**files, "SHA256SUMS": sums, "SHA256SUMS.sig": signature}


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(f"{TOP}/{name}")
    info.size, info.type, info.linkname = size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT)


def body(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def plain(files: dict[str, bytes]) -> bytes:
    """The archive without its end."""
    names = [*FIRST, *(name for name in files if name not in FIRST)]
    return b"".join(member(name, len(files[name])) + body(files[name]) for name in names)


END = bytes(1024)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, bytes]:
    return contents(tiny(tmp_path_factory.mktemp("good"), "8.0"))


def refused(place, tmp_path: Path, content: bytes, words: str) -> None:
    """By the installer, with bounded memory, and the release before still runs."""
    archive = tmp_path / "hostile.tar.gz"
    archive.write_bytes(content if content[:2] == b"\x1f\x8b" else gzip.compress(content, 1))
    assert words in one_line(place.install_sh(archive))
    assert place.answer() == "1.0 tflite"
    assert not place.leftovers()
    target = Path(tempfile.mkdtemp(dir=tmp_path)) / "unpacked"
    code = (
        f"import sys; sys.path.insert(0, {str(HERE / 'setup')!r})\n"
        "from unpack import *\n"
        f"keys = [bytes.fromhex({bytes(SigningKey(SEED).verify_key).hex()!r})]\n"
        f"try: unpack({str(archive)!r}, {str(target)!r}, Trust(keys), lambda *_: None)\n"
        "except BundleError as error: sys.exit(str(error))\n"
    )

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=little, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and words in done.stderr, done.stderr[-500:]


def test_the_bundle_that_the_others_are_made_of_is_good(place, tmp_path, good):
    archive = tmp_path / "good.tar.gz"
    archive.write_bytes(gzip.compress(plain(signed(good)) + END))
    done = place.install_sh(archive)
    assert done.returncode == 0, done.stderr
    assert place.answer() == "8.0 tflite"


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "a//b", ".hidden", "a b", "-rf", "a\nb", "\x1b[2J"]
)
def test_a_path_that_leads_elsewhere(place, tmp_path, good, name):
    sums = signed(good)["SHA256SUMS"] + f"{hashlib.sha256(b'x').hexdigest()}  {name}\n".encode()
    files = {**signed(good, sums), name: b"x"}
    refused(place, tmp_path, plain(files) + END, "SHA256SUMS is not a list of check sums")
    unsigned = {**signed(good), name: b"x"}  # the signed list does not name it
    archive = tmp_path / "unsigned.tar.gz"
    archive.write_bytes(gzip.compress(plain(unsigned) + END))
    assert "\x1b" not in one_line(place.install_sh(archive))
    assert not (place.prefix.parent / "evil").exists() and not Path("/etc/evil").exists()


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../../evil"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CONTTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
        (b"Z", ""),
    ],
)
@pytest.mark.parametrize("where", ["first", "config.env"])
def test_links_devices_and_sparse_files(place, tmp_path, good, kind, link, where):
    files = signed(good)
    odd = member("config.env" if where != "first" else "signer.pub", 0, kind, link)
    if where == "first":
        content = odd + plain(files)
    else:
        files = dict(files)
        content = plain({n: c for n, c in files.items() if n != where}) + odd
    refused(place, tmp_path, content + END, "holds something other than files in one folder")


def test_a_name_twice(place, tmp_path, good):
    files = signed(good)
    twice = plain(files) + member("config.env", 4) + body(b"evil")
    refused(place, tmp_path, twice + END, "the signed list does not name this file")
    again = plain(files) + member("SHA256SUMS", 4) + body(b"evil")
    refused(place, tmp_path, again + END, "the signed list does not name this file")
    sums = files["SHA256SUMS"] + files["SHA256SUMS"]
    refused(place, tmp_path, plain(signed(good, sums)) + END, "is not a list of check sums")


def test_a_file_that_is_also_a_folder(place, tmp_path, good):
    refused(place, tmp_path, plain(signed({**good, "a": b"1", "a/b": b"2"})) + END, "/a: File exists")


@pytest.mark.parametrize("size", [0, 3, 10**6])
def test_a_wrong_size(place, tmp_path, good, size):
    files = signed(good)
    content = plain({n: c for n, c in files.items() if n != "config.env"})
    content += member("config.env", size) + body(b"x" * size)
    refused(place, tmp_path, content + END, "config.env: is damaged or was altered")


# -- more than there is room for ----------------------------------------------------------------------


def zeros(mebibytes: int) -> bytes:
    """So much nothing, packed."""
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=6) as file:
        for _ in range(mebibytes):
            file.write(bytes(MIB))
    return target.getvalue()


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return zeros(700)


def test_a_bomb_after_the_end(place, tmp_path, good, bomb):
    refused(place, tmp_path, gzip.compress(plain(signed(good)) + END) + bomb, "unpacks to something that no bundle")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_bomb_in_a_header(place, tmp_path, bomb, kind):
    refused(place, tmp_path, gzip.compress(member("x", 700 * MIB, kind)) + bomb, "unpacks to something that no bundle")


def test_a_file_larger_than_the_bundle_says_it_is(place, tmp_path, good, bomb):
    """A name that the signed list has, with other content: its hash would tell, but only when the card is full."""
    content = plain({n: c for n, c in signed(good).items() if n != "config.env"}) + member("config.env", 700 * MIB)
    refused(place, tmp_path, gzip.compress(content) + bomb, "config.env: is too large")


@pytest.mark.parametrize("name", ["signer.pub", "SHA256SUMS", "manifest.json"])
def test_a_first_file_that_is_too_large(place, tmp_path, good, bomb, name):
    files = signed(good)
    before = FIRST[: FIRST.index(name)]
    content = b"".join(member(n, len(files[n])) + body(files[n]) for n in before) + member(name, 700 * MIB)
    refused(place, tmp_path, gzip.compress(content) + bomb, f"{name} is too large")


def test_folders_without_end(place, tmp_path, good):
    content = plain(signed(good)) + b"".join(member(f"d{n}", 0, tarfile.DIRTYPE) for n in range(40_000))
    refused(place, tmp_path, content + END, "")


def test_a_negative_size(place, tmp_path, good):
    header = bytearray(member("config.env", 1))
    header[124:136] = b"\xff" * 12  # a number in base 256, negative
    total = sum(header[:148]) + 8 * 32 + sum(header[156:512])
    header[148:156] = f"{total:06o}\0 ".encode()
    refused(place, tmp_path, plain(signed(good)) + bytes(header) + END, "")


# -- the manifest -------------------------------------------------------------------------------------


CHANGES: list[tuple[str, Callable[[dict], object] | bytes]] = [
    ("no JSON", b"{"),
    ("no object", b"[1]"),
    ("nothing", b"null"),
    ("a loop of brackets", b"[" * 200_000),
    ("NaN", b'{"format": NaN}'),
    ("a name twice", b'{"format": 1, "format": 1}'),
    ("no text", b"\xff\xfe"),
    ("NaN bytes", lambda m: m.update(bundle_bytes=float("nan"))),
    ("negative", lambda m: m.update(bundle_bytes=-1)),
    ("huge", lambda m: m.update(installed_bytes=10**30)),
    ("a fraction", lambda m: m.update(bundle_bytes=1.5)),
    ("a truth", lambda m: m.update(bundle_bytes=True)),
    ("a command", lambda m: m.update(version="$(touch evil)")),
    ("a path", lambda m: m.update(version="../../evil")),
    ("a dot", lambda m: m.update(version=".")),
    ("two lines", lambda m: m.update(board="a\nsums=b")),
    ("a terminal's control", lambda m: m.update(board_title="\x1b[2J")),
    ("a long text", lambda m: m.update(os_title="x" * 1000)),
    ("a wheel elsewhere", lambda m: m.update(wheels=[{"file": "../../evil.whl", "installed": True}])),
    ("a wheel without a kind", lambda m: m.update(wheels=[{"file": "a.whl"}])),
    ("trim elsewhere", lambda m: m.update(trim=["../../../**"])),
    ("trim everything", lambda m: m.update(trim=["/"])),
    ("runtimes as text", lambda m: m.update(runtimes="tflite")),
    ("no runtimes", lambda m: m.pop("runtimes")),
    ("another format", lambda m: m.update(format="1; rm -rf /")),
]


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=[name for name, _ in CHANGES])
def test_a_manifest_that_is_signed_and_wrong(place, tmp_path, good, name, change):
    if isinstance(change, bytes):
        text = change
    else:
        manifest = json.loads(good["manifest.json"])
        change(manifest)
        text = json.dumps(manifest).encode()
    words = "format unknown" if name == "another format" else "manifest.json"
    refused(place, tmp_path, plain(signed({**good, "manifest.json": text})) + END, words)
    assert not list(tmp_path.rglob("evil*"))


def test_a_folder_with_a_device_and_a_pipe(place, tmp_path, good):
    stage = tmp_path / TOP
    for name, content in signed(good).items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).write_bytes(content)
    (stage / "config.env").unlink()
    os.mkfifo(stage / "config.env")
    assert "neither a file nor a folder" in one_line(place.install_sh(stage))
    assert not place.leftovers()
