"""A shard: what one run has read, as Parquet files under a name that appears only when all of them are there.

``DIR/SHARD/dicom_metadata-00000.parquet`` holds rows of `dicom_metadata`, ``instances-00000.parquet`` what else is
known of the same instances in the same order, ``series-00000.parquet`` what is known of series, and ``shard.json`` what
was read. Every part has all pinned columns, and those that its rows need besides; who reads several takes the union by
name. Parts that only go through to a catalog have none but those that were met.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coverslip.catalog.schema import Field, arrow_schema
from coverslip.catalog.tables import staged_instance_fields, staged_series_fields
from coverslip.errors import CatalogError

__all__ = ["SHARD_FILE", "Failure", "Part", "Shard", "list_shards", "publish_shard", "write_part"]

SHARD_FILE = "shard.json"
_FORMAT = 1
_PARTIAL = ".coverslip-partial"


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that is not in the catalog, or a value of it that is not.

    Parameters
    ----------
    location : str
    reason : str
    exit_code : int
        Of the error; 0 where the rest of the instance is in the catalog.
    """

    location: str
    reason: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Part:
    """The rows that one worker has read."""

    number: int
    instances: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """A folder of parts.

    Parameters
    ----------
    folder : Path
    parts : tuple of int
        Numbers of the parts, in order.
    roots : tuple of str
        What was read: paths and URLs.
    prune : bool
        Whether instances that the catalog has below a root, and that were not found, are to be retired.
    failures : tuple of Failure
    """

    folder: Path
    parts: tuple[int, ...]
    roots: tuple[str, ...] = ()
    prune: bool = False
    failures: tuple[Failure, ...] = ()

    def part_file(self, table: str, part: int) -> Path:
        """Return the path of one table of a part."""
        return self.folder / f"{table}-{part:05d}.parquet"


def write_part(
    folder: Path,
    number: int,
    fields: Sequence[Field],
    rows: Sequence[Mapping[str, Any]],
    instances: Sequence[Mapping[str, Any]],
    series: Sequence[Mapping[str, Any]],
) -> None:
    """Write the three tables of a part; `rows` and `instances` are of the same length and order."""
    shard = Shard(folder, (number,))
    _write(shard.part_file("dicom_metadata", number), fields, rows)
    _write(shard.part_file("instances", number), staged_instance_fields(), instances)
    _write(shard.part_file("series", number), staged_series_fields(), series)


def _write(path: Path, fields: Sequence[Field], rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist(list(rows), schema=arrow_schema(fields))
    try:
        parquet.write_table(table, path, compression="zstd", write_statistics=False)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be written: {error}") from None


def publish_shard(shard: Shard, target: Path) -> Shard:
    """Give a finished shard its final name, in place of what has it."""
    told = {
        "format": _FORMAT,
        "parts": list(shard.parts),
        "roots": list(shard.roots),
        "prune": shard.prune,
        "failures": [asdict(failure) for failure in shard.failures],
    }
    (shard.folder / SHARD_FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            old = target.with_name(f"{_PARTIAL}-old-{target.name}-{os.getpid()}")
            target.rename(old)
            shard.folder.rename(target)
            shutil.rmtree(old)
        else:
            shard.folder.rename(target)
    except OSError as error:
        raise CatalogError(f"{target}: cannot be written: {error.strerror}") from None
    return Shard(target, shard.parts, shard.roots, shard.prune, shard.failures)


def list_shards(folder: Path) -> list[Shard]:
    """Return the finished shards of a folder by name.

    Raises
    ------
    CatalogError
        If there is none, or one that cannot be read.
    """
    found = sorted(path.parent for path in folder.glob(f"*/{SHARD_FILE}") if not path.parent.name.startswith("."))
    if not found:
        raise CatalogError(f"{folder}: no shards written by --to parquet:{folder}")
    return [_read_shard(each) for each in found]


def _read_shard(folder: Path) -> Shard:
    try:
        told = json.loads((folder / SHARD_FILE).read_text(encoding="utf-8"))
        if told["format"] != _FORMAT:
            raise CatalogError(f"{folder}: format {told['format']}, this coverslip knows {_FORMAT}")
        shard = Shard(
            folder,
            tuple(told["parts"]),
            tuple(told["roots"]),
            told["prune"],
            tuple(Failure(**each) for each in told["failures"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CatalogError(f"{folder}: no shard: {error}") from None
    missing = [
        path.name
        for part in shard.parts
        for table in ("dicom_metadata", "instances", "series")
        if not (path := shard.part_file(table, part)).is_file()
    ]
    if missing:
        raise CatalogError(f"{folder}: {missing[0]} is missing")
    return shard


def part_fields(path: Path) -> tuple[Field, ...]:
    """Return the columns of a part as the file itself tells them.

    Raises
    ------
    CatalogError
        If it cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    def field(of: pa.Field) -> Field:
        kind, mode = of.type, "NULLABLE"
        if pa.types.is_list(kind):
            kind, mode = kind.value_type, "REPEATED"
        if pa.types.is_struct(kind):
            return Field(of.name, "RECORD", mode, tuple(field(kind.field(index)) for index in range(kind.num_fields)))
        return Field(of.name, _TYPES[str(kind)], mode)

    try:
        return tuple(field(each) for each in parquet.read_schema(path))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise CatalogError(f"{path}: no part of a shard: {type(error).__name__}") from None


_TYPES = {
    "string": "STRING",
    "int64": "INTEGER",
    "double": "FLOAT",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "time64[us]": "TIME",
    "timestamp[us, tz=UTC]": "TIMESTAMP",
    "timestamp[us]": "DATETIME",
}
