"""Take instances into the store behind the server (STOW-RS, PS3.18 10.5)."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from coverslip.errors import ConflictError, RejectedError, StoreError, UsageError
from coverslip.stores.base import InstanceUids, LocalInstance
from coverslip.stores.multipart import iter_parts
from coverslip.stores.quiet import no_pydicom_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from coverslip.server.archive import Archive, IndexedInstance
    from coverslip.server.places import Places
    from coverslip.stores.base import Store

__all__ = ["Received", "Receiver"]

_CHUNK = 1 << 20
_UID_KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_UID = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))+")
_MOST_PARTS = 10_000
_NOT_UNDERSTOOD, _WRONG_STUDY, _IS_THERE, _OUT_OF_RESOURCES = 0xC000, 0xA900, 0x0111, 0xA700


@dataclass(slots=True)
class Received:
    """What became of the instances of one request.

    Parameters
    ----------
    stored : list
        (SOP class, SOP instance, URL path of the instance).
    failed : list
        (SOP class, SOP instance, reason as in PS3.18 Annex I.2); the UIDs may be empty.
    """

    stored: list[tuple[str, str, str]] = field(default_factory=list)
    failed: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """Of the answer (PS3.18 table 10.5.3-1)."""
        if not self.failed:
            return 200
        if self.stored:
            return 202
        return 503 if all(reason == _OUT_OF_RESOURCES for _, _, reason in self.failed) else 409

    def as_json(self, base_url: str) -> dict[str, Any]:
        """Return the answer in the DICOM JSON model."""
        found: dict[str, Any] = {}
        if self.failed:
            found["00081198"] = {
                "vr": "SQ",
                "Value": [
                    {**_reference(sop_class, uid), "00081197": {"vr": "US", "Value": [reason]}}
                    for sop_class, uid, reason in self.failed
                ],
            }
        if self.stored:
            found["00081199"] = {
                "vr": "SQ",
                "Value": [
                    {**_reference(sop_class, uid), "00081190": {"vr": "UR", "Value": [base_url + path]}}
                    for sop_class, uid, path in self.stored
                ],
            }
        return found


def _reference(sop_class: str, uid: str) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [sop_class]} if sop_class else {"vr": "UI"},
        "00081155": {"vr": "UI", "Value": [uid]} if uid else {"vr": "UI"},
    }


class Receiver:
    """Puts instances into a store and tells the archive; one request after the other.

    Parameters
    ----------
    store : Store
    archive : Archive
    places : Places
        Opens what is served already.
    on_stored : callable
        Told the UIDs of what was stored when a request is done.
    """

    def __init__(self, store: Store, archive: Archive, places: Places, on_stored: Callable[[list[str]], None]) -> None:
        self._store = store
        self._archive = archive
        self._places = places
        self._on_stored = on_stored
        self._lock = threading.Lock()

    def receive(self, body: Path, content_type: str, study_instance_uid: str = "") -> Received:
        """Store what a request has brought.

        Parameters
        ----------
        body : Path
            File with the whole body of the request.
        content_type : str
            ``multipart/related; type="application/dicom"; boundary=...`` or ``application/dicom``.
        study_instance_uid : str
            To which all of it has to belong; empty for any.

        Raises
        ------
        UsageError
            If the body is no such thing.
        """
        received = Received()
        with self._lock, TemporaryDirectory(prefix="coverslip-stow-") as folder:
            try:
                for number, part in enumerate(iter_parts(content_type, _read(body), "request")):
                    if number == _MOST_PARTS:
                        raise UsageError(f"expected at most {_MOST_PARTS} parts")
                    path = Path(folder, f"{number}.dcm")
                    digest, size = _write(path, part)
                    self._put(path, digest, size, study_instance_uid, received)
                    path.unlink()
            except StoreError:  # of the parts: the body ends too early
                raise UsageError("the body is not what its Content-Type says") from None
            finally:
                if received.stored:
                    self._on_stored([uid for _, uid, _ in received.stored])
        return received

    def _put(self, path: Path, md5: str, size: int, study: str, received: Received) -> None:
        header = _read_header(path)
        if header is None:
            received.failed.append(("", "", _NOT_UNDERSTOOD))
            return
        uids = InstanceUids(*(str(header.get(name, "")) for name in _UID_KEYWORDS))
        sop_class = str(header.get("SOPClassUID", ""))
        every = (uids.study_instance_uid, uids.series_instance_uid, uids.sop_instance_uid)
        if not all(len(uid) <= 64 and _UID.fullmatch(uid) for uid in every):
            received.failed.append(("", "", _NOT_UNDERSTOOD))
            return
        name = uids.sop_instance_uid
        if study and study != uids.study_instance_uid:
            received.failed.append((sop_class, name, _WRONG_STUDY))
            return
        syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
        local = LocalInstance(path, uids, sop_class, syntax, size, md5, f"{'/'.join(every)}.dcm")
        known = self._archive.instances.get(name)
        if known is not None and (known.study_instance_uid, known.series_instance_uid) != every[:2]:
            received.failed.append((sop_class, name, _IS_THERE))
            return
        try:
            # What is served may have any name in the store, which `put` knows nothing of.
            same = None if known is None else self._is_same(known, md5, size)
            if same is False:
                raise ConflictError("other content is served under this UID")
            location = "" if same else self._store.put(local).stored.location
        except ConflictError:
            received.failed.append((sop_class, name, _IS_THERE))
        except RejectedError:
            received.failed.append((sop_class, name, _NOT_UNDERSTOOD))
        except StoreError:
            received.failed.append((sop_class, name, _OUT_OF_RESOURCES))
        else:
            if known is None:
                self._archive.add(header, location, size)
            place = f"/studies/{every[0]}/series/{every[1]}/instances/{every[2]}"
            received.stored.append((sop_class, name, place))

    def _is_same(self, known: IndexedInstance, md5: str, size: int) -> bool | None:
        """Whether a served file has these bytes; None where its store gives none, and compares by itself."""
        file = self._places.open_file(known)
        if file is None:
            return None
        try:
            if file.size != size:
                return False
            digest = hashlib.md5(usedforsecurity=False)
            for position in range(0, size, _CHUNK):
                digest.update(file.read(position, min(_CHUNK, size - position)))
        finally:
            file.close()
        return digest.hexdigest() == md5


def _read(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            yield piece


def _write(path: Path, pieces: Iterator[bytes]) -> tuple[str, int]:
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with open(path, "wb") as file:
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            file.write(piece)
    return digest.hexdigest(), size


def _read_header(path: Path) -> Dataset | None:
    from pydicom import dcmread

    try:
        with no_pydicom_warnings():
            header = dcmread(path, stop_before_pixels=True)
            for keyword in (*_UID_KEYWORDS, "SOPClassUID"):
                header.get(keyword)  # converted here, where what is wrong with it is quiet
    except Exception:  # noqa: BLE001 - pydicom lets through what its conversions raise
        return None
    return header if getattr(header, "file_meta", None) is not None else None
