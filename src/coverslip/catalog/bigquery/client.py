"""BigQuery's client: every query with a limit of what it bills, retries, and failures told as ours.

What BigQuery says of a failure may repeat values of rows, so only the reason is told; the job's page has the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.catalog.bigquery.place import BigQueryPlace
from coverslip.catalog.schema import Field, as_bigquery, fields_from_bigquery
from coverslip.errors import CatalogError, MissingDependencyError, UsageError

__all__ = ["ConcurrentWriterError", "Dataset", "Estimate", "Parameter", "TableShape", "open_dataset"]

RETRY_FIRST_S = 1.0
RETRY_WITHIN_S = 300.0
_TIMEOUT_S = 120.0
_PAGE_ROWS = 1000

type Parameter = tuple[str, str, Any]
"""Name, type and value of a query parameter; a list is an array."""


class ConcurrentWriterError(CatalogError):
    """Another writer has changed the catalog meanwhile: what was computed no longer fits."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a query would do, told by BigQuery without running it."""

    bytes_processed: int
    statement_type: str


@dataclass(frozen=True, slots=True)
class TableShape:
    """How a table is made.

    Parameters
    ----------
    bucket : str or None
        Column of integers from 0 to 255 by which it is partitioned.
    cluster : tuple of str
    expires_after_s : int or None
        After so long it is gone.
    """

    name: str
    fields: tuple[Field, ...]
    description: str = ""
    bucket: str | None = None
    cluster: tuple[str, ...] = ()
    expires_after_s: int | None = None


@contextmanager
def open_dataset(place: BigQueryPlace) -> Iterator[Dataset]:
    """Open a data set, which may not be there yet.

    Raises
    ------
    MissingDependencyError
        If a library is not installed.
    UsageError
        If there are no credentials.
    """
    try:
        import google.auth.credentials
        from google.cloud import bigquery
    except ImportError:
        raise MissingDependencyError(
            "BigQuery needs its client and the catalog: pip install 'coverslip[cloud,catalog]'"
        ) from None
    if place.endpoint is not None and place.endpoint.startswith("http://"):
        credentials: Any = google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]
    else:
        from coverslip.stores.google_credentials import load_google_credentials
        from coverslip.stores.options import ApplicationDefault

        credentials = load_google_credentials(ApplicationDefault())
    options = {"api_endpoint": place.endpoint} if place.endpoint else None
    client = bigquery.Client(place.project, credentials=credentials, client_options=options)
    try:
        yield Dataset(client, place)
    finally:
        client.close()  # type: ignore[no-untyped-call]


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let failures of the client's be ours."""

    @functools.wraps(function)
    def run(self: Dataset, *arguments: Any, **options: Any) -> Any:
        import google.api_core.exceptions
        import google.auth.exceptions
        import requests

        try:
            return function(self, *arguments, **options)
        except google.api_core.exceptions.GoogleAPICallError as error:
            raise self.failure(error) from None
        except google.api_core.exceptions.RetryError:
            raise CatalogError(f"{self.place}: BigQuery did not answer in {RETRY_WITHIN_S:g} s") from None
        except google.auth.exceptions.GoogleAuthError as error:
            kind = type(error).__name__
            raise CatalogError(f"{self.place}: Google credentials cannot be refreshed: {kind}") from None
        except requests.RequestException:
            raise CatalogError(f"{self.place}: the connection to BigQuery failed") from None

    return run


