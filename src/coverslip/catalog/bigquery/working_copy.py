"""A small catalog of DuckDB that holds the rows of BigQuery's that a change concerns, and tells what has changed.

Rows are fetched with their keys and a hash of what they held; after the change the keys and hashes of what is there are
compared with these (`changed_rows`). Rows that were not fetched are no part of the change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coverslip.catalog.bigquery.client import Dataset, Parameter
from coverslip.catalog.bigquery.tables import (
    BUCKET,
    FORMAT,
    ROW_KEY,
    STATE_TABLE,
    TABLES,
    BigQueryTable,
    bucket_of,
    fields_of,
)
from coverslip.catalog.database import dicom_fields, make_tables
from coverslip.catalog.schema import Field, arrow_schema, fields_from_bigquery, quote
from coverslip.catalog.search_table import SLIDE_TABLE, create_slide_table
from coverslip.catalog.tables import DERIVED_TABLES, DICOM_METADATA
from coverslip.errors import CatalogError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["ChangedRows", "State", "WorkingCopy", "among_series", "read_state"]

_KEYS = 5000
"""Most keys that one query is given."""

_HEADERS = f"history.{DICOM_METADATA}"
_SLIDES = f"history.{SLIDE_TABLE}"
_FETCHED = "temp.fetched_rows"

_DERIVED = tuple(f"history.{table.name}" for table in DERIVED_TABLES)
_ALWAYS = ("versions", "tombstones", "history.catalog_schema")


@dataclass(frozen=True, slots=True)
class State:
    """What a catalog in BigQuery says of itself.

    Parameters
    ----------
    generation : int
        Another one after every change.
    views : str or None
        Digests of the views that were made last, as JSON.
    headers : tuple of Field or None
        Columns of `dicom_metadata`; None as long as nothing was written.
    """

    generation: int
    views: str | None
    headers: tuple[Field, ...] | None


def read_state(dataset: Dataset) -> State | None:
    """Return what a catalog says of itself, None if there is none.

    Raises
    ------
    CatalogError
        If a newer coverslip has written it.
    """
    if dataset.table_fields(STATE_TABLE) is None:
        return None
    rows = dataset.run(f"SELECT format, generation, views FROM {dataset.name(STATE_TABLE)} ORDER BY generation")
    if not rows:
        return None
    if rows[0]["format"] != FORMAT:
        raise CatalogError(f"{dataset.place}: format {rows[0]['format']}, this coverslip knows {FORMAT}")
    told = dataset.run(
        f"SELECT fields FROM {dataset.name('history_catalog_schema')} WHERE table_name = '{DICOM_METADATA}'"
    )
    headers = fields_from_bigquery(json.loads(told[0]["fields"])) if told else None
    return State(rows[0]["generation"], rows[0]["views"], headers)


@dataclass(frozen=True, slots=True)
class ChangedRows:
    """What of a table is another than it was.

    Parameters
    ----------
    rows, gone : int
        To be written, and to be removed.
    replaces : bool
        Whether some of the rows take the place of others.
    buckets : tuple of int
        Partitions of all of these.
    """

    table: BigQueryTable
    rows: int
    gone: int
    replaces: bool
    buckets: tuple[int, ...]


class WorkingCopy:
    """A catalog that is open for writing, and the data set whose rows it has.

    Parameters
    ----------
    connection : DuckDBPyConnection
        To an empty catalog.
    dataset : Dataset
    state : State or None
        None while there is nothing to fetch.
    """

    def __init__(self, connection: DuckDBPyConnection, dataset: Dataset, state: State | None) -> None:
        self.connection = connection
        self.dataset = dataset
        self.estimates: dict[str, int] | None = None
        self._is_empty = state is None
        make_tables(connection, state.headers if state else None)
        self._headers = dicom_fields(connection)
        # Searches read this table; that of patients is a view in BigQuery.
        connection.execute(create_slide_table(_SLIDES))
        connection.execute(
            "CREATE TABLE history.search_patient "
            "(collection_id VARCHAR, PatientID VARCHAR, Modality VARCHAR, series BIGINT, size_mb DOUBLE)"
        )
        connection.execute(
            f"CREATE TEMP TABLE {_FETCHED} (table_name VARCHAR, row_key VARCHAR, row_hash UBIGINT, bucket BIGINT)"
        )
        if state is not None:
            if state.headers is not None:
                connection.execute("DELETE FROM history.catalog_schema")
            for local in _ALWAYS:
                self.fetch(local)

    def fetch(self, local: str, where: str = "true", parameters: Sequence[Parameter] = ()) -> None:
        """Fetch rows of a table that were not fetched before."""
        if self._is_empty:
            return
        table = TABLES[local]
        # Columns that a merge adds are not there before it is done.
        names = ", ".join(f"`{field.name}`" for field in fields_of(table, self._headers))
        sql = f"SELECT {names} FROM {self.dataset.name(table.name)} WHERE {where}"
        if self._told_only(table.name, sql, parameters):
            return
        for page in self.dataset.iter_rows(sql, parameters):
            if page:
                self._keep(table, page)

    def _told_only(self, name: str, sql: str, parameters: Sequence[Parameter]) -> bool:
        """Ask what a query would process where that is all that is wanted."""
        if self.estimates is None:
            return False
        told = self.dataset.estimate(sql, parameters).bytes_processed
        self.estimates[name] = self.estimates.get(name, 0) + told
        return True

    def _keep(self, table: BigQueryTable, page: Sequence[Mapping[str, Any]]) -> None:
        """Put rows into the working copy but for those that it has, and note what they hold."""
        import pyarrow as pa

        fields = fields_of(table, dicom_fields(self.connection))
        rows = [_without_empty(row) for row in page] if table.null_lists else page
        batch = pa.Table.from_pylist(list(rows), schema=arrow_schema(fields))
        connection = self.connection
        columns = _columns(fields)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE batch AS SELECT {columns} FROM {table.local} LIMIT 0")
        connection.register("fetched_batch", batch)
        connection.execute("INSERT INTO temp.batch BY NAME SELECT * FROM fetched_batch")
        connection.unregister("fetched_batch")
        connection.execute(
            f"DELETE FROM temp.batch WHERE {table.key_sql} IN "
            f"(SELECT row_key FROM {_FETCHED} WHERE table_name = '{table.local}')"
        )
        connection.execute(
            f"INSERT INTO {_FETCHED} SELECT '{table.local}', {table.key_sql}, {_row_hash(table)}, {table.bucket_sql} "
            "FROM temp.batch AS held"
        )
        more = ", 0 AS final_version" if table.local == _HEADERS else ""
        connection.execute(f"INSERT INTO {table.local} BY NAME SELECT *{more} FROM temp.batch")
        connection.execute("DROP TABLE temp.batch")

    def fetch_series(self, tables: Iterable[str], series: Iterable[str], condition: str = "true") -> None:
        """Fetch the rows that tables have of some series, of all versions."""
        wanted = sorted(set(series))
        for chunk in _chunks(wanted):
            for local in tables:
                self.fetch(local, f"{among_series(chunk)} AND {condition}", [("series", "STRING", chunk)])

    def fetch_keys(self, local: str, keys: Iterable[tuple[str | None, ...]], columns: Sequence[str]) -> None:
        """Fetch the rows of things above series by their keys, which may be NULL."""
        texts = [f"IFNULL(CONCAT('=', `{column}`), '-')" for column in columns]
        key = f"CONCAT({", '|', ".join(texts)})"
        wanted = sorted({"|".join("-" if part is None else f"={part}" for part in each) for each in keys})
        for chunk in _chunks(wanted):
            self.fetch(local, f"{key} IN UNNEST(@keys)", [("keys", "STRING", chunk)])

    def fetch_series_of(self, column: str, values: Iterable[str]) -> set[str]:
        """Return the series that have instances with these values of a column, in any version."""
        if self._is_empty:
            return set()
        found: set[str] = set()
        name = self.dataset.name(TABLES["history.instances"].name)
        for chunk in _chunks(sorted(set(values))):
            sql = f"SELECT DISTINCT SeriesInstanceUID FROM {name} WHERE `{column}` IN UNNEST(@wanted)"
            parameters: list[Parameter] = [("wanted", "STRING", chunk)]
            if not self._told_only("history_instances", sql, parameters):
                found |= {row["SeriesInstanceUID"] for row in self.dataset.run(sql, parameters)}
        return found

    def fetch_series_below(self, roots: Iterable[str]) -> set[str]:
        """Return the series that have current instances below a path or URL."""
        if self._is_empty:
            return set()
        found: set[str] = set()
        name = self.dataset.name(TABLES["history.instances"].name)
        for root in roots:
            sql = (
                f"SELECT DISTINCT SeriesInstanceUID FROM {name} "
                "WHERE final_version = 0 AND (location = @root OR STARTS_WITH(location, @below))"
            )
            parameters: list[Parameter] = [
                ("root", "STRING", root),
                ("below", "STRING", f"{root.rstrip('/')}/"),
            ]
            if not self._told_only("history_instances", sql, parameters):
                found |= {row["SeriesInstanceUID"] for row in self.dataset.run(sql, parameters)}
        return found

    def fetch_above(self, series: str) -> None:
        """Fetch studies, patients and collections of series, and all that these consist of.

        Parameters
        ----------
        series : str
            Query of SeriesInstanceUIDs in the working copy.
        """
        if self._is_empty:
            return
        keys = self.connection.execute(
            f"""SELECT DISTINCT collection_id, PatientID, StudyInstanceUID FROM (
                SELECT SeriesInstanceUID, collection_id, PatientID, StudyInstanceUID FROM history.instances
                UNION SELECT SeriesInstanceUID, collection_id, PatientID, StudyInstanceUID FROM history.series)
            WHERE SeriesInstanceUID IN ({series})"""
        ).fetchall()
        for chunk in _chunks(sorted({study for _, _, study in keys})):
            self.fetch("history.series", "StudyInstanceUID IN UNNEST(@studies)", [("studies", "STRING", chunk)])
        self.fetch_keys("history.studies", {(key[0], key[1]) for key in keys}, ("collection_id", "PatientID"))
        self.fetch_keys("history.patients", {(key[0],) for key in keys}, ("collection_id",))
        self.fetch_keys("history.collections", {(key[0],) for key in keys}, ("collection_id",))

    def changed_rows(self, *, amends: bool = False) -> list[ChangedRows]:
        """Return what has changed, table by table.

        Parameters
        ----------
        amends : bool
            Whether the change belongs to a version that was there before: headers of it may be replaced.
        """
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE changed_rows "
            "(table_name VARCHAR, row_key VARCHAR, bucket BIGINT, kind VARCHAR)"
        )
        headers = dicom_fields(self.connection)
        for table in TABLES.values():
            self._compare(table, headers)
        # Headers were fetched to be read; which of them are no more follows from instances.
        self.connection.execute(f"DELETE FROM temp.changed_rows WHERE table_name = '{_HEADERS}' AND kind = 'gone'")
        self.connection.execute(
            f"""INSERT INTO temp.changed_rows SELECT '{_HEADERS}', row_key, bucket, 'gone' FROM temp.changed_rows
            WHERE table_name = 'history.instances' AND kind = 'gone'"""
        )
        found = []
        for table in TABLES.values():
            rows = self.connection.execute(
                """SELECT count(*) FILTER (kind <> 'gone'), count(*) FILTER (kind = 'gone'),
                    count(*) FILTER (kind = 'other') > 0, list(DISTINCT bucket ORDER BY bucket)
                FROM temp.changed_rows WHERE table_name = $1""",
                [table.local],
            ).fetchone()
            if rows and (rows[0] or rows[1]):
                replaces = rows[2] or table.local == _SLIDES or (amends and table.local == _HEADERS)
                found.append(ChangedRows(table, rows[0], rows[1], replaces, tuple(rows[3] if table.has_series else ())))
        return found

    def _compare(self, table: BigQueryTable, headers: Sequence[Field]) -> None:
        """Note the keys of rows that are new, other than they were, or gone."""
        self.connection.execute(
            f"""INSERT INTO temp.changed_rows
            WITH held AS (SELECT {_columns(fields_of(table, headers))} FROM {table.local}),
            now AS (SELECT {table.key_sql} AS row_key, {_row_hash(table)} AS row_hash, {table.bucket_sql} AS bucket
                FROM held),
            before AS (SELECT * FROM {_FETCHED} WHERE table_name = '{table.local}')
            SELECT '{table.local}', coalesce(now.row_key, before.row_key), coalesce(now.bucket, before.bucket),
                CASE WHEN now.row_key IS NULL THEN 'gone' WHEN before.row_key IS NULL THEN 'new' ELSE 'other' END
            FROM now FULL JOIN before ON now.row_key = before.row_key
            WHERE now.row_hash IS DISTINCT FROM before.row_hash OR now.row_key IS NULL OR before.row_key IS NULL"""
        )

    def iter_changed(self, change: ChangedRows) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table that have changed, and the keys of those that are gone, as they are staged."""
        table = change.table
        columns = _columns(fields_of(table, dicom_fields(self.connection)))
        bucket = f", {table.bucket_sql} AS {BUCKET.name}" if table.has_series else ""
        computed = "".join(f", {sql} AS {quote(field.name)}" for field, sql in table.computed)
        cursor = self.connection.execute(
            f"""SELECT {table.key_sql} AS {ROW_KEY.name}{bucket}, {columns}{computed} FROM {table.local}
            WHERE {table.key_sql} IN (SELECT row_key FROM temp.changed_rows
                WHERE table_name = '{table.local}' AND kind <> 'gone')"""
        )
        names = [column[0] for column in cursor.description or ()]
        while rows := cursor.fetchmany(_BATCH):
            for row in rows:
                yield {**_loadable(dict(zip(names, row, strict=True))), "row_gone": False}
        gone = self.connection.execute(
            "SELECT row_key, bucket FROM temp.changed_rows WHERE table_name = $1 AND kind = 'gone'", [table.local]
        ).fetchall()
        for key, place in gone:
            yield {ROW_KEY.name: key, **({BUCKET.name: place} if table.has_series else {}), "row_gone": True}


