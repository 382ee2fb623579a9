"""Search a catalog in BigQuery: the filters of `search_filters` as parameters of queries that BigQuery runs.

Conditions are those of DuckDB, translated; a test holds the answers of both together. A search is one query of counts
and facets, one of slides and one of radiology, each with the limit of what it may bill.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from coverslip.catalog.bigquery.client import Dataset, Parameter, open_dataset
from coverslip.catalog.bigquery.expressions import condition_to_bigquery, to_bigquery
from coverslip.catalog.bigquery.place import BigQueryPlace
from coverslip.catalog.bigquery.views import PATIENT_VIEW, SLIDE_VIEW, query_as_of
from coverslip.catalog.bigquery.working_copy import State, read_state
from coverslip.catalog.radiology import HAS_SCANS, NO_RADIOLOGY, ModalityCount, RadiologySeries, parse_radiology
from coverslip.catalog.search import (
    Channel,
    Facet,
    FacetValue,
    FoundSlide,
    SearchRequest,
    SearchResult,
    Unknown,
    check_facets,
)
from coverslip.catalog.search_filters import FIELDS, Condition, build_conditions, text_condition
from coverslip.catalog.search_table import CODED_FIELDS
from coverslip.catalog.sql import SqlResult
from coverslip.errors import CatalogError, UsageError

if TYPE_CHECKING:
    from coverslip.catalog.published import PublishedIndex

__all__ = ["BigQueryCatalog", "open_bigquery_search"]

_SAME_PATIENT = "CONCAT(collection_id, '/', PatientID)"
_HAS_SCANS = f"""COALESCE({_SAME_PATIENT} IN (
    SELECT {_SAME_PATIENT} FROM {PATIENT_VIEW} WHERE Modality = ?), FALSE)"""
_NO_ORDER = ("collection_id", "PatientID", "ContainerIdentifier", "SeriesDescription")
_ORDER = ", ".join(f"{name} IS NULL, {name}" for name in _NO_ORDER) + ", SeriesInstanceUID"
_SIZE = "COALESCE(SUM(CAST(ROUND(size_mb * 1000000) AS INT64)), 0) / 1000000"
_TYPES = {str: "STRING", float: "FLOAT64", int: "INT64", bool: "BOOL"}
_TUPLES = ("cancer_types", *CODED_FIELDS, *(f"{each}_codes" for each in CODED_FIELDS))


@contextmanager
def open_bigquery_search(place: BigQueryPlace, *, as_of: str | None = None) -> Iterator[BigQueryCatalog]:
    """Open a catalog in BigQuery for searching.

    Parameters
    ----------
    as_of : str, optional
        Search the version with this number, or of this day.

    Raises
    ------
    CatalogError
        If there is no catalog.
    """
    with open_dataset(place) as dataset:
        state = read_state(dataset)
        if state is None or state.headers is None:
            raise CatalogError(f"{place}: no such catalog")
        version = None if as_of is None else _version_of(dataset, as_of)
        yield BigQueryCatalog(dataset, state, version)


def _version_of(dataset: Dataset, as_of: str) -> int:
    parameter: Parameter
    if as_of.isdigit():
        where, parameter = "version <= @wanted", ("wanted", "INT64", int(as_of))
    else:
        try:
            day = date.fromisoformat(as_of)
        except ValueError:
            raise UsageError(
                f"--as-of {as_of}: expected the number of a version or a date such as 2026-01-31"
            ) from None
        where, parameter = "version_date <= @wanted", ("wanted", "DATE", day)
    rows = dataset.run(f"SELECT MAX(version) AS version FROM {dataset.name('versions')} WHERE {where}", [parameter])
    found = rows[0]["version"]
    if found is None:
        raise UsageError(f"--as-of {as_of}: the catalog has no version so early")
    return int(found)


@dataclass(slots=True)
class BigQueryCatalog:
    """A catalog in BigQuery that is open for searching, as `coverslip.catalog.search.SearchableCatalog` is.

    Parameters
    ----------
    dataset : Dataset
    state : State
    as_of : int or None
    estimates : list of int or None
        If it is a list, queries are not run: what they would process is put into it.
    """

    dataset: Dataset
    state: State
    as_of: int | None = None
    estimates: list[int] | None = None
    published: PublishedIndex | None = None

    @property
    def version(self) -> int | None:
        """The version of the catalog that is searched."""
        if self.as_of is not None:
            return self.as_of
        rows = self.dataset.run(f"SELECT MAX(version) AS version FROM {self.dataset.name('versions')}")
        found: int | None = rows[0]["version"]
        return found

    def run(self, sql: str, parameters: Sequence[Parameter] = ()) -> list[dict[str, Any]]:
        """Run a query over the views, as they are or were."""
        if self.as_of is not None:
            sql = query_as_of(self.dataset.place, sql, self.state.headers or (), self.as_of)
        if self.estimates is not None:
            self.estimates.append(self.dataset.estimate(sql, parameters).bytes_processed)
            return []
        return self.dataset.run(sql, parameters)

    def search(self, request: SearchRequest) -> SearchResult:
        """Return what a request asks for.

        Raises
        ------
        UsageError
            If a filter, a value or a facet is none.
        """
        check_facets(request.facets)
        conditions = build_conditions(request.filters)
        text = text_condition(request.text)
        conditions += [text] if text else []
        radiology = parse_radiology(request.radiology)
        conditions += [radiology] if radiology is not None else []
        if request.unknown is Unknown.ONLY:
            conditions.append(Condition("unknown", "false"))  # of slides of a catalog everything is known
        match = _Match(conditions)
        counts = self._counts(request, conditions)
        return SearchResult(
            total=counts["total"],
            unknown=0,
            unknown_filters=(),
            patients=counts["patients"],
            collections=counts["collections"],
            without_patient=counts["without_patient"],
            size_mb=counts["size_mb"],
            slides=self._slides(match, request),
            facets=tuple(
                _facet(name, counts[f"facet_{number}"], request) for number, name in enumerate(request.facets)
            ),
            radiology=self._modalities(match),
            radiology_series=self._radiology_series(match, request) if request.radiology_series else (),
        )

    def _counts(self, request: SearchRequest, conditions: Sequence[Condition]) -> dict[str, Any]:
        """Return the numbers of a search, and the values of each facet as an array of structs."""
        match = _Match(conditions)
        columns, parameters, tables = [], list(match.parameters), [f"found AS ({match.sql})"]
        for number, name in enumerate(request.facets):
            source = "found"
            others = [each for each in conditions if each.field != name]
            if request.disjunctive and len(others) < len(conditions):
                source = f"found_{number}"
                alone = _Match(others)
                tables.append(f"{source} AS ({alone.sql})")
                parameters += alone.parameters
            columns.append(f"{_facet_query(name, source)} AS facet_{number}")
        totals = (
            f"COUNT(*) AS total, COUNT(DISTINCT {_SAME_PATIENT}) AS patients, "
            f"COUNT(*) - COUNT({_SAME_PATIENT}) AS without_patient, COUNT(DISTINCT collection_id) AS collections, "
            f"{_SIZE} AS size_mb"
        )
        tables.append(f"totals AS (SELECT {totals} FROM found)")
        selected = "".join(f", {column}" for column in columns)
        rows = self.run(f"WITH {', '.join(tables)} SELECT totals.*{selected} FROM totals", parameters)
        if rows:
            return rows[0]
        nothing: dict[str, list[Any]] = {f"facet_{number}": [] for number in range(len(request.facets))}
        return {"total": 0, "patients": 0, "without_patient": 0, "collections": 0, "size_mb": 0.0, **nothing}

    def _shown(self, match: _Match, request: SearchRequest) -> str:
        limit = "" if request.limit is None else f" LIMIT {int(request.limit)}"
        offset = f" OFFSET {int(request.offset)}" if limit and request.offset else ""
        return f"{match.sql} ORDER BY {_ORDER}{limit}{offset}"

    def _slides(self, match: _Match, request: SearchRequest) -> tuple[FoundSlide, ...]:
        if request.limit == 0:
            return ()
        rows = self.run(
            f"""WITH shown AS ({self._shown(match, request)}),
            counted AS (
                SELECT {_SAME_PATIENT} AS patient,
                    ARRAY_AGG(STRUCT(Modality AS modality, series AS series) ORDER BY Modality) AS radiology
                FROM {PATIENT_VIEW} WHERE Modality NOT IN {NO_RADIOLOGY} GROUP BY patient)
            SELECT shown.*, counted.radiology AS radiology FROM shown
            LEFT JOIN counted ON counted.patient = CONCAT(shown.collection_id, '/', shown.PatientID)
            ORDER BY {_ORDER}""",
            match.parameters,
        )
        skipped = request.offset if request.limit is None else 0
        return tuple(_slide(row) for row in rows[skipped:])

    def _modalities(self, match: _Match) -> tuple[ModalityCount, ...]:
        rows = self.run(
            f"""SELECT Modality, SUM(series) AS series, COUNT(*) AS patients, {_SIZE} AS size_mb FROM {PATIENT_VIEW}
            WHERE Modality NOT IN {NO_RADIOLOGY} AND {_SAME_PATIENT} IN (
                SELECT {_SAME_PATIENT} FROM ({match.sql}) AS found WHERE {_SAME_PATIENT} IS NOT NULL)
            GROUP BY Modality ORDER BY Modality""",
            match.parameters,
        )
        return tuple(
            ModalityCount(row["Modality"], int(row["series"]), row["patients"], row["size_mb"]) for row in rows
        )

    def _radiology_series(self, match: _Match, request: SearchRequest) -> tuple[RadiologySeries, ...]:
        if request.limit == 0:
            return ()
        rows = self.run(
            f"""SELECT collection_id, PatientID, StudyInstanceUID, SeriesInstanceUID, Modality, StudyDate,
                StudyDescription, SeriesDescription, instanceCount AS instance_count, series_size_MB AS size_mb,
                license_short_name, source_DOI AS source_doi, crdc_series_uuid,
                series_revised_idc_version AS series_revised_version
            FROM idc_index WHERE Modality NOT IN {NO_RADIOLOGY} AND {_SAME_PATIENT} IN (
                SELECT {_SAME_PATIENT} FROM ({self._shown(match, request)}) AS shown WHERE {_SAME_PATIENT} IS NOT NULL)
            ORDER BY collection_id, PatientID, Modality, StudyInstanceUID, SeriesInstanceUID""",
            match.parameters,
        )
        return tuple(RadiologySeries(**row, published=False) for row in rows)

    def read_series(self, uids: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return rows of series as a cohort keeps them; see `coverslip.catalog.search.Catalog`."""
        rows: list[dict[str, Any]] = []
        for start in range(0, len(uids), 5000):
            rows += self.run(
                f"""SELECT found.SeriesInstanceUID, found.StudyInstanceUID, found.collection_id, found.PatientID,
                    found.Modality, FALSE AS published, found.crdc_series_uuid, found.series_revised_idc_version,
                    series.series_hash, found.instanceCount, ROUND(found.series_size_MB, 6) AS size_mb,
                    found.license_short_name, found.source_DOI, {_folder_of_its_own("aws_url")},
                    {_folder_of_its_own("gcs_url")}
                FROM idc_index AS found LEFT JOIN series ON series.SeriesInstanceUID = found.SeriesInstanceUID
                WHERE found.SeriesInstanceUID IN UNNEST(@uids)""",
                [("uids", "STRING", list(uids[start : start + 5000]))],
            )
        found = [tuple(row.values()) for row in rows]
        # Slides first, then as a search orders them.
        return sorted(found, key=lambda row: (row[4] != "SM", *(str(row[place] or "") for place in (2, 3, 4, 0))))

    def read_instances(self, uids: Sequence[str], version: int) -> list[tuple[Any, ...]]:
        """Return instances of series as they were in a version; see `coverslip.catalog.search.Catalog`."""
        rows = self.run(
            """SELECT SeriesInstanceUID, SOPInstanceUID, instance_uuid, instance_size, instance_hash
            FROM history_instances WHERE SeriesInstanceUID IN UNNEST(@uids) AND instance_uuid IS NOT NULL
                AND revised_version <= @version AND (final_version = 0 OR final_version >= @version)
            ORDER BY SeriesInstanceUID, SOPInstanceUID""",
            [("uids", "STRING", list(uids)), ("version", "INT64", version)],
        )
        return [tuple(row.values()) for row in rows]

    def run_sql(
        self, sql: str, *, dialect: str = "auto", limit: int | None = None, timeout_s: float = 60.0
    ) -> SqlResult:
        """Run one query of a user; it is BigQuery's SQL unless the dialect is ``duckdb``, which is translated."""
        if dialect == "duckdb":
            sql = to_bigquery(sql)
        if self.as_of is not None:
            sql = query_as_of(self.dataset.place, sql, self.state.headers or (), self.as_of)
        if self.estimates is not None:
            self.estimates.append(self.dataset.estimate(sql).bytes_processed)
            return SqlResult((), (), (), False, "bigquery", sql)
        columns, rows, more = self.dataset.run_of_user(sql, limit, timeout_s)
        return SqlResult(
            tuple(name for name, _ in columns), tuple(kind for _, kind in columns), tuple(rows), more, "bigquery", sql
        )


