"""Take a series back from everywhere, leaving a tombstone that keeps it from coming back.

Every step may be repeated, and the tombstone is written first: whatever is killed is finished by the next call.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coverslip.errors import CoverslipError, StoreError
from coverslip.pipeline.ledger import Ledger, Stage, Tombstone
from coverslip.stores.base import ObjectStore
from coverslip.upload.destination import Destination
from coverslip.upload.handover import read_handover, write_handover
from coverslip.upload.outcome import Failure
from coverslip.upload.tombstones import write_tombstone

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
    """What was removed from one store."""

    url: str
    instances: int = 0
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
    tombstone = ledger.bury(uid, request.reason, 0, complete=False)
    names = {uid, *_names_known(uid, destinations, ledger)}
    files = sum(_remove_named(folder, names) for folder in request.folders)
    rows = sum(_remove_rows(folder, uid) for folder in request.handovers)
    removals = []
    for destination in destinations:
        removal = _remove_from(destination, uid)
        removals.append(removal)
        tombstone = ledger.bury(uid, request.reason, removal.instances, complete=False)
    for forget in request.forget:
        forget(uid, tombstone.reason)
    if all(removal.failure is None for removal in removals):
        for destination in destinations:
            if isinstance(destination.store, ObjectStore):
                write_tombstone(destination.store, tombstone)
        ledger.forget_series(uid)
        tombstone = ledger.bury(uid, request.reason, 0, complete=True)
    return RetractOutcome(tuple(removals), files, rows, tombstone)


def _remove_from(destination: Destination, uid: str) -> StoreRemoval:
    try:
        return StoreRemoval(destination.url, destination.remove_series(uid))
    except CoverslipError as error:
        return StoreRemoval(destination.url, failure=Failure.of(error))


def _names_known(uid: str, destinations: Sequence[Destination], ledger: Ledger) -> Iterator[str]:
    """Yield the UIDs and UUIDs after which files of the series may be named."""
    for destination in destinations:
        for record in ledger.records_of(uid, Stage.UPLOAD, destination.url):
            yield record.task.subject
            if record.location and isinstance(destination.store, ObjectStore):
                folder, _, name = record.location.rpartition("/")
                yield name.removesuffix(".dcm")
                yield folder.rpartition("/")[2]


def _remove_named(folder: Path, names: set[str]) -> int:
    """Remove what is named after one of the names, alone or before a dot, and return how many files that were."""
    removed = 0
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or path.exists():
                name = path.name
                if any(name == each or (name.startswith(f"{each}.") and _is_suffix(name, each)) for each in names):
                    removed += _remove(path)
    except OSError as error:
        raise StoreError(f"{folder} cannot be cleared: {error.strerror}") from error
    return removed


def _is_suffix(name: str, stem: str) -> bool:
    """Whether what follows is the ending of a file, and not more of a longer UID."""
    return not name[len(stem) + 1 : len(stem) + 2].isdigit()


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
