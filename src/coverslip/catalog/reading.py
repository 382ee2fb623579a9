"""Read the headers of some files into one part of a shard; runs in as many processes as there are cores."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from coverslip.catalog.columns import ColumnTree
from coverslip.catalog.conversion_record import RECORD_FILE, SeriesRecord, as_collection_id, read_record
from coverslip.catalog.found_files import FileSource
from coverslip.catalog.header_reader import Header, HeaderReader
from coverslip.catalog.staging import Failure, Part, write_part
from coverslip.errors import CatalogError, CoverslipError
from coverslip.uuids import instance_uuid

__all__ = ["Digest", "PartReader", "ReadingOptions", "read_files"]

_DIRECTORY = "1.2.840.10008.1.3.10"


class Digest(StrEnum):
    """Where the MD5 of an instance comes from."""

    READ = "read"
    """From conversion.json or the store, else of the file, which is read as a whole."""
    KNOWN = "known"
    """From conversion.json or the store only; without it the header tells whether an instance has changed."""


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How instances are read.

    Parameters
    ----------
    digest : Digest
    facts : mapping or None
        What a user states of the collection of all of them; takes the place of what their records say.
    all_columns : bool
        Whether parts have all pinned columns, or those alone that were met.
    """

    digest: Digest = Digest.READ
    facts: Mapping[str, Any] | None = None
    all_columns: bool = True


class PartReader:
    """Collects the rows of one part.

    Parameters
    ----------
    number : int
    options : ReadingOptions
    """

    def __init__(self, number: int, options: ReadingOptions) -> None:
        self.number = number
        self.options = options
        self.tree = ColumnTree()
        self.reader = HeaderReader(self.tree)
        self.failures: list[Failure] = []
        self._rows: list[Mapping[str, Any]] = []
        self._instances: list[Mapping[str, Any]] = []
        self._series: dict[str, Mapping[str, Any]] = {}

    def add(
        self,
        header: Header,
        *,
        location: str,
        folder: str,
        size_bytes: int | None,
        md5: str | None,
        record: SeriesRecord | None,
        uuid: str | None = None,
    ) -> None:
        """Add an instance.

        Parameters
        ----------
        location, folder : str
            Where it lies, and in what.
        record : SeriesRecord or None
            Of its series, if there is one.
        uuid : str or None
            As its name in a store tells it.
        """
        row = header.row
        uid = row["SOPInstanceUID"]
        facts = self.options.facts or (record.row.get("facts") if record else None) or {}
        series_uid = row["SeriesInstanceUID"]
        if record is not None or facts:
            told = dict(record.row) if record else {"SeriesInstanceUID": series_uid, "converted": False}
            told["facts"] = self._facts(row, facts)
            self._series.setdefault(series_uid, {**told, "location": folder})
        self._rows.append(row)
        self._instances.append(
            {
                "row_index": len(self._instances),
                "SOPInstanceUID": uid,
                "SeriesInstanceUID": series_uid,
                "StudyInstanceUID": row["StudyInstanceUID"],
                "PatientID": row.get("PatientID"),
                "collection_id": facts.get("collection_id") or _collection_id(row),
                "instance_uuid": instance_uuid(uid, md5) if md5 else uuid,
                "instance_hash": md5,
                "instance_size": size_bytes,
                "content_key": md5 or _header_key(row, size_bytes),
                "location": location,
                "folder": folder,
                "drops": [{"path": drop.path, "reason": drop.reason} for drop in header.drops],
            }
        )
        for misfit in header.misfits:
            self.fail(location, CatalogError(f"{misfit.path} {misfit.reason}; left out"))

    def _facts(self, row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
        return {**facts, "collection_id": facts.get("collection_id") or _collection_id(row)}

    def fail(self, location: str, error: CoverslipError) -> None:
        """Note a file or value that could not be read."""
        self.failures.append(Failure(location, str(error), error.exit_code))

    def write(self, folder: Path) -> Part:
        """Write the rows, and forget them."""
        fields = self.tree.fields(met=not self.options.all_columns)
        write_part(folder, self.number, fields, self._rows, self._instances, list(self._series.values()))
        return Part(self.number, len(self._rows), tuple(self.failures))


def _collection_id(row: Mapping[str, Any]) -> str | None:
    """Return the collection that a header tells: the trial's protocol, or what the Clinical Trial Processor noted."""
    protocol = row.get("ClinicalTrialProtocolID")
    if not protocol:
        elements = {each["Tag"]: each["Data"] for each in row.get("OtherElements", ())}
        if elements.get("Tag_00130010") == ["CTP"]:
            protocol = next(iter(elements.get("Tag_00131010", ())), None)
    return as_collection_id(protocol) if protocol else None


def _header_key(row: Mapping[str, Any], size_bytes: int | None) -> str:
    """Return what tells this version of an instance from others where its MD5 is not known."""
    text = json.dumps([size_bytes, row], sort_keys=True, default=str)
    return f"header:{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}"


def read_files(paths: Sequence[str], number: int, folder: Path, options: ReadingOptions) -> Part:
    """Read local files into one part; those that cannot be read are told in it."""
    part = PartReader(number, options)
    records: dict[str, SeriesRecord | None] = {}
    for path in paths:
        try:
            _read_file(path, part, records)
        except CoverslipError as error:
            part.fail(path, error)
        except Exception as error:  # noqa: BLE001 - one odd file must not end the others
            part.fail(path, CatalogError(f"cannot be read: {type(error).__name__}"))
    return part.write(folder)


def _read_file(path: str, part: PartReader, records: dict[str, SeriesRecord | None]) -> None:
    folder, name = os.path.split(path)
    with FileSource(path) as source:
        header = part.reader.read(source, whole=True)
        if header.row.get("MediaStorageSOPClassUID") == _DIRECTORY:
            return
        if folder not in records:
            records[folder] = _read_record(folder, part)
        record = records[folder]
        if record is not None and record.series_instance_uid != header.row["SeriesInstanceUID"]:
            record = None
        md5 = None
        if record is not None and source.modified_ns <= record.time_ns:
            size_bytes, stated = record.files.get(name, (None, None))
            md5 = stated if size_bytes == source.size_bytes else None
        if md5 is None and part.options.digest is Digest.READ:
            md5 = source.md5()
        part.add(header, location=path, folder=folder, size_bytes=source.size_bytes, md5=md5, record=record)


def _read_record(folder: str, part: PartReader) -> SeriesRecord | None:
    path = Path(folder) / RECORD_FILE
    try:
        data = path.read_bytes()
        return read_record(data, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        part.fail(os.fspath(path), CatalogError(f"cannot be read: {error}"))
        return None
