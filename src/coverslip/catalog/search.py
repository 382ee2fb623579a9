"""Search slides: filters in, the slides that fulfil them, those of which it is unknown, counts and facets out.

    with open_search(Path("catalog.duckdb")) as catalog:
        found = catalog.search(SearchRequest(filters={"stain": ("hematoxylin",)}, facets=("anatomy",), limit=20))

One call answers all that a page of results shows. The order of slides is that of collection, patient, container and
series, so that pages fit each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from coverslip.catalog.database import open_catalog, set_as_of
from coverslip.catalog.published import PublishedFiles, PublishedIndex, prepare_published
from coverslip.catalog.radiology import (
    NO_RADIOLOGY,
    ModalityCount,
    RadiologySeries,
    count_modalities,
    parse_radiology,
    read_series,
)
from coverslip.catalog.schema import quote
from coverslip.catalog.search_filters import FIELDS, KNOWN, Condition, build_conditions, text_condition
from coverslip.catalog.search_table import CODED_FIELDS, exact_sum, prepare_search, words
from coverslip.errors import CatalogError, UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from coverslip.catalog.sql import SqlResult

__all__ = [
    "Catalog",
    "Channel",
    "Facet",
    "FacetValue",
    "FoundSlide",
    "SearchRequest",
    "SearchResult",
    "SearchableCatalog",
    "Unknown",
    "check_facets",
    "open_search",
]


class Unknown(StrEnum):
    """What becomes of slides of which a filter's answer is not known."""

    EXCLUDE = "exclude"
    INCLUDE = "include"
    ONLY = "only"


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What is searched for.

    Parameters
    ----------
    filters : mapping
        From names of `FIELDS` to values; one of the values of each has to fit.
    text : str
        Words that all stand somewhere in the descriptions.
    radiology : str
        Modalities that the slide's patient has: ``CT,MR`` one of them, ``CT+PT`` both.
    unknown : Unknown
    facets : tuple of str
        Fields whose values are counted.
    facet_values : int
        Most values of a facet.
    disjunctive : bool
        Count each facet under all filters but its own, as pages do that let one choose several values.
    limit, offset : int or None
        Of slides; None for all of them, 0 for counts only.
    radiology_series : bool
        Whether the radiology series of the slides that are returned are read too.
    """

    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    text: str = ""
    radiology: str = ""
    unknown: Unknown = Unknown.EXCLUDE
    facets: tuple[str, ...] = ()
    facet_values: int = 20
    disjunctive: bool = False
    limit: int | None = None
    offset: int = 0
    radiology_series: bool = False


@dataclass(frozen=True, slots=True)
class Channel:
    """An optical path of a slide, and what its stain is."""

    channel: str | None
    target: str | None
    antibody: str | None
    rrid: str | None
    fluorophore: str | None


@dataclass(frozen=True, slots=True)
class FoundSlide:
    """A slide series.

    Parameters
    ----------
    match : str
        ``yes``, or ``unknown`` where a filter's answer is not known.
    known : str
        ``all``, ``sm_index`` or ``series``: how much is known of it; what is not is None, and what is not stated an
        empty tuple.
    published : bool
        Whether IDC's index tells of it, not this catalog.
    radiology : mapping
        Number of the patient's series by modality, slides and what is made of them left out.
    """

    SeriesInstanceUID: str
    StudyInstanceUID: str
    collection_id: str | None
    PatientID: str | None
    ContainerIdentifier: str | None
    match: str
    known: str
    published: bool
    StudyDescription: str | None
    SeriesDescription: str | None
    Manufacturer: str | None
    ManufacturerModelName: str | None
    license_short_name: str | None
    source_doi: str | None
    crdc_series_uuid: str | None
    series_revised_version: int | None
    instance_count: int | None
    size_mb: float | None
    cancer_types: tuple[str, ...] | None
    stain: tuple[str, ...] | None
    stain_codes: tuple[str | None, ...] | None
    fixative: tuple[str, ...] | None
    fixative_codes: tuple[str | None, ...] | None
    embedding: tuple[str, ...] | None
    embedding_codes: tuple[str | None, ...] | None
    anatomy: tuple[str, ...] | None
    anatomy_codes: tuple[str | None, ...] | None
    tissue: tuple[str, ...] | None
    tissue_codes: tuple[str | None, ...] | None
    specimen_type: tuple[str, ...] | None
    specimen_type_codes: tuple[str | None, ...] | None
    diagnosis: tuple[str, ...] | None
    diagnosis_codes: tuple[str | None, ...] | None
    illumination: tuple[str, ...] | None
    illumination_codes: tuple[str | None, ...] | None
    channels: tuple[Channel, ...] | None
    objective: float | None
    spacing_um: float | None
    matrix_columns: int | None
    matrix_rows: int | None
    validation: str | None
    radiology: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value, its code where it has one, and the number of slides that have it."""

    value: str
    code: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Facet:
    """The values of a field among slides.

    Parameters
    ----------
    values : tuple of FacetValue
        The most frequent first. A slide with several values counts for each.
    more : int
        Values that are not among them.
    not_stated, unknown : int
        Slides that have no value, and those of which it is not known.
    """

    name: str
    values: tuple[FacetValue, ...]
    more: int
    not_stated: int
    unknown: int


