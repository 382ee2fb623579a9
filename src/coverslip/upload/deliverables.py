"""What is to be delivered: the series in files and folders, with the names that their bytes have."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.errors import StoreError
from coverslip.stores.base import InstanceUids, LocalInstance
from coverslip.stores.options import Naming
from coverslip.uuids import instance_uuid, series_uuid

__all__ = [
    "CONVERSION_FILE",
    "Deliverable",
    "FoundFile",
    "FoundSeries",
    "describe_series",
    "digest_file",
    "find_series",
    "fingerprint",
]

CONVERSION_FILE = "conversion.json"

type Fingerprint = tuple[int, int, int]
"""What changes when a file is written to or replaced: size, inode, time of the last change."""

_HEADER_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One DICOM file and what its header says."""

    path: Path
    uids: InstanceUids
    sop_class_uid: str
    transfer_syntax_uid: str
    patient_id: str
    size_bytes: int
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """The files of one series, in order of their names."""

    series_instance_uid: str
    files: tuple[FoundFile, ...]

    @property
    def folder(self) -> Path:
        """Where the first file lies."""
        return self.files[0].path.parent


@dataclass(frozen=True, slots=True)
class Deliverable:
    """A series on its way into stores.

    Parameters
    ----------
    study_instance_uid, series_instance_uid, series_uuid : str
    patient_id : str
        Only ever written into hand-over files.
    folder : Path
    instances : tuple of LocalInstance
    fingerprints : mapping
        Of each file, by SOP Instance UID, taken before any of its bytes were digested.
    siblings : mapping
        Object names by SOP Instance UID of what `conversion.json` lists and is not delivered now.
    conversion : mapping
        `conversion.json`; empty for a series made elsewhere.
    stated_md5 : bool
        Whether the MD5s were read from `conversion.json`, and the files have not been read yet.
    """

    study_instance_uid: str
    series_instance_uid: str
    series_uuid: str
    patient_id: str
    folder: Path
    instances: tuple[LocalInstance, ...]
    fingerprints: Mapping[str, Fingerprint]
    siblings: Mapping[str, str]
    conversion: Mapping[str, Any]
    stated_md5: bool

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(instance.size_bytes for instance in self.instances)


def find_series(paths: Sequence[Path]) -> tuple[list[FoundSeries], list[tuple[Path, str]]]:
    """Find the DICOM files in paths and folders, and group them by series.

    In folders, at any depth, files are taken whose name ends with ``.dcm`` and those that start as DICOM files do;
    what is hidden, such as the staging area of a conversion under way, is passed by.

    Returns
    -------
    list of FoundSeries
        In the order in which they are met.
    list of (path, problem)
        Files that are named as DICOM files and cannot be read as such.

    Raises
    ------
    StoreError
        If a path is not there, or nothing is found.
    """
    grouped: dict[str, list[FoundFile]] = {}
    unreadable = []
    for path in _iter_files(paths):
        found = _read_file(path)
        if isinstance(found, str):
            unreadable.append((path, found))
        else:
            grouped.setdefault(found.uids.series_instance_uid, []).append(found)
    if not grouped and not unreadable:
        raise StoreError("no DICOM files found")
    return [FoundSeries(uid, tuple(files)) for uid, files in grouped.items()], unreadable


def describe_series(found: FoundSeries, naming: Naming) -> Deliverable:
    """Return a series with its digests and names, from its `conversion.json` or else from its bytes.

    Raises
    ------
    StoreError
        If it is not whole, or not one series.
    """
    _require_one_series(found)
    conversion = _read_conversion(found)
    stated = _stated_instances(conversion)
    if stated:
        _require_as_stated(found, stated)
        md5s = {uid: str(instance["md5"]) for uid, instance in stated.items()}
    else:
        md5s = {file.uids.sop_instance_uid: digest_file(file.path) for file in found.files}
    version = series_uuid(found.series_instance_uid, md5s.values())
    study = found.files[0].uids.study_instance_uid
    names = {
        uid: f"{version}/{instance_uuid(uid, md5)}.dcm"
        if naming is Naming.UUIDS
        else f"{study}/{found.series_instance_uid}/{uid}.dcm"
        for uid, md5 in md5s.items()
    }
    given = {file.uids.sop_instance_uid: file for file in found.files}
    return Deliverable(
        study,
        found.series_instance_uid,
        version,
        found.files[0].patient_id,
        found.folder,
        tuple(
            LocalInstance(
                file.path,
                file.uids,
                file.sop_class_uid,
                file.transfer_syntax_uid,
                file.size_bytes,
                md5s[uid],
                names[uid],
            )
            for uid, file in given.items()
        ),
        {uid: file.fingerprint for uid, file in given.items()},
        {uid: name for uid, name in names.items() if uid not in given},
        conversion,
        stated_md5=bool(stated),
    )


