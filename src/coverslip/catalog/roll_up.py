"""Write anew what follows from instances: series, studies, patients and collections, each with its versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coverslip.catalog.tables import STORED_TABLES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["SERIES_FACTS", "close", "replace_rows", "roll_up"]

_TABLES = {table.name: table for table in STORED_TABLES}

SERIES_FACTS = (
    "source_doi", "source_url", "versioned_source_doi", "analysis_result_id", "license_url", "license_long_name",
    "license_short_name",
)  # fmt: skip
"""What is told of a collection and kept with each of its series."""


def close(connection: DuckDBPyConnection, table: str, where: str, version: int) -> None:
    """End current rows with the version before this one; rows that began with it were never seen by anyone."""
    connection.execute(
        f"DELETE FROM history.{table} WHERE final_version = 0 AND revised_version = {version} AND {where}"
    )
    connection.execute(f"UPDATE history.{table} SET final_version = {version - 1} WHERE final_version = 0 AND {where}")


def replace_rows(connection: DuckDBPyConnection, table: str, query: str, where: str, version: int) -> None:
    """Put rows that follow from series in place of those that are there, in the version of their series.

    Parameters
    ----------
    query : str
        Gives the rows, with a SeriesInstanceUID and without versions.
    where : str
        Which of the current rows are theirs.
    """
    begun = (
        "(SELECT SeriesInstanceUID FROM history.series WHERE final_version = 0 AND revised_version "
        f"= {table}.revised_version AND history.series.SeriesInstanceUID = {table}.SeriesInstanceUID)"
    )
    connection.execute(f"DELETE FROM history.{table} AS {table} WHERE final_version = 0 AND {where} AND EXISTS {begun}")
    close(connection, table, where, version)
    connection.execute(
        f"""INSERT INTO history.{table} BY NAME
        SELECT rows.*, series.revised_version AS revised_version, 0 AS final_version
        FROM ({query}) AS rows JOIN (SELECT SeriesInstanceUID, revised_version FROM history.series
            WHERE final_version = 0) AS series ON series.SeriesInstanceUID = rows.SeriesInstanceUID
        ORDER BY ALL"""
    )


def _merkle(hash_column: str) -> str:
    """Return the MD5 of the sorted, concatenated ones below, NULL if one of them is not known."""
    return (
        f"CASE WHEN count(*) = count({hash_column}) THEN md5(string_agg({hash_column}, '' ORDER BY {hash_column})) END"
    )


_CONTENT = "md5(string_agg(content_key, '' ORDER BY content_key))"
# Objects are named <series_uuid>/<instance_uuid>.dcm; from there comes the UUID where no MD5 is known.
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_FOLDER = "min(regexp_extract({0}, '^(.*/)[^/]*$', 1))"
_ONE_FOLDER = (
    "CASE WHEN count(DISTINCT regexp_extract({0}, '^(.*/)[^/]*$', 1)) = 1 AND count({0}) = count(*) THEN "
    + _FOLDER
    + " END"
)

_LEVELS = {
    "series": f"""
        SELECT below.*, {", ".join(f"coalesce(told.facts.{name}, old.{name}) AS {name}" for name in SERIES_FACTS)}
        FROM (SELECT SeriesInstanceUID, min(StudyInstanceUID) AS StudyInstanceUID, min(PatientID) AS PatientID,
                min(collection_id) AS collection_id, count(*) AS series_instances,
                {_merkle("instance_hash")} AS series_hash, {_CONTENT} AS content_key,
                coalesce(coverslip_uuid(SeriesInstanceUID || series_hash), nullif(regexp_extract(
                    min(location), '/({_UUID})/{_UUID}[.]dcm$', 1), '')) AS series_uuid,
                {_ONE_FOLDER.format("gcs_url")} AS series_gcs_url, {_ONE_FOLDER.format("aws_url")} AS series_aws_url
            FROM history.instances WHERE final_version = 0 AND {{below}} GROUP BY SeriesInstanceUID) AS below
        LEFT JOIN (SELECT * FROM history.series WHERE final_version = 0) AS old
            ON old.SeriesInstanceUID = below.SeriesInstanceUID
        LEFT JOIN told ON told.SeriesInstanceUID = below.SeriesInstanceUID""",
    "studies": f"""
        SELECT StudyInstanceUID, PatientID, collection_id, sum(series_instances) AS study_instances,
            {_merkle("series_hash")} AS study_hash, {_CONTENT} AS content_key,
            coverslip_uuid(StudyInstanceUID || study_hash) AS study_uuid
        FROM history.series WHERE final_version = 0 AND {{below}}
        GROUP BY StudyInstanceUID, PatientID, collection_id""",
    "patients": f"""
        SELECT PatientID, collection_id, {_merkle("study_hash")} AS patient_hash, {_CONTENT} AS content_key,
            coverslip_uuid(coalesce(collection_id, '') || '/' || coalesce(PatientID, '') || patient_hash) AS idc_case_id
        FROM history.studies WHERE final_version = 0 AND {{below}} GROUP BY PatientID, collection_id""",
    "collections": f"""
        SELECT collection_id, {_merkle("patient_hash")} AS collection_hash, {_CONTENT} AS content_key
        FROM history.patients WHERE final_version = 0 AND {{below}} GROUP BY collection_id""",
}

_BELOW = {"series": "instances", "studies": "series", "patients": "studies", "collections": "patients"}
_ABOVE = {below: name for name, below in _BELOW.items()}


def roll_up(connection: DuckDBPyConnection, version: int, first: str = "series") -> None:
    """Write anew some things and everything above them, where their content is another.

    Hashes are Merkle trees as IDC has them: of the sorted, concatenated hashes of what is below.

    Parameters
    ----------
    connection : DuckDBPyConnection
        With the keys of those things in the temporary table `keys`, and for series the one `told`.
    version : int
        In which they are written.
    first : str
        Table of those things.
    """
    for name in list(_LEVELS)[list(_LEVELS).index(first) :]:
        query = _LEVELS[name]
        table = _TABLES[name]
        among = " AND ".join(f"keys.{key} IS NOT DISTINCT FROM {{0}}.{key}" for key in table.key)
        among = f"EXISTS (SELECT 1 FROM keys WHERE {among})"
        here = among.format(name)
        below = among.format(_BELOW[name])
        connection.execute(f"CREATE OR REPLACE TEMP TABLE fresh AS {query.replace('{below}', below)}")
        matching = " AND ".join(f"fresh.{key} IS NOT DISTINCT FROM {name}.{key}" for key in table.key)
        as_before = f"EXISTS (SELECT 1 FROM fresh WHERE {matching} AND fresh.content_key = {name}.content_key)"
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE dated AS SELECT fresh.*,
                coalesce((SELECT min(init_version) FROM history.{name} WHERE {matching}), {version}) AS init_version,
                coalesce((SELECT max(revised_version) FROM history.{name} WHERE {matching} AND final_version = 0
                    AND fresh.content_key = {name}.content_key), {version}) AS revised_version
            FROM fresh"""
        )
        if name in _ABOVE:
            # Where things were, and where they are now: both have changed.
            columns = ", ".join(_TABLES[_ABOVE[name]].key)
            connection.execute(
                f"""CREATE OR REPLACE TEMP TABLE keys_above AS
                SELECT {columns} FROM history.{name} WHERE final_version = 0 AND {here}
                UNION SELECT {columns} FROM fresh"""
            )
        connection.execute(f"DELETE FROM history.{name} WHERE final_version = 0 AND {here} AND {as_before}")
        close(connection, name, here, version)
        connection.execute(f"INSERT INTO history.{name} BY NAME SELECT *, 0 AS final_version FROM dated ORDER BY ALL")
        connection.execute("CREATE OR REPLACE TEMP TABLE keys AS SELECT * FROM keys_above")
    for each in ("keys", "keys_above", "dated"):
        connection.execute(f"DROP TABLE temp.{each}")
