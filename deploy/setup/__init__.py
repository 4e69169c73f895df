"""What runs on the board before anything is installed: Python's standard library alone, any Python from 3.10 on.

The modules lie side by side in a bundle, so they import each other by their bare names; here on the workstation that
works through the path that this package adds.
"""

import os
import sys

if os.path.dirname(__file__) not in sys.path:
    sys.path.append(os.path.dirname(__file__))

from standing import MAX_KEYS, MAX_NUMBER
from unpack import CONTEXT, FIRST, MANIFEST, SIGNATURE, SIGNER, SUMS, BundleError, read_keys

__all__ = [
    "FIRST",
    "MANIFEST",
    "MAX_KEYS",
    "MAX_NUMBER",
    "SIGNATURE",
    "SIGNER",
    "SUMS",
    "BundleError",
    "read_keys",
    "signed_text",
]


def signed_text(sums: bytes) -> bytes:
    """What the signature of a bundle is over."""
    return CONTEXT + sums
