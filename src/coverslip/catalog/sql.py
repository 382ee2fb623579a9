"""Queries that users write, run where they can read the catalog and nothing else.

The catalog is open for reading only. Before the first query the connection gives up files, network, extensions and
Python's variables for good, and its settings are locked; a statement is only taken if it is one query. DuckDB does not
promise to hold against an attacker, so a service that takes SQL of strangers needs the walls of its own process too.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coverslip.catalog.bigquery_sql import looks_like_bigquery, translate_bigquery
from coverslip.errors import CatalogError, UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from coverslip.catalog.search import SearchableCatalog

__all__ = ["DIALECTS", "SqlResult", "run_sql"]

DIALECTS = ("auto", "duckdb", "bigquery")

_AGAIN_S = 0.05

_CHANGES = re.compile(r'"type":\s*"(?:INSERT|UPDATE|DELETE|MERGE|CREATE|DROP|ALTER|COPY|ATTACH)\w*"')


@dataclass(frozen=True, slots=True)
class SqlResult:
    """What a query gave.

    Parameters
    ----------
    columns, types : tuple of str
    rows : tuple of tuple
    more : bool
        Whether there are rows beyond the limit.
    dialect : str
        The one that it was taken for: ``duckdb`` or ``bigquery``.
    sql : str
        What DuckDB ran.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool
    dialect: str
    sql: str


def run_sql(
    catalog: SearchableCatalog,
    sql: str,
    *,
    dialect: str = "auto",
    limit: int | None = None,
    timeout_s: float = 60.0,
    memory: str = "2GB",
) -> SqlResult:
    """Run one query of a user.

    Parameters
    ----------
    dialect : str
        ``duckdb``, ``bigquery``, or ``auto``: BigQuery's if the query holds what only that has, else DuckDB's, else
        BigQuery's if DuckDB cannot make sense of it.
    limit : int or None
        Most rows.
    timeout_s : float
        The query is ended after so long.
    memory : str
        Most that it may use; nothing is written to disk.

    Raises
    ------
    UsageError
        If it is not one query that reads, or makes no sense.
    CatalogError
        If it takes too long or too much.
    """
    if dialect not in DIALECTS:
        raise UsageError(f"--dialect {dialect}: expected one of {', '.join(DIALECTS)}")
    connection = catalog.connection
    _confine(catalog, memory)
    chosen, statement = _choose(connection, sql, dialect)
    import duckdb

    with _ended_after(connection, timeout_s) as late:
        try:
            cursor = connection.execute(statement)
            columns = tuple(column[0] for column in cursor.description or ())
            types = tuple(str(column[1]) for column in cursor.description or ())
            rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit + 1)
        except duckdb.InterruptException:
            if late.is_set():
                raise CatalogError(f"--sql: not done after {timeout_s:g} s") from None
            raise
        except duckdb.OutOfMemoryException:
            raise CatalogError(f"--sql: needs more than {memory} of memory") from None
        except duckdb.Error as error:
            raise UsageError(f"--sql: {_told(error)}") from None
    more = limit is not None and len(rows) > limit
    return SqlResult(columns, types, tuple(rows[:limit]), more, chosen, statement)


def _confine(catalog: SearchableCatalog, memory: str) -> None:
    """Give up, once and for all, what a query has no need of."""
    connection = catalog.connection
    locked = connection.execute("SELECT current_setting('lock_configuration')").fetchone()
    if locked and locked[0]:
        return
    if not re.fullmatch(r"\d+(?:\.\d+)?\s*[KMGT]i?B", memory):
        raise UsageError(f"memory {memory}: expected a size such as 2GB")
    files = [catalog.published.files.idc_index] if catalog.published else []
    paths = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    for statement in (
        f"SET memory_limit = '{memory}'",
        "SET temp_directory = ''",
        "SET python_enable_replacements = false",
        "SET autoinstall_known_extensions = false",
        "SET autoload_known_extensions = false",
        f"SET allowed_paths = [{paths}]",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(statement)


def _choose(connection: DuckDBPyConnection, sql: str, dialect: str) -> tuple[str, str]:
    """Return the dialect that SQL is taken for, and what DuckDB is to run."""
    if dialect == "bigquery" or (dialect == "auto" and looks_like_bigquery(sql)):
        statement = translate_bigquery(sql)
        _check(connection, statement)
        return "bigquery", statement
    if dialect == "duckdb":
        _check(connection, sql)
        return "duckdb", sql
    try:
        _check(connection, sql)
    except UsageError as first:
        try:
            statement = translate_bigquery(sql)
            _check(connection, statement)
        except UsageError:
            raise first from None
        return "bigquery", statement
    return "duckdb", sql


def _check(connection: DuckDBPyConnection, sql: str) -> None:
    """Make sure that SQL is one query that only reads, and that its names are there."""
    import duckdb

    try:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1 or statements[0].type is not duckdb.StatementType.SELECT:
            raise UsageError("--sql: expected one query: SELECT ... or WITH ... SELECT ...")
        tree = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
        if tree is None or _CHANGES.search(tree[0]):
            raise UsageError("--sql: a catalog is only read: expected a query that changes nothing")
        connection.execute(f"EXPLAIN {sql}").fetchall()
    except duckdb.Error as error:
        raise UsageError(f"--sql: {_told(error)}") from None


def _told(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _ended_after(connection: DuckDBPyConnection, seconds: float) -> Iterator[threading.Event]:
    late, done = threading.Event(), threading.Event()

    def end() -> None:
        if done.wait(seconds):
            return
        late.set()
        # An interrupt that comes before a query has begun is lost, and the query would go on for ever.
        while True:
            connection.interrupt()
            if done.wait(_AGAIN_S):
                return

    watch = threading.Thread(target=end, name="coverslip-sql-timeout", daemon=True)
    watch.start()
    try:
        yield late
    finally:
        done.set()
        watch.join()
