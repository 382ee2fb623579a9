"""The project's key, and what is derived with it: pseudonyms and shifts of dates.

Without a key, a hash of a short identifier is undone by trying all identifiers; HMAC-SHA256 (RFC 2104) under a key
that stays at home cannot be.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from coverslip.errors import UsageError

__all__ = ["DeidKey", "load_key"]

_SHORTEST_BYTES = 32
_FEWEST_DISTINCT = 8
_LONGEST_SHIFT_DAYS = 3652


class DeidKey:
    """A project's secret; printing it tells nothing.

    Parameters
    ----------
    secret : bytes
        At least 32 bytes of at least 8 different values.

    Raises
    ------
    UsageError
        If it is shorter or simpler.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _SHORTEST_BYTES:
            raise UsageError(f"de-identification key of {len(secret)} bytes: wanted at least {_SHORTEST_BYTES}")
        if len(set(secret)) < _FEWEST_DISTINCT:
            raise UsageError("de-identification key of a few repeated bytes: wanted random ones")
        self._secret = secret

    def __repr__(self) -> str:
        return "DeidKey(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeidKey) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    def __reduce__(self) -> str:
        raise TypeError("a de-identification key is not to be stored")

    def fingerprint(self) -> str:
        """Return a text that differs from key to key and tells nothing of it, for UIDs to be derived from."""
        return self._digest("fingerprint").hex()

    def pseudonym(self, kind: str, text: str) -> str:
        """Return 16 characters that stand for a text of one kind (an attribute's keyword)."""
        return self._digest("pseudonym", kind, text).hex()[:16].upper()

    def shift_days(self, patient: str) -> int:
        """Return by how many days all dates of a patient move: -1 to -3652, ten years."""
        return -1 - int.from_bytes(self._digest("shift", patient)[:8]) % _LONGEST_SHIFT_DAYS

    def _digest(self, *parts: str) -> bytes:
        """Return the HMAC of parts with their lengths, so that no two lists of parts run together."""
        message = b"".join(b"%d:%b" % (len(part), part) for part in (text.encode() for text in parts))
        return hmac.digest(self._secret, message, hashlib.sha256)


def load_key(path: Path) -> DeidKey:
    """Read a key from a file; line ends after it do not count.

    Raises
    ------
    UsageError
        If the file cannot be read, or its key is too short or too simple.
    """
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise UsageError(f"de-identification key file {path} cannot be read: {error.strerror}") from None
    return DeidKey(secret.rstrip(b"\r\n"))
