"""Digests of local files, taken before they are sent."""

from __future__ import annotations

import hashlib

from coverslip.errors import StoreError
from coverslip.stores.base import LocalInstance
from coverslip.stores.objects import Digest
from coverslip.stores.whole_file import iter_chunks

__all__ = ["require_unchanged"]

_CHUNK_BYTES = 4 << 20


def require_unchanged(instance: LocalInstance, *others: Digest) -> None:
    """Read a local file once, check its md5 and give its bytes to other digests.

    Raises
    ------
    StoreError
        If the file is not, or no longer, the one that is to be sent.
    """
    md5 = hashlib.md5(usedforsecurity=False)
    size_bytes = 0
    for chunk in iter_chunks(instance.path, _CHUNK_BYTES):
        md5.update(chunk)
        size_bytes += len(chunk)
        for other in others:
            other.update(chunk)
    if (size_bytes, md5.hexdigest()) != (instance.size_bytes, instance.md5):
        raise StoreError(
            f"{instance.path.name}: has changed: {size_bytes} bytes of md5 {md5.hexdigest()}, "
            f"expected {instance.size_bytes} of {instance.md5}"
        )
