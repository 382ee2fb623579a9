"""Read headers from a store: of objects by ranges of bytes, of a DICOMweb service by its metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coverslip.catalog.conversion_record import RECORD_FILE, SeriesRecord, read_record
from coverslip.catalog.header_reader import BytesSource, as_part10
from coverslip.catalog.reading import PartReader, ReadingOptions
from coverslip.catalog.staging import Part
from coverslip.errors import CatalogError, CoverslipError
from coverslip.stores.base import ObjectStore, Store, StoredInstance

__all__ = ["THREADS", "is_store_url", "read_stores"]

THREADS = 8
"""So many connections are used at a time."""

_PART = 500
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAMED = re.compile(rf"/{_UUID}/({_UUID})\.dcm$")


def is_store_url(path: str) -> bool:
    """Say whether something is the URL of a store, not the path of a file or folder."""
    return bool(_URL.match(path)) and not path.lower().startswith("file://")


class _ObjectSource:
    """The bytes of an object, by ranges."""

    def __init__(self, store: ObjectStore, stored: StoredInstance) -> None:
        self._store = store
        self._stored = stored
        self.size_bytes = stored.size_bytes

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes, fewer at the end of the object."""
        if self.size_bytes is not None:
            length_bytes = min(length_bytes, self.size_bytes - offset_bytes)
        return self._store.read_range(self._stored, offset_bytes, length_bytes) if length_bytes > 0 else b""


def read_stores(
    stores: Sequence[Store],
    first_part: int,
    folder: Path,
    options: ReadingOptions,
    on_progress: Callable[[int, int], None],
) -> Iterator[Part]:
    """Read the headers of all instances in stores into parts, several connections at a time.

    Raises
    ------
    StoreError
        If a store cannot be listed; what goes wrong with single instances is told in the parts.
    """
    found = [(store, listed) for store in stores for listed in _list(store)]
    size = max(1, min(_PART, -(-len(found) // THREADS)))
    chunks = [found[start : start + size] for start in range(0, len(found), size)]
    done = 0
    with ThreadPoolExecutor(THREADS) as pool:
        results = [
            pool.submit(_read_chunk, chunk, first_part + number, folder, options) for number, chunk in enumerate(chunks)
        ]
        for chunk, result in zip(chunks, results, strict=True):
            part = result.result()
            done += len(chunk)
            on_progress(done, len(found))
            yield part


def _list(store: Store) -> Iterator[StoredInstance]:
    """Yield what may be instances, in alphabetical order of where they lie."""
    if not isinstance(store, ObjectStore):
        yield from sorted(store.iter_instances(), key=lambda stored: stored.location)
        return
    for stored in sorted(store.iter_objects(), key=lambda stored: stored.location):
        # Manifests and pictures lie beside instances, which are named .dcm or have no ending.
        name = stored.location.rsplit("/", 1)[1]
        if name.endswith(".dcm") or re.fullmatch(r"[^.]+|[0-9.]+", name):
            yield stored


def _read_chunk(
    chunk: Sequence[tuple[Store, StoredInstance]], number: int, folder: Path, options: ReadingOptions
) -> Part:
    part = PartReader(number, options)
    records: dict[str, SeriesRecord | None] = {}
    for store, stored in chunk:
        try:
            _read_stored(store, stored, part, records)
        except CoverslipError as error:
            part.fail(stored.location, error)
        except Exception as error:  # noqa: BLE001 - one odd instance must not end the others
            part.fail(stored.location, CatalogError(f"cannot be read: {type(error).__name__}"))
    return part.write(folder)


def _read_stored(
    store: Store, stored: StoredInstance, part: PartReader, records: dict[str, SeriesRecord | None]
) -> None:
    folder, _, name = stored.location.rpartition("/")
    record, md5 = None, stored.md5
    if isinstance(store, ObjectStore):
        header = part.reader.read(_ObjectSource(store, stored))
        if folder not in records:
            records[folder] = _read_record(store, folder, part)
        record = records[folder]
        if record is not None and record.series_instance_uid != header.row["SeriesInstanceUID"]:
            record = None
        if record is not None and md5 is None:
            size_bytes, stated = record.files.get(name, (None, None))
            md5 = stated if size_bytes is not None and size_bytes == stored.size_bytes else None
    else:
        header = part.reader.read(BytesSource(as_part10(store.read_header(stored))))
    named = _NAMED.search(stored.location)
    part.add(
        header,
        location=stored.location,
        folder=folder,
        size_bytes=stored.size_bytes,
        md5=md5,
        record=record,
        uuid=named[1] if named else None,
    )


def _read_record(store: ObjectStore, folder: str, part: PartReader) -> SeriesRecord | None:
    name = f"{folder}/{RECORD_FILE}".removeprefix(f"{store.url}/")
    try:
        data = store.read_bytes(name)
        return read_record(data) if data is not None else None
    except ValueError as error:
        part.fail(f"{folder}/{RECORD_FILE}", CatalogError(f"cannot be read: {error}"))
        return None