class _Match:
    """The query of the slides that fulfil conditions, and its parameters."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        tests = []
        self.parameters: list[Parameter] = []
        for each in conditions:
            if each.field == "with-radiology":
                tests.append(each.sql.replace(HAS_SCANS, _HAS_SCANS))
            else:
                tests.append(condition_to_bigquery(each.sql))
            self.parameters += [("", _TYPES[type(value)], value) for value in each.parameters]
        where = " AND ".join(f"({test})" for test in tests) or "TRUE"
        self.sql = f"SELECT * FROM {SLIDE_VIEW} WHERE {where}"


def _facet_query(name: str, source: str) -> str:
    """Return a subquery that gives all values of a facet with their codes and counts, and a row of what has none."""
    facet = FIELDS[name].facet
    assert facet is not None
    value = condition_to_bigquery(facet.values)
    if not facet.many:
        counted = (
            f"SELECT {value} AS value, CAST(NULL AS STRING) AS code, COUNT(*) AS count FROM {source} GROUP BY value"
        )
    else:
        code = f"NULLIF({facet.codes}[SAFE_OFFSET(place)], '')" if facet.codes else "CAST(NULL AS STRING)"
        # A slide counts once for each of its values, and once for none.
        counted = f"""SELECT value, MIN(code) AS code, COUNT(*) AS count FROM (
            SELECT value, {code} AS code FROM {source}
            LEFT JOIN UNNEST({value}) AS value WITH OFFSET AS place) AS valued GROUP BY value"""
    return f"ARRAY(SELECT AS STRUCT value, code, count FROM ({counted}) AS counted)"


def _facet(name: str, rows: Sequence[Mapping[str, Any]], request: SearchRequest) -> Facet:
    told = [FacetValue(row["value"], row["code"], row["count"]) for row in rows if row["value"] is not None]
    told.sort(key=lambda each: (-each.count, each.value))
    none = sum(row["count"] for row in rows if row["value"] is None)
    shown = tuple(told[: request.facet_values])
    return Facet(name, shown, len(told) - len(shown), none, 0)


def _slide(row: Mapping[str, Any]) -> FoundSlide:
    values = {name: row[name] for name in FoundSlide.__dataclass_fields__ if name not in ("match", "radiology")}
    for name in _TUPLES:
        values[name] = tuple(values[name])
    values["cancer_types"] = values["cancer_types"] or None  # none told and nothing told are not kept apart
    for name in CODED_FIELDS:
        values[f"{name}_codes"] = tuple(code or None for code in values[f"{name}_codes"])
    values["channels"] = tuple(
        Channel(**{name: each[name] for name in Channel.__dataclass_fields__}) for each in values["channels"]
    )
    radiology = {each["modality"]: each["series"] for each in row["radiology"] or ()}
    return FoundSlide(**values, match="yes", radiology=radiology)


def _folder_of_its_own(column: str) -> str:
    """Return the folder of a series in a bucket, NULL if another series has instances there too."""
    folder = f"REGEXP_EXTRACT({column}, r'^(.*/)[^/]*$')"
    return (
        f"IF(series.series_{column} IN (SELECT {folder} FROM instances WHERE {column} IS NOT NULL "
        f"GROUP BY 1 HAVING COUNT(DISTINCT SeriesInstanceUID) > 1), NULL, series.series_{column}) AS {column}"
    )
