"""Where files lie: opened by their location in the index, from local disk, a bucket or a DICOMweb store."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coverslip.errors import StoreError
from coverslip.stores.base import InstanceUids, ObjectStore, StoredInstance
from coverslip.validators.stored_file import LocalFile, StoredFile
from coverslip.validators.stored_series import StoreFile

if TYPE_CHECKING:
    from coverslip.server.archive import IndexedInstance
    from coverslip.stores.base import Store

__all__ = ["Places"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PARTS_OF_STORE = {"gs": 1, "s3": 1, "healthcare": 4}
"""So many parts of a URL name the store that an object without a known store lies in."""


class Places:
    """Opens files by location; stores that are not open yet are opened when they are first needed.

    Parameters
    ----------
    stores : sequence of Store
        Open already; they are not closed here.
    open_store : callable
        Opens the store at a URL, which whoever gives this closes.
    """

    def __init__(self, stores: Sequence[Store] = (), open_store: Callable[[str], Store] | None = None) -> None:
        self._stores = {store.url: store for store in stores}
        self._open_store = open_store
        self._lock = threading.Lock()

    def local_path(self, location: str) -> Path | None:
        """Return the path of a file on this machine, None if it lies elsewhere."""
        if location.lower().startswith("file://"):
            return Path(unquote(urlsplit(location).path))
        return None if _URL.match(location) else Path(location)

    def open_file(self, instance: IndexedInstance) -> StoredFile | None:
        """Return a file whose bytes can be read, None where a store gives no bytes by offset.

        Raises
        ------
        StoreError
            If no store is known for it.
        """
        path = self.local_path(instance.location)
        if path is not None:
            return LocalFile(path)
        store = self.store_of(instance.location)
        if not isinstance(store, ObjectStore):
            return None
        return StoreFile(store, self.stored(instance))

    @staticmethod
    def stored(instance: IndexedInstance) -> StoredInstance:
        """Return an instance as stores name it."""
        uids = InstanceUids(instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid)
        return StoredInstance(instance.location, uids, instance.size_bytes)

    def store_of(self, location: str) -> Store:
        """Return the store that a URL lies in."""
        with self._lock:
            for url, store in self._stores.items():
                if location.startswith(f"{url}/"):
                    return store
            if self._open_store is None:
                raise StoreError("a file lies in a store that is not open")
            url = _store_url(location)
            store = self._stores[url] = self._open_store(url)
            return store


def _store_url(location: str) -> str:
    scheme, _, rest = location.partition("://")
    if "/studies/" in location and scheme.lower() not in ("gs", "s3"):
        return location.partition("/studies/")[0]
    parts = rest.split("/")
    return f"{scheme}://{'/'.join(parts[: _PARTS_OF_STORE.get(scheme.lower(), 1)])}"
