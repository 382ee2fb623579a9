"""Open a catalog in DuckDB: one writer at a time, who waits for the other or says so."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip.catalog.schema import Field, as_bigquery, baseline_fields, create_table, fields_from_bigquery
from coverslip.catalog.tables import DERIVED_TABLES, STORED_TABLES, stored_dicom_metadata
from coverslip.catalog.views import UUID5_MACRO, create_views
from coverslip.errors import CatalogError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["dicom_fields", "make_tables", "make_views", "open_catalog", "set_as_of"]

FORMAT = 1
"""Raised when tables change in a way that an older coverslip cannot read."""

_POLL_S = 0.05
_ROW_GROUP = 4096
"""DuckDB holds a group of rows in memory until it is full; the table of headers is wide."""
_MEMORY = "500MB"
"""What a merge holds at most, besides some 200 MB; the rest is spilled. Searches have the same."""
_NAME = "coverslip_catalog"


@contextmanager
def open_catalog(
    path: Path, *, read_only: bool = False, create: bool = True, wait_s: float = 60.0
) -> Iterator[DuckDBPyConnection]:
    """Open a catalog.

    Parameters
    ----------
    path : Path
    read_only : bool
        Several may read one file at the same time.
    create : bool
        Whether a file that is not there is made, for writing.
    wait_s : float
        How long to wait for another process that has the file open.

    Raises
    ------
    CatalogError
        If it is no catalog, or another process does not let go of it.
    """
    create = create and not read_only
    if not create and not path.is_file():
        raise CatalogError(f"{path}: no such catalog")
    connection = _connect(path, read_only=read_only, wait_s=wait_s)
    try:
        _check(connection, path, create=create)
        yield connection
    finally:
        connection.close()


def _connect(path: Path, *, read_only: bool, wait_s: float) -> DuckDBPyConnection:
    try:
        import duckdb
    except ImportError:
        raise MissingDependencyError("a catalog needs duckdb: pip install 'coverslip[catalog]'") from None
    if not path.parent.is_dir():
        raise CatalogError(f"{path.parent}: no such folder")
    deadline = time.monotonic() + wait_s
    while True:
        try:
            before = _identity(path)
            connection = _attach(path, read_only=read_only)
            if before in (None, _identity(path)):
                return connection
            connection.close()  # another file has taken its place meanwhile
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise CatalogError(f"{path}: {str(error).splitlines()[0]}") from None
            if time.monotonic() >= deadline:
                raise CatalogError(f"{path}: in use by another process for more than {wait_s:g} s") from None
            time.sleep(_POLL_S)
        except duckdb.Error as error:
            raise CatalogError(f"{path}: {str(error).splitlines()[0]}") from None


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another that takes its name."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _attach(path: Path, *, read_only: bool) -> DuckDBPyConnection:
    """Open a file as the only database of a connection; what it is called by is without effect on statements."""
    import duckdb

    # What does not fit is spilled beside the catalog, not into the folder that the command is run in.
    connection = duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": f"{path}.tmp"})
    try:
        # It would be drawn on standard output, into what is told there. A notebook without widgets has none, and
        # DuckDB refuses to be told so.
        with suppress(duckdb.InvalidInputException):
            connection.execute("SET enable_progress_bar = false")
        options = "READ_ONLY" if read_only else f"ROW_GROUP_SIZE {_ROW_GROUP}"
        quoted = str(path).replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS {_NAME} ({options})")
        connection.execute(f"USE {_NAME}")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: DuckDBPyConnection, path: Path, *, create: bool) -> None:
    """Make sure that a file is a catalog, or an empty file that can become one."""
    tables = {row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if "catalog_format" in tables:
        found = connection.execute("SELECT format FROM history.catalog_format").fetchone()
        if found is None or found[0] != FORMAT:
            raise CatalogError(f"{path}: format {found[0] if found else 'unknown'}, this coverslip knows {FORMAT}")
    elif tables or not create:
        raise CatalogError(f"{path}: a database that is no catalog of coverslip")


def make_tables(connection: DuckDBPyConnection, fields: tuple[Field, ...] | None = None) -> None:
    """Make what is not there yet in the current database; part of the transaction that it is called in.

    Parameters
    ----------
    fields : tuple of Field, optional
        Columns of `dicom_metadata`, by default the pinned ones.
    """
    made = connection.execute(
        "SELECT count(*) FROM duckdb_tables() "
        "WHERE table_name = 'catalog_format' AND database_name = current_database()"
    ).fetchone()
    if made and made[0]:
        return
    connection.execute("CREATE SCHEMA IF NOT EXISTS history")
    connection.execute("CREATE TABLE versions (version INTEGER PRIMARY KEY, label VARCHAR, version_date DATE)")
    connection.execute(
        "CREATE TABLE tombstones (SeriesInstanceUID VARCHAR PRIMARY KEY, reason VARCHAR, version INTEGER)"
    )
    connection.execute(
        "CREATE TABLE schema_changes (version INTEGER, table_name VARCHAR, path VARCHAR, type VARCHAR, mode VARCHAR)"
    )
    connection.execute("CREATE TABLE history.catalog_schema (table_name VARCHAR, fields VARCHAR)")
    connection.execute(UUID5_MACRO)
    headers = stored_dicom_metadata(baseline_fields() if fields is None else fields)
    for table in (headers, *STORED_TABLES, *DERIVED_TABLES):
        connection.execute(create_table(f"history.{table.name}", table.all_fields))
    connection.execute(
        "INSERT INTO history.catalog_schema VALUES (?, ?)", [headers.name, json.dumps(as_bigquery(headers.fields))]
    )
    make_views(connection, headers.fields)
    connection.execute("CREATE TABLE history.catalog_format AS SELECT ? AS format", [FORMAT])


def make_views(connection: DuckDBPyConnection, headers: tuple[Field, ...]) -> None:
    """Make all views anew, for these columns of `dicom_metadata`."""
    for statement in create_views(headers):
        connection.execute(statement)


def dicom_fields(connection: DuckDBPyConnection) -> tuple[Field, ...]:
    """Return the columns that `dicom_metadata` has in this catalog."""
    found = connection.execute(
        "SELECT fields FROM history.catalog_schema WHERE table_name = 'dicom_metadata'"
    ).fetchone()
    return fields_from_bigquery(json.loads(found[0])) if found else baseline_fields()


def set_as_of(connection: DuckDBPyConnection, as_of: str) -> int:
    """Let all views show the version with this number, or the last one that is dated no later than this day.

    Raises
    ------
    UsageError
        If it is neither a number nor a date, or there was no version yet.
    """
    if as_of.isdigit():
        found = connection.execute("SELECT max(version) FROM versions WHERE version <= ?", [int(as_of)]).fetchone()
    else:
        try:
            day = date.fromisoformat(as_of)
        except ValueError:
            raise UsageError(
                f"--as-of {as_of}: expected the number of a version or a date such as 2026-01-31"
            ) from None
        found = connection.execute("SELECT max(version) FROM versions WHERE version_date <= ?", [day]).fetchone()
    version: int | None = found[0] if found else None
    if version is None:
        raise UsageError(f"--as-of {as_of}: the catalog has no version so early")
    connection.execute(f"SET VARIABLE as_of = {version}")
    return version
