"""Write to a catalog in BigQuery: what `duckdb_writer` is for a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip.catalog.bigquery.client import ConcurrentWriterError, Dataset, open_dataset
from coverslip.catalog.bigquery.commit import apply_changes
from coverslip.catalog.bigquery.place import parse_place
from coverslip.catalog.bigquery.tables import FORMAT, STATE_TABLE, TABLES, shapes
from coverslip.catalog.bigquery.views import digests_of, translate_views
from coverslip.catalog.bigquery.working_copy import State, WorkingCopy, read_state
from coverslip.catalog.database import dicom_fields, open_catalog
from coverslip.catalog.merge import MergeReport, NewVersion, merge_shards
from coverslip.catalog.schema import Field, merge_fields
from coverslip.catalog.staging import Shard
from coverslip.catalog.tables import DERIVED_TABLES, DICOM_METADATA
from coverslip.catalog.writers import IndexOutcome, partial_folder
from coverslip.errors import CatalogError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["BigQueryWriter", "make_catalog", "retrying", "working_copy"]

FIRST_WAIT_S = 1.0
_HEADERS = f"history.{DICOM_METADATA}"
_DERIVED = tuple(f"history.{table.name}" for table in DERIVED_TABLES)


class BigQueryWriter:
    """Merges shards into the tables of one data set.

    Parameters
    ----------
    place : str
        What follows ``bigquery:``; the data set and its tables are made if they are not there.
    dry_run : bool
        Only ask what the queries would process.
    """

    all_columns = False

    def __init__(self, place: str, *, dry_run: bool = False) -> None:
        self.place = parse_place(f"bigquery:{place}")
        self.dry_run = dry_run

    def scratch_folder(self) -> AbstractContextManager[Path]:
        """Give a folder where temporary files go."""
        return partial_folder()

    def write(
        self, shard: Shard, version: NewVersion, *, name: str | None = None, wait_s: float = 60.0
    ) -> IndexOutcome:
        """Merge a shard."""
        return self.merge([shard], version, wait_s=wait_s)

    def merge(self, shards: list[Shard], version: NewVersion, *, wait_s: float) -> IndexOutcome:
        """Merge several shards at once; whoever finds that another writer was first starts anew.

        Raises
        ------
        CatalogError
            If the tables cannot be read or written; they are then as they were.
        """
        with open_dataset(self.place) as dataset:
            if self.dry_run:
                return IndexOutcome(
                    str(self.place),
                    tuple(failure for shard in shards for failure in shard.failures),
                    estimates=_estimate(dataset, shards),
                )
            report = retrying(lambda: _merge(dataset, shards, version), wait_s)
        return IndexOutcome(str(self.place), tuple(report.failures), tuple(report.warnings), report)


def retrying[Done](change: Callable[[], Done], wait_s: float) -> Done:
    """Make a change until no other writer was first, for so long since the first that was."""
    deadline: float | None = None
    pause = FIRST_WAIT_S
    while True:
        try:
            return change()
        except ConcurrentWriterError:
            deadline = time.monotonic() + wait_s if deadline is None else deadline
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
            pause *= 1.5


def _merge(dataset: Dataset, shards: Sequence[Shard], version: NewVersion) -> MergeReport:
    state = read_state(dataset)
    with working_copy(dataset, state) as (copy, folder):
        _fetch_known(copy, shards)

        def on_step(step: str) -> None:
            if step == "deriving":
                _fetch_affected(copy)

        before = copy.connection.execute("SELECT max(version) FROM versions").fetchone()
        report = merge_shards(copy.connection, shards, version, on_step)
        amends = before is not None and version.number is not None and before[0] == version.number
        changes = copy.changed_rows(amends=amends)
        headers = dicom_fields(copy.connection)
        if not changes or (state is None and report.version is None):
            if state is not None:
                _make_views(dataset, state, headers)
            return report
        state = make_catalog(dataset, state, headers)
        apply_changes(dataset, copy, state.generation, changes, folder)
        _make_views(dataset, state, headers)
        return report


@contextmanager
def working_copy(dataset: Dataset, state: State | None) -> Iterator[tuple[WorkingCopy, Path]]:
    """Give an empty catalog in a temporary file, and a folder for more of these."""
    with partial_folder() as folder, open_catalog(folder / "working.duckdb") as connection:
        yield WorkingCopy(connection, dataset, state), folder


def _fetch_known(copy: WorkingCopy, shards: Sequence[Shard]) -> set[str]:
    """Fetch what is known of the instances and series that shards tell of, or that lie where they looked."""
    series, instances = _told_series(copy.connection, shards)
    series |= copy.fetch_series_of("SOPInstanceUID", instances)
    for shard in shards:
        if shard.prune:
            series |= copy.fetch_series_below(shard.roots)
    copy.fetch_series(("history.instances", "history.series", "history.conversions"), series)
    copy.fetch("history.collection_facts")
    copy.fetch("history.analysis_result_facts")
    return series


def _told_series(connection: DuckDBPyConnection, shards: Sequence[Shard]) -> tuple[set[str], list[str]]:
    import duckdb

    series: set[str] = set()
    instances: list[str] = []
    for shard in shards:
        for part in shard.parts:
            try:
                rows = connection.execute(
                    "SELECT SeriesInstanceUID, SOPInstanceUID FROM read_parquet(?)",
                    [str(shard.part_file("instances", part))],
                ).fetchall()
                told = connection.execute(
                    "SELECT SeriesInstanceUID FROM read_parquet(?)", [str(shard.part_file("series", part))]
                ).fetchall()
            except duckdb.Error as error:
                raise CatalogError(f"the merge failed: {str(error).splitlines()[0]}") from None
            series |= {row[0] for row in (*rows, *told)}
            instances += [row[1] for row in rows]
    return series, instances


def _fetch_affected(copy: WorkingCopy) -> None:
    """Fetch, within a merge, what it is about to make anew."""
    affected = [row[0] for row in copy.connection.execute("SELECT SeriesInstanceUID FROM affected").fetchall()]
    copy.fetch_series(_DERIVED, affected)
    copy.fetch_above("SELECT SeriesInstanceUID FROM affected")
    # Headers of instances that stay beside those that are new.
    rows = copy.connection.execute(
        """SELECT DISTINCT SeriesInstanceUID FROM history.instances
        WHERE final_version = 0 AND SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM affected)
            AND SOPInstanceUID NOT IN (SELECT SOPInstanceUID FROM history.dicom_metadata)"""
    ).fetchall()
    instances = copy.dataset.name(TABLES["history.instances"].name)
    current = (
        f"CONCAT(SOPInstanceUID, ' ', CAST(revised_version AS STRING)) IN "
        f"(SELECT CONCAT(SOPInstanceUID, ' ', CAST(revised_version AS STRING)) FROM {instances} "
        "WHERE final_version = 0 AND SeriesInstanceUID IN UNNEST(@series))"
    )
    copy.fetch_series([_HEADERS], {row[0] for row in rows}, current)
    # BigQuery still holds those for current that the merge has just ended.
    copy.connection.execute(
        """DELETE FROM history.dicom_metadata AS headers WHERE NOT EXISTS (
            SELECT 1 FROM history.instances WHERE final_version = 0
                AND instances.SOPInstanceUID = headers.SOPInstanceUID
                AND instances.revised_version = headers.revised_version)"""
    )


def _estimate(dataset: Dataset, shards: Sequence[Shard]) -> dict[str, int]:
    """Return how many bytes the queries of a merge would process, by table, at most."""
    state = read_state(dataset)
    with working_copy(dataset, state) as (copy, _):
        copy.estimates = {}
        series = _fetch_known(copy, shards)
        copy.fetch_series((_HEADERS, *_DERIVED), series)
        for local in ("history.studies", "history.patients", "history.collections"):
            copy.fetch(local)
        return copy.estimates


def make_catalog(dataset: Dataset, state: State | None, headers: Sequence[Field]) -> State:
    """Make the data set, its tables and columns, as far as they are not there.

    Parameters
    ----------
    headers : sequence of Field
        Columns that `dicom_metadata` is to have at least.
    """
    if state is None:
        dataset.make()
        for shape in shapes(headers):
            dataset.make_table(shape)
        name = dataset.name(STATE_TABLE)
        dataset.run(
            f"MERGE {name} AS target USING (SELECT {FORMAT} AS format, 0 AS generation) AS told "
            "ON target.format = told.format WHEN NOT MATCHED THEN "
            "INSERT (format, generation) VALUES (told.format, told.generation)"
        )
        state = State(0, None, None)
    table = TABLES[_HEADERS]
    wanted = table.stored_fields(headers)
    if tuple(headers) != state.headers:
        dataset.widen(table.name, lambda have: merge_fields(have, wanted)[0])
    return state


def _make_views(dataset: Dataset, state: State, headers: Sequence[Field]) -> None:
    """Let views show all columns, if they do not yet."""
    views = translate_views(dataset.place, headers)
    digests = digests_of(views)
    have = json.loads(state.views) if state.views else {}
    if digests == have:
        return
    for name, query in views.items():
        if digests[name] != have.get(name):
            dataset.make_view(name, query)
    dataset.run(
        f"UPDATE {dataset.name(STATE_TABLE)} SET views = @views WHERE TRUE",
        [("views", "STRING", json.dumps(digests, sort_keys=True))],
    )
