"""Give a series other metadata; its frames are copied bit for bit, without decoding them."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.uid import UID, ExplicitVRLittleEndian

from coverslip.converter.dataset import WSI_STORAGE, encode_dataset
from coverslip.converter.instance_writer import BackgroundMd5, write_all
from coverslip.converter.remap_header import NewMetadata, remapped_headers
from coverslip.converter.request import InstanceResult, Replacement, SeriesResult, curated_keywords
from coverslip.converter.result_file import RESULT_FILE, is_complete, write_result_file
from coverslip.converter.staging import io_errors, publish_folder, remove_abandoned_work, staged_folder
from coverslip.converter.uids import UUID_ROOT
from coverslip.converter.validation import leave_quarantine, quarantine, summarize, validate_headers
from coverslip.errors import CorruptSourceError, SourceError, StoreError, UnsupportedSourceError, ValidationFailedError
from coverslip.validators.report import Finding, Severity
from coverslip.validators.structure import StructureExpectation, check_structure

if TYPE_CHECKING:
    from coverslip.metadata_maps.evaluate import MappedSlide
    from coverslip.validators.report import ValidationReport

__all__ = ["ConvertedSeries", "RemapRequest", "StoredInstance", "read_series", "remap_series"]

_CHUNK_BYTES = 1 << 20
_ORIGIN = "frames copied bit for bit from another DICOM series"


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One file of a series.

    Parameters
    ----------
    path : Path
    header : Dataset
        All that stands before the pixel data.
    pixel_start, size_bytes : int
        From where to where the file's bytes are pixel data with their offset tables.
    stated : mapping
        What the series' `conversion.json` says of it; empty where there is none.
    """

    path: Path
    header: Dataset
    pixel_start: int
    size_bytes: int
    stated: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ConvertedSeries:
    """A series on disk, of whatever origin; `stated` is its `conversion.json`, if it has one."""

    series_instance_uid: str
    instances: tuple[StoredInstance, ...]
    stated: Mapping[str, Any]

    @property
    def container_identifier(self) -> str:
        """Of the slide; empty where it has none."""
        return str(self.instances[0].header.get("ContainerIdentifier", ""))


@dataclass(frozen=True, slots=True)
class RemapRequest:
    """A series and its new metadata.

    Parameters
    ----------
    series : ConvertedSeries
    output : Path
        As in a conversion.
    mapped : MappedSlide
    attributes : mapping
        Keyword to text value, set after the map's.
    uid_root, reason : str
    overwrite : bool
    validate : str
        ``headers`` or ``off``.
    """

    series: ConvertedSeries
    output: Path
    mapped: MappedSlide
    attributes: Mapping[str, str]
    uid_root: str = UUID_ROOT
    reason: str = ""
    overwrite: bool = False
    validate: Literal["headers", "off"] = "headers"


def read_series(folder: Path) -> ConvertedSeries:
    """Read the headers of a series.

    Raises
    ------
    SourceError
        If the folder does not hold one whole slide microscopy series in an explicit VR little endian encoding.
    """
    with io_errors(SourceError, "series cannot be read"):
        stated = _read_result_file(folder / RESULT_FILE)
        by_name = {instance.get("file_name"): instance for instance in stated.get("instances", ())}
        paths = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".json")
        found = [_read_instance(path, by_name.get(path.name, {})) for path in paths]
    if not found:
        raise UnsupportedSourceError("no DICOM files, wanted the folder of one series")
    series = {str(instance.header.SeriesInstanceUID) for instance in found}
    if len(series) > 1:
        raise UnsupportedSourceError(f"{len(series)} series, wanted the folder of one")
    found.sort(key=lambda instance: (int(instance.header.get("InstanceNumber") or 0), instance.path.name))
    return ConvertedSeries(series.pop(), tuple(found), stated)


