"""``python -m deploy``: profiles, locks, the verifier that boards run, and bundles that are made for real."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("nacl")
pytest.importorskip("installer")

from bundles import PYTHON, ROOT, Place, public_key, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import lock
from deploy.__main__ import main
from deploy.bundle import Request, _chosen_models
from deploy.bundle import settings as board_settings
from deploy.errors import DeployError
from deploy.profiles import BOARDS, board_names, find_board, platform_tags, read_board
from deploy.setup import SUMS, ed25519, signed_text
from edge_mdda import __version__
from export.native.linker import LinkError, find_linker

SYSTEMS = [(name, system) for name in board_names() for system in find_board(name).systems]
MAX_BUNDLE, MAX_INSTALLED = 100 * 10**6, 260 * 10**6  # bytes
HOST = f"""
title = "this machine"
arch = "{os.uname().machine}"
cpu = "host"
cpu_parts = []
memory_mb = 1024
cores = 2
runtimes = ["tflite", "onnx"]
threads = 1

[os.here]
title = "its own system"
python = "{PYTHON}"
glibc = "2.28"
"""


def refusal(capsys, *arguments: object) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("deploy: "), err
    return err


# -- boards ---------------------------------------------------------------------------------------------


def test_the_boards_that_were_promised():
    found = {name: find_board(name) for name in board_names()}
    assert {name: board.cpu for name, board in found.items()} == {
        "jetson-orin-nano": "cortex-a78ae",
        "rpi-zero2w": "cortex-a53",
        "rpi4": "cortex-a72",
        "rpi5": "cortex-a76",
    }
    assert {s.python for board in found.values() for s in board.systems.values()} == {"3.10", "3.11", "3.13"}
    assert all(board.runtimes[0] == "tflite" for board in found.values())


def test_boards_are_listed(capsys):
    assert main(["boards"]) == 0
    assert "--os trixie" in capsys.readouterr().out
    assert main(["boards", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(board_names())


def test_a_new_board_is_a_new_file(tmp_path):
    text = (BOARDS / "rpi4.toml").read_text().replace("cortex-a72", "cortex-a55").replace("0xd08", "0xd05")
    (tmp_path / "radxa-zero3.toml").write_text(text)
    board = find_board(str(tmp_path / "radxa-zero3.toml"))
    assert (board.name, board.cpu, board.cpu_parts) == ("radxa-zero3", "cortex-a55", ("0xd05",))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("memory_mb = 1024", "memory_mb = 'much'", "'memory_mb' must be a int"),
        ("cores = 4", "cores = 0", "'cores'"),
        ("threads = 3", "threads = 9", "'threads'"),
        ("threads = 3", "", "'threads' is missing"),
        ('"tflite", "onnx"', '"tensorflow"', "'runtimes'"),
        ('"tflite", "onnx"', "1", "'runtimes' must hold texts"),
        ('cpu_parts = ["0xd08"]', 'cpu_parts = ["d08"]', "'cpu_parts'"),
        ('preset = "balanced"', 'preset = "heavy"', "'preset'"),
        ('glibc = "2.36"', 'glibc = "new"', "'glibc'"),
        ('python = "3.11"', "", "'os.bookworm.python' is missing"),
        ("cores = 4", "cores = 4\nlegs = 4", "unknown field 'legs'"),
        ('"sys/class', '"/sys/class', "'sensors'"),
        ("[sensors]", "[sensors", "line"),
    ],
)
def test_a_bad_profile_costs_one_line(tmp_path, old, new, words):
    text = (BOARDS / "rpi4.toml").read_text()
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(DeployError, match=r"^[^\n]*bad\.toml: [^\n]*$") as caught:
        read_board(tmp_path / "bad.toml")
    assert words in str(caught.value)


def test_unknown_board_system_and_key(capsys, tmp_path):
    assert "rpi4" in refusal(capsys, "bundle", "--board", "rpi9", "--os", "bookworm")
    assert "bookworm, trixie" in refusal(capsys, "bundle", "--board", "rpi4", "--os", "jetpack6")
    line = refusal(capsys, "bundle", "--board", "rpi4", "--os", "bookworm", "--key", tmp_path / "none.key")
    assert "python -m export keygen" in line


# -- locks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "system"), SYSTEMS)
def test_every_system_has_a_lock_for_its_python(name, system):
    board = find_board(name)
    path = lock.lock_path(board.system(system), board.arch)
    pins = {pin.name: pin for pin in lock.read_lock(path)}
    assert {"numpy", "opencv-python-headless", "ai-edge-litert", "onnxruntime", "pynacl", "installer"} <= set(pins)
    assert not set(pins) & set(lock.LEFT_OUT)
    assert "://" not in path.read_text()
    tags = platform_tags(board.system(system), board.arch)
    short = board.system(system).python.replace(".", "")
    for pin in pins.values():
        assert any(tag in pin.file for tag in [*tags, "none-any"]), pin.file
        assert any(part in pin.file for part in (f"cp{short}-cp{short}", "abi3", "py3-none-any")), pin.file


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2.0", "numpy==2.0 --hash=md5:00", "-r other.txt"])
def test_a_line_without_version_and_hash_is_refused(tmp_path, line):
    path = tmp_path / "bad.txt"
    path.write_text(f"# a comment\n{line}\n")
    with pytest.raises(DeployError, match=r"bad\.txt:2: expected name==version"):
        lock.read_lock(path)


def test_a_dependency_that_nobody_thought_of_stops_the_lock():
    system = find_board("rpi4").system("bookworm")
    requires = ["protobuf", "numpy>=2", "pyreadline3; sys_platform == 'win32'", "x; extra == 'y'"]
    lock._require_known("onnxruntime", requires, system, "aarch64", lock.PACKAGES)
    with pytest.raises(DeployError, match="now needs quantum"):
        lock._require_known(
            "onnxruntime", ["quantum>1; platform_machine == 'aarch64'"], system, "aarch64", lock.PACKAGES
        )


def test_a_missing_wheel_is_named_with_its_board(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path)), ("PIP_EXTRA_INDEX_URL", "")):
        monkeypatch.setenv(name, value)
    board = find_board("rpi4")
    pin = lock.Pin("quantum", "1.0", "0" * 64, "quantum-1.0-py3-none-any.whl")
    lock.lock_path(board.system("bookworm"), board.arch, tmp_path).write_text(pin.to_line() + "\n")
    key = tmp_path / "release.key"
    key.write_text("01" * 32 + "\n")
    arguments = ["bundle", "--board", "rpi4", "--os", "bookworm", "--key", key, "--locks", tmp_path]
    line = refusal(capsys, *arguments, "--out", tmp_path / "dist")
    assert "rpi4" in line and "quantum 1.0" in line and "bookworm" in line
    assert not (tmp_path / "dist").exists()


# -- the verifier -------------------------------------------------------------------------------------------

RFC_8032 = [  # section 7.1, tests 1 to 3: public key, message, signature
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe2465"
        "5141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb0"
        "0d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc0"
        "27beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("key", "message", "signature"), RFC_8032)
def test_the_vectors_of_rfc_8032(key, message, signature):
    key, message, signature = map(bytes.fromhex, (key, message, signature))
    assert ed25519.verify(key, message, signature)
    assert not ed25519.verify(key, message + b"\0", signature)
    for position in (0, 31, 32, 63):
        changed = bytearray(signature)
        changed[position] ^= 1
        assert not ed25519.verify(key, message, bytes(changed))


@settings(max_examples=15, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=200), bit=st.integers(0, 511))
def test_the_verifier_agrees_with_pynacl(seed, message, bit):
    from nacl.signing import SigningKey

    key = SigningKey(seed)
    public, signature = bytes(key.verify_key), key.sign(message).signature
    assert ed25519.verify(public, message, signature)
    changed = bytearray(signature)
    changed[bit // 8] ^= 1 << bit % 8
    assert not ed25519.verify(public, message, bytes(changed))


def test_malformed_keys_and_signatures_are_refused():
    key, message, signature = (bytes.fromhex(part) for part in RFC_8032[1])
    scalar = (
        int.from_bytes(signature[32:], "little") + ed25519.ORDER
    )  # the same point: another signature for the same text
    assert not ed25519.verify(key, message, signature[:32] + scalar.to_bytes(32, "little"))
    assert not ed25519.verify(key[:-1], message, signature)
    assert not ed25519.verify(key, message, signature + b"\0")
    one = (1).to_bytes(32, "little")
    for weak in (one, bytes(32), (ed25519.P - 1).to_bytes(32, "little")):  # of small order: any text would hold
        assert not ed25519.verify(weak, message, one + bytes(32))
    assert not ed25519.verify((ed25519.P + 1).to_bytes(32, "little"), message, one + bytes(32))  # not canonical


def test_openssl_agrees_about_a_bundle(tmp_path):
    """What the deploy guide says for those who want to check with a tool of their own."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl here")
    subprocess.run(["tar", "xf", tiny(tmp_path, "1.0")], cwd=tmp_path, check=True)
    stage = next(path for path in tmp_path.glob("edge-mdda-*") if path.is_dir())
    prefix = bytes.fromhex("302a300506032b6570032100")  # of a raw Ed25519 key in DER, RFC 8410
    (tmp_path / "key.der").write_bytes(prefix + bytes.fromhex(public_key(tmp_path).read_text()))
    (tmp_path / "text").write_bytes(signed_text((stage / SUMS).read_bytes()))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", tmp_path / "key.der", "-rawin"]
    command += ["-in", tmp_path / "text", "-sigfile", stage / f"{SUMS}.sig"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "rawin" in done.stderr:
        pytest.skip("this openssl is too old for Ed25519 on the command line")
    assert done.returncode == 0, done.stderr


# -- real bundles ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def index_reached(tmp_path_factory) -> None:
    """Skips where no package index answers (and pip's cache has nothing)."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    command += [str(tmp_path_factory.mktemp("probe")), "installer"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no package index can be reached: no real bundle can be made here")


@pytest.fixture(scope="session")
def host(index_reached, tmp_path_factory) -> dict[str, Path]:
    """A real bundle for this machine, its key and what made it."""
    folder = tmp_path_factory.mktemp("host")
    board, key = folder / "testhost.toml", folder / "release.key"
    board.write_text(HOST)
    key.write_text("01" * 32 + "\n")
    assert main(["lock", "--board", str(board), "--locks", str(folder / "locks")]) == 0
    found = {"folder": folder, "board": board, "key": key, "public": public_key(folder)}
    return {**found, "archive": made(found, folder / "dist")}


def made(host: dict[str, Path], out: Path) -> Path:
    command = ["bundle", "--board", host["board"], "--os", "here", "--key", host["key"], "--out", out]
    assert main([str(word) for word in [*command, "--locks", host["folder"] / "locks"]]) == 0
    return next(out.glob("*.tar.gz"))


def test_twice_the_same_bytes(host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # another folder, another umask
    before = os.umask(0o077)
    try:
        again = made(host, tmp_path / "again")
    finally:
        os.umask(before)
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(host["archive"].read_bytes()).digest()


def test_what_a_bundle_holds(host, tmp_path):
    with tarfile.open(host["archive"]) as archive:
        members = archive.getmembers()
        names = [member.name.partition("/")[2] for member in members]
        content = {name: archive.extractfile(member).read() for name, member in zip(names, members, strict=True)}
    assert names[:4] == ["signer.pub", "SHA256SUMS.sig", "SHA256SUMS", "manifest.json"]
    assert names[4:] == sorted(names[4:])
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert {m.mode for m in members} == {0o644, 0o755}
    for unit in (ROOT / "deploy" / "units").glob("*"):
        assert content[f"units/{unit.name}"] == unit.read_bytes()
    assert {"models/lesion-lite0-int8.tflite.sig", "models/golden.json", "install.sh", "config.env"} <= set(names)
    assert not any(word in name for name in names for word in ("numba", "llvmlite"))
    manifest = json.loads(content["manifest.json"])
    assert "never a diagnosis" in manifest["notice"]
    own = next(name for name in names if name.startswith("wheels/edge_mdda-"))
    assert len(content[own]) < 10**6  # the models lie beside it, once


def test_the_bill_of_materials_is_valid(host):
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    with tarfile.open(host["archive"]) as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith("sbom.cdx.json"))
        text = archive.extractfile(member).read().decode()
        wheels = {m.name.rpartition("/")[2] for m in archive.getmembers() if m.name.endswith(".whl")}
    assert validation.JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    parts = json.loads(text)["components"]
    assert wheels == {part["purl"].partition("file_name=")[2] for part in parts if "purl" in part}
    assert {part["name"] for part in parts if part["type"] == "machine-learning-model"} == {
        "lesion-lite0-int8.onnx",
        "lesion-lite0-int8.tflite",
    }
    assert all(len(part["hashes"][0]["content"]) == 64 for part in parts)
    assert all("licenses" in part for part in parts if part["name"] != "ai-edge-litert")


def test_the_real_bundle_installs_and_screens_without_a_network(host, tmp_path):
    """Both runtimes run without the packages that the lock leaves out; only signed models open."""
    place = Place(tmp_path / "board", "unshare -n sh" if can_cut_network() else "sh")
    done = place.install_sh(host["archive"], "--pubkey", host["public"])
    assert done.returncode == 0, done.stderr
    answer = json.loads(place.answer("selftest", "--json", "--runtime", "tflite", "--runtime", "onnx"))
    assert answer["ok"] is True
    screened = json.loads(place.answer("screen", "--json", "--demo"))
    assert screened["kernels"]["backend"] == "native"
    assert "litert" in screened["model"]["runtime"]
    assert screened["image"].startswith(str(place.prefix))
    model = place.prefix / "current/models/lesion-lite0-int8.tflite"
    (model.parent / f"{model.name}.sig").unlink()
    command = [place.prefix / "bin/edge-mdda", "screen", "--demo"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "is not signed" in refused.stderr


def can_cut_network() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run(["unshare", "-n", "true"], check=False).returncode == 0


def test_the_bundle_for_a_pi_4_is_small_enough(index_reached, tmp_path):
    key = tmp_path / "release.key"
    key.write_text("01" * 32 + "\n")
    command = ["bundle", "--board", "rpi4", "--os", "bookworm", "--key", str(key), "--out", str(tmp_path)]
    try:
        find_linker("aarch64")
    except LinkError as error:
        pytest.skip(str(error))
    assert main(command) == 0
    archive = tmp_path / f"edge-mdda-{__version__}-rpi4-bookworm.tar.gz"
    assert archive.stat().st_size < MAX_BUNDLE
    with tarfile.open(archive) as content:
        names = content.getnames()
        manifest = json.load(content.extractfile(next(n for n in names if n.endswith("manifest.json"))))  # type: ignore[arg-type]
    assert manifest["installed_bytes"] < MAX_INSTALLED
    assert any("kernels-cortex-a72-" in name for name in names)


def test_settings_of_a_board():
    text = board_settings(find_board("rpi-zero2w"))
    assert "EDGE_MDDA_RUNTIME=tflite\n" in text
    assert "EDGE_MDDA_THREADS=3\n" in text


@pytest.mark.parametrize("name", ["hardened", "broad"])
def test_named_models_are_packed_beside_the_others_when_asked_for(tmp_path, name):
    board = find_board("rpi4")
    request = Request(board, board.system("bookworm"), tmp_path / "no.key")
    stems = [path.stem for path in _chosen_models(request)]
    assert stems == ["lesion-lite0-int8"] * len(board.runtimes)
    both = _chosen_models(replace(request, **{name: True}))
    assert [path.stem for path in both] == stems + [f"lesion-lite0-{name}-int8"] * len(board.runtimes)
    assert {path.suffix for path in both} == {".onnx", ".tflite"}
