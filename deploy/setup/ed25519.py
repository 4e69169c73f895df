"""Ed25519 signatures checked with nothing but Python: a board has no other library before the first installation.

Only public values are handled here, so it does not matter that the time depends on them. Signing is PyNaCl's business.

References
----------
S. Josefsson, I. Liusvaara, "Edwards-Curve Digital Signature Algorithm (EdDSA)", RFC 8032, 2017, sections 5.1.3
and 5.1.7.
"""

from __future__ import annotations

import hashlib

KEY_BYTES, SIGNATURE_BYTES = 32, 64
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)

Point = tuple[int, int, int, int]
"""Extended homogeneous coordinates X, Y, Z, T with x = X / Z, y = Y / Z, x y = T / Z."""

NEUTRAL: Point = (0, 1, 1, 0)


def _add(a: Point, b: Point) -> Point:
    left = (a[1] - a[0]) * (b[1] - b[0]) % P
    right = (a[1] + a[0]) * (b[1] + b[0]) % P
    cross = 2 * D * a[3] * b[3] % P
    twice = 2 * a[2] * b[2] % P
    e, f, g, h = right - left, twice - cross, twice + cross, right + left
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(factor: int, point: Point) -> Point:
    total = NEUTRAL
    while factor:
        if factor & 1:
            total = _add(total, point)
        point = _add(point, point)
        factor >>= 1
    return total


def _equal(a: Point, b: Point) -> bool:
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def _decode(text: bytes) -> Point | None:
    """A point from its 32 bytes; None where they stand for none, or not in the one canonical way."""
    number = int.from_bytes(text, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    numerator, denominator = (y * y - 1) % P, (D * y * y + 1) % P
    # The square root of a fraction modulo a prime that is 5 modulo 8.
    x = numerator * pow(denominator, 3, P) * pow(numerator * pow(denominator, 7, P), (P - 5) // 8, P) % P
    if (denominator * x * x - numerator) % P:
        x = x * ROOT_OF_MINUS_ONE % P
        if (denominator * x * x - numerator) % P:
            return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


_BASE_Y = 4 * pow(5, -1, P) % P
_base = _decode(_BASE_Y.to_bytes(KEY_BYTES, "little"))
assert _base is not None
BASE: Point = _base


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) over ``message`` was made with the private key of ``key`` (32 bytes).

    False for anything malformed: wrong lengths, bytes that are no point, a scalar out of range, a key of small order.
    """
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    public, commitment = _decode(key), _decode(signature[:KEY_BYTES])
    scalar = int.from_bytes(signature[KEY_BYTES:], "little")
    if public is None or commitment is None or scalar >= ORDER:
        return False
    if _equal(_times(8, public), NEUTRAL):  # under such a key anybody's signature holds
        return False
    digest = hashlib.sha512(signature[:KEY_BYTES] + key + message).digest()
    challenge = int.from_bytes(digest, "little") % ORDER
    return _equal(_times(scalar, BASE), _add(commitment, _times(challenge, public)))
