"""Cohorts: a saved search together with the series that it found, each with its version.

A cohort is a small JSON file ``NAME.json`` in a folder beside the catalog (``catalog.duckdb`` has
``catalog.cohorts/``), not a part of the catalog: so it can be saved by who may only read the catalog, sent to somebody
else and kept under version control, and merging into the catalog leaves it alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coverslip.catalog.bigquery.place import parse_place
from coverslip.catalog.search import Catalog, SearchRequest, Unknown
from coverslip.errors import CatalogError, UsageError

__all__ = [
    "Cohort",
    "CohortChanges",
    "CohortSeries",
    "cohort_folder",
    "compare_cohort",
    "freeze_search",
    "freeze_sql",
    "list_cohorts",
    "read_cohort",
    "write_cohort",
]

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class CohortSeries:
    """A series as it was when the cohort was saved.

    Parameters
    ----------
    match : str
        ``yes``, or ``unknown`` where it was not known whether the slide matches.
    published : bool
        Whether IDC's index told of it.
    version : int or None
        In which it became what it is: of the catalog, or of IDC where it is published.
    series_hash : str or None
        MD5 of the sorted, concatenated MD5s of its instances.
    aws_url, gcs_url : str or None
        Of its folder, with a slash at the end; None where it lies in no bucket, or together with another series.
    """

    SeriesInstanceUID: str
    StudyInstanceUID: str
    collection_id: str | None
    PatientID: str | None
    Modality: str
    match: str
    published: bool
    crdc_series_uuid: str | None
    version: int | None
    series_hash: str | None
    instances: int | None
    size_mb: float | None
    license: str | None
    source_doi: str | None
    aws_url: str | None
    gcs_url: str | None


@dataclass(frozen=True, slots=True)
class Cohort:
    """A saved search and what it found.

    Parameters
    ----------
    name : str
    query : mapping
        ``filters``, ``text``, ``radiology`` and ``unknown`` of a `SearchRequest`, or ``sql`` and ``dialect``.
    catalog_version : int or None
    published_series : int or None
        How many series IDC's index had; None if it was not attached.
    series : tuple of CohortSeries
        Slides first, then radiology.
    """

    name: str
    query: Mapping[str, Any]
    catalog_version: int | None
    published_series: int | None
    series: tuple[CohortSeries, ...]
    format: int = _FORMAT

    @property
    def slides(self) -> tuple[CohortSeries, ...]:
        """The series of slides."""
        return tuple(each for each in self.series if each.Modality == "SM")

    def count_by(self, name: str) -> dict[str, int]:
        """Return how many series have each value of an attribute, the most frequent first."""
        counts = Counter(str(getattr(each, name) or "not stated") for each in self.series)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@dataclass(slots=True)
class CohortChanges:
    """What of a cohort is no longer as it was.

    Parameters
    ----------
    changed : list of str
        Series with another version now.
    gone : list of str
        Series that neither the catalog nor IDC's index has any more.
    more : int or None
        Slides that the saved search finds now and that are not in the cohort; None for a query in SQL.
    """

    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    more: int | None = None


def cohort_folder(catalog: Path | str) -> Path:
    """Return the folder of a catalog's cohorts, which may not be there.

    It lies beside a file, and in the current folder for a catalog in BigQuery.
    """
    if isinstance(catalog, str):
        place = parse_place(catalog)
        return Path(f"{place.project}.{place.dataset}.cohorts".replace(":", "."))
    return catalog.with_suffix(".cohorts")


def freeze_search(catalog: Catalog, name: str, request: SearchRequest) -> Cohort:
    """Search, and return all that is found as a cohort: slides, and the radiology that was asked for."""
    found = catalog.search(
        SearchRequest(
            filters=request.filters,
            text=request.text,
            radiology=request.radiology,
            unknown=request.unknown,
            radiology_series=bool(request.radiology),
        )
    )
    wanted = set(re.split(r"[,+\s]+", request.radiology.upper())) if request.radiology else set()
    query = {
        "filters": {key: list(values) for key, values in sorted(request.filters.items()) if values},
        "text": request.text,
        "radiology": request.radiology,
        "unknown": str(request.unknown),
    }
    match = {slide.SeriesInstanceUID: slide.match for slide in found.slides}
    uids = [*match, *(each.SeriesInstanceUID for each in found.radiology_series if each.Modality in wanted)]
    return _cohort(catalog, name, query, uids, match)


def freeze_sql(catalog: Catalog, name: str, sql: str, *, dialect: str = "auto") -> Cohort:
    """Return the series that a query gives as a cohort.

    Raises
    ------
    UsageError
        If it gives no column SeriesInstanceUID, or a series that is not there.
    """
    result = catalog.run_sql(sql, dialect=dialect)
    columns = [column.lower() for column in result.columns]
    if "seriesinstanceuid" not in columns:
        raise UsageError(f"--sql: gives {', '.join(result.columns)}, expected a column SeriesInstanceUID")
    place = columns.index("seriesinstanceuid")
    uids = list(dict.fromkeys(str(row[place]) for row in result.rows if row[place] is not None))
    cohort = _cohort(catalog, name, {"sql": sql, "dialect": result.dialect}, uids, {})
    if len(cohort.series) < len(uids):
        missing = sorted(set(uids) - {each.SeriesInstanceUID for each in cohort.series})
        raise UsageError(f"--sql: gives {len(missing)} series that are not there, such as {missing[0]}")
    return cohort


def _cohort(
    catalog: Catalog, name: str, query: Mapping[str, Any], uids: Sequence[str], match: Mapping[str, str]
) -> Cohort:
    _check_name(name)
    published = catalog.published.series if catalog.published else None
    series = _read_series(catalog, uids, match)
    return Cohort(name, query, catalog.version, published, tuple(series))


def _read_series(catalog: Catalog, uids: Sequence[str], match: Mapping[str, str]) -> Iterable[CohortSeries]:
    for uid, study, collection, patient, modality, *facts, aws, gcs in catalog.read_series(uids):
        published, uuid, version, series_hash, instances, size, license_name, doi = facts
        yield CohortSeries(
            SeriesInstanceUID=uid,
            StudyInstanceUID=study,
            collection_id=collection,
            PatientID=patient,
            Modality=modality,
            match=match.get(uid, "yes"),
            published=published,
            crdc_series_uuid=uuid,
            version=version,
            series_hash=series_hash,
            instances=instances,
            size_mb=size,
            license=license_name,
            source_doi=doi,
            aws_url=aws,
            gcs_url=_mirror(aws) if published else gcs,
        )


_MIRRORS = {"idc-open-data": "idc-open-data", "idc-open-data-two": "idc-open-idc1", "idc-open-data-cr": "idc-open-cr"}
"""IDC's buckets at Amazon, and those at Google that hold the same."""


