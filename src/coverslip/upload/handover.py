"""What is handed over with verified series, so that the Imaging Data Commons and others can take them up.

Four files in a folder of their own, in a fixed order, written whole or not at all:

- ``ingestion_manifest.tsv``: IDC's ingestion manifest
- ``indexd_manifest.tsv``: GUIDs of the Data Repository Service, as indexd takes them
- ``s5cmd_manifest.txt``: a line for each series that fetches it
- ``hashes.tsv``: MD5s of series, studies and patients, each of the sorted MD5s of what it is made of
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from coverslip.converter.staging import io_errors, publish_folder, staged_folder
from coverslip.errors import MissingMetadataError, StoreError, UsageError
from coverslip.pipeline.ledger import State
from coverslip.upload.deliverables import Deliverable
from coverslip.upload.destination import Destination
from coverslip.uuids import instance_uuid, merkle_md5

__all__ = ["FILES", "HandoverRow", "handover_rows", "read_handover", "write_handover"]

_INGESTION = "ingestion_manifest.tsv"
_INDEXD = "indexd_manifest.tsv"
_S5CMD = "s5cmd_manifest.txt"
_HASHES = "hashes.tsv"
FILES = (_INGESTION, _INDEXD, _S5CMD, _HASHES)

_INGESTION_COLUMNS = (
    "collection_id patientID StudyInstanceUID SeriesInstanceUID SOPInstanceUID ingestion_url md5_hash".split()
)
_INDEXD_COLUMNS = "GUID md5 size acl authz url".split()
_HASH_COLUMNS = "level patientID StudyInstanceUID SeriesInstanceUID parts md5".split()
_GUID_PREFIX = "dg.4DFC/"


@dataclass(frozen=True, slots=True, order=True)
class HandoverRow:
    """One instance as it is handed over."""

    collection_id: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    url: str
    md5: str
    size_bytes: int
    acl: str
    authz: str

    @property
    def guid(self) -> str:
        """Of the Data Repository Service."""
        return _GUID_PREFIX + instance_uuid(self.sop_instance_uid, self.md5)


def handover_rows(
    series: Sequence[Deliverable], destination: Destination, collection_id: str = "", acl: str = "", authz: str = ""
) -> list[HandoverRow]:
    """Return the rows of series that are verified at a destination.

    Parameters
    ----------
    collection_id : str
        Of series whose conversion did not tell it.

    Raises
    ------
    MissingMetadataError
        If a series has no collection or no patient.
    UsageError
        If a series belongs to another collection than `collection_id`.
    StoreError
        If something is not verified.
    """
    lacking: dict[str, list[str]] = {}
    rows = []
    for each in series:
        uid = each.series_instance_uid
        told = str((each.conversion.get("collection") or {}).get("collection_id") or "")
        if told and collection_id and told != collection_id:
            raise UsageError(f"--collection {collection_id}: {uid} belongs to {told}, as its conversion.json says")
        known = [destination.known(instance) for instance in each.instances]
        if not all(outcome.state is State.VERIFIED for outcome in known):
            lacking.setdefault("are not verified", []).append(uid)
        if not (told or collection_id):
            lacking.setdefault("have no collection_id", []).append(uid)
        if not each.patient_id:
            lacking.setdefault("have no Patient ID", []).append(uid)
        rows += [
            HandoverRow(
                told or collection_id,
                each.patient_id,
                each.study_instance_uid,
                uid,
                instance.uids.sop_instance_uid,
                outcome.location,
                instance.md5,
                instance.size_bytes,
                acl,
                authz,
            )
            for instance, outcome in zip(each.instances, known, strict=True)
        ]
    if uids := lacking.get("are not verified"):
        raise StoreError(
            f"{_told(uids)} not verified at {destination.url}: wanted an upload, or upload --verify-only, with the same"
            " ledger and naming"
        )
    if uids := lacking.get("have no collection_id"):
        raise MissingMetadataError(f"{_told(uids)} without collection_id in conversion.json: --collection names it")
    if uids := lacking.get("have no Patient ID"):
        raise MissingMetadataError(f"{_told(uids)} without Patient ID, which an ingestion needs: remap can give it")
    return sorted(rows)


def write_handover(rows: Iterable[HandoverRow], folder: Path) -> None:
    """Write the files into a folder of their own, in place of those that are there, in one step.

    Raises
    ------
    UsageError
        If the folder holds anything else.
    StoreError
        If it cannot be written.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - set(FILES)):
        raise UsageError(f"{folder} holds other things than hand-over files: wanted a folder of their own")
    ordered = sorted(rows)
    texts = {
        _INGESTION: _table(_INGESTION_COLUMNS, map(_ingestion_row, ordered)),
        _INDEXD: _table(_INDEXD_COLUMNS, map(_indexd_row, ordered)),
        _S5CMD: "".join(f"{line}\n" for line in _s5cmd_lines(ordered)),
        _HASHES: _table(_HASH_COLUMNS, _hash_rows(ordered)),
    }
    with io_errors(StoreError, "hand-over files cannot be written"), staged_folder(folder.parent) as staged:
        for name, text in texts.items():
            (staged / name).write_text(text, encoding="utf-8", newline="")
        publish_folder(staged, folder, overwrite=True)


