"""Write a shard as NDJSON, with the schema that BigQuery needs beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from coverslip.catalog.merge import NewVersion
from coverslip.catalog.schema import Field, as_bigquery, merge_fields
from coverslip.catalog.staging import Shard, part_fields
from coverslip.catalog.writers import IndexOutcome, partial_folder
from coverslip.errors import CatalogError, UsageError

__all__ = ["NdjsonWriter", "as_json_lines"]

_TABLES = ("dicom_metadata", "instances", "series")


class NdjsonWriter:
    """Puts ``TABLE.ndjson`` and ``TABLE.schema.json`` into a folder.

    Parameters
    ----------
    place : str
        Path of the folder; made if it is not there.
    """

    all_columns = True

    def __init__(self, place: str) -> None:
        self.folder = Path(place)

    def scratch_folder(self) -> AbstractContextManager[Path]:
        """Give a folder beside the final files."""
        return partial_folder(self.folder)

    def write(
        self, shard: Shard, version: NewVersion, *, name: str | None = None, wait_s: float = 60.0
    ) -> IndexOutcome:
        """Write the tables of a shard, each file under its name when it is whole."""
        if version != NewVersion() or name:
            raise UsageError("ndjson: holds what was read, without versions or shards")
        try:
            for table in _TABLES:
                self._write_table(shard, table)
        except OSError as error:
            raise CatalogError(f"{self.folder}: cannot be written: {error.strerror}") from None
        return IndexOutcome(str(self.folder), shard.failures)

    def _write_table(self, shard: Shard, table: str) -> None:
        paths = [shard.part_file(table, part) for part in shard.parts]
        fields: Sequence[Field] = ()
        for path in paths:
            fields, _ = merge_fields(fields, part_fields(path)) if fields else (part_fields(path), [])
        rows = shard.folder / f"{table}.ndjson"
        with rows.open("w", encoding="utf-8") as stream:
            for path in paths:
                stream.writelines(f"{line}\n" for line in as_json_lines(_iter_rows(path)))
        schema = shard.folder / f"{table}.schema.json"
        schema.write_text(json.dumps(as_bigquery(fields), indent=1) + "\n", encoding="utf-8")
        for path in (rows, schema):
            path.replace(self.folder / path.name)


def _iter_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    from pyarrow import parquet

    for batch in parquet.ParquetFile(path).iter_batches(batch_size=500):
        yield from batch.to_pylist()


def as_json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each row as BigQuery takes it: without what is NULL or empty, times as text, NaN and infinity as words."""
    for row in rows:
        yield json.dumps(_plain(row), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: plain for name, each in value.items() if (plain := _plain(each)) not in (None, [])}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="microseconds")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