_BATCH = 500


def among_series(series: Iterable[str]) -> str:
    """Return the condition that a row is of series, which are the parameter `series`."""
    buckets = ", ".join(str(bucket) for bucket in sorted({bucket_of(uid) for uid in series}))
    return f"`{BUCKET.name}` IN ({buckets}) AND `SeriesInstanceUID` IN UNNEST(@series)"


def _chunks(values: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), _KEYS):
        yield list(values[start : start + _KEYS])


def _columns(fields: Iterable[Field]) -> str:
    return ", ".join(quote(field.name) for field in fields)


def _row_hash(table: BigQueryTable) -> str:
    # Headers of one instance and version do not change, and are wide.
    return "0" if table.local == _HEADERS else "hash(held)"


def _without_empty(value: Any) -> Any:
    """Return a row with None for lists without values: BigQuery does not tell whether there was one."""
    if isinstance(value, Mapping):
        return {name: _without_empty(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_empty(each) for each in value] or None
    return value


def _loadable(value: Any) -> Any:
    """Return a row without None in lists, which BigQuery does not take: an empty text keeps the place of one."""
    if isinstance(value, Mapping):
        return {name: _loadable(each) for name, each in value.items()}
    if isinstance(value, list):
        return ["" if each is None else _loadable(each) for each in value]
    return value
