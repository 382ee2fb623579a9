"""Merge shards into a catalog in one transaction: afterwards it shows all of them, or none if it ended early.

What changes gets a version: rows of the version before are closed with `final_version`, new ones begin with
`revised_version`. A version is only made when an instance is new, other than before, or gone; what is said of series
and collections is kept as it was said last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip.catalog.database import dicom_fields, make_tables, make_views
from coverslip.catalog.derived import BETWEEN, derivation
from coverslip.catalog.roll_up import SERIES_FACTS, close, replace_rows, roll_up
from coverslip.catalog.schema import Field, as_bigquery, duckdb_type, merge_fields, quote
from coverslip.catalog.search_table import refresh_search
from coverslip.catalog.staging import Failure, Shard, part_fields
from coverslip.catalog.tables import DERIVED_TABLES, STORED_TABLES, staged_instance_fields, staged_series_fields
from coverslip.errors import CatalogError, UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["MergeReport", "NewVersion", "merge_shards", "next_version", "write_version"]

_TABLES = {table.name: table for table in STORED_TABLES}
_CATALOG_ERROR = CatalogError.exit_code


@dataclass(frozen=True, slots=True)
class NewVersion:
    """How the version is called that a merge makes, if it changes anything.

    Parameters
    ----------
    number : int or None
        None for the next one. That of the latest version amends it.
    label, date : str or None
        Kept beside the number; the date as ISO 8601. Never taken from a clock.
    """

    number: int | None = None
    label: str | None = None
    date: str | None = None


@dataclass(slots=True)
class MergeReport:
    """What a merge did.

    Parameters
    ----------
    version : int or None
        The version that the catalog shows now; None for an empty catalog.
    new, changed, unchanged, retired, duplicates : int
        Instances.
    failures : list of Failure
    warnings : list of str
    added_columns : list of str
    """

    version: int | None = None
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    retired: int = 0
    duplicates: int = 0
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    added_columns: list[str] = field(default_factory=list)


def merge_shards(
    connection: DuckDBPyConnection,
    shards: Sequence[Shard],
    version: NewVersion | None = None,
    on_step: Callable[[str], None] | None = None,
) -> MergeReport:
    """Merge shards into a catalog that is open for writing.

    Raises
    ------
    CatalogError
        If a shard cannot be read or the catalog not be written; it is then as it was before.
    UsageError
        If a version is asked for that lies before the latest one.
    """
    import duckdb

    connection.execute("BEGIN")
    try:
        make_tables(connection)
        report = _Merge(connection, shards, version or NewVersion(), on_step or (lambda _: None)).run()
        connection.execute("COMMIT")
    except duckdb.Error as error:
        _roll_back(connection)
        raise CatalogError(f"the merge failed: {str(error).splitlines()[0]}") from None
    except BaseException:
        _roll_back(connection)
        raise
    return report


def _roll_back(connection: DuckDBPyConnection) -> None:
    import duckdb

    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        return  # a transaction that failed to commit is gone already


def _latest_version(connection: DuckDBPyConnection) -> int | None:
    found: tuple[int | None] | None = connection.execute("SELECT max(version) FROM versions").fetchone()
    return found[0] if found else None


def next_version(connection: DuckDBPyConnection, asked: NewVersion) -> int:
    """Return the number that a new version has.

    Raises
    ------
    UsageError
        If a number is asked for that lies before the latest one.
    """
    latest = _latest_version(connection)
    if asked.number is None:
        return (latest or 0) + 1
    if asked.number < 1 or (latest is not None and asked.number < latest):
        raise UsageError(f"version {asked.number}: the latest version is {latest or 0}, expected no earlier one")
    return asked.number


def write_version(connection: DuckDBPyConnection, number: int, asked: NewVersion) -> None:
    """Note a version, or what an amended one is called from now on."""
    connection.execute(
        """INSERT INTO versions VALUES ($1, $2, CAST($3 AS DATE)) ON CONFLICT DO UPDATE SET
            label = coalesce(excluded.label, label), version_date = coalesce(excluded.version_date, version_date)""",
        [number, asked.label, asked.date],
    )


def _size_of(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


class _Merge:
    def __init__(
        self,
        connection: DuckDBPyConnection,
        shards: Sequence[Shard],
        version: NewVersion,
        on_step: Callable[[str], None],
    ) -> None:
        self.connection = connection
        self.shards = shards
        self.asked = version
        self.on_step = on_step
        self.report = MergeReport()
        self.parts = [(shard, part) for shard in shards for part in shard.parts]
        self.latest = _latest_version(connection)
        self.version = next_version(connection, version)

    def run(self) -> MergeReport:
        self.on_step("comparing")
        self._stage()
        self._resolve()
        self._classify()
        if self.report.new or self.report.changed or self.report.retired:
            self.on_step("writing")
            write_version(self.connection, self.version, self.asked)
            self._write_instances()
        else:
            self.version = self.latest or 0
        self._find_affected()
        if self._one("SELECT count(*) FROM affected"):
            self.on_step("deriving")
            self._write_facts()
            self._run("CREATE OR REPLACE TEMP TABLE keys AS SELECT SeriesInstanceUID FROM affected")
            roll_up(self.connection, self.version)
            self._write_conversions()
            derive(self.connection, self.version)
            refresh_search(self.connection)
        self._warn()
        self.report.version = _latest_version(self.connection)
        for table in ("incoming", "told", "affected", "gone", "fresh", "outcome", "changes"):
            self._run(f"DROP TABLE IF EXISTS temp.{table}")
        return self.report

    def _run(self, statement: str, parameters: Sequence[object] = ()) -> None:
        self.connection.execute(statement, list(parameters))

    def _one(self, query: str, parameters: Sequence[object] = ()) -> int:
        found = self.connection.execute(query, list(parameters)).fetchone()
        value: int = found[0] if found is not None else 0
        return value

    def _stage(self) -> None:
        """Bring the small tables of all parts together."""
        part = Field("part", "INTEGER")
        self._temporary("incoming", (part, *staged_instance_fields()))
        self._temporary("told", staged_series_fields())
        for index, (shard, number) in enumerate(self.parts):
            self._run(
                f"INSERT INTO incoming BY NAME SELECT *, {index} AS part FROM read_parquet(?)",
                [str(shard.part_file("instances", number))],
            )
            self._run(
                "INSERT INTO told BY NAME SELECT * FROM read_parquet(?)", [str(shard.part_file("series", number))]
            )
        # Of several records of one series the first by place counts, whatever the order of shards.
        self._run(
            "DELETE FROM told WHERE rowid NOT IN "
            "(SELECT first(rowid ORDER BY location) FROM told GROUP BY SeriesInstanceUID)"
        )

    def _temporary(self, name: str, fields: Iterable[Field]) -> None:
        columns = ", ".join(f"{quote(each.name)} {duckdb_type(each)}" for each in fields)
        self._run(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")

    def _resolve(self) -> None:
        """Keep one file for each instance, and tell of files that contradict it."""
        for shard in self.shards:
            self.report.failures += shard.failures
        retracted = self.connection.execute(
            "SELECT location, SeriesInstanceUID FROM incoming "
            "WHERE SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM tombstones) ORDER BY location"
        ).fetchall()
        for location, uid in retracted:
            self._fail(location, f"series {uid} was retracted")
        self._run("DELETE FROM incoming WHERE SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM tombstones)")
        contradicting = self.connection.execute(
            """SELECT location, SOPInstanceUID, kept FROM (
                SELECT location, SOPInstanceUID, content_key,
                    first_value(location) OVER same AS kept, first_value(content_key) OVER same AS kept_key
                FROM incoming WINDOW same AS (PARTITION BY SOPInstanceUID ORDER BY location))
            WHERE content_key <> kept_key ORDER BY location"""
        ).fetchall()
        for location, uid, kept in contradicting:
            self._fail(location, f"SOP Instance UID {uid} with other content than {kept}; left out")
        before = self._one("SELECT count(*) FROM incoming")
        self._run(
            """DELETE FROM incoming WHERE rowid NOT IN (
                SELECT first(rowid ORDER BY location, part, row_index) FROM incoming GROUP BY SOPInstanceUID)"""
        )
        left_out = before - self._one("SELECT count(*) FROM incoming")
        self.report.duplicates = left_out - len(contradicting)

    def _fail(self, location: str, reason: str) -> None:
        self.report.failures.append(Failure(location, reason, _CATALOG_ERROR))

    def _classify(self) -> None:
        """Say of every instance whether it is new, changed or as it was, and which ones are gone."""
        # Without its MD5 an instance of the same UID and size is taken for the same.
        self._run(
            """CREATE OR REPLACE TEMP TABLE outcome AS
            SELECT incoming.SOPInstanceUID, part, row_index, CASE
                WHEN old.SOPInstanceUID IS NULL THEN 'new'
                WHEN incoming.content_key = old.content_key THEN 'unchanged'
                WHEN (incoming.instance_hash IS NULL) <> (old.instance_hash IS NULL)
                    AND coalesce(incoming.instance_size, old.instance_size) IS NOT DISTINCT FROM
                        coalesce(old.instance_size, incoming.instance_size) THEN 'unchanged'
                ELSE 'changed' END AS outcome
            FROM incoming LEFT JOIN (SELECT * FROM history.instances WHERE final_version = 0) AS old
                ON old.SOPInstanceUID = incoming.SOPInstanceUID"""
        )
        self._keep_those_that_stay()
        counts = dict(self.connection.execute("SELECT outcome, count(*) FROM outcome GROUP BY outcome").fetchall())
        self.report.new = counts.get("new", 0)
        self.report.changed = counts.get("changed", 0)
        self.report.unchanged = counts.get("unchanged", 0)
        self._run("CREATE OR REPLACE TEMP TABLE gone (SOPInstanceUID VARCHAR)")
        for shard in self.shards:
            if shard.prune:
                self._find_gone(shard)
        self.report.retired = self._one("SELECT count(*) FROM gone")

    def _keep_those_that_stay(self) -> None:
        """Tell of files that contradict another one, which the catalog has and which has not changed."""
        contradicting = self.connection.execute(
            """SELECT SOPInstanceUID, incoming.location, old.location, old.instance_size
            FROM outcome JOIN incoming USING (SOPInstanceUID)
            JOIN (SELECT * FROM history.instances WHERE final_version = 0) AS old USING (SOPInstanceUID)
            WHERE outcome = 'changed' AND incoming.location <> old.location AND starts_with(old.location, '/')
            ORDER BY incoming.location"""
        ).fetchall()
        for uid, location, kept, size_bytes in contradicting:
            if _size_of(kept) == size_bytes:
                self._fail(location, f"SOP Instance UID {uid} with other content than {kept}; left out")
                self._run("DELETE FROM outcome WHERE SOPInstanceUID = ?", [uid])

    def _find_gone(self, shard: Shard) -> None:
        unread = [failure.location for failure in shard.failures]
        for root in shard.roots:
            self._run(
                """INSERT INTO gone SELECT SOPInstanceUID FROM history.instances AS old
                WHERE final_version = 0 AND (location = $1 OR starts_with(location, rtrim($1, '/') || '/'))
                    AND SOPInstanceUID NOT IN (SELECT SOPInstanceUID FROM incoming)
                    AND SOPInstanceUID NOT IN (SELECT SOPInstanceUID FROM gone)
                    AND NOT list_contains($2::VARCHAR[], location)""",
                [root, unread],
            )

    def _write_instances(self) -> None:
        old = (
            "SOPInstanceUID IN (SELECT SOPInstanceUID FROM gone UNION ALL "
            "SELECT SOPInstanceUID FROM outcome WHERE outcome = 'changed')"
        )
        self._run(
            "CREATE OR REPLACE TEMP TABLE changes AS SELECT DISTINCT SeriesInstanceUID FROM history.instances "
            f"WHERE final_version = 0 AND {old}"
        )
        first_seen = (
            "coalesce((SELECT min(init_version) FROM history.instances AS old "
            "WHERE old.SOPInstanceUID = incoming.SOPInstanceUID), $version)"
        )
        self._run(
            f"CREATE OR REPLACE TEMP TABLE fresh AS SELECT incoming.*, {first_seen} AS init_version "
            "FROM incoming JOIN outcome USING (SOPInstanceUID) WHERE outcome <> 'unchanged'".replace(
                "$version", str(self.version)
            )
        )
        for table in ("instances", "dicom_metadata"):
            close(self.connection, table, old, self.version)
        self._run(
            f"""INSERT INTO history.instances BY NAME
            SELECT SOPInstanceUID, SeriesInstanceUID, StudyInstanceUID, PatientID, collection_id, instance_uuid,
                instance_hash, instance_size, content_key, location, {_URLS}, drops, init_version,
                {self.version} AS revised_version, 0 AS final_version
            FROM fresh ORDER BY SOPInstanceUID"""
        )
        self._widen()
        for index, (shard, number) in enumerate(self.parts):
            self._run(
                f"""INSERT INTO history.dicom_metadata BY NAME
                SELECT rows.* EXCLUDE (file_row_number), {self.version} AS revised_version, 0 AS final_version
                FROM read_parquet($1, file_row_number = true) AS rows
                WHERE file_row_number IN (SELECT row_index FROM fresh WHERE part = {index})""",
                [str(shard.part_file("dicom_metadata", number))],
            )

    def _widen(self) -> None:
        """Add the columns that parts have and the catalog has not."""
        fields = known = dicom_fields(self.connection)
        for shard, number in self.parts:
            fields, _ = merge_fields(fields, part_fields(shard.part_file("dicom_metadata", number)))
        # Once more from what was known, so that the order of parts is without effect on that of columns.
        fields, additions = merge_fields(known, fields)
        if not additions:
            return
        names = {each.name: each for each in known}
        for each in fields:
            if each.name not in names:
                self._run(f"ALTER TABLE history.dicom_metadata ADD COLUMN {quote(each.name)} {duckdb_type(each)}")
            elif each != names[each.name]:
                self._run(
                    f"ALTER TABLE history.dicom_metadata ALTER COLUMN {quote(each.name)} TYPE {duckdb_type(each)}"
                )
        for addition in additions:
            self._run(
                "INSERT INTO schema_changes VALUES (?, 'dicom_metadata', ?, ?, ?)",
                [self.version, addition.path, addition.type, addition.mode],
            )
        self._run(
            "UPDATE history.catalog_schema SET fields = ? WHERE table_name = 'dicom_metadata'",
            [json.dumps(as_bigquery(fields))],
        )
        make_views(self.connection, fields)
        self.report.added_columns = [addition.path for addition in additions]

    def _find_affected(self) -> None:
        """Find the series of which anything is to be written, and write what only moved."""
        self._run("CREATE TEMP TABLE IF NOT EXISTS changes (SeriesInstanceUID VARCHAR)")
        moved = (
            "SELECT incoming.* FROM incoming JOIN outcome USING (SOPInstanceUID) "
            "JOIN (SELECT SOPInstanceUID, location, instance_hash, collection_id, PatientID FROM history.instances "
            "WHERE final_version = 0) AS old USING (SOPInstanceUID) WHERE outcome = 'unchanged' AND ("
            "incoming.location <> old.location OR incoming.collection_id IS DISTINCT FROM old.collection_id "
            "OR (old.instance_hash IS NULL AND incoming.instance_hash IS NOT NULL))"
        )
        self._run(f"CREATE OR REPLACE TEMP TABLE moved AS {moved}")
        self._run(
            f"""UPDATE history.instances AS old SET location = new.location, gcs_url = new.gcs_url,
                gcs_bucket = new.gcs_bucket, aws_url = new.aws_url, aws_bucket = new.aws_bucket,
                collection_id = new.collection_id, instance_uuid = coalesce(new.instance_uuid, old.instance_uuid),
                instance_hash = coalesce(new.instance_hash, old.instance_hash),
                content_key = coalesce(new.instance_hash, old.content_key)
            FROM (SELECT *, {_URLS} FROM moved) AS new
            WHERE old.final_version = 0 AND old.SOPInstanceUID = new.SOPInstanceUID"""
        )
        conversions = ", ".join(quote(each.name) for each in _TABLES["conversions"].fields)
        self._run(
            f"""CREATE OR REPLACE TEMP TABLE affected AS
            SELECT SeriesInstanceUID FROM changes
            UNION SELECT SeriesInstanceUID FROM moved
            UNION SELECT SeriesInstanceUID FROM incoming JOIN outcome USING (SOPInstanceUID)
                WHERE outcome <> 'unchanged'
            UNION SELECT SeriesInstanceUID FROM (
                SELECT {conversions} FROM told WHERE converted EXCEPT
                SELECT {conversions} FROM history.conversions WHERE final_version = 0)
            UNION SELECT told.SeriesInstanceUID FROM told
                JOIN (SELECT * FROM history.series WHERE final_version = 0) AS old
                    ON old.SeriesInstanceUID = told.SeriesInstanceUID
                LEFT JOIN history.collection_facts AS facts ON facts.collection_id = told.facts.collection_id
                WHERE {_facts_differ()}"""
        )
        self._run("DROP TABLE temp.moved")
        self._run(
            "DELETE FROM affected WHERE SeriesInstanceUID NOT IN (SELECT SeriesInstanceUID FROM history.instances)"
        )

    def _write_facts(self) -> None:
        """Keep what was told last of collections and analysis results; one fact at a time, first series first."""
        for table, key in (("collection_facts", "collection_id"), ("analysis_result_facts", "analysis_result_id")):
            names = [each.name for each in _TABLES[table].fields if each.name not in (key, "collections")]
            told = ", ".join(
                f"first(facts.{name} ORDER BY SeriesInstanceUID) FILTER (facts.{name} IS NOT NULL) AS {name}"
                for name in names
            )
            self._run(
                f"""CREATE OR REPLACE TEMP TABLE facts_told AS
                SELECT facts.{key} AS {key}, {told} FROM told
                WHERE facts.{key} IS NOT NULL AND SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM history.instances)
                GROUP BY facts.{key}"""
            )
            self._run(f"DELETE FROM history.{table} WHERE {key} IN (SELECT {key} FROM facts_told)")
            self._run(f"INSERT INTO history.{table} BY NAME SELECT * FROM facts_told ORDER BY {key}")
            self._run("DROP TABLE temp.facts_told")

    def _write_conversions(self) -> None:
        replace_rows(
            self.connection,
            "conversions",
            "SELECT * EXCLUDE (location, facts, converted) FROM told WHERE converted "
            "AND SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM affected)",
            "SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM told WHERE converted)",
            self.version,
        )

    def _warn(self) -> None:
        missing = self.connection.execute(
            """SELECT DISTINCT incoming.collection_id, facts.collection_id IS NULL, list_filter([
                CASE WHEN facts.name IS NULL THEN 'name' END,
                CASE WHEN facts.cancer_types IS NULL THEN 'cancer_types' END,
                CASE WHEN facts.tumor_locations IS NULL THEN 'tumor_locations' END,
                CASE WHEN facts.species IS NULL THEN 'species' END,
                CASE WHEN facts.license_short_name IS NULL THEN 'license_short_name' END,
                CASE WHEN facts.source_doi IS NULL THEN 'source_doi' END], lambda each: each IS NOT NULL)
            FROM incoming LEFT JOIN history.collection_facts AS facts USING (collection_id) ORDER BY 1"""
        ).fetchall()
        for collection, none, names in missing:
            if collection is None:
                self.report.warnings.append("instances of no collection: neither their records nor headers name one")
            elif none:
                self.report.warnings.append(f"collection {collection}: nothing is told of it; its facts are NULL")
            elif names:
                self.report.warnings.append(f"collection {collection}: not told, so NULL: {', '.join(names)}")


# What an object's URL tells; a local file has none.
_URLS = """
    CASE WHEN starts_with(location, 'gs://') THEN location END AS gcs_url,
    CASE WHEN starts_with(location, 'gs://') THEN split_part(location, '/', 3) END AS gcs_bucket,
    CASE WHEN starts_with(location, 's3://') THEN location END AS aws_url,
    CASE WHEN starts_with(location, 's3://') THEN split_part(location, '/', 3) END AS aws_bucket"""


def _first_told(name: str) -> str:
    return f"first(facts.{name} ORDER BY SeriesInstanceUID) FILTER (facts.{name} IS NOT NULL) AS {name}"


def _facts_differ() -> str:
    of_series = [f"told.facts.{name} IS DISTINCT FROM old.{name}" for name in SERIES_FACTS]
    collection = (each.name for each in _TABLES["collection_facts"].fields if each.name not in SERIES_FACTS)
    of_collection = [
        f"(told.facts.{name} IS NOT NULL AND told.facts.{name} IS DISTINCT FROM facts.{name})" for name in collection
    ]
    return " OR ".join([*of_series, *of_collection])


def derive(connection: DuckDBPyConnection, version: int) -> None:
    """Make the derived tables of the series in `affected` anew."""
    connection.execute("RESET VARIABLE as_of")
    for name, query in BETWEEN.items():
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
    for table in DERIVED_TABLES:
        replace_rows(
            connection,
            table.name,
            derivation(table.name),
            "SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM affected)",
            version,
        )
    for name in BETWEEN:
        connection.execute(f"DROP TABLE temp.{name}")
