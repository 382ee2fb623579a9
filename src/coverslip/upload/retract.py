"""Take a series back from everywhere, leaving a tombstone that keeps it from coming back.

Every step may be repeated, and the tombstone is written first: whatever is killed is finished by the next call.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coverslip.errors import CoverslipError, StoreError
from coverslip.pipeline.ledger import Ledger, Stage, Tombstone
from coverslip.stores.base import ObjectStore, StoredInstance
from coverslip.upload.destination import Destination
from coverslip.upload.handover import read_handover, write_handover
from coverslip.upload.outcome import Failure
from coverslip.upload.tombstones import is_tombstone, write_tombstone

__all__ = ["RetractOutcome", "RetractRequest", "StoreRemoval", "count_stored", "retract_series"]


@dataclass(frozen=True, slots=True)
class RetractRequest:
    """What is to be taken back.

    Parameters
    ----------
    series_instance_uid : str
    reason : str
        Without the name of a person: it stays.
    folders : tuple of Path
        Local folders, such as of previews or a quarantine, where whatever is named after the series or one of its
        instances is removed, at any depth.
    handovers : tuple of Path
        Folders of hand-over files.
    forget : tuple of callable
        Further places, such as a catalog, that are told the Series Instance UID and the reason and remove what they
        hold of the series, its history included; each may be told again.
    """

    series_instance_uid: str
    reason: str
    folders: tuple[Path, ...] = ()
    handovers: tuple[Path, ...] = ()
    forget: tuple[Callable[[str, str], object], ...] = ()


@dataclass(frozen=True, slots=True)
class StoreRemoval:
    """What was removed from one store.

    Parameters
    ----------
    url : str
    instances : int
    objects : int
        What else was named after the series, such as previews.
    failure : Failure, optional
        Why something is left.
    """

    url: str
    instances: int = 0
    objects: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class RetractOutcome:
    """What was removed, and what is left.

    Parameters
    ----------
    stores : tuple of StoreRemoval
    files : int
        Files that were removed from folders.
    handover_rows : int
        Instances that were removed from hand-over files.
    tombstone : Tombstone
        Complete if nothing failed.
    """

    stores: tuple[StoreRemoval, ...]
    files: int
    handover_rows: int
    tombstone: Tombstone


def count_stored(series_instance_uid: str, destination: Destination) -> int:
    """Return how many instances of a series a store holds.

    Raises
    ------
    StoreError
        If it does not answer.
    """
    return sum(1 for _ in destination.iter_stored(series_instance_uid, thorough=True))


def retract_series(request: RetractRequest, destinations: Sequence[Destination], ledger: Ledger) -> RetractOutcome:
    """Remove a series from stores, folders, hand-over files and the ledger.

    A store that fails does not stop the others; the tombstone is complete only when all have succeeded.

    Raises
    ------
    CoverslipError
        If a folder, hand-over file or further place fails.
    """
    uid = request.series_instance_uid
    ledger.bury(uid, request.reason, 0, complete=False)
    found = {destination.url: _find(destination, uid) for destination in destinations}
    counts = (len(each) for each in found.values() if not isinstance(each, Failure))
    tombstone = ledger.bury(uid, request.reason, max(counts, default=0), complete=False)
    names = {uid}
    for destination in destinations:
        names.update(_names_of(uid, destination, found[destination.url], ledger))
    # Folders first: what names their files is known as long as it is in a store or in the ledger.
    files = sum(_remove_named(folder, names) for folder in request.folders)
    rows = sum(_remove_rows(folder, uid) for folder in request.handovers)
    removals = [_remove_from(each, found[each.url], names, tombstone) for each in destinations]
    for forget in request.forget:
        forget(uid, tombstone.reason)
    if all(removal.failure is None for removal in removals):
        ledger.forget_series(uid)
        tombstone = ledger.bury(uid, request.reason, 0, complete=True)
    return RetractOutcome(tuple(removals), files, rows, tombstone)


def _find(destination: Destination, uid: str) -> list[StoredInstance] | Failure:
    try:
        return list(destination.iter_stored(uid, thorough=True))
    except CoverslipError as error:
        return Failure.of(error)


def _remove_from(
    destination: Destination, found: list[StoredInstance] | Failure, names: set[str], tombstone: Tombstone
) -> StoreRemoval:
    """Remove what was found in a store, and leave a tombstone where there is a place for it."""
    if isinstance(found, Failure):
        return StoreRemoval(destination.url, failure=found)
    try:
        if isinstance(destination.store, ObjectStore):
            write_tombstone(destination.store, tombstone)
        instances = destination.remove(tombstone.series_instance_uid, found)
        return StoreRemoval(destination.url, instances, _remove_named_objects(destination, names))
    except CoverslipError as error:
        return StoreRemoval(destination.url, failure=Failure.of(error))


def _names_of(
    uid: str, destination: Destination, found: list[StoredInstance] | Failure, ledger: Ledger
) -> Iterator[str]:
    """Yield the UIDs and UUIDs after which files of the series may be named."""
    records = ledger.records_of(uid, Stage.UPLOAD, destination.url)
    stored = [] if isinstance(found, Failure) else found
    yield from (record.task.subject for record in records)
    yield from (each.uids.sop_instance_uid for each in stored if each.uids)
    if isinstance(destination.store, ObjectStore):
        for location in {*(record.location for record in records), *(each.location for each in stored)}:
            if location and location.endswith(".dcm"):
                folder, _, name = location.removeprefix(f"{destination.url}/").rpartition("/")
                yield name.removesuffix(".dcm")
                yield folder.rpartition("/")[2]


def _remove_named_objects(destination: Destination, names: set[str]) -> int:
    """Remove the objects of a bucket of which any part of the name, between slashes, is one of the names."""
    store = destination.store
    if not isinstance(store, ObjectStore):
        return 0
    named = []
    for stored in store.iter_objects():
        name = stored.location.removeprefix(f"{destination.url}/")
        if not is_tombstone(name) and any(_is_named(part, names) for part in name.split("/")):
            named.append(stored)
    return sum(store.remove(stored) for stored in named)


def _remove_named(folder: Path, names: set[str]) -> int:
    """Remove what is named after one of the names, alone or before a dot, and return how many files that were."""
    removed = 0
    try:
        for path in sorted(folder.rglob("*")):
            if _is_named(path.name, names) and (path.is_symlink() or path.exists()):
                removed += _remove(path)
    except OSError as error:
        raise StoreError(f"{folder} cannot be cleared: {error.strerror}") from error
    return removed


def _is_named(name: str, names: set[str]) -> bool:
    """Whether a name is one of the names, alone or before the ending of a file, not before more of a longer UID."""
    stems = (name[: match.start()] for match in re.finditer(r"\.(?![0-9])", name))
    return name in names or any(stem in names for stem in stems)


def _remove(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return 1
    files = sum(1 for each in path.rglob("*") if not each.is_dir())
    shutil.rmtree(path)
    return files


def _remove_rows(folder: Path, uid: str) -> int:
    rows = read_handover(folder)
    kept = [row for row in rows if row.series_instance_uid != uid]
    if len(kept) < len(rows):
        write_handover(kept, folder)
    return len(rows) - len(kept)
