"""UIDs that follow from what they name, so that the same input and options give the same bytes anywhere."""

from __future__ import annotations

import hashlib
import re

from coverslip.errors import UsageError

__all__ = ["OUTPUT_FORMAT", "UUID_ROOT", "derive_uid", "require_uid_root"]

OUTPUT_FORMAT = 2
"""Raised only when the same slide and options would give other bytes than before."""

UUID_ROOT = "2.25"
"""Root of UIDs made from a UUID (PS3.5 B.2); needs no registration."""

_LONGEST_UID = 64


def require_uid_root(root: str) -> str:
    """Return `root` if UIDs can be made under it.

    Raises
    ------
    UsageError
        If it is not dotted numbers without leading zeros (PS3.5 9.1), stands under no arc that there is (ITU-T X.660:
        0 and 1 have 40 arcs each), or leaves fewer than 24 digits, too few to keep derived UIDs apart.
    """
    if not re.fullmatch(r"([01]\.[1-3]?\d|2\.(0|[1-9]\d*))(\.(0|[1-9]\d*))*", root, re.ASCII):
        raise UsageError(
            f"UID root {root!r}: wanted numbers joined by dots, none with a leading zero, that start with 0, 1 or 2;"
            " after 0 and 1 comes a number below 40"
        )
    if len(root) > _LONGEST_UID - 25:
        raise UsageError(f"UID root of {len(root)} characters: wanted at most {_LONGEST_UID - 25}")
    return root


def derive_uid(root: str, *parts: str) -> str:
    """Return the UID named by `parts` under `root`.

    The parts are hashed with their lengths, so that no two lists of parts run together, and the first 128 bits of the
    SHA-256 become a version 8 UUID (RFC 9562), written as one decimal number (PS3.5 B.2). Roots other than 2.25 too
    long for it get its last digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(f"{len(encoded)}:".encode() + encoded)
    number = int.from_bytes(digest.digest()[:16])
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    digits = str(number)[-(_LONGEST_UID - len(root) - 1) :].lstrip("0") or "0"
    return f"{root}.{digits}"