@dataclass(frozen=True, slots=True)
class SearchResult:
    """All that was found.

    Parameters
    ----------
    total : int
        Slides found, whatever the limit; with `Unknown.INCLUDE` those that may match among them.
    unknown : int
        Slides that may match: no filter says no, and one is unknown of them.
    unknown_filters : tuple of str
        The filters that are unknown of some slide.
    patients, collections : int
        Of the slides found, as far as they state them.
    without_patient : int
        Slides that state no PatientID.
    size_mb : float
    slides : tuple of FoundSlide
        The part that the limit asks for.
    facets : tuple of Facet
    radiology : tuple of ModalityCount
        Series and patients by modality, of the patients of all slides found.
    radiology_series : tuple of RadiologySeries
        Of the patients of `slides`, if they were asked for.
    """

    total: int
    unknown: int
    unknown_filters: tuple[str, ...]
    patients: int
    collections: int
    without_patient: int
    size_mb: float
    slides: tuple[FoundSlide, ...]
    facets: tuple[Facet, ...]
    radiology: tuple[ModalityCount, ...]
    radiology_series: tuple[RadiologySeries, ...]


_VIEWS = (
    # Facts of collections: those that IDC tells only where this catalog tells none.
    f"""CREATE OR REPLACE TEMP TABLE search_collection AS
    SELECT *, {words("cancer_types")} AS cancer_type_words FROM (
        SELECT collection_id, name AS collection_name, cancer_types, tumor_locations FROM history.collection_facts
        UNION ALL BY NAME
        SELECT collection_id, collection_name, string_split(cancer_types, ', ') AS cancer_types,
            string_split(tumor_locations, ', ') AS tumor_locations
        FROM published_collection
        WHERE collection_id NOT IN (SELECT collection_id FROM history.collection_facts))""",
    """CREATE OR REPLACE TEMP VIEW search_slide AS
    SELECT slides.*, facts.collection_name, facts.cancer_types, facts.tumor_locations, facts.cancer_type_words,
        facts.cancer_types IS NOT NULL AS collection_told
    FROM (SELECT * FROM local_slide
        UNION ALL BY NAME
        SELECT * FROM published_slide
        WHERE SeriesInstanceUID NOT IN (SELECT SeriesInstanceUID FROM local_slide)) AS slides
    LEFT JOIN search_collection AS facts ON facts.collection_id = slides.collection_id""",
    """CREATE OR REPLACE TEMP VIEW search_series AS
    SELECT *, false AS published FROM idc_index
    UNION ALL BY NAME
    SELECT *, true AS published FROM published_series
    WHERE SeriesInstanceUID NOT IN (SELECT SeriesInstanceUID FROM idc_index)""",
    f"""CREATE OR REPLACE TEMP TABLE search_patient AS
    SELECT collection_id, PatientID, Modality, CAST(sum(series) AS BIGINT) AS series, {exact_sum("size_mb")} AS size_mb
    FROM (SELECT * FROM local_patient
        UNION ALL BY NAME
        SELECT collection_id, PatientID, Modality, count(*) AS series,
            {exact_sum('"series_size_MB"')} AS size_mb
        FROM published_series WHERE SeriesInstanceUID NOT IN (SELECT SeriesInstanceUID FROM history.series)
        GROUP BY ALL)
    GROUP BY ALL""",
)

