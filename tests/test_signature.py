"""Signed models open where their key is trusted; unsigned, altered and re-signed ones do not."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models

pytest.importorskip("nacl")
pytest.importorskip("ai_edge_litert")

from edge_mdda.classifier import ModelError, open_classifier
from edge_mdda.classifier.manifest import manifest_path
from edge_mdda.classifier.signature import VARIABLE, canonical, signature_path, trusted_keys
from edge_mdda.classifier.verify import verify_model
from edge_mdda.cli.main import main as board
from export.__main__ import main as workstation


@pytest.fixture(autouse=True)
def nobody_trusts(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def key(tmp_path) -> Path:
    assert workstation(["keygen", "--out", str(tmp_path / "a.key")]) == 0
    return tmp_path / "a.key"


@pytest.fixture
def public(key) -> Path:
    return key.with_name("a.key.pub")


@pytest.fixture
def model(tmp_path, key) -> Path:
    """A signed model with a report that belongs to it."""
    import hashlib

    report = b'{"agreement": 1}\n'
    (tmp_path / "report.json").write_bytes(report)
    sums = {"report.json": hashlib.sha256(report).hexdigest()}
    path = tiny_models.save(tmp_path, "tiny.tflite", tiny_models.tflite_model(), files=sums)
    assert workstation(["sign", "--key", str(key), str(path)]) == 0
    return path


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_signed_model_opens_where_its_key_is_trusted(model, public, monkeypatch):
    open_classifier(model)
    monkeypatch.setenv(VARIABLE, str(public))
    assert open_classifier(model).manifest.name == "tiny"
    # Layout of the file does not matter, content does.
    content = json.loads(manifest_path(model).read_text())
    manifest_path(model).write_text(json.dumps(dict(reversed(content.items())), indent=7))
    open_classifier(model)


def unsigned(model: Path, other: Path) -> None:
    signature_path(model).unlink()


def resigned(model: Path, other: Path) -> None:
    assert workstation(["sign", "--key", str(other), str(model)]) == 0


def altered_model(model: Path, other: Path) -> None:
    flip(model)


def altered_model_and_hash(model: Path, other: Path) -> None:
    import hashlib

    flip(model)
    change(manifest_path(model), sha256=hashlib.sha256(model.read_bytes()).hexdigest())


def altered_threshold(model: Path, other: Path) -> None:
    change(manifest_path(model), refer_at=0.9)


def swapped_labels(model: Path, other: Path) -> None:
    labels = json.loads(manifest_path(model).read_text())["labels"]
    change(manifest_path(model), labels=dict(reversed(labels.items())))


def damaged_signature(model: Path, other: Path) -> None:
    content = json.loads(signature_path(model).read_text())
    content["signature"] = content["signature"][:-2] + ("00" if content["signature"][-2:] != "00" else "01")
    signature_path(model).write_text(json.dumps(content))


def borrowed_key(model: Path, other: Path) -> None:
    """Another's signature under the trusted key's name."""
    trusted = json.loads(signature_path(model).read_text())["public_key"]
    resigned(model, other)
    change(signature_path(model), public_key=trusted)


def no_signature_at_all(model: Path, other: Path) -> None:
    signature_path(model).write_text("{}")


ATTACKS = {
    unsigned: "is not signed",
    resigned: "which is not trusted here",
    altered_model: "was altered or damaged",
    altered_model_and_hash: "the signature does not fit",
    altered_threshold: "the signature does not fit",
    swapped_labels: "the signature does not fit",
    damaged_signature: "the signature does not fit",
    borrowed_key: "the signature does not fit",
    no_signature_at_all: "not a usable signature",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_whatever_is_done_to_a_model_it_is_refused(attack, model, public, tmp_path, monkeypatch, capsys):
    assert workstation(["keygen", "--out", str(tmp_path / "other.key")]) == 0
    attack(model, tmp_path / "other.key")
    monkeypatch.setenv(VARIABLE, str(public))
    with pytest.raises(ModelError, match=ATTACKS[attack]) as caught:
        open_classifier(model)
    assert "\n" not in str(caught.value)
    capsys.readouterr()
    assert board(["verify", str(model)]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert ATTACKS[attack] in err


def test_verify_tells_apart_what_is_wrong(model, public, tmp_path, capsys):
    keys = trusted_keys(public)
    assert verify_model(model, keys).ok
    assert (verify_model(model, frozenset()).ok, verify_model(model, frozenset()).whole) == (False, True)
    assert "no key is trusted" in verify_model(model, frozenset()).text
    assert board(["verify", "--json", "--trusted-keys", str(public), str(model)]) == 0
    verdict = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert verdict["ok"] is verdict["trusted"] is True
    assert verdict["signed_by"] in keys
    (tmp_path / "report.json").write_text("{}")
    assert "belongs to the model but was altered" in verify_model(model, keys).text
    (tmp_path / "report.json").unlink()
    assert "cannot be read" in verify_model(model, keys).text
    assert verify_model(tmp_path / "none.onnx", keys).text.startswith("no such model")


def test_unsigned_built_in_model_is_said_to_be_so(capsys):
    from edge_mdda.classifier import built_in

    if signature_path(built_in()).exists():
        pytest.skip("the built-in model is signed")
    assert board(["verify"]) == 0  # it came with the program
    assert "whole, but not signed" in capsys.readouterr().out


def test_keys_are_found_in_order(model, public, tmp_path, monkeypatch):
    (key,) = trusted_keys(public)
    assert trusted_keys() == frozenset()
    folder = tmp_path / "config" / "edge-mdda"
    folder.mkdir(parents=True)
    (folder / "trusted-keys").write_text(f"# the clinic\n{key.upper()}  # release\n\n")
    assert trusted_keys() == {key}
    other = tmp_path / "keys"
    other.mkdir()
    (other / "b.pub").write_text("ab" * 32)
    monkeypatch.setenv(VARIABLE, f"{public}:{other}")
    assert trusted_keys() == {key, "ab" * 32}


@pytest.mark.parametrize("content", [None, "", "# nothing", "abc", "zz" * 32, "ab" * 31, "\u00e4"])
def test_a_set_of_keys_that_cannot_be_read_trusts_nobody(content, model, tmp_path, monkeypatch):
    path = tmp_path / "keys.pub"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(ModelError, match=r"keys\.pub: ") as caught:
        open_classifier(model)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(ModelError, match="set but empty"):
        open_classifier(model)


def test_a_configuration_that_cannot_be_looked_into_is_no_absent_one(model, tmp_path, monkeypatch):
    """A broken link and a loop stand for a folder that its owner locked; root can open that."""
    folder = tmp_path / "config" / "edge-mdda"
    folder.mkdir(parents=True)
    (folder / "trusted-keys").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelError, match="cannot read the trusted keys"):
        open_classifier(model)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(loop))
    with pytest.raises(ModelError, match="cannot read the trusted keys"):
        open_classifier(model)


def test_without_pynacl_nothing_is_trusted(model, public, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(public))
    monkeypatch.setitem(sys.modules, "nacl.signing", None)
    with pytest.raises(ModelError, match=r"signatures need PyNaCl; run: pip install"):
        open_classifier(model)


def test_an_untrusting_board_needs_no_pynacl(model):
    code = (
        "import sys; sys.modules['nacl'] = None; from edge_mdda.classifier import open_classifier;"
        f" open_classifier({str(model)!r}); print('opened')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "opened" in done.stdout, done.stderr


def test_private_keys_are_private_and_never_overwritten(key, public, tmp_path, capsys):
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(public.read_text().strip()) == 64
    assert workstation(["keygen", "--out", str(key)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_only_whole_models_and_real_keys_sign(model, key, public, tmp_path, capsys):
    for path, cause in ((public, "is a public key"), (manifest_path(model), "not a private key")):
        assert workstation(["sign", "--key", str(path), str(model)]) == 1
        assert cause in capsys.readouterr().err
    flip(model)
    before = signature_path(model).read_bytes()
    assert workstation(["sign", "--key", str(key), str(model)]) == 1
    assert "was altered or damaged" in capsys.readouterr().err
    assert signature_path(model).read_bytes() == before


def test_canonical_json_keeps_the_order_of_the_labels_alone():
    a = {"labels": {"x": "1", "y": "2"}, "b": 1, "a": [1, "ä"]}
    assert canonical(a) == '{"a":[1,"ä"],"b":1,"labels":[["x","1"],["y","2"]]}'.encode()
    assert canonical(dict(reversed(a.items()))) == canonical(a)
    assert canonical(a | {"labels": {"y": "2", "x": "1"}}) != canonical(a)
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", "a\\b"])
def test_a_manifest_cannot_name_files_elsewhere(name, model):
    change(manifest_path(model), files={name: "0" * 64})
    with pytest.raises(ModelError, match="field 'files'"):
        open_classifier(model)


def test_a_manifest_inside_a_file_may_be_older_than_a_field():
    """Models that were exported before manifests had a temperature stay whole; one that says otherwise does not."""
    from edge_mdda.classifier.manifest import embedded_text, is_embedded
    from tests.tiny_models import manifest_for

    manifest = manifest_for(b"", "m.onnx")
    inside = json.loads(embedded_text(manifest))
    assert is_embedded(embedded_text(manifest), manifest)
    older = {name: value for name, value in inside.items() if name not in ("temperature", "operating_point")}
    assert is_embedded(json.dumps(older), manifest)
    assert not is_embedded(json.dumps(older), manifest_for(b"", "m.onnx", temperature=2.0))
    assert not is_embedded(json.dumps(inside | {"refer_at": 0.9}), manifest)
    assert not is_embedded(json.dumps(inside | {"surprise": 1}), manifest)
    assert not is_embedded("no JSON", manifest)
    assert not is_embedded("[]", manifest)
