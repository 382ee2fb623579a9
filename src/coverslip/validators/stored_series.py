"""Find the series of a store, and read them there: by ranges of bytes, or by fetching one series at a time."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Self

from coverslip.errors import StoreError
from coverslip.stores.base import ObjectStore
from coverslip.validators.series import FoundSeries, SeriesView, find_series
from coverslip.validators.stored_file import LocalFile

if TYPE_CHECKING:
    from coverslip.stores.base import Store, StoredInstance
    from coverslip.validators.report import Finding

__all__ = ["StoreFile", "StorePlace", "find_stored_series"]

_BELOW = re.compile(r"(?P<store>.+?)/studies/(?P<study>[0-9.]+)(?:/series/(?P<series>[0-9.]+))?/?")
_LEAST_READ = 64 << 10
_MOST_READ = 4 << 20
_LEAST_FREE_BYTES = 1 << 30
"""That stay free on the disk that series are fetched to."""


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A store, and what of it is meant.

    Parameters
    ----------
    url : str
        Of the store.
    name : str
        Of one object of an object store; empty for all.
    study_instance_uid, series_instance_uid : str
        Empty for all.
    """

    url: str
    name: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the place at a URL, which may go on to an object ``*.dcm`` or, as in DICOMweb, a study or series."""
        below = _BELOW.fullmatch(url)
        if below is not None:
            return cls(below["store"], "", below["study"], below["series"] or "")
        store, _, name = url.rpartition("/")
        return cls(store, name) if name.endswith(".dcm") else cls(url)


def find_stored_series(store: Store, place: StorePlace) -> tuple[list[FoundSeries], list[Finding]]:
    """Group the instances of a store by series.

    Parameters
    ----------
    store : Store
        Stays open until the series have been validated.
    place : StorePlace

    Returns
    -------
    list of FoundSeries
        In the order in which they are met.
    list of Finding
        Of objects that cannot be read as DICOM.

    Raises
    ------
    StoreError
        If the store cannot be read, or there is nothing to validate.
    """
    if isinstance(store, ObjectStore):
        ending = f"/{place.name}" if place.name else ".dcm"
        found = (each for each in store.iter_objects(place.name) if each.location.endswith(ending))
        return find_series(StoreFile(store, each) for each in found)
    series: dict[str, FetchedSeries] = {}
    for instance in store.iter_instances(place.study_instance_uid, place.series_instance_uid):
        if instance.uids is not None:
            uid, study = instance.uids.series_instance_uid, instance.uids.study_instance_uid
            fetched = series.setdefault(uid, FetchedSeries(uid, study, ("", "", "", ""), store=store))
            fetched.instances.append(instance)
            fetched.sop_instance_uids.append(instance.uids.sop_instance_uid)
    if not series:
        raise StoreError(f"{store.url}: no instances found")
    return list(series.values()), []


class StoreFile:
    """An object of a store; what is read in small pieces, one after the other, is asked for in ever larger ones.

    Parameters
    ----------
    store : ObjectStore
    stored : StoredInstance
    """

    def __init__(self, store: ObjectStore, stored: StoredInstance) -> None:
        self._store = store
        self._stored = stored
        self.folder, _, self.name = stored.location.rpartition("/")
        self.local_path: Path | None = None
        self._size = stored.size_bytes
        self._lock = Lock()
        self._piece = b""
        self._offset = 0
        self._next_read = _LEAST_READ

    @property
    def size(self) -> int:
        """Bytes, as the store tells."""
        if self._size is None:
            raise StoreError(f"{self._stored.location}: the store tells no size")
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the object, fewer at its end; StoreError if they cannot be read."""
        with self._lock:
            start = offset - self._offset
            if start >= 0 and start + length <= len(self._piece):
                return self._piece[start : start + length]
            goes_on = 0 <= start <= len(self._piece)
            self._next_read = min(2 * self._next_read, _MOST_READ) if goes_on and self._piece else _LEAST_READ
            wanted = max(length, self._next_read)
            self._piece = self._store.read_range(self._stored, offset, min(wanted, max(0, self.size - offset)))
            self._offset = offset
            return self._piece[:length]

    def close(self) -> None:
        """Forget what was read."""
        with self._lock:
            self._piece, self._offset, self._next_read = b"", 0, _LEAST_READ


@dataclass(slots=True)
class FetchedSeries(FoundSeries):
    """A series of a store that gives whole instances only: fetched when it is opened, removed when it is closed.

    Parameters
    ----------
    store : Store
    instances : list of StoredInstance
    """

    store: Store | None = None
    instances: list[StoredInstance] = field(default_factory=list)

    @property
    def fetched(self) -> bool:
        """Always."""
        return True

    def open(self) -> SeriesView:
        """Fetch the instances into a temporary folder, and read their headers.

        Raises
        ------
        StoreError
            If the store cannot be read, or the disk has no room for the series.
        """
        assert self.store is not None
        folder = TemporaryDirectory(prefix="coverslip-")
        try:
            names = {}
            for number, instance in enumerate(sorted(self.instances, key=lambda each: each.location)):
                if shutil.disk_usage(folder.name).free < _LEAST_FREE_BYTES + (instance.size_bytes or 0):
                    raise StoreError(f"{folder.name}: no room for series {self.series_instance_uid}; TMPDIR moves it")
                path = Path(folder.name, f"{number}.dcm")
                self.store.download(instance, path)
                names[path] = instance.location
            view = SeriesView(self.series_instance_uid, [], self._location())
            view.read(FetchedFile(path, location) for path, location in names.items())
        except BaseException:
            folder.cleanup()
            raise
        view.on_close = folder.cleanup
        return view

    def _location(self) -> str:
        return self.instances[0].location.rpartition("/instances/")[0] or self.instances[0].location


class FetchedFile(LocalFile):
    """A fetched instance, which goes by its name in the store."""

    def __init__(self, path: Path, location: str) -> None:
        super().__init__(path)
        self._location = location

    @property
    def name(self) -> str:
        """SOP Instance UID, the last part of its URL."""
        return self._location.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """URL of its series."""
        return self._location.rpartition("/")[0]