_KEPT = (
    "SeriesInstanceUID, collection_id, PatientID, ContainerIdentifier, SeriesDescription, size_mb, published, known, "
    "collection_told"
)
_ORDER = (
    "collection_id NULLS LAST, PatientID NULLS LAST, ContainerIdentifier NULLS LAST, SeriesDescription NULLS LAST, "
    "SeriesInstanceUID"
)


@contextmanager
def open_search(
    path: Path, *, published: PublishedFiles | None = None, as_of: str | None = None
) -> Iterator[SearchableCatalog]:
    """Open a catalog for searching; several may do so at the same time.

    Parameters
    ----------
    path : Path
    published : PublishedFiles, optional
        IDC's index, in place of the one that is attached to the catalog.
    as_of : str, optional
        Search the version with this number, or of this day.

    Raises
    ------
    CatalogError
        If there is no catalog, or it cannot be searched.
    """
    import duckdb

    with open_catalog(path, read_only=True) as connection:
        if as_of is not None:
            set_as_of(connection, as_of)
        try:
            prepare_search(connection, as_of=as_of is not None)
            found = prepare_published(connection, published)
            for statement in _VIEWS:
                connection.execute(statement)
        except duckdb.Error as error:
            raise CatalogError(f"{path}: cannot be searched: {str(error).splitlines()[0]}") from None
        yield SearchableCatalog(connection, path, found)


