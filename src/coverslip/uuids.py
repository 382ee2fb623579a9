"""UUIDs and digests that name one version of bytes: of a file, and of a series, study or patient (docs/identity.md)."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable

__all__ = ["NAMESPACE", "instance_uuid", "merkle_md5", "series_uuid"]

NAMESPACE = uuid.UUID("4d9adcc1-360e-5d17-a803-386bd2f03c9f")
"""Of the UUIDs of files and series: UUIDv5 of the name ``coverslip`` in the namespace of OIDs (RFC 9562, 6.6)."""


def instance_uuid(sop_instance_uid: str, md5: str) -> str:
    """Return the UUID of one version of an instance: another as soon as a byte of its file is another."""
    return str(uuid.uuid5(NAMESPACE, f"{sop_instance_uid}{md5}"))


def merkle_md5(md5s: Iterable[str]) -> str:
    """Return the MD5 of the sorted, concatenated MD5s of what something is made of, as IDC versions its data."""
    return hashlib.md5("".join(sorted(md5s)).encode(), usedforsecurity=False).hexdigest()


def series_uuid(series_instance_uid: str, md5s: Iterable[str]) -> str:
    """Return the UUID of one version of a series, from its UID and the MD5s of its instances."""
    return str(uuid.uuid5(NAMESPACE, f"{series_instance_uid}{merkle_md5(md5s)}"))
