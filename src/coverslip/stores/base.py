"""The contract of a store: instances are put, found, read and removed under a URL.

Two kinds of store stand behind it. An *object store* (folder, bucket) keeps the bytes of a Part 10 file under a name
and gives ranges of them. A *DICOMweb store* (PS3.18) keeps data sets under their UIDs and gives headers and frames.
What is common to both is `Store`; `ObjectStore` adds what only bytes allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from types import TracebackType

    from pydicom.dataset import Dataset

__all__ = [
    "Comparison",
    "InstanceUids",
    "LocalInstance",
    "ObjectStore",
    "OnBytes",
    "PutOutcome",
    "PutResult",
    "Store",
    "StoredInstance",
    "VersionedBytes",
]

type OnBytes = Callable[[int], None]
"""Told how many more bytes have been sent; a negative number when some must be sent again."""


@dataclass(frozen=True, slots=True, order=True)
class InstanceUids:
    """The UIDs by which an instance is found."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class LocalInstance:
    """One Part 10 file on disk, on its way into a store.

    Parameters
    ----------
    path : Path
    uids : InstanceUids
    sop_class_uid, transfer_syntax_uid : str
    size_bytes : int
    md5 : str
        Of the whole file, in hexadecimal.
    object_name : str
        Name below the URL of an object store, such as ``<series_uuid>/<instance_uuid>.dcm``.
    """

    path: Path
    uids: InstanceUids
    sop_class_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    md5: str
    object_name: str


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One instance as a store tells of it; what it does not tell is None.

    Parameters
    ----------
    location : str
        URL of the object, or of the instance in a DICOMweb service.
    uids : InstanceUids or None
        None where only a name is known, as in a listing of a bucket.
    size_bytes : int or None
    md5, crc32c : str or None
        In hexadecimal.
    generation : str or None
        What tells this object from others that had or will have its name.
    """

    location: str
    uids: InstanceUids | None = None
    size_bytes: int | None = None
    md5: str | None = None
    crc32c: str | None = None
    generation: str | None = None


@dataclass(frozen=True, slots=True)
class VersionedBytes:
    """A small object as it was at one moment.

    Parameters
    ----------
    data : bytes
    version : str
        What tells it from what had or will have its name; means something to its store alone.
    """

    data: bytes
    version: str


class PutOutcome(StrEnum):
    """What became of an instance that was put and not refused."""

    STORED = "stored"
    ALREADY_THERE = "already there"


@dataclass(frozen=True, slots=True)
class PutResult:
    """What the store acknowledged.

    Parameters
    ----------
    outcome : PutOutcome
    stored : StoredInstance
    warnings : tuple of str
        Of the store, without values of the data set.
    """

    outcome: PutOutcome
    stored: StoredInstance
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What of a local file was compared with what a store holds.

    Parameters
    ----------
    differences : tuple of str
        One line each: the thing, the value found and the one wanted. Empty if all that was compared is equal.
    compared : tuple of str
        What was compared, such as ``"size"``, ``"crc32c"``, ``"metadata"``, ``"frames 1, 17"``.
    """

    differences: tuple[str, ...]
    compared: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs and something was compared."""
        return bool(self.compared) and not self.differences


@runtime_checkable
class Store(Protocol):
    """Puts, finds, reads and removes instances under a URL; safe to use from several threads.

    Every failure is a `StoreError` (`retryable` says whether trying again may help), an instance that the store refuses
    a `RejectedError`, other content under the same UIDs or name a `ConflictError`. Messages hold no secret, no header
    value and no query of a URL.
    """

    url: str

    def put(self, instance: LocalInstance, on_bytes: OnBytes | None = None) -> PutResult:
        """Put an instance, in bounded memory whatever its size. Putting the same one again is harmless.

        The call retries what may pass, and returns when the store has acknowledged the whole instance.
        """
        ...

    def find(self, instance: LocalInstance) -> StoredInstance | None:
        """Return what is stored as this instance, or None."""
        ...

    def compare(self, instance: LocalInstance, frame_numbers: Sequence[int] = ()) -> Comparison:
        """Compare a local file with what is stored: by digest where the store has one, else metadata and frames.

        Parameters
        ----------
        frame_numbers : sequence of int
            1-based frames to read back from the store and compare byte by byte.

        Raises
        ------
        StoreError
            If nothing is stored as this instance or the store does not answer.
        """
        ...

    def iter_instances(self, study_instance_uid: str = "", series_instance_uid: str = "") -> Iterator[StoredInstance]:
        """Yield what is stored, all or of one study or series, in no particular order.

        An object store whose names are not made of UIDs reads the header of every instance to tell which study and
        series it belongs to; whoever knows the names had better ask for them.
        """
        ...

    def read_header(self, stored: StoredInstance) -> Dataset:
        """Return the data set with its file meta information where the store gives it, without pixel data."""
        ...

    def download(self, stored: StoredInstance, path: Path) -> None:
        """Write the whole instance to a new file, in bounded memory; under its name only when it is complete.

        Where the store has a digest it is checked. A DICOMweb store may give other bytes than were put: file meta
        information and padding are its own.
        """
        ...

    def remove(self, stored: StoredInstance) -> bool:
        """Remove an instance; False if it was not there.

        Raises
        ------
        RejectedError
            If the store removes nothing, as many DICOMweb stores.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class ObjectStore(Store, Protocol):
    """A store of named bytes.

    The location of an object is the URL of the store, a slash and its name.
    """

    def find_object(self, name: str) -> StoredInstance | None:
        """Return what is stored under a name, or None."""
        ...

    def iter_objects(self, prefix: str = "") -> Iterator[StoredInstance]:
        """Yield every object whose name begins with `prefix`, also those that are no instances."""
        ...

    def read_range(self, stored: StoredInstance, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of an object, fewer at its end, none beyond it."""
        ...

    def put_bytes(self, name: str, data: bytes) -> None:
        """Put a small object, such as a manifest or a tombstone, in place of what has that name.

        Where the store can tell, what somebody else has put meanwhile is not overwritten: that is a `ConflictError`.
        """
        ...

    def read_bytes(self, name: str) -> bytes | None:
        """Return a small object, or None."""
        ...

    def read_versioned(self, name: str) -> VersionedBytes | None:
        """Return a small object with its version, or None."""
        ...

    def swap_bytes(self, name: str, data: bytes, version: str | None) -> str:
        """Put a small object in place of one version and no other, and return the new version.

        Parameters
        ----------
        version : str or None
            Of what is there; None: nothing is.

        Raises
        ------
        ConflictError
            If something else is there; it stays. Of several who put other bytes at once one gets through.
        """
        ...
