"""The commands ``keygen`` and ``sign`` of ``python -m export``."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any

from edge_mdda.classifier.manifest import manifest_path, read_manifest, read_verified
from edge_mdda.classifier.signature import KEY_BYTES, sign, signature_path
from edge_mdda.errors import ModelError
from edge_mdda.files import replace_file
from export.errors import ExportError

EXAMPLES = """\
examples:
  python -m export keygen --out release.key        also writes release.key.pub: give that to the boards
  python -m export sign --key release.key build/*/*.onnx
  EDGE_MDDA_TRUSTED_KEYS=release.key.pub edge-mdda verify build/onnx-int8/model.onnx
"""


def add_commands(commands: Any) -> None:
    """Hook the commands into the parser of ``python -m export``."""
    raw = argparse.RawDescriptionHelpFormatter
    keygen = commands.add_parser("keygen", help="make a pair of signing keys", epilog=EXAMPLES, formatter_class=raw)
    keygen.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="private key; FILE.pub is the public one"
    )
    keygen.set_defaults(run=_keygen)
    signing = commands.add_parser("sign", help="sign models with their manifests", epilog=EXAMPLES, formatter_class=raw)
    signing.add_argument("models", nargs="+", type=Path, metavar="MODEL", help=".onnx or .tflite with its manifest")
    signing.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key, of keygen")
    signing.set_defaults(run=_sign)


def make_keys(path: Path) -> str:
    """Write a new private key (readable by its owner only) and its public key; returns the public one."""
    try:
        from nacl.signing import SigningKey
    except ImportError as error:
        raise ModelError("signatures need PyNaCl; run: pip install 'edge-mdda[sign]'") from error
    public = path.with_name(path.name + ".pub")
    for existing in (path, public):
        if existing.exists():
            raise ExportError(f"{existing}: exists already; a key is never overwritten, choose another name")
    key = SigningKey.generate()
    text = bytes(key.verify_key).hex()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(bytes(key).hex() + "\n")
        replace_file(str(public), (text + "\n").encode())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return text


def read_key(path: Path) -> bytes:
    """The seed of a private key; ExportError when the file holds something else."""
    try:
        text = path.read_text(encoding="ascii").strip()
        seed = bytes.fromhex(text)
    except (ValueError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: not a private key of keygen") from error
    if len(seed) != KEY_BYTES:
        raise ExportError(f"{path}: not a private key of keygen")
    if path.suffix == ".pub":
        raise ExportError(f"{path}: is a public key; sign with the private one")
    return seed


def _keygen(args: argparse.Namespace) -> int:
    print(f"{args.out}.pub: {make_keys(args.out)}")
    return 0


def _sign(args: argparse.Namespace) -> int:
    seed = read_key(args.key)
    for model in args.models:
        read_verified(model, manifest_path(model))  # what does not fit its manifest is not signed
        written, _ = read_manifest(manifest_path(model))
        replace_file(str(signature_path(model)), sign(written, seed).encode())
        print(signature_path(model))
    return 0