class Catalog(Protocol):
    """A catalog that can be searched, in DuckDB or BigQuery."""

    @property
    def published(self) -> PublishedIndex | None:
        """IDC's index that is searched too."""
        ...

    @property
    def version(self) -> int | None:
        """The version of the catalog that is searched."""
        ...

    def search(self, request: SearchRequest) -> SearchResult:
        """Return what a request asks for."""
        ...

    def read_series(self, uids: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return rows of series, slides first: UIDs, collection, patient, modality, whether it is published, ...

        The rest is UUID, version and hash, instances and MB, license and DOI, and folders at Amazon and Google.
        """
        ...

    def read_instances(self, uids: Sequence[str], version: int) -> list[tuple[Any, ...]]:
        """Return series, UID, UUID, size and MD5 of the instances that series had in a version."""
        ...

    def run_sql(
        self, sql: str, *, dialect: str = "auto", limit: int | None = None, timeout_s: float = 60.0
    ) -> SqlResult:
        """Run one query of a user."""
        ...


def check_facets(names: Sequence[str]) -> None:
    """Refuse facets that there are not.

    Raises
    ------
    UsageError
    """
    for name in names:
        if name not in FIELDS or FIELDS[name].facet is None:
            have = ", ".join(each.name for each in FIELDS.values() if each.facet)
            raise UsageError(f"facet {name}: there is none; there are {have}")


class SearchableCatalog:
    """A catalog that is open for searching; not to be used by several threads at once.

    Attributes
    ----------
    connection : DuckDBPyConnection
        Has the views `search_slide`, `search_series`, `search_patient` and `search_collection` besides the catalog's.
    path : Path
    published : PublishedIndex or None
    """

    def __init__(self, connection: DuckDBPyConnection, path: Path, published: PublishedIndex | None) -> None:
        self.connection = connection
        self.path = path
        self.published = published

    @property
    def version(self) -> int | None:
        """The version of the catalog that is searched."""
        found = self.connection.execute(
            "SELECT max(version) FROM versions WHERE version <= coalesce(getvariable('as_of'), 2147483647)"
        ).fetchone()
        return found[0] if found else None

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
        if radiology is not None:
            conditions.append(radiology)
        self._match(conditions, request.unknown, request.facets)
        counts = self._counts()
        unknown = self._unknown()
        slides = self._slides(request)
        return SearchResult(
            total=counts[0],
            unknown=unknown,
            unknown_filters=tuple(
                dict.fromkeys(each.field for each in conditions if each.can_be_unknown) if unknown else ()
            ),
            patients=counts[1],
            collections=counts[2],
            without_patient=counts[3],
            size_mb=counts[4],
            slides=slides,
            facets=tuple(self._facets(request, conditions)),
            radiology=count_modalities(self.connection, "found"),
            radiology_series=read_series(self.connection, "shown") if request.radiology_series else (),
        )

    def read_series(self, uids: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return rows of series as a cohort keeps them; see `Catalog`."""
        return self.connection.execute(
            f"""WITH wanted AS (SELECT unnest(?) AS uid),
            alone AS (
                SELECT series.SeriesInstanceUID, {_folder_of_its_own("aws_url")}, {_folder_of_its_own("gcs_url")}
                FROM series SEMI JOIN wanted ON wanted.uid = series.SeriesInstanceUID)
            SELECT found.SeriesInstanceUID, found.StudyInstanceUID, found.collection_id, found.PatientID,
                found.Modality, found.published, found.crdc_series_uuid, found.series_revised_idc_version,
                CASE WHEN NOT found.published THEN series.series_hash END, found.instanceCount,
                round(found."series_size_MB", 6), found.license_short_name, found.source_doi,
                CASE WHEN found.published THEN rtrim(found.series_aws_url, '*') ELSE alone.aws_url END, alone.gcs_url
            FROM search_series AS found SEMI JOIN wanted ON wanted.uid = found.SeriesInstanceUID
            LEFT JOIN series ON series.SeriesInstanceUID = found.SeriesInstanceUID
            LEFT JOIN alone ON alone.SeriesInstanceUID = found.SeriesInstanceUID
            ORDER BY found.Modality <> 'SM', found.collection_id, found.PatientID, found.Modality,
                found.SeriesInstanceUID""",
            [list(uids)],
        ).fetchall()

    def read_instances(self, uids: Sequence[str], version: int) -> list[tuple[Any, ...]]:
        """Return instances of series as they were in a version; see `Catalog`."""
        return self.connection.execute(
            """SELECT SeriesInstanceUID, SOPInstanceUID, instance_uuid, instance_size, instance_hash
            FROM history.instances WHERE list_contains($uids, SeriesInstanceUID) AND instance_uuid IS NOT NULL
                AND revised_version <= $version AND (final_version = 0 OR final_version >= $version)
            ORDER BY SeriesInstanceUID, SOPInstanceUID""",
            {"uids": list(uids), "version": version},
        ).fetchall()

    def run_sql(
        self, sql: str, *, dialect: str = "auto", limit: int | None = None, timeout_s: float = 60.0
    ) -> SqlResult:
        """Run one query of a user; see `coverslip.catalog.sql.run_sql`."""
        from coverslip.catalog.sql import run_sql

        return run_sql(self, sql, dialect=dialect, limit=limit, timeout_s=timeout_s)

    def _match(self, conditions: Sequence[Condition], unknown: Unknown, facets: Sequence[str]) -> None:
        """Keep the slides that match, and those that may, with what is ordered by and counted."""
        sql = " AND ".join(f"({each.sql})" for each in conditions) or "true"
        counted = [f"{FIELDS[name].facet.values} AS {quote(name)}" for name in facets]  # type: ignore[union-attr]
        counted += [
            f"{facet.codes} AS {quote(f'{name} codes')}"
            for name in facets
            if (facet := FIELDS[name].facet) and facet.codes
        ]
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE candidates AS SELECT * FROM "
            f"(SELECT {', '.join([_KEPT, *counted])}, {sql} AS matches FROM search_slide) WHERE matches IS NOT false",
            [parameter for each in conditions for parameter in each.parameters],
        )
        wanted = {Unknown.EXCLUDE: "matches", Unknown.INCLUDE: "true", Unknown.ONLY: "matches IS NULL"}[unknown]
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW found AS SELECT * FROM candidates WHERE {wanted}")

    def _counts(self) -> tuple[int, int, int, int, float]:
        found = self.connection.execute(
            "SELECT count(*), count(DISTINCT (collection_id, PatientID)) FILTER (PatientID IS NOT NULL), "
            "count(DISTINCT collection_id), count(*) FILTER (PatientID IS NULL), "
            f"{exact_sum('size_mb')} FROM found"
        ).fetchone()
        assert found is not None
        return found

    def _unknown(self) -> int:
        found = self.connection.execute("SELECT count(*) FROM candidates WHERE matches IS NULL").fetchone()
        return found[0] if found else 0

    def _slides(self, request: SearchRequest) -> tuple[FoundSlide, ...]:
        limit = "" if request.limit is None else f"LIMIT {int(request.limit)}"
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE shown AS SELECT {_KEPT}, matches FROM found ORDER BY {_ORDER} {limit} "
            f"OFFSET {int(request.offset)}"
        )
        if request.limit == 0:
            return ()
        cursor = self.connection.execute(
            f"""SELECT slides.*, shown.matches AS matches, counted.radiology AS radiology
            FROM search_slide AS slides JOIN shown ON shown.SeriesInstanceUID = slides.SeriesInstanceUID
            LEFT JOIN (
                SELECT collection_id, PatientID, map(list(Modality ORDER BY Modality), list(series ORDER BY Modality))
                    AS radiology
                FROM search_patient SEMI JOIN shown USING (collection_id, PatientID)
                WHERE Modality NOT IN {NO_RADIOLOGY} GROUP BY ALL) AS counted
                ON counted.collection_id = slides.collection_id AND counted.PatientID = slides.PatientID
            ORDER BY {", ".join(f"slides.{each}" for each in _ORDER.split(", "))}"""
        )
        names = [column[0] for column in cursor.description or ()]
        return tuple(_slide(dict(zip(names, row, strict=True))) for row in cursor.fetchall())

    def _facets(self, request: SearchRequest, conditions: Sequence[Condition]) -> Iterator[Facet]:
        for name in request.facets:
            others = [each for each in conditions if each.field != name]
            alone = request.disjunctive and len(others) < len(conditions)
            if alone:
                self._match(others, request.unknown, request.facets)
            yield self._facet(name, request.facet_values)
            if alone:
                self._match(conditions, request.unknown, request.facets)

    def _facet(self, name: str, most: int) -> Facet:
        facet, known = FIELDS[name].facet, KNOWN[FIELDS[name].level]
        assert facet is not None
        value, none = quote(name), f"{quote(name)} IS NULL"
        values = f"{value} AS value, CAST(NULL AS VARCHAR) AS code"
        if facet.many:
            code = f"unnest({quote(f'{name} codes')})" if facet.codes else "CAST(NULL AS VARCHAR)"
            values, none = f"unnest({value}) AS value, {code} AS code", f"coalesce(len({value}), 0) = 0"
        self.connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE counted AS
            SELECT value, min(code) AS code, count(*) AS count FROM (SELECT {values} FROM found WHERE {known})
            WHERE value IS NOT NULL GROUP BY value"""
        )
        rows = self.connection.execute(
            f"SELECT value, code, count FROM counted ORDER BY count DESC, value LIMIT {int(most)}"
        ).fetchall()
        found = self.connection.execute(
            f"SELECT (SELECT count(*) FROM counted), count(*) FILTER ({known} AND {none}), "
            f"count(*) FILTER (NOT {known}) FROM found"
        ).fetchone()
        assert found is not None
        shown = tuple(FacetValue(*row) for row in rows)
        return Facet(name, shown, found[0] - len(shown), found[1], found[2])


_TUPLES = ("cancer_types", *CODED_FIELDS, *(f"{each}_codes" for each in CODED_FIELDS))


def _slide(row: dict[str, Any]) -> FoundSlide:
    values = {name: row[name] for name in FoundSlide.__dataclass_fields__ if name not in ("match", "radiology")}
    for name in _TUPLES:
        values[name] = None if values[name] is None else tuple(values[name])
    if values["channels"] is not None:
        values["channels"] = tuple(
            Channel(**{name: each[name] for name in Channel.__dataclass_fields__}) for each in values["channels"]
        )
    return FoundSlide(**values, match="yes" if row["matches"] else "unknown", radiology=dict(row["radiology"] or {}))


def _folder_of_its_own(column: str) -> str:
    """Return the folder of a series in a bucket, NULL if another series has instances there too."""
    folder = f"regexp_extract({column}, '^(.*/)[^/]*$', 1)"
    return (
        f"CASE WHEN series.series_{column} NOT IN (SELECT {folder} FROM instances WHERE {column} IS NOT NULL "
        f"GROUP BY ALL HAVING count(DISTINCT SeriesInstanceUID) > 1) THEN series.series_{column} END AS {column}"
    )
