"""What remains of a series that was retracted, so that it does not come back: in the ledger and in buckets."""

from __future__ import annotations

import json

from coverslip.errors import StoreError
from coverslip.pipeline.ledger import Tombstone
from coverslip.stores.base import ObjectStore, Store

__all__ = ["is_tombstone", "tombstone_name", "why_retracted", "write_tombstone"]


_FOLDER = "retracted/"


def is_tombstone(name: str) -> bool:
    """Whether a name below the URL of a bucket or folder is that of a tombstone."""
    return name.startswith(_FOLDER)


def tombstone_name(series_instance_uid: str) -> str:
    """Return the name of a tombstone below the URL of a bucket or folder."""
    return f"{_FOLDER}{series_instance_uid}.json"


def write_tombstone(store: ObjectStore, tombstone: Tombstone) -> None:
    """Put a tombstone where every machine that uploads to this store finds it."""
    text = {
        "series_instance_uid": tombstone.series_instance_uid,
        "reason": tombstone.reason,
        "retracted_at": tombstone.retracted_at,
        "instances": tombstone.instances,
    }
    data = (json.dumps(text, indent=2) + "\n").encode()
    name = tombstone_name(tombstone.series_instance_uid)
    if store.read_bytes(name) != data:
        store.put_bytes(name, data)


def why_retracted(series_instance_uid: str, store: Store) -> str | None:
    """Return the reason for which a series was retracted from a bucket or folder, None if it was not.

    Raises
    ------
    StoreError
        If the store does not answer.
    """
    if not isinstance(store, ObjectStore):
        return None
    data = store.read_bytes(tombstone_name(series_instance_uid))
    if data is None:
        return None
    try:
        return str(json.loads(data)["reason"])
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{tombstone_name(series_instance_uid)} in {store.url} cannot be read") from None
