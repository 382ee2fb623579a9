"""The views of a catalog as BigQuery's SQL: translated from those of DuckDB, so that both show the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from coverslip.catalog.bigquery.expressions import to_bigquery
from coverslip.catalog.bigquery.place import BigQueryPlace
from coverslip.catalog.bigquery.tables import TABLES
from coverslip.catalog.schema import Field, quote
from coverslip.catalog.search_table import SLIDE_COLUMNS, SLIDE_TABLE
from coverslip.catalog.tables import DICOM_METADATA
from coverslip.catalog.views import VALID, view_queries
from coverslip.errors import UsageError

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["PATIENT_VIEW", "SLIDE_VIEW", "digests_of", "query_as_of", "translate_views"]

SLIDE_VIEW = "search_slide"
PATIENT_VIEW = "search_patient"

_CURRENT = "final_version = 0"


def _valid(as_of: int | None) -> str:
    if as_of is None:
        return _CURRENT
    return f"revised_version <= {as_of} AND (final_version = 0 OR final_version >= {as_of})"


def _queries(headers: Sequence[Field], as_of: int | None) -> Iterable[tuple[str, str]]:
    """Yield the views in DuckDB's SQL, those of searches too."""
    valid = _valid(as_of)
    columns = ", ".join(f"headers.{quote(field.name)}" for field in headers)
    for name, query in view_queries(headers):
        if name == DICOM_METADATA:
            # Headers do not say until when they were current: instances do.
            query = f"""SELECT {columns} FROM history.{DICOM_METADATA} AS headers
                JOIN (SELECT SOPInstanceUID, revised_version FROM history.instances WHERE {valid}) AS valid
                ON valid.SOPInstanceUID = headers.SOPInstanceUID AND valid.revised_version = headers.revised_version"""
        yield name, query.replace(VALID, valid)
    of_slides = ", ".join(f"slides.{quote(name)}" for name in SLIDE_COLUMNS)
    yield (
        SLIDE_VIEW,
        f"""SELECT {of_slides}, facts.name AS collection_name, facts.cancer_types AS cancer_types,
            facts.tumor_locations AS tumor_locations, facts.cancer_type_words AS cancer_type_words,
            facts.collection_id IS NOT NULL AS collection_told
        FROM history.{SLIDE_TABLE} AS slides
        JOIN (SELECT SeriesInstanceUID, revised_version FROM history.series WHERE {valid}) AS valid
            ON valid.SeriesInstanceUID = slides.SeriesInstanceUID
            AND valid.revised_version = slides.series_revised_version
        LEFT JOIN history.collection_facts AS facts ON facts.collection_id = slides.collection_id""",
    )
    yield (
        PATIENT_VIEW,
        """SELECT collection_id, PatientID, Modality, count(*) AS series, sum("series_size_MB") AS size_mb
        FROM idc_index GROUP BY collection_id, PatientID, Modality""",
    )


def translate_views(place: BigQueryPlace, headers: Sequence[Field], as_of: int | None = None) -> dict[str, str]:
    """Return the query of each view in BigQuery's SQL, in the order in which they are made.

    Parameters
    ----------
    headers : sequence of Field
        Columns of `dicom_metadata` in this catalog.
    as_of : int, optional
        The version that they show, by default the current one.
    """
    return {name: to_bigquery(query, TableFinder(place)) for name, query in _queries(headers, as_of)}


class TableFinder:
    """Tells where the tables and views of a catalog are."""

    def __init__(self, place: BigQueryPlace) -> None:
        self._place = place

    def __call__(self, table: exp.Table) -> None:
        """Give a table of DuckDB's the name that it has in BigQuery."""
        from sqlglot import exp

        name = f"history_{table.name}" if table.db == "history" else table.name
        if not table.args.get("alias"):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.set("this", exp.to_identifier(name, quoted=True))
        table.set("db", exp.to_identifier(self._place.dataset, quoted=True))
        table.set("catalog", exp.to_identifier(self._place.project, quoted=True))


def digests_of(views: Mapping[str, str]) -> dict[str, str]:
    """Return what tells the query of each view from others."""
    return {name: hashlib.sha256(query.encode()).hexdigest()[:16] for name, query in views.items()}


def query_as_of(place: BigQueryPlace, sql: str, headers: Sequence[Field], version: int) -> str:
    """Return a user's query of BigQuery so that views in it show an earlier version.

    Raises
    ------
    UsageError
        If it is no query of BigQuery.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(sql, read="bigquery")
    except SqlglotError as error:
        raise UsageError(f"--sql: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, exp.Query):
        raise UsageError("--sql: expected one query: SELECT ... or WITH ... SELECT ...")
    views = translate_views(place, headers, version)
    own = {each.alias.lower() for each in tree.find_all(exp.CTE)}
    wanted = _replace_views(place, tree, {name for name in views if name.lower() not in own})
    queries: dict[str, exp.Expr] = {}
    for name in reversed(views):
        if name in wanted:
            queries[name] = sqlglot.parse_one(views[name], read="bigquery")
            wanted |= _replace_views(place, queries[name], set(views))
    before = [
        exp.CTE(this=query, alias=exp.TableAlias(this=exp.to_identifier(_AS_OF_NAME.format(name), quoted=True)))
        for name, query in reversed(queries.items())
    ]
    clause = tree.args.get("with_") or tree.args.get("with")
    if clause is None:
        clause = exp.With(expressions=[])
        tree.set("with_", clause)
    clause.set("expressions", [*before, *clause.expressions])
    return tree.sql(dialect="bigquery")


_AS_OF_NAME = "{}_as_of"


def _replace_views(place: BigQueryPlace, tree: exp.Expr, names: set[str]) -> set[str]:
    """Let names of views be those of common table expressions, and return which there were."""
    from sqlglot import exp

    found = set()
    by_name = {name.lower(): name for name in names}
    for table in tree.find_all(exp.Table):
        name = by_name.get(table.name.lower())
        if name is None or (table.db and table.db != place.dataset) or (table.catalog not in ("", place.project)):
            continue
        found.add(name)
        if not table.args.get("alias"):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.set("this", exp.to_identifier(_AS_OF_NAME.format(name), quoted=True))
        table.set("db", None)
        table.set("catalog", None)
    return found


assert f"history.{SLIDE_TABLE}" in TABLES
