"""What all stores of named bytes do alike: listing by UIDs, headers by ranges, comparison by digest."""

from __future__ import annotations

import hashlib
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Buffer, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from coverslip.errors import StoreError
from coverslip.stores.base import (
    Comparison,
    InstanceUids,
    LocalInstance,
    OnBytes,
    PutResult,
    StoredInstance,
    VersionedBytes,
)
from coverslip.stores.options import Naming
from coverslip.stores.part10 import Part10File
from coverslip.stores.quiet import no_pydicom_warnings
from coverslip.stores.whole_file import whole_file

if TYPE_CHECKING:
    from types import TracebackType

    from pydicom.dataset import Dataset

__all__ = ["Digest", "NamedBytes", "require_object_name"]

_READ_CHUNK_BYTES = 8 << 20
_HEADER_CHUNK_BYTES = 256 << 10
_UID = r"[0-9.]{1,64}"


def require_object_name(name: str) -> str:
    """Return the name if it stays below the URL of a store in every kind of store."""
    if not all(part not in ("", ".", "..") for part in name.split("/")) or re.search(r"[\x00-\x1f\\]", name):
        raise ValueError(f"{name!r} is not the name of an object")
    return name


class Digest(Protocol):
    """What is made of all bytes of an object."""

    @property
    def name(self) -> str:
        """Of the algorithm."""
        ...

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the digest of what was taken."""
        ...


class NamedBytes(ABC):
    """An object store; subclasses put, find, list, read ranges and remove.

    Parameters
    ----------
    url : str
        Without a slash at its end.
    naming : Naming
    """

    def __init__(self, url: str, naming: Naming) -> None:
        self.url = url.rstrip("/")
        self._naming = naming

    @abstractmethod
    def put(self, instance: LocalInstance, on_bytes: OnBytes | None = None) -> PutResult:
        """Put an instance; see `coverslip.stores.base.Store`."""

    @abstractmethod
    def find_object(self, name: str) -> StoredInstance | None:
        """Return what is stored under a name, or None."""

    @abstractmethod
    def iter_objects(self, prefix: str = "") -> Iterator[StoredInstance]:
        """Yield every object whose name begins with `prefix`."""

    @abstractmethod
    def read_range(self, stored: StoredInstance, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of an object."""

    @abstractmethod
    def put_bytes(self, name: str, data: bytes) -> None:
        """Put a small object."""

    @abstractmethod
    def read_versioned(self, name: str) -> VersionedBytes | None:
        """Return a small object with its version, or None."""

    @abstractmethod
    def swap_bytes(self, name: str, data: bytes, version: str | None) -> str:
        """Put a small object in place of one version."""

    @abstractmethod
    def remove(self, stored: StoredInstance) -> bool:
        """Remove an object."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""

    def location_of(self, name: str) -> str:
        """Return the location of an object."""
        return f"{self.url}/{require_object_name(name)}"

    def name_of(self, stored: StoredInstance) -> str:
        """Return the name of an object below the URL of the store."""
        if not stored.location.startswith(f"{self.url}/"):
            raise ValueError(f"{stored.location} is not below {self.url}")
        return stored.location.removeprefix(f"{self.url}/")

    def find(self, instance: LocalInstance) -> StoredInstance | None:
        """Return what is stored under the name of an instance, or None."""
        return self.find_object(instance.object_name)

    def iter_instances(self, study_instance_uid: str = "", series_instance_uid: str = "") -> Iterator[StoredInstance]:
        """Yield the objects named ``*.dcm``, all or of one study or series."""
        prefix = ""
        if self._naming is Naming.UIDS and study_instance_uid:
            prefix = f"{study_instance_uid}/" + (f"{series_instance_uid}/" if series_instance_uid else "")
        for stored in self.iter_objects(prefix):
            if not stored.location.endswith(".dcm"):
                continue
            uids = _uids_of_name(self.name_of(stored))
            if (study_instance_uid or series_instance_uid) and uids is None:
                uids = _uids_of_header(self.read_header(stored))
            if uids is None:
                yield stored
            elif _matches(uids, study_instance_uid, series_instance_uid):
                yield replace(stored, uids=uids)

    def read_header(self, stored: StoredInstance) -> Dataset:
        """Return the data set without pixel data, reading no more of the object than that."""
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError

        name = self.name_of(stored)
        with io.BufferedReader(_RangeFile(self, stored), _HEADER_CHUNK_BYTES) as file, no_pydicom_warnings():
            try:
                header = dcmread(file, stop_before_pixels=True)
            except (InvalidDicomError, ValueError, EOFError, AttributeError, KeyError):
                raise StoreError(f"{name}: not a readable DICOM file in {self.url}") from None
        return header

    def read_bytes(self, name: str) -> bytes | None:
        """Return a small object, or None."""
        stored = self.find_object(name)
        return None if stored is None else b"".join(self._iter_chunks(stored))

    def download(self, stored: StoredInstance, path: Path) -> None:
        """Write an object to a new file and check its digest."""
        try:
            self._download(stored, path)
        except FileExistsError:
            raise StoreError(f"{path.name}: not downloaded: there is a file of that name") from None

    def _download(self, stored: StoredInstance, path: Path) -> None:
        digest, wanted = self._digest_of(stored)
        with whole_file(path) as file:
            size_bytes = 0
            for chunk in self._iter_chunks(stored):
                file.write(chunk)
                digest.update(chunk)
                size_bytes += len(chunk)
            if stored.size_bytes not in (None, size_bytes):
                raise StoreError(
                    f"{self.name_of(stored)}: {size_bytes} bytes came, expected {stored.size_bytes}", retryable=True
                )
            if wanted not in (None, digest.hexdigest()):
                raise StoreError(
                    f"{self.name_of(stored)}: {digest.name} {digest.hexdigest()} came, expected {wanted}",
                    retryable=True,
                )

    def compare(self, instance: LocalInstance, frame_numbers: Sequence[int] = ()) -> Comparison:
        """Compare size, digest and the bytes of frames."""
        stored = self.find(instance)
        if stored is None:
            raise StoreError(f"{instance.object_name}: not in {self.url}")
        return self.compare_stored(instance, stored, frame_numbers)

    def compare_stored(
        self, instance: LocalInstance, stored: StoredInstance, frame_numbers: Sequence[int] = ()
    ) -> Comparison:
        """Compare a local file with an object that has been found."""
        if stored.size_bytes is not None and stored.size_bytes != instance.size_bytes:
            return Comparison((f"size: {stored.size_bytes} bytes, expected {instance.size_bytes}",), ("size",))
        digest, found, wanted = self._compare_digests(instance, stored)
        compared = ["size", digest]
        differences = [] if found == wanted else [f"{digest}: {found}, expected {wanted}"]
        if frame_numbers:
            compared.append(f"frames {', '.join(map(str, frame_numbers))}")
            differences += self._compare_frames(instance, stored, frame_numbers)
        return Comparison(tuple(differences), tuple(compared))

    def _compare_digests(self, instance: LocalInstance, stored: StoredInstance) -> tuple[str, str, str]:
        """Return the name of a digest, that of what is stored, and that of the local file.

        Without a digest that the store has computed itself, what is stored is read.
        """
        found = stored.md5
        if found is None:
            digest = hashlib.md5(usedforsecurity=False)
            for chunk in self._iter_chunks(stored):
                digest.update(chunk)
            found = digest.hexdigest()
        return "md5", found, instance.md5

    def _digest_of(self, stored: StoredInstance) -> tuple[Digest, str | None]:
        """Return a fresh digest, and what it must come to after all bytes of the object; None if that is not known."""
        return hashlib.md5(usedforsecurity=False), stored.md5

    def _compare_frames(
        self, instance: LocalInstance, stored: StoredInstance, frame_numbers: Sequence[int]
    ) -> Iterator[str]:
        local = Part10File(instance.path)
        for number in frame_numbers:
            places = local.frame_places(number)
            found = b"".join(self.read_range(stored, offset, length) for offset, length in places)
            if found != local.read_frame(number):
                yield f"frame {number}: other bytes than in {instance.path.name}"

    def _iter_chunks(self, stored: StoredInstance) -> Iterator[bytes]:
        offset = 0
        while chunk := self.read_range(stored, offset, _READ_CHUNK_BYTES):
            yield chunk
            offset += len(chunk)
            if offset == stored.size_bytes:
                break

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _RangeFile(io.RawIOBase):
    """An object as a file that is read by ranges."""

    def __init__(self, store: NamedBytes, stored: StoredInstance) -> None:
        self._store = store
        self._stored = stored
        self._offset = 0
        self.name = stored.location  # pydicom asks for it

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            if self._stored.size_bytes is None:
                raise OSError("the size is not known")
            offset += self._stored.size_bytes
        elif whence == io.SEEK_CUR:
            offset += self._offset
        self._offset = offset
        return offset

    def tell(self) -> int:
        return self._offset

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        data = self._store.read_range(self._stored, self._offset, len(view))
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)


def _uids_of_name(name: str) -> InstanceUids | None:
    """Return the UIDs that a name is made of; None if it is made of something else."""
    match = re.fullmatch(rf"(?:.*/)?({_UID})/({_UID})/({_UID})\.dcm", name)
    return InstanceUids(match[1], match[2], match[3]) if match else None


def _uids_of_header(header: Dataset) -> InstanceUids:
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    study, series, instance = (str(header.get(keyword, "")) for keyword in keywords)
    return InstanceUids(study, series, instance)


def _matches(uids: InstanceUids, study_instance_uid: str, series_instance_uid: str) -> bool:
    return study_instance_uid in ("", uids.study_instance_uid) and series_instance_uid in ("", uids.series_instance_uid)