def _mirror(url: str | None) -> str | None:
    if url is None or not url.startswith("s3://"):
        return None
    bucket, _, rest = url.removeprefix("s3://").partition("/")
    return f"gs://{_MIRRORS[bucket]}/{rest}" if bucket in _MIRRORS else None


def compare_cohort(catalog: Catalog, cohort: Cohort) -> CohortChanges:
    """Say what of a cohort the catalog and IDC's index have otherwise now."""
    uids = [each.SeriesInstanceUID for each in cohort.series]
    now = {each.SeriesInstanceUID: each for each in _read_series(catalog, uids, {})}
    changes = CohortChanges()
    for each in cohort.series:
        current = now.get(each.SeriesInstanceUID)
        if current is None:
            changes.gone.append(each.SeriesInstanceUID)
        elif (current.crdc_series_uuid, current.version) != (each.crdc_series_uuid, each.version):
            changes.changed.append(each.SeriesInstanceUID)
    if "sql" not in cohort.query:
        found = catalog.search(_request(cohort))
        saved = set(uids)
        changes.more = sum(slide.SeriesInstanceUID not in saved for slide in found.slides)
    return changes


def _request(cohort: Cohort) -> SearchRequest:
    query = cohort.query
    return SearchRequest(
        filters={name: tuple(values) for name, values in query["filters"].items()},
        text=query["text"],
        radiology=query["radiology"],
        unknown=Unknown(query["unknown"]),
    )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"cohort {name!r}: expected a name of letters, digits, dots, hyphens and underscores")


def write_cohort(folder: Path, cohort: Cohort, *, overwrite: bool = False) -> Path:
    """Write a cohort to its file, which is whole or not there.

    Raises
    ------
    UsageError
        If there is one of that name.
    CatalogError
        If it cannot be written.
    """
    path = folder / f"{cohort.name}.json"
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: there is such a cohort already; --overwrite replaces it")
    partial = folder / f".{cohort.name}.json.coverslip-partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(cohort), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CatalogError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def read_cohort(folder: Path, name: str) -> Cohort:
    """Read a cohort.

    Raises
    ------
    UsageError
        If there is none of that name.
    CatalogError
        If its file is damaged, or of a newer coverslip.
    """
    _check_name(name)
    path = folder / f"{name}.json"
    if not path.is_file():
        have = ", ".join(list_cohorts(folder)) or "none"
        raise UsageError(f"cohort {name}: not in {folder}; there are: {have}")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.get("format") != _FORMAT:
            raise CatalogError(f"{path}: format {told.get('format')}, this coverslip knows {_FORMAT}")
        series = tuple(CohortSeries(**each) for each in told.pop("series"))
        return Cohort(**told, series=series)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise CatalogError(f"{path}: no cohort of coverslip, or damaged") from None


def list_cohorts(folder: Path) -> list[str]:
    """Return the names of all cohorts in a folder."""
    return sorted(path.stem for path in folder.glob("*.json") if _NAME.fullmatch(path.stem))
