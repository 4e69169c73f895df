"""Ed25519 signatures over manifests, and the set of keys that a board trusts.

A manifest holds the SHA-256 of its model and of the reports beside it, so whoever signs the manifest signs
them all. What is signed is canonical JSON: sorted keys, labels in their order, no blanks, UTF-8; how the file
is laid out does not matter. The signature lies in ``<model>.sig``. PyNaCl is needed only where a key is
trusted or something is signed.

A signature proves who exported a model and that nothing changed since. It does not prove that the model is
good, and it protects nothing on a board whose attacker can change the trusted keys or this program.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge_mdda.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

ALGORITHM = "ed25519"
CONTEXT = b"edge_mdda manifest 1\n"  # keeps a signature from being taken for one over something else
VARIABLE = "EDGE_MDDA_TRUSTED_KEYS"
KEY_BYTES = 32
MAX_BYTES = 1 << 16  # of a key or signature file


def canonical(content: Mapping[str, Any]) -> bytes:
    """The one byte string that stands for a manifest; ValueError for NaN and infinity.

    Keys are sorted, except that ``labels`` becomes a list of pairs: their order is that of the outputs, and
    swapping two of them must not go unnoticed.
    """
    plain = dict(content)
    if isinstance(plain.get("labels"), Mapping):
        plain["labels"] = [list(pair) for pair in plain["labels"].items()]
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def signature_path(model: Path) -> Path:
    """``lesion.onnx`` is signed in ``lesion.onnx.sig``."""
    return model.with_name(model.name + ".sig")


def _nacl() -> Any:
    try:
        import nacl.signing
    except ImportError as error:
        raise ModelError("signatures need PyNaCl; run: pip install 'edge-mdda[sign]'") from error
    return nacl.signing


def read_keys(path: str | os.PathLike[str]) -> frozenset[str]:
    """Public keys of a file (one in hexadecimal a line, ``#`` begins a comment) or of a folder's ``*.pub``.

    Raises
    ------
    ModelError
        Unreadable, malformed or empty: a set of keys that cannot be read must not turn into no set at all.
    """
    from pathlib import Path  # here: boards without keys do without it

    path = Path(path)
    try:
        files = sorted(path.glob("*.pub")) if path.is_dir() else [path]
        texts = [file.read_text(encoding="ascii")[:MAX_BYTES] for file in files]
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path}: cannot read the trusted keys ({getattr(error, 'strerror', None) or error})"
        ) from error
    words = [line.partition("#")[0].strip().lower() for text in texts for line in text.splitlines()]
    keys = frozenset(word for word in words if word)
    for key in keys:
        if len(key) != 2 * KEY_BYTES or set(key) - set("0123456789abcdef"):
            raise ModelError(f"{path}: '{key[:12]}…' is no public key of {KEY_BYTES} bytes in hexadecimal")
    if not keys:
        raise ModelError(f"{path}: holds no trusted key; add one or take the setting away")
    return keys


def trusted_keys(chosen: Path | None = None) -> frozenset[str]:
    """The keys that models must be signed with; empty where nobody set any.

    ``chosen``, else the files in ``$EDGE_MDDA_TRUSTED_KEYS`` (joined by ``:``), else
    ``trusted-keys`` in the user's configuration folder ``edge-mdda``, else in ``/etc/edge-mdda``.
    """
    if chosen is not None:
        return read_keys(chosen)
    if VARIABLE in os.environ:
        paths = [part for part in os.environ[VARIABLE].split(os.pathsep) if part]
        if not paths:
            raise ModelError(f"{VARIABLE} is set but empty; name a file of keys or unset it")
        return frozenset().union(*(read_keys(path) for path in paths))
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    for path in (os.path.join(home, "edge-mdda", "trusted-keys"), "/etc/edge-mdda/trusted-keys"):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # it may be there: reading it says why it cannot be read
        return read_keys(path)
    return frozenset()


def sign(manifest: Mapping[str, Any], seed: bytes) -> str:
    """The content of a signature file for a manifest, by the private key with this seed (32 bytes)."""
    key = _nacl().SigningKey(seed)
    made = key.sign(CONTEXT + canonical(manifest)).signature
    content = {"algorithm": ALGORITHM, "public_key": bytes(key.verify_key).hex(), "signature": made.hex()}
    return json.dumps(content, indent=2) + "\n"


def signer(manifest: Mapping[str, Any], text: bytes | None, name: str) -> str | None:
    """Public key that signed ``manifest``, None where there is no signature.

    Raises
    ------
    ModelError
        The signature file is malformed, or does not belong to this manifest.
    """
    if text is None:
        return None
    signing = _nacl()
    try:
        content = json.loads(text)
        if content["algorithm"] != ALGORITHM:
            raise ValueError(f"algorithm {content['algorithm']!r}")
        key, made = bytes.fromhex(content["public_key"]), bytes.fromhex(content["signature"])
        verifier = signing.VerifyKey(key)
        message = CONTEXT + canonical(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{name}: not a usable signature ({' '.join(str(error).split())[:100]})") from error
    except Exception as error:  # PyNaCl's own types
        raise ModelError(f"{name}: not a usable signature ({type(error).__name__})") from error
    import nacl.exceptions

    try:
        verifier.verify(message, made)
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise ModelError(f"{name}: the signature does not fit the manifest; one of them was altered") from error
    return key.hex()


def require_trusted(
    manifest: Mapping[str, Any], text: bytes | None, model: str | os.PathLike[str], keys: frozenset[str]
) -> str:
    """The trusted key that signed the manifest; ModelError where none did."""
    key = signer(manifest, text, f"{os.fspath(model)}.sig")
    if key is None:
        raise ModelError(f"{model}: is not signed, and only models signed by a trusted key are opened here")
    if key not in keys:
        raise ModelError(f"{model}: is signed by the key {key[:12]}…, which is not trusted here")
    return key
