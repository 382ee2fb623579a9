"""The commands `coverslip cohort`: keep what a search found, and make manifests of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.errors import StoreError, UsageError
from coverslip.search_commands import (
    FILTERS,
    catalog_option,
    catalog_options,
    counted,
    filter_options,
    open_catalog_of,
    request_of,
)

if TYPE_CHECKING:
    from coverslip.catalog.cohorts import Cohort, CohortChanges

__all__ = ["cohort_group"]

SAVE_EXAMPLES = """
\b
Examples:
  coverslip cohort save ffpe-ct --embedding FFPE --with-radiology CT
  coverslip cohort save luad --sql "SELECT SeriesInstanceUID FROM idc_index WHERE collection_id = 'tcga_luad'"
"""
MANIFEST_EXAMPLES = """
\b
Examples:
  coverslip cohort manifest ffpe-ct > ffpe-ct.s5cmd
  coverslip cohort manifest ffpe-ct --format gsutil | gsutil -m cp -I .
  coverslip cohort manifest ffpe-ct --format csv -o ffpe-ct.csv
  coverslip cohort manifest ffpe-ct --format urls --slim https://slides.example.org/slim
"""


@click.group("cohort", short_help="Keep what a search found, and make manifests of it.")
def cohort_group() -> None:
    """Keep what a search found, each series with its version, and make manifests of it.

    Cohorts are JSON files in a folder beside the catalog: those of catalog.duckdb in catalog.cohorts.
    """


def _folder_option(command: Any) -> Any:
    return click.option(
        "--cohorts", "folder", type=click.Path(path_type=Path), metavar="DIR",
        help="Folder of cohorts. Default: beside the catalog.",
    )(command)  # fmt: skip


def _folder(folder: Path | None, catalog: Path | str) -> Path:
    from coverslip.catalog.cohorts import cohort_folder

    return folder or cohort_folder(catalog)


@cohort_group.command(epilog=SAVE_EXAMPLES, short_help="Search, and save what is found.")
@click.argument("name")
@click.argument("words", metavar="[WORD]...", nargs=-1)
@filter_options
@click.option("--sql", metavar="QUERY", help="A query that gives SeriesInstanceUID, in place of words and filters.")
@click.option("--dialect", type=click.Choice(["auto", "duckdb", "bigquery"]), default="auto", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace a cohort of that name.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@_folder_option
@catalog_options
def save(
    *,
    name: str,
    words: tuple[str, ...],
    sql: str | None,
    dialect: str,
    overwrite: bool,
    as_json: bool,
    folder: Path | None,
    **options: Any,
) -> None:
    """Save what a search finds as cohort NAME: filters and words as in coverslip search.

    With --with-radiology the radiology series of these modalities are part of the cohort.
    """
    from coverslip.catalog.cohorts import freeze_search, freeze_sql, write_cohort

    with open_catalog_of(options) as catalog:
        if sql is not None:
            if words or options["radiology"] or any(options[each.replace("-", "_")] for each in FILTERS):
                raise UsageError("--sql: expected without words and filters")
            cohort = freeze_sql(catalog, name, sql, dialect=dialect)
        else:
            cohort = freeze_search(catalog, name, request_of(words, options))
    path = write_cohort(_folder(folder, options["catalog"]), cohort, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps({"file": str(path), **_summary(cohort)}, indent=2))
    else:
        click.echo(f"{path}: {_line(cohort)}")


@cohort_group.command("list", short_help="List saved cohorts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@catalog_option
@_folder_option
def list_command(as_json: bool, catalog: Path | str, folder: Path | None) -> None:
    """List the cohorts of a catalog."""
    from coverslip.catalog.cohorts import list_cohorts, read_cohort

    place = _folder(folder, catalog)
    cohorts = [read_cohort(place, name) for name in list_cohorts(place)]
    if as_json:
        click.echo(json.dumps([_summary(each) for each in cohorts], indent=2))
        return
    for each in cohorts:
        click.echo(f"{each.name}: {_line(each)}")


@cohort_group.command(short_help="Show a cohort, and what has changed since.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with all series.")
@_folder_option
@catalog_options
def show(name: str, as_json: bool, folder: Path | None, **options: Any) -> None:
    """Show what cohort NAME is made of, its licenses and what to cite, and what has changed since it was saved."""
    from coverslip.catalog.cohorts import compare_cohort, read_cohort

    cohort = read_cohort(_folder(folder, options["catalog"]), name)
    changes = None
    if isinstance(options["catalog"], str) or options["catalog"].is_file():
        with open_catalog_of(options) as catalog:
            changes = compare_cohort(catalog, cohort)
    if as_json:
        told = {**_summary(cohort), "changes": asdict(changes) if changes else None}
        click.echo(json.dumps({**told, "series": [asdict(each) for each in cohort.series]}, indent=2))
        return
    click.echo(f"{cohort.name}: {_line(cohort)}")
    for title, attribute in (
        ("collections", "collection_id"),
        ("modalities", "Modality"),
        ("licenses", "license"),
        ("to cite (DOI)", "source_doi"),
    ):
        click.echo(title)
        for value, count in cohort.count_by(attribute).items():
            click.echo(f"  {count:7}  {value}")
    click.echo(f"query: {json.dumps(_told_query(cohort))}")
    click.echo(_told_changes(changes))


def _told_query(cohort: Cohort) -> dict[str, Any]:
    return {key: value for key, value in cohort.query.items() if value}


def _told_changes(changes: CohortChanges | None) -> str:
    if changes is None:
        return "not compared: the catalog is not there"
    told = [f"{len(uids)} {what}" for what, uids in (("changed", changes.changed), ("gone", changes.gone)) if uids]
    if changes.more:
        told.append(f"{changes.more} more would be found now")
    return f"since it was saved: {', '.join(told) or 'nothing has changed'}"


@cohort_group.command(epilog=MANIFEST_EXAMPLES, short_help="Make the manifest of a cohort.")
@click.argument("name")
@click.option(
    "--format", "form", type=click.Choice(["s5cmd", "gsutil", "drs", "csv", "json", "urls"]), default="s5cmd",
    show_default=True, help="Commands of s5cmd, names for gsutil, DRS URIs, a table, or pages of viewers.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File; default: standard output.")
@click.option("--slim", envvar="COVERSLIP_SLIM", show_envvar=True, metavar="URL", help="Base of Slim. Default: IDC's.")
@click.option("--ohif", envvar="COVERSLIP_OHIF", show_envvar=True, metavar="URL", help="Base of OHIF. Default: IDC's.")
@_folder_option
@catalog_options
def manifest(
    name: str,
    form: str,
    output: Path | None,
    slim: str | None,
    ohif: str | None,
    folder: Path | None,
    **options: Any,
) -> None:
    """Make the manifest of cohort NAME: how its series are fetched, cited and looked at.

    Series that lie in no such place, such as slides that are still on a local disk, are left out and counted on
    standard error.
    """
    from coverslip.catalog.cohorts import read_cohort
    from coverslip.catalog.manifests import OHIF_BASE, SLIM_BASE, ViewerBases, make_manifest

    cohort = read_cohort(_folder(folder, options["catalog"]), name)
    bases = ViewerBases(slim or SLIM_BASE, ohif or OHIF_BASE)
    if form == "drs" and any(not each.published for each in cohort.series):
        with open_catalog_of(options) as catalog:
            made = make_manifest(cohort, form, bases, catalog)
    else:
        made = make_manifest(cohort, form, bases)
    if output is None:
        click.echo(made.text, nl=False)
    else:
        _write(output, made.text)
    if made.left_out:
        click.echo(
            f"{len(made.left_out)} of {len(cohort.series)} series left out: they have no folder there, or no UUID",
            err=True,
        )


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.coverslip-partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None


def _summary(cohort: Cohort) -> dict[str, Any]:
    return {
        "name": cohort.name,
        "query": dict(cohort.query),
        "catalog_version": cohort.catalog_version,
        "slides": len(cohort.slides),
        "series_count": len(cohort.series),
        "patients": len({(each.collection_id, each.PatientID) for each in cohort.series if each.PatientID}),
        "size_mb": round(sum(each.size_mb or 0 for each in cohort.series), 6),
        "collections": cohort.count_by("collection_id"),
        "modalities": cohort.count_by("Modality"),
        "licenses": cohort.count_by("license"),
        "citations": cohort.count_by("source_doi"),
    }


def _line(cohort: Cohort) -> str:
    summary = _summary(cohort)
    others = summary["series_count"] - summary["slides"]
    beside = f" and {others} other series" if others else ""
    of = f" of {counted(summary['patients'], 'patient')}" if summary["patients"] else ""
    return (
        f"{counted(summary['slides'], 'slide')}{beside}{of}, {summary['size_mb']:,.1f} MB, "
        f"version {cohort.catalog_version or 0}"
    )
