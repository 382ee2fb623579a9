"""Apply a change to a catalog in BigQuery: stage its rows in tables of their own, then merge all in one transaction.

The transaction begins by asking for the generation that the change was computed from, and raises it. If another writer
was first, it finds another generation and does nothing; of two at the same time BigQuery ends one, as both update the
row. A writer that is killed leaves staging tables, which expire, and the catalog as it was.
"""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from coverslip.catalog.bigquery.client import Dataset, Parameter, TableShape
from coverslip.catalog.bigquery.tables import BUCKET, ROW_KEY, STATE_TABLE
from coverslip.catalog.bigquery.working_copy import ChangedRows, WorkingCopy
from coverslip.catalog.database import dicom_fields
from coverslip.catalog.ndjson_writer import as_json_lines
from coverslip.catalog.schema import Field

__all__ = ["apply_changes", "merge_statement", "transaction"]

_EXPIRES_S = 24 * 3600
_ROW_GONE = Field("row_gone", "BOOLEAN", "REQUIRED")


def apply_changes(
    dataset: Dataset,
    copy: WorkingCopy,
    generation: int,
    changes: Sequence[ChangedRows],
    folder: Path,
    *,
    more: Sequence[str] = (),
    parameters: Sequence[Parameter] = (),
) -> None:
    """Write what has changed, all of it or nothing.

    Parameters
    ----------
    generation : int
        Of the state that the change was computed from.
    folder : Path
        For the files of rows until they are loaded.
    more : sequence of str
        Statements to be run before the merges, with `parameters`.

    Raises
    ------
    ConcurrentWriterError
        If another writer was first; nothing is written.
    """
    with _staged(dataset, copy, changes, folder) as names:
        headers = dicom_fields(copy.connection)
        merges = [
            merge_statement(dataset, change, name, change.table.stored_fields(headers))
            for change, name in zip(changes, names, strict=True)
        ]
        dataset.run(transaction(dataset, [*more, *merges]), [("generation", "INT64", generation), *parameters])


@contextmanager
def _staged(dataset: Dataset, copy: WorkingCopy, changes: Sequence[ChangedRows], folder: Path) -> Iterator[list[str]]:
    """Give the names of tables that hold what has changed; they are gone at the end."""
    token = uuid.uuid4().hex
    names = [f"staging_{token}_{change.table.name}" for change in changes]
    made: list[str] = []
    try:
        for change, name in zip(changes, names, strict=True):
            fields = (*change.table.stored_fields(dicom_fields(copy.connection)), _ROW_GONE)
            dataset.make_table(TableShape(name, fields, expires_after_s=_EXPIRES_S))
            made.append(name)
            path = folder / f"{name}.ndjson.gz"
            with gzip.open(path, "wt", encoding="utf-8", compresslevel=3) as stream:
                stream.writelines(f"{line}\n" for line in as_json_lines(copy.iter_changed(change)))
            dataset.load(name, fields, path)
            path.unlink()
        yield names
    finally:
        for name in made:
            dataset.drop(name)


def merge_statement(dataset: Dataset, change: ChangedRows, staging: str, fields: Sequence[Field]) -> str:
    """Return the MERGE of one table.

    Where rows are only added it says no more than that: an UPDATE or DELETE bills every column of its partitions.
    """
    names = [f"`{field.name}`" for field in fields]
    same = f"target.`{ROW_KEY.name}` = staging.`{ROW_KEY.name}`"
    if change.buckets:
        same += f" AND target.`{BUCKET.name}` IN ({', '.join(str(each) for each in change.buckets)})"
    clauses = []
    if change.gone:
        clauses.append("WHEN MATCHED AND staging.row_gone THEN DELETE")
    if change.replaces:
        values = ", ".join(f"{name} = staging.{name}" for name in names)
        clauses.append(f"WHEN MATCHED AND NOT staging.row_gone THEN UPDATE SET {values}")
    clauses.append(
        f"WHEN NOT MATCHED AND NOT staging.row_gone THEN INSERT ({', '.join(names)}) "
        f"VALUES ({', '.join(f'staging.{name}' for name in names)})"
    )
    return (
        f"MERGE {dataset.name(change.table.name)} AS target USING {dataset.name(staging)} AS staging ON {same} "
        + " ".join(clauses)
    )


def transaction(dataset: Dataset, statements: Sequence[str]) -> str:
    """Return a script that runs statements if the catalog still has the generation that `@generation` tells."""
    state = dataset.name(STATE_TABLE)
    next_one = "IF(generation = @generation, generation + 1, ERROR('another writer was first'))"
    lines = [
        "BEGIN TRANSACTION",
        f"UPDATE {state} SET generation = {next_one} WHERE TRUE",
        *statements,
        "COMMIT TRANSACTION",
    ]
    return ";\n".join(lines) + ";"