def remap_series(request: RemapRequest) -> SeriesResult:
    """Write a series anew with other metadata.

    Every byte that is written is read back and compared with the old file's; where the old series has a
    `conversion.json`, its files must have the MD5s that stand there.

    Returns
    -------
    SeriesResult
        Everything is in place and checked when this returns. A series that is already there, whole, is left as it is.

    Raises
    ------
    SourceError, StoreError, UsageError, ValidationFailedError
        Nothing is left behind under a final name.
    """
    start = time.perf_counter()
    old = request.series
    metadata = NewMetadata(request.mapped, request.attributes, request.uid_root)
    with io_errors(SourceError, "series cannot be read"):
        digest = _pixel_digest(old)
    headers = remapped_headers([instance.header for instance in old.instances], metadata, digest)
    folder = request.output / headers[0].StudyInstanceUID / headers[0].SeriesInstanceUID
    names = [f"{header.SOPInstanceUID}.dcm" for header in headers]
    with io_errors(StoreError, "series cannot be written"):
        remove_abandoned_work(request.output)
        if folder.exists() and not request.overwrite:
            return _accept_existing(request, headers, folder, names)
        with staged_folder(request.output) as staged:
            results = []
            for instance, header, name in zip(old.instances, headers, names, strict=True):
                results.append(_write_instance(instance, header, staged / name))
            result = _result(request, headers, folder, results)
            report = _validate(staged, request)
            if report is not None:
                result = replace(result, validation=summarize(report, "headers"))
            timings = {"total": round(time.perf_counter() - start, 4)}
            write_result_file(staged, result, _source(old), timings)
            if report is not None and not report.passed and _made_worse(report, old):
                raise quarantine(staged, request.output, report)
            leave_quarantine(request.output, result)
            if not publish_folder(staged, folder, overwrite=request.overwrite):
                return _accept_existing(request, headers, folder, names)
        return result


def _validate(staged: Path, request: RemapRequest) -> ValidationReport | None:
    """Validate the headers that were written; that the frames are the old ones has been seen while they were copied."""
    return validate_headers(staged) if request.validate != "off" else None


def _made_worse(report: ValidationReport, old: ConvertedSeries) -> bool:
    """Whether the new headers have errors that the old ones have not: of what they share, remapping is not to blame."""
    before = validate_headers(old.instances[0].path.parent)
    return bool(_errors(report) - _errors(before))


def _errors(report: ValidationReport) -> Counter[str]:
    return Counter(each.rule for each in report.findings if each.severity is Severity.ERROR)


def _read_result_file(path: Path) -> Mapping[str, Any]:
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CorruptSourceError(f"{RESULT_FILE} is not JSON") from error
    if not isinstance(stated, dict):
        raise CorruptSourceError(f"{RESULT_FILE} holds no object")
    return stated


def _read_instance(path: Path, stated: Mapping[str, Any]) -> StoredInstance:
    with path.open("rb") as file:
        try:
            header = read_partial(file, stop_when=lambda tag, _vr, _length: tag >> 16 == 0x7FE0)
        except (InvalidDicomError, EOFError, ValueError, NotImplementedError) as error:
            raise UnsupportedSourceError("not every file of the folder is DICOM, wanted those of one series") from error
        start, size = file.tell(), os.fstat(file.fileno()).st_size
    if header.get("SOPClassUID") != WSI_STORAGE:
        raise UnsupportedSourceError("not VL Whole Slide Microscopy Images")
    syntax = header.file_meta.TransferSyntaxUID
    if syntax != ExplicitVRLittleEndian and not syntax.is_encapsulated:
        raise UnsupportedSourceError(f"transfer syntax {syntax.name}, wanted explicit VR little endian")
    if start + 12 > size:
        raise CorruptSourceError("an instance has no pixel data")
    if stated and stated.get("size_bytes") != size:
        raise CorruptSourceError(f"an instance has {size} bytes, {RESULT_FILE} states {stated.get('size_bytes')}")
    return StoredInstance(path, header, start, size, stated)


def _pixel_digest(old: ConvertedSeries) -> str:
    """Return a digest of all frames: of the MD5s that are stated, which copying confirms, else of the bytes."""
    if all(instance.stated.get("md5") for instance in old.instances):
        parts = [str(instance.stated["md5"]) for instance in old.instances]
    else:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
            parts = list(executor.map(_sha256_of_pixels, old.instances))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _sha256_of_pixels(instance: StoredInstance) -> str:
    digest = hashlib.sha256()
    with instance.path.open("rb", buffering=0) as file:
        file.seek(instance.pixel_start)
        for chunk in _chunks(file):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _write_instance(old: StoredInstance, header: Dataset, path: Path) -> InstanceResult:
    """Write one instance, and prove that its pixel data are the old one's."""
    syntax = str(old.header.file_meta.TransferSyntaxUID)
    head = encode_dataset(header, syntax)
    table = _offset_table(old)
    md5 = _copy(old, head, path)
    size = len(head) + old.size_bytes - old.pixel_start
    expected = StructureExpectation(header.SOPInstanceUID, syntax, int(header.NumberOfFrames), size, table)
    check_structure(path, expected)
    return _instance_result(old, header, size, table, md5)


