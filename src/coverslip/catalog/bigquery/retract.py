"""Take a series out of a catalog in BigQuery: what `coverslip.catalog.retract` does to a file."""

from __future__ import annotations

from coverslip.catalog.bigquery.client import Dataset, Parameter, open_dataset
from coverslip.catalog.bigquery.commit import apply_changes
from coverslip.catalog.bigquery.place import BigQueryPlace
from coverslip.catalog.bigquery.tables import BUCKET, TABLES, bucket_of
from coverslip.catalog.bigquery.working_copy import read_state
from coverslip.catalog.bigquery.writer import retrying, working_copy
from coverslip.catalog.merge import NewVersion, next_version, write_version
from coverslip.catalog.roll_up import roll_up
from coverslip.errors import CatalogError, UsageError

__all__ = ["retract_from_bigquery"]

# What is removed with the last series, study or patient of its kind, bottom up.
_ABOVE = (
    ("studies", "series"),
    ("patients", "studies"),
    ("collections", "patients"),
    ("collection_facts", "collections"),
)


def retract_from_bigquery(
    place: BigQueryPlace,
    series_instance_uid: str,
    reason: str,
    version: NewVersion | None = None,
    *,
    wait_s: float = 60.0,
) -> int:
    """Remove a series from every version of a catalog, and leave a tombstone.

    BigQuery itself keeps removed rows for its time travel, of 48 hours in data sets that were made here, and seven
    days more out of users' reach.

    Returns
    -------
    int
        How many rows of instances were removed, over all versions.

    Raises
    ------
    CatalogError
        If the catalog is not there or cannot be written; it is then as it was.
    """
    if not series_instance_uid:
        raise UsageError("retract: no Series Instance UID")
    with open_dataset(place) as dataset:
        return retrying(lambda: _retract(dataset, series_instance_uid, reason, version or NewVersion()), wait_s)


def _retract(dataset: Dataset, uid: str, reason: str, version: NewVersion) -> int:
    state = read_state(dataset)
    if state is None or state.headers is None:
        raise CatalogError(f"{dataset.place}: no such catalog")
    with working_copy(dataset, state) as (copy, folder):
        connection = copy.connection
        number = next_version(connection, version)
        copy.fetch_series(("history.instances", "history.series"), [uid])
        copy.fetch("history.collection_facts")
        copy.fetch_above("SELECT SeriesInstanceUID FROM history.instances")
        found = connection.execute(
            "SELECT count(*), count(*) FILTER (final_version = 0) FROM history.instances"
        ).fetchone()
        rows, current = found or (0, 0)
        connection.execute(
            """CREATE OR REPLACE TEMP TABLE keys AS SELECT collection_id, PatientID, StudyInstanceUID
            FROM history.series WHERE final_version = 0 AND SeriesInstanceUID = $1""",
            [uid],
        )
        connection.execute(
            """CREATE OR REPLACE TEMP TABLE held_by AS
            SELECT collection_id, PatientID, StudyInstanceUID FROM history.instances
            UNION SELECT collection_id, PatientID, StudyInstanceUID FROM history.series WHERE SeriesInstanceUID = $1""",
            [uid],
        )
        for table in ("instances", "series"):
            connection.execute(f"DELETE FROM history.{table} WHERE SeriesInstanceUID = $1", [uid])
        for table, below in _ABOVE:
            # Of what held the series only: of other things here what is below them was not fetched.
            same = "EXISTS (SELECT 1 FROM {0} AS other WHERE " + " AND ".join(
                f"other.{key} IS NOT DISTINCT FROM {table}.{key}" for key in _keys(table)
            )
            connection.execute(
                f"DELETE FROM history.{table} AS {table} WHERE {same.format('temp.held_by')}) "
                f"AND NOT {same.format(f'history.{below}')})"
            )
        if current:
            write_version(connection, number, version)
            roll_up(connection, number, first="studies")
        connection.execute("DELETE FROM tombstones WHERE SeriesInstanceUID = $1", [uid])
        connection.execute("INSERT INTO tombstones SELECT $1, $2, max(version) FROM versions", [uid, reason])
        parameters: list[Parameter] = [("uid", "STRING", uid)]
        apply_changes(
            dataset,
            copy,
            state.generation,
            copy.changed_rows(),
            folder,
            more=[*_removals(dataset, uid), _removal_of_results(dataset)] if rows else [],
            parameters=parameters if rows else [],
        )
    return int(rows)


def _keys(table: str) -> tuple[str, ...]:
    return tuple(key for key in TABLES[f"history.{table}"].key if key != "revised_version")


def _removals(dataset: Dataset, uid: str) -> list[str]:
    """Return the statements that remove every row of a series."""
    return [
        f"DELETE FROM {dataset.name(table.name)} "
        f"WHERE `{BUCKET.name}` IN ({bucket_of(uid)}) AND SeriesInstanceUID = @uid"
        for table in TABLES.values()
        if table.has_series
    ]


def _removal_of_results(dataset: Dataset) -> str:
    """Return the statement that removes analysis results without series."""
    facts, series = (dataset.name(TABLES[f"history.{name}"].name) for name in ("analysis_result_facts", "series"))
    return (
        f"DELETE FROM {facts} WHERE analysis_result_id NOT IN "
        f"(SELECT analysis_result_id FROM {series} WHERE analysis_result_id IS NOT NULL)"
    )