class Dataset:
    """A data set and what is asked of it.

    Attributes
    ----------
    place : BigQueryPlace
    bytes_processed : int
        By all queries so far.
    """

    def __init__(self, client: Any, place: BigQueryPlace) -> None:
        from google.cloud.bigquery import DEFAULT_RETRY

        self.place = place
        self.bytes_processed = 0
        self._client = client
        self._retry = DEFAULT_RETRY.with_delay(initial=RETRY_FIRST_S).with_timeout(RETRY_WITHIN_S)
        self._calls: dict[str, Any] = {"retry": self._retry, "timeout": _TIMEOUT_S}

    def name(self, table: str) -> str:
        """Return the name of a table as it stands in a query."""
        return f"`{self.place.project}.{self.place.dataset}.{table}`"

    def failure(self, error: Any) -> CatalogError:
        """Return the error to raise in place of one of BigQuery's."""
        import google.api_core.exceptions

        first = error.errors[0] if error.errors else {}
        reason = first.get("reason") or type(error).__name__
        message = str(first.get("message") or error.message)
        what = f"{self.place}"
        if "another writer" in message or "concurrent update" in message:
            return ConcurrentWriterError(f"{what}: another writer has changed the catalog meanwhile")
        if reason == "bytesBilledLimitExceeded":
            limit = self.place.max_bytes_billed
            return CatalogError(
                f"{what}: a query would bill more than {limit:,} bytes, nothing was done: see --max-bytes-billed"
            )
        if isinstance(error, google.api_core.exceptions.NotFound):
            return CatalogError(f"{what}: not there, or no catalog of coverslip")
        if isinstance(error, google.api_core.exceptions.Forbidden | google.api_core.exceptions.Unauthorized):
            return CatalogError(f"{what}: not permitted ({reason}); docs/bigquery.md tells the roles that are needed")
        return CatalogError(f"{what}: BigQuery refused what was asked of it: {reason}")

    @_told
    def make(self) -> None:
        """Make the data set if it is not there."""
        import google.api_core.exceptions
        from google.cloud import bigquery

        reference = bigquery.DatasetReference(self.place.project, self.place.dataset)
        try:
            self._client.get_dataset(reference, **self._calls)
        except google.api_core.exceptions.NotFound:
            dataset = bigquery.Dataset(reference)
            dataset.location = self.place.location
            dataset.description = "Catalog of slides, written by coverslip index."
            # What is retracted can be looked at by time travel for so long: the least that BigQuery takes.
            dataset.max_time_travel_hours = 48
            self._client.create_dataset(dataset, exists_ok=True, **self._calls)

    @_told
    def table_fields(self, table: str) -> tuple[Field, ...] | None:
        """Return the columns of a table, None if it is not there."""
        import google.api_core.exceptions

        try:
            found = self._client.get_table(self._reference(table), **self._calls)
        except google.api_core.exceptions.NotFound:
            return None
        return fields_from_bigquery([each.to_api_repr() for each in found.schema])

    def _reference(self, table: str) -> str:
        return f"{self.place.project}.{self.place.dataset}.{table}"

    @_told
    def make_table(self, shape: TableShape) -> None:
        """Make a table if it is not there."""
        from datetime import UTC, datetime, timedelta

        from google.cloud import bigquery

        table = bigquery.Table(self._reference(shape.name), schema=_schema(shape.fields))
        table.description = shape.description or None
        if shape.bucket is not None:
            table.range_partitioning = bigquery.RangePartitioning(
                field=shape.bucket, range_=bigquery.PartitionRange(start=0, end=256, interval=1)
            )
        if shape.cluster:
            table.clustering_fields = list(shape.cluster)
        if shape.expires_after_s is not None:
            table.expires = datetime.now(UTC) + timedelta(seconds=shape.expires_after_s)
        self._client.create_table(table, exists_ok=True, **self._calls)

    @_told
    def widen(self, table: str, extend: Callable[[tuple[Field, ...]], tuple[Field, ...]]) -> None:
        """Add columns to a table; of two writers who do so at the same time, one looks again and adds its own.

        Parameters
        ----------
        extend : callable
            Given the columns that are there, returns all that shall be.
        """
        import google.api_core.exceptions

        for _ in range(10):
            found = self._client.get_table(self._reference(table), **self._calls)
            fields = fields_from_bigquery([each.to_api_repr() for each in found.schema])
            wanted = extend(fields)
            if wanted == fields:
                return
            found.schema = _schema(wanted)
            try:
                self._client.update_table(found, ["schema"], **self._calls)
            except google.api_core.exceptions.PreconditionFailed:
                continue
            return
        raise CatalogError(f"{self.place}: columns cannot be added: others keep adding theirs")

    @_told
    def make_view(self, name: str, query: str) -> None:
        """Make a view, or let it show what a query gives from now on."""
        import google.api_core.exceptions
        from google.cloud import bigquery

        view = bigquery.Table(self._reference(name))
        view.view_query = query
        try:
            self._client.create_table(view, **self._calls)
        except google.api_core.exceptions.Conflict:
            self._client.update_table(view, ["view_query"], **self._calls)

    @_told
    def load(self, table: str, fields: Sequence[Field], path: Path) -> int:
        """Load a file of gzipped NDJSON into an empty table, all of it or nothing, and return how many rows it has."""
        from google.cloud import bigquery

        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.NEWLINE_DELIMITED_JSON,
            schema=_schema(fields),
            write_disposition=bigquery.WriteDisposition.WRITE_EMPTY,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            ignore_unknown_values=False,
            max_bad_records=0,
        )
        with path.open("rb") as file:
            job = self._client.load_table_from_file(
                file, self._reference(table), size=path.stat().st_size, job_config=config, num_retries=6
            )
        job.result(retry=self._retry)
        return int(job.output_rows)

    @_told
    def drop(self, table: str) -> None:
        """Remove a table, if it is there."""
        self._client.delete_table(self._reference(table), not_found_ok=True, **self._calls)

    @_told
    def _run(self, sql: str, parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
        return [dict(row.items()) for row in self._start(sql, parameters)]

    def run(self, sql: str, parameters: Sequence[Parameter] = ()) -> list[dict[str, Any]]:
        """Run a query, and return its rows."""
        rows: list[dict[str, Any]] = self._run(sql, parameters)
        return rows

    def iter_rows(self, sql: str, parameters: Sequence[Parameter] = ()) -> Iterator[list[dict[str, Any]]]:
        """Run a query, and yield its rows page by page."""
        pages = iter(self._start_pages(sql, parameters))
        while (page := self._next_page(pages)) is not None:
            yield page

    @_told
    def _start_pages(self, sql: str, parameters: Sequence[Parameter]) -> Any:
        return self._start(sql, parameters).pages

    @_told
    def _next_page(self, pages: Iterator[Any]) -> list[dict[str, Any]] | None:
        page = next(pages, None)
        return None if page is None else [dict(row.items()) for row in page]

    def _start(self, sql: str, parameters: Sequence[Parameter]) -> Any:
        job = self._client.query(sql, job_config=self._config(parameters), **self._calls)
        rows = job.result(page_size=_PAGE_ROWS, retry=self._retry)
        self.bytes_processed += int(job.total_bytes_processed or 0)
        return rows

    @_told
    def estimate(self, sql: str, parameters: Sequence[Parameter] = ()) -> Estimate:
        """Return what a query would process, without running it."""
        job = self._client.query(sql, job_config=self._config(parameters, dry_run=True), **self._calls)
        return Estimate(int(job.total_bytes_processed), job.statement_type or "")

    def run_of_user(
        self, sql: str, limit: int | None, timeout_s: float
    ) -> tuple[list[tuple[str, str]], list[Any], bool]:
        """Run one query that a user wrote, and return its columns with their types, rows, and whether there are more.

        Raises
        ------
        UsageError
            With what BigQuery says, if it makes no sense or is no query that only reads.
        """
        import concurrent.futures

        import google.api_core.exceptions

        try:
            dry = self._client.query(sql, job_config=self._config((), dry_run=True), **self._calls)
            if dry.statement_type != "SELECT":
                raise UsageError("--sql: expected one query: SELECT ... or WITH ... SELECT ...")
            job = self._client.query(sql, job_config=self._config(()), **self._calls)
            try:
                found = job.result(page_size=_PAGE_ROWS, retry=self._retry, timeout=timeout_s)
            except concurrent.futures.TimeoutError:
                job.cancel()
                raise CatalogError(f"--sql: not done after {timeout_s:g} s") from None
            columns = [(each.name, str(each.field_type)) for each in found.schema]
            rows: list[Any] = []
            for row in found:
                if limit is not None and len(rows) == limit:
                    return columns, rows, True
                rows.append(row.values())
        except google.api_core.exceptions.BadRequest as error:
            first = error.errors[0] if error.errors else {}
            if first.get("reason") in ("invalidQuery", "invalid", "notFound"):
                raise UsageError(f"--sql: {str(first.get('message')).splitlines()[0]}") from None
            raise self.failure(error) from None
        except google.api_core.exceptions.GoogleAPICallError as error:
            raise self.failure(error) from None
        return columns, rows, False

    def _config(self, parameters: Sequence[Parameter], *, dry_run: bool = False) -> Any:
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(
            default_dataset=f"{self.place.project}.{self.place.dataset}",
            maximum_bytes_billed=self.place.max_bytes_billed,
            use_legacy_sql=False,
        )
        if dry_run:
            config.dry_run = True
            config.use_query_cache = False
        config.query_parameters = [
            bigquery.ArrayQueryParameter(name or None, kind, value)
            if isinstance(value, list)
            else bigquery.ScalarQueryParameter(name or None, kind, value)
            for name, kind, value in parameters
        ]
        return config


def _schema(fields: Sequence[Field]) -> list[Any]:
    from google.cloud import bigquery

    return [bigquery.SchemaField.from_api_repr(each) for each in as_bigquery(fields)]
