"""Take a series out of a catalog so that nothing tells of it any more but a tombstone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip.catalog.database import dicom_fields, make_tables, open_catalog
from coverslip.catalog.merge import NewVersion, next_version, write_version
from coverslip.catalog.published import copy_published
from coverslip.catalog.roll_up import roll_up
from coverslip.catalog.schema import quote
from coverslip.catalog.search_table import carry_search
from coverslip.catalog.tables import DERIVED_TABLES, STORED_TABLES
from coverslip.errors import CatalogError, UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["retract_series"]

_TABLES = {table.name: table for table in STORED_TABLES}
_OF_SERIES = ("dicom_metadata", "instances", "series", "conversions", *(table.name for table in DERIVED_TABLES))
"""Tables of the schema `history` that hold rows of single series."""


def retract_series(
    catalog: Path, series_instance_uid: str, reason: str, version: NewVersion | None = None, *, wait_s: float = 60.0
) -> int:
    """Remove a series from every version of a catalog, and leave a tombstone.

    Studies, patients and collections that held nothing else go with it; the others above it get a new version. The file
    is written anew, because a database keeps the bytes of removed rows. Indexing the series again is refused from then
    on. A series that the catalog does not have gets its tombstone too. Parquet shards and copies of the file are the
    caller's to remove.

    Parameters
    ----------
    catalog : Path
    series_instance_uid : str
    reason : str
        Stands in the tombstone for good: nothing that identifies a patient.
    version : NewVersion, optional
        What the version is called in which it is gone.
    wait_s : float
        How long to wait for another process that has the file open.

    Returns
    -------
    int
        How many rows of instances were removed, over all versions.

    Raises
    ------
    CatalogError
        If the catalog cannot be written; it is then as it was.
    """
    if not series_instance_uid:
        raise UsageError("retract: no Series Instance UID")
    import duckdb

    # The lock on the file is held until the new one has its name.
    with open_catalog(catalog, create=False, wait_s=wait_s) as connection, _new_file(catalog) as path:
        try:
            return _rewrite(connection, path, series_instance_uid, reason, version or NewVersion())
        except duckdb.Error as error:
            raise CatalogError(f"{catalog}: the series was not retracted: {str(error).splitlines()[0]}") from None


@contextmanager
def _new_file(catalog: Path) -> Iterator[Path]:
    """Give a path for a new file, which takes the place of the catalog at the end if nothing failed."""
    path = catalog.with_name(f".coverslip-partial-{os.getpid()}-{catalog.name}")
    try:
        yield path
        path.replace(catalog)
    except OSError as error:
        raise CatalogError(f"{catalog}: cannot be written: {error.strerror}") from None
    finally:
        for leftover in (path, path.with_name(f"{path.name}.wal")):
            leftover.unlink(missing_ok=True)


def _rewrite(connection: DuckDBPyConnection, path: Path, uid: str, reason: str, version: NewVersion) -> int:
    # A log of what was not yet in the file must not be taken for that of the new file.
    connection.execute("CHECKPOINT")
    number = next_version(connection, version)
    removed = connection.execute(
        "SELECT count(*), count(*) FILTER (final_version = 0) FROM history.instances WHERE SeriesInstanceUID = $1",
        [uid],
    ).fetchone()
    rows, current = removed or (0, 0)
    source = connection.execute("SELECT current_database()").fetchone()
    name = quote(source[0]) if source else ""
    fields = dicom_fields(connection)
    quoted = str(path).replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS rewritten (ROW_GROUP_SIZE 4096)")
    connection.execute("USE rewritten")
    connection.execute("BEGIN")
    make_tables(connection, fields)
    _copy(connection, name, uid)
    if current:
        write_version(connection, number, version)
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE keys AS SELECT collection_id, PatientID, StudyInstanceUID
            FROM {name}.history.series WHERE final_version = 0 AND SeriesInstanceUID = $1""",
            [uid],
        )
        roll_up(connection, number, first="studies")
    connection.execute("INSERT INTO tombstones SELECT $1, $2, max(version) FROM versions", [uid, reason])
    carry_search(connection, name, uid)
    copy_published(connection, name)
    connection.execute("COMMIT")
    connection.execute(f"USE {name}")
    connection.execute("DETACH rewritten")
    return int(rows)


def _copy(connection: DuckDBPyConnection, source: str, uid: str) -> None:
    """Copy every row but those of the series, and of what held nothing else."""
    for table in ("versions", "schema_changes", "history.catalog_schema"):
        connection.execute(f"DELETE FROM {table}")
        connection.execute(f"INSERT INTO {table} SELECT * FROM {source}.{table}")
    connection.execute(f"INSERT INTO tombstones SELECT * FROM {source}.tombstones WHERE SeriesInstanceUID <> $1", [uid])
    for table in _OF_SERIES:
        connection.execute(
            f"INSERT INTO history.{table} BY NAME SELECT * FROM {source}.history.{table} WHERE SeriesInstanceUID <> $1",
            [uid],
        )
    for table, below in (
        ("studies", "series"),
        ("patients", "studies"),
        ("collections", "patients"),
        ("collection_facts", "collections"),
    ):
        same = " AND ".join(f"kept.{key} IS NOT DISTINCT FROM rows.{key}" for key in _TABLES[table].key)
        connection.execute(
            f"""INSERT INTO history.{table} BY NAME SELECT * FROM {source}.history.{table} AS rows
            WHERE EXISTS (SELECT 1 FROM history.{below} AS kept WHERE {same})"""
        )
    connection.execute(
        f"""INSERT INTO history.analysis_result_facts BY NAME SELECT * FROM {source}.history.analysis_result_facts
        WHERE analysis_result_id IN (SELECT analysis_result_id FROM history.series)"""
    )