def _copy(old: StoredInstance, head: bytes, path: Path) -> str:
    """Write a file of a new head and the old pixel data, comparing each byte with what is read back; returns its MD5.

    Hashing takes the longest, so the old and the new file are each hashed in a thread of their own.
    """
    digests = [BackgroundMd5()]
    try:
        with old.path.open("rb", buffering=0) as source, path.open("xb+", buffering=0) as target:
            if old.stated.get("md5"):
                digests.append(BackgroundMd5())
                digests[1].update(source.read(old.pixel_start))
            source.seek(old.pixel_start)
            write_all(target, head)
            digests[0].update(head)
            position = len(head)
            for chunk in _chunks(source):
                write_all(target, chunk)
                if os.pread(target.fileno(), len(chunk), position) != chunk:
                    raise ValidationFailedError("self-check: pixel data read back differ from those of the old series")
                position += len(chunk)
                for digest in digests:
                    digest.update(chunk)
    finally:
        found = [digest.hexdigest() for digest in digests]
    if len(found) > 1 and found[1] != old.stated["md5"]:
        raise CorruptSourceError(f"an instance has the MD5 {found[1]}, {RESULT_FILE} states {old.stated['md5']}")
    return found[0]


def _offset_table(old: StoredInstance) -> str:
    """Return which offset table an instance has: ``"bot"``, ``"eot"`` or ``"none"``."""
    with old.path.open("rb") as file:
        file.seek(old.pixel_start)
        start = file.read(20)
    if struct.unpack_from("<HH", start) == (0x7FE0, 0x0001):
        return "eot"
    encapsulated = UID(old.header.file_meta.TransferSyntaxUID).is_encapsulated
    return "bot" if encapsulated and start[16:20] != bytes(4) else "none"


def _instance_result(
    old: StoredInstance, header: Dataset, size: int | None, table: str, md5: str | None
) -> InstanceResult:
    measures = header.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence") or [Dataset()]
    spacing = measures[0].get("PixelSpacing")
    return InstanceResult(
        file_name=f"{header.SOPInstanceUID}.dcm",
        sop_instance_uid=header.SOPInstanceUID,
        image_flavor=header.ImageType[2],
        total_pixel_matrix_rows=header.TotalPixelMatrixRows,
        total_pixel_matrix_columns=header.TotalPixelMatrixColumns,
        rows=header.Rows,
        columns=header.Columns,
        pixel_spacing_mm=(float(spacing[0]), float(spacing[1])) if spacing else None,
        number_of_frames=int(header.NumberOfFrames),
        transfer_syntax_uid=str(old.header.file_meta.TransferSyntaxUID),
        photometric_interpretation=header.PhotometricInterpretation,
        reuses_frames=True,
        origin=str(old.stated.get("origin", _ORIGIN)),
        missing_tiles=int(old.stated.get("missing_tiles", 0)),
        bad_tiles=int(old.stated.get("bad_tiles", 0)),
        size_bytes=size,
        frame_bytes=old.stated.get("frame_bytes"),
        offset_table=table,
        md5=md5,
    )


def _source(old: ConvertedSeries) -> Mapping[str, Any]:
    """Return where the pixels come from: the slide, where that is known."""
    stated = old.stated.get("source")
    if isinstance(stated, dict):
        return stated
    sizes = [instance.size_bytes for instance in old.instances]
    return {"format": "DICOM", "files": len(sizes), "bytes": sum(sizes)}


def _result(
    request: RemapRequest,
    headers: Sequence[Dataset],
    folder: Path,
    instances: Sequence[InstanceResult],
    *,
    already_there: bool = False,
) -> SeriesResult:
    stated = request.series.stated
    return SeriesResult(
        str(headers[0].StudyInstanceUID),
        str(headers[0].SeriesInstanceUID),
        folder,
        tuple(instances),
        tuple(stated.get("unused_levels", ())),
        tuple(_finding(each) for each in stated.get("findings", ())),
        already_there,
        Replacement(request.series.series_instance_uid, request.reason),
        request.mapped.collection,
        curated_keywords(request.mapped, request.attributes),
    )


def _finding(stated: Mapping[str, str]) -> Finding:
    return Finding(
        stated["rule"], Severity(stated["severity"]), stated["message"], stated["place"], stated["reference"]
    )


def _accept_existing(
    request: RemapRequest, headers: Sequence[Dataset], folder: Path, names: Sequence[str]
) -> SeriesResult:
    """Return the result for a series that an earlier run has made; `StoreError` if it is not whole."""
    if not is_complete(folder, names):
        raise StoreError(f"{folder} is there but not whole, expected a complete series; --overwrite replaces it")
    instances = [
        _instance_result(old, header, None, _offset_table(old), None)
        for old, header in zip(request.series.instances, headers, strict=True)
    ]
    return _result(request, headers, folder, instances, already_there=True)
