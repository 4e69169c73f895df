"""Everything that can be checked about a model without running it, for ``edge-mdda verify``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_mdda.classifier import BUILT_IN_MODELS
from edge_mdda.classifier.manifest import (
    EMBEDDED_KEY,
    Manifest,
    is_embedded,
    manifest_path,
    read_manifest,
    read_signature,
    read_verified,
)
from edge_mdda.classifier.signature import require_trusted, signature_path, signer
from edge_mdda.digest import sha256
from edge_mdda.errors import ModelError


@dataclass(frozen=True)
class Verdict:
    """What became of one model.

    Attributes
    ----------
    model : str
        The file.
    ok : bool
        Whole, and signed by a trusted key; or, where no key is trusted, whole and one of the program's own.
    whole : bool
        Model, manifest and the files that it names belong together.
    signed_by : str, optional
        Public key of a signature that fits.
    trusted : bool
        Whether that key is trusted here.
    text : str
        One line for people.
    """

    model: str
    ok: bool
    whole: bool
    signed_by: str | None
    trusted: bool
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def _check_files(model: Path, manifest: Manifest) -> None:
    for name, digest in manifest.files.items():
        path = model.with_name(name)
        try:
            found = sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ModelError(f"{path}: belongs to the model but cannot be read ({error.strerror})") from error
        if found != digest:
            raise ModelError(f"{path}: belongs to the model but was altered (SHA-256 is {found[:12]}…)")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def onnx_metadata(content: bytes) -> dict[str, str]:
    """``metadata_props`` of an ONNX file, read from its bytes: no runtime and no ``onnx`` package needed.

    Raises
    ------
    ModelError
        Not the wire format of a protocol buffer.
    """
    found: dict[str, str] = {}
    try:
        for number, value in _fields(content):
            if number == 14:  # ModelProto.metadata_props: StringStringEntryProto {1: key, 2: value}
                entry = {n: v.decode() for n, v in _fields(value)}
                found[entry.get(1, "")] = entry.get(2, "")
    except (IndexError, ValueError) as error:
        raise ModelError("not a readable ONNX file") from error
    return found


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """Field numbers and contents of the length-delimited fields of a message."""
    at, found = 0, []
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("cut off")
            found.append((tag >> 3, data[at : at + size]))
            at += size
        else:
            raise ValueError("unknown wire type")
    return found


def _check_embedded(content: bytes, model: Path, manifest: Manifest) -> None:
    stored = onnx_metadata(content).get(EMBEDDED_KEY)
    if stored is not None and not is_embedded(stored, manifest):
        raise ModelError(f"{model}: the manifest inside the file differs from the one beside it")


def came_with_program(model: Path) -> bool:
    """Whether this is one of the program's own files: who could exchange it could exchange the program, too."""
    name = model.stem in BUILT_IN_MODELS.values()
    return name and model.parent.resolve() == Path(__file__).resolve().parents[1] / "models"


def verify_model(model: Path, keys: frozenset[str]) -> Verdict:
    """Check one model against its manifest and the trusted ``keys``; never raises for a bad model."""
    whole, key = False, None
    try:
        content, manifest = read_verified(model, manifest_path(model))
        _check_files(model, manifest)
        if model.suffix.lower() == ".onnx":
            _check_embedded(content, model, manifest)
        whole = True
        written, _ = read_manifest(manifest_path(model))
        text = read_signature(model)
        key = signer(written, text, str(signature_path(model)))
        if keys:
            require_trusted(written, text, model, keys)
    except ModelError as error:
        cause = str(error)
        return Verdict(str(model), False, whole, key, False, cause.removeprefix(f"{model}: "))
    if key is None and not keys and came_with_program(model):
        text_ = "whole, but not signed; it came with this program and can be trusted as far as the program"
        return Verdict(str(model), True, True, None, False, text_)
    if key is None:
        return Verdict(str(model), False, True, None, False, "whole, but not signed; sign it: python -m export sign")
    if not keys:
        text_ = f"whole and signed by {key}, but no key is trusted here; name it with --trusted-keys"
        return Verdict(str(model), False, True, key, False, text_)
    return Verdict(str(model), True, True, key, True, f"whole, signed by the trusted key {key}")
