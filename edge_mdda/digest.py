"""SHA-256 without OpenSSL.

``hashlib`` loads OpenSSL for its first hash: 4 MB of resident memory that a screening needs for nothing else.
CPython's own SHA-256 is the same function in a small module, under a name of its own in every version.
"""

from __future__ import annotations

try:
    from _sha2 import sha256  # CPython from 3.12 on
except ImportError:
    try:
        from _sha256 import sha256  # CPython up to 3.11
    except ImportError:
        from hashlib import sha256

__all__ = ["sha256"]