def read_handover(folder: Path) -> list[HandoverRow]:
    """Return the rows that were handed over.

    Raises
    ------
    UsageError
        If there are none, or they do not belong together.
    """
    try:
        ingestion, indexd = (
            list(csv.reader(io.StringIO((folder / name).read_text(encoding="utf-8"), newline=""), delimiter="\t"))
            for name in (_INGESTION, _INDEXD)
        )
        by_url = {row[5]: row for row in indexd[1:]}
        if [ingestion[0], indexd[0]] != [_INGESTION_COLUMNS, _INDEXD_COLUMNS]:
            raise ValueError("other columns")
        rows = []
        for collection, patient, study, series, instance, url, md5 in ingestion[1:]:
            _guid, _md5, size, acl, authz, _url = by_url[url]
            rows.append(HandoverRow(collection, patient, study, series, instance, url, md5, int(size), acl, authz))
        return rows
    except (OSError, ValueError, LookupError) as error:
        raise UsageError(f"{folder} holds no hand-over files of coverslip: {type(error).__name__}") from None


def _ingestion_row(row: HandoverRow) -> list[str]:
    uids = [row.study_instance_uid, row.series_instance_uid, row.sop_instance_uid]
    return [row.collection_id, row.patient_id, *uids, row.url, row.md5]


def _indexd_row(row: HandoverRow) -> list[str]:
    return [row.guid, row.md5, str(row.size_bytes), row.acl, row.authz, row.url]


def _s5cmd_lines(rows: Sequence[HandoverRow]) -> Iterator[str]:
    """Yield a line for each series in a bucket; a bucket of Google is read through its S3 interface."""
    for folder in dict.fromkeys(row.url.rpartition("/")[0] for row in rows):
        scheme, _, path = folder.partition("://")
        if scheme in ("s3", "gs"):
            yield f"cp s3://{path}/* ."


def _hash_rows(rows: Sequence[HandoverRow]) -> Iterator[list[str]]:
    for patient, of_patient in groupby(rows, key=lambda row: row.patient_id):
        studies = []
        for study, of_study in groupby(of_patient, key=lambda row: row.study_instance_uid):
            series_md5s = []
            for series, of_series in groupby(of_study, key=lambda row: row.series_instance_uid):
                md5s = [row.md5 for row in of_series]
                series_md5s.append(merkle_md5(md5s))
                yield ["series", patient, study, series, str(len(md5s)), series_md5s[-1]]
            studies.append(merkle_md5(series_md5s))
            yield ["study", patient, study, "", str(len(series_md5s)), studies[-1]]
        yield ["patient", patient, "", "", str(len(studies)), merkle_md5(studies)]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def _told(uids: Sequence[str]) -> str:
    return f"{uids[0]} is" if len(uids) == 1 else f"{len(uids)} series ({uids[0]}, ...) are"
