"""Seeds: a fresh one for each image, and the keys that the noise kernel makes of it."""

from __future__ import annotations

import operator
import os

from edge_mdda.errors import ParamsError

SEED_BITS = 53  # every seed is exact in any JSON reader
MASK_32 = 0xFFFFFFFF
MASK_64 = 0xFFFFFFFFFFFFFFFF


def fresh_seed() -> int:
    """An unpredictable seed of ``SEED_BITS`` bits from the operating system."""
    return int.from_bytes(os.urandom(8), "little") >> (64 - SEED_BITS)


def seed_keys(seed: int) -> tuple[int, int]:
    """Spread a seed over two keys of 32 bits (the finaliser of SplitMix64), so that seeds 1 and 2 share nothing.

    Raises
    ------
    ParamsError
        It is no whole number from 0 to 2**64 - 1.
    """
    try:
        z = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        z = -1
    if not 0 <= z <= MASK_64:
        raise ParamsError(f"seed: expected a whole number from 0 to 2**64 - 1, got {seed!r}")
    z = (z + 0x9E3779B97F4A7C15) & MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK_64
    z ^= z >> 31
    return z & MASK_32, z >> 32
