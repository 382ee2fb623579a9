"""Manifests: how the series of a cohort are fetched, cited and looked at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

from coverslip.catalog.cohorts import Cohort, CohortSeries
from coverslip.catalog.search import Catalog
from coverslip.errors import UsageError

__all__ = ["FORMATS", "OHIF_BASE", "SLIM_BASE", "Manifest", "ViewerBases", "make_manifest", "viewer_url"]

SLIM_BASE = "https://viewer.imaging.datacommons.cancer.gov/slim"
OHIF_BASE = "https://viewer.imaging.datacommons.cancer.gov/v3/viewer/"
_DRS = "drs://dg.4DFC/"


@dataclass(frozen=True, slots=True)
class ViewerBases:
    """Where the viewers are.

    Parameters
    ----------
    slim, ohif : str
        For slides, and for everything else.
    """

    slim: str = SLIM_BASE
    ohif: str = OHIF_BASE


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest.

    Parameters
    ----------
    text : str
    listed : int
        Series that it lists.
    left_out : tuple of str
        Series that it cannot list, because they lie in no such place.
    """

    text: str
    listed: int
    left_out: tuple[str, ...]


def viewer_url(series: CohortSeries, bases: ViewerBases | None = None) -> str:
    """Return where a series can be looked at, if the viewer's store has it: Slim for slides, OHIF for the rest."""
    bases = bases or ViewerBases()
    study, uid = series.StudyInstanceUID, series.SeriesInstanceUID
    if series.Modality == "SM":
        return f"{bases.slim.rstrip('/')}/studies/{study}/series/{uid}"
    separator = "&" if "?" in bases.ohif else "?"
    return f"{bases.ohif}{separator}StudyInstanceUIDs={study}&initialSeriesInstanceUID={uid}"


def make_manifest(
    cohort: Cohort, form: str, bases: ViewerBases | None = None, catalog: Catalog | None = None
) -> Manifest:
    """Return the manifest of a cohort.

    Parameters
    ----------
    form : str
        One of `FORMATS`.
    catalog : Catalog, optional
        For ``drs``: has the instances of the series that are not published.

    Raises
    ------
    UsageError
        If there is no such form.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    lines: list[str] = []
    left_out: list[str] = []
    if form == "drs":
        instances = _instances(cohort, catalog)
        for series in cohort.series:
            found = list(_drs(series, instances.get(series.SeriesInstanceUID, ())))
            lines += found
            left_out += [] if found else [series.SeriesInstanceUID]
        text = "\n".join([_DRS_HEADER, *lines]) + "\n"
        return Manifest(text, len(cohort.series) - len(left_out), tuple(left_out))
    if form in ("csv", "json"):
        rows = [{**asdict(each), "viewer_url": viewer_url(each, bases)} for each in cohort.series]
        return Manifest(_as_csv(rows) if form == "csv" else json.dumps(rows, indent=1) + "\n", len(rows), ())
    line_of: Callable[[CohortSeries], str | None] = {
        "s5cmd": lambda each: each.aws_url and f"cp {each.aws_url}* .",
        "gsutil": lambda each: each.gcs_url and f"{each.gcs_url}*",
        "urls": lambda each: viewer_url(each, bases),
    }[form]
    for series in cohort.series:
        line = line_of(series)
        if line:
            lines.append(line)
        else:
            left_out.append(series.SeriesInstanceUID)
    # s5cmd takes comments; gsutil would take them for files.
    head = [f"# {line}" for line in _summary(cohort)] if form == "s5cmd" else []
    return Manifest("\n".join([*head, *lines]) + "\n", len(lines), tuple(left_out))


FORMATS = ("s5cmd", "gsutil", "drs", "csv", "json", "urls")
_DRS_HEADER = "drs_uri\tkind\tsize\tmd5\tSOPInstanceUID\tSeriesInstanceUID"


def _summary(cohort: Cohort) -> Iterator[str]:
    size = sum(each.size_mb or 0 for each in cohort.series)
    yield f"cohort {cohort.name}: {len(cohort.series)} series, {size:.1f} MB"
    yield "to fetch: s5cmd --no-sign-request run FILE"
    yield f"licenses: {_counted(cohort.count_by('license'))}"
    yield f"to cite: {_counted(cohort.count_by('source_doi'))}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in counts.items())


_Instance = tuple[str, str, int | None, str | None]


def _instances(cohort: Cohort, catalog: Catalog | None) -> dict[str, list[_Instance]]:
    """Return the instances of series that are not published, as they were in the version of the cohort."""
    uids = [each.SeriesInstanceUID for each in cohort.series if not each.published]
    if not uids or catalog is None:
        return {}
    rows = catalog.read_instances(uids, cohort.catalog_version or 0)
    found: dict[str, list[_Instance]] = {}
    for series, *rest in rows:
        found.setdefault(series, []).append(tuple(rest))
    return found


def _drs(series: CohortSeries, instances: tuple[_Instance, ...] | list[_Instance]) -> Iterator[str]:
    """Yield the lines of a series: of its instances where they are known, else of the series as a bundle."""
    for uid, uuid, size, md5 in instances:
        yield f"{_DRS}{uuid}\tinstance\t{size or ''}\t{md5 or ''}\t{uid}\t{series.SeriesInstanceUID}"
    if not instances and series.crdc_series_uuid:
        size_bytes = round((series.size_mb or 0) * 1_000_000) or ""
        yield f"{_DRS}{series.crdc_series_uuid}\tseries\t{size_bytes}\t\t\t{series.SeriesInstanceUID}"


def _as_csv(rows: list[dict[str, object]]) -> str:
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return stream.getvalue()