def fingerprint(path: Path) -> Fingerprint | None:
    """Return the fingerprint of a file, or None if it cannot be looked at any more."""
    try:
        return _fingerprint(path.stat())
    except OSError:
        return None


def _fingerprint(stat: os.stat_result) -> Fingerprint:
    return stat.st_size, stat.st_ino, stat.st_mtime_ns


def digest_file(path: Path) -> str:
    """Return the MD5 of a file, in hexadecimal.

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise StoreError(f"{path.name} cannot be read: {error.strerror}") from error


def _iter_files(paths: Iterable[Path]) -> Iterator[Path]:
    seen = set()
    for path in paths:
        if path.is_dir():
            candidates = [file for file in _walk(path) if file.suffix.lower() == ".dcm" or _starts_as_dicom(file)]
        elif path.exists():
            candidates = [path]
        else:
            raise StoreError(f"{path} is not there")
        for file in candidates:
            if (real := file.resolve()) not in seen:
                seen.add(real)
                yield file


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name != "DICOMDIR":  # an index of the folder, made for media
                yield Path(place) / name


def _starts_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _read_file(path: Path) -> FoundFile | str:
    """Return what the header says, or why it cannot be used."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd values: validation tells them
            mark = _fingerprint(os.fstat(file.fileno()))
            header = dcmread(file, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
            values = [str(header.get(keyword) or "").strip() for keyword in _HEADER_TAGS]
        syntax = str(header.file_meta.get("TransferSyntaxUID") or "")
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except InvalidDicomError:
        return "is no DICOM file"
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever a damaged header makes it stumble over
        return f"header cannot be read: {type(error).__name__}"
    sop_class, sop_instance, study, series, patient = values
    named = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": sop_instance}
    if missing := [keyword for keyword, uid in named.items() if not _is_uid(uid)]:
        return f"has no valid {', '.join(missing)}"
    return FoundFile(path, InstanceUids(study, series, sop_instance), sop_class, syntax, patient, mark[0], mark)


def _is_uid(text: str) -> bool:
    """Whether a text can stand in a URL or name as a UID."""
    return 0 < len(text) <= 64 and all(part.isascii() and part.isdigit() for part in text.split("."))


def _require_one_series(found: FoundSeries) -> None:
    if len({file.uids.study_instance_uid for file in found.files}) > 1:
        raise StoreError("its files name different studies, expected one Study Instance UID")
    if len({file.patient_id for file in found.files}) > 1:
        raise StoreError("its files name different patients, expected one Patient ID")
    seen: set[str] = set()
    for file in found.files:
        uid = file.uids.sop_instance_uid
        if uid in seen:
            raise StoreError(f"two files hold instance {uid}, expected one")
        seen.add(uid)


def _read_conversion(found: FoundSeries) -> Mapping[str, Any]:
    """Return the `conversion.json` beside the files, if it is that of the series."""
    if len({file.path.parent for file in found.files}) > 1:
        return {}
    try:
        conversion = json.loads((found.folder / CONVERSION_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{CONVERSION_FILE} cannot be read: {type(error).__name__}") from error
    if not isinstance(conversion, dict):
        raise StoreError(f"{CONVERSION_FILE} is no JSON object")
    return conversion if conversion.get("series_instance_uid") == found.series_instance_uid else {}


def _stated_instances(conversion: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the instances that `conversion.json` lists, by SOP Instance UID."""
    try:
        stated = {str(instance["sop_instance_uid"]): instance for instance in conversion.get("instances", ())}
        complete = all(
            isinstance(instance["md5"], str) and isinstance(instance["size_bytes"], int) for instance in stated.values()
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"{CONVERSION_FILE} lists instances without UID, size or MD5") from error
    if not complete:
        raise StoreError(f"{CONVERSION_FILE} lists instances without size or MD5")
    return stated


def _require_as_stated(found: FoundSeries, stated: Mapping[str, Mapping[str, Any]]) -> None:
    given = {file.uids.sop_instance_uid: file for file in found.files}
    if strangers := sorted(given.keys() - stated.keys()):
        raise StoreError(f"{len(strangers)} files are not listed in {CONVERSION_FILE}: {', '.join(strangers[:3])}")
    for uid, instance in stated.items():
        if uid not in given:
            # Files may be named one by one; but a series that lost one is not whole.
            if not (found.folder / str(instance.get("file_name") or f"{uid}.dcm")).is_file():
                raise StoreError(f"instance {uid} is listed in {CONVERSION_FILE} and not there")
        elif given[uid].size_bytes != instance["size_bytes"]:
            raise StoreError(
                f"instance {uid} has {given[uid].size_bytes} bytes, {CONVERSION_FILE} says {instance['size_bytes']}"
            )
