"""The commands `coverslip search`, `coverslip facets` and `coverslip attach`: find slides in a catalog."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.catalog_arguments import CatalogType
from coverslip.errors import UsageError

if TYPE_CHECKING:
    from coverslip.catalog.published import PublishedFiles
    from coverslip.catalog.search import Catalog, FoundSlide, SearchRequest, SearchResult
    from coverslip.catalog.sql import SqlResult

__all__ = [
    "attach",
    "catalog_option",
    "catalog_options",
    "counted",
    "facets",
    "filter_options",
    "open_catalog_of",
    "request_of",
    "search",
]

SEARCH_EXAMPLES = """
\b
Examples:
  coverslip search --stain hematoxylin --embedding FFPE
  coverslip search --stain SCT:12710003 --anatomy lung --objective 40
  coverslip search --target "CD3 AND CD45" --json
  coverslip search lung biopsy --spacing ..0.3 --csv > slides.csv
  coverslip search --embedding FFPE --with-radiology CT --with-idc
  coverslip search --sql "SELECT collection_id, count(*) FROM idc_index GROUP BY 1"

A value is words that all have to be there, or a code. Given twice, one of the values has to fit; within a value, AND
asks for several and NOT for its absence; a * at the end stands for any ending, none for what is not stated.
"""
FACET_EXAMPLES = """
\b
Examples:
  coverslip facets
  coverslip facets stain embedding --collection tcga_luad
  coverslip facets anatomy --with-idc --json
"""
ATTACH_EXAMPLES = """
\b
Examples:
  coverslip attach
  coverslip attach idc_index.parquet --sm-index sm_index.parquet
  coverslip attach --detach
"""

# Names and help of filters, as `catalog.search_filters.FIELDS` has them; a test holds them together. Here, so that
# help appears without loading the catalog.
FILTERS: dict[str, str] = {
    "collection": "Collection, such as tcga_luad or 'tcga_*'.",
    "cancer-type": "Cancer type of the collection.",
    "anatomy": "Anatomic structure.",
    "tissue": "Kind of tissue, such as normal.",
    "stain": "Substance of a staining.",
    "fixative": "Tissue fixative.",
    "embedding": "Embedding medium.",
    "channel": "Name of an optical path.",
    "target": "Target of a channel.",
    "antibody": "Antibody of a channel, or its RRID.",
    "fluorophore": "Fluorophore of a channel.",
    "illumination": "Illumination type.",
    "objective": "Magnification, one or a range such as 20..40.",
    "spacing": "Micrometres per pixel, such as 0.25 or ..0.3.",
    "size": "Longer side in pixels, such as 50000.. .",
    "megabytes": "Size of all files of the series.",
    "scanner": "Manufacturer and model.",
    "specimen-type": "Type of the specimen.",
    "diagnosis": "Admitting diagnosis.",
    "patient": "PatientID; may hold *.",
    "container": "ContainerIdentifier; may hold *.",
    "series": "SeriesInstanceUID.",
    "license": "License.",
    "validation": "passed, failed or none.",
    "source": "catalog, or idc for what IDC's index tells.",
}

Command = Callable[..., Any]


def filter_options(command: Command) -> Command:
    """Add the options that say which slides are meant."""
    command = click.option(
        "--unknown",
        type=click.Choice(["exclude", "include", "only"]),
        default="exclude",
        show_default=True,
        help="Published slides of which a filter's answer is not known.",
    )(command)
    command = click.option(
        "--with-radiology", "radiology", default="", metavar="CT,MR,PT",
        help="Slides whose patient has one of these; CT+PT: both.",
    )(command)  # fmt: skip
    for name, text in reversed(FILTERS.items()):
        command = click.option(f"--{name}", metavar="VALUE", multiple=True, help=text)(command)
    return command


def catalog_options(command: Command) -> Command:
    """Add the options that say where is searched."""
    command = click.option(
        "--sm-index", type=click.Path(path_type=Path), metavar="PARQUET", help="With --with-idc: IDC's sm_index."
    )(command)
    command = click.option(
        "--with-idc", is_flag=False, flag_value="package", metavar="[PARQUET]",
        help="Search IDC's index too: that of the package idc-index-data, or a file. See attach.",
    )(command)  # fmt: skip
    command = click.option("--as-of", metavar="VERSION|DATE", help="Search the catalog as it was.")(command)
    command = click.option(
        "--max-bytes-billed", metavar="SIZE", help="Of a catalog in BigQuery: what one query may bill. Default: 100GB."
    )(command)
    command = click.option(
        "--dry-run", is_flag=True, help="Of a catalog in BigQuery: only tell how many bytes would be processed."
    )(command)
    return catalog_option(command)


def catalog_option(command: Command) -> Command:
    """Add the option that names a catalog."""
    return click.option(
        "--catalog", type=CatalogType(), default=Path("catalog.duckdb"), show_default=True,
        metavar="FILE|bigquery://PROJECT.DATASET", help="Catalog.",
    )(command)  # fmt: skip


@contextmanager
def open_catalog_of(options: Mapping[str, Any]) -> Iterator[Catalog]:
    """Open the catalog that options name; with ``--dry-run`` what its queries would process is told at the end."""
    from coverslip.catalog.search import open_search

    if isinstance(options["catalog"], str):
        with _open_bigquery(options["catalog"], options) as catalog:
            yield catalog
        return
    if options["dry_run"] or options["max_bytes_billed"]:
        raise UsageError("--dry-run and --max-bytes-billed: expected with --catalog bigquery://project.dataset")
    files = _published(options["with_idc"], options["sm_index"])
    with open_search(options["catalog"], published=files, as_of=options["as_of"]) as catalog:
        yield catalog


@contextmanager
def _open_bigquery(catalog: str, options: Mapping[str, Any]) -> Iterator[Catalog]:
    from coverslip.catalog.bigquery.place import parse_place, with_limit
    from coverslip.catalog.bigquery.search import open_bigquery_search

    if options["with_idc"] or options["sm_index"]:
        raise UsageError("--with-idc: not with a catalog in BigQuery, where --sql may name IDC's own public tables")
    place = with_limit(parse_place(catalog), options["max_bytes_billed"])
    with open_bigquery_search(place, as_of=options["as_of"]) as found:
        if options["dry_run"]:
            found.estimates = []
        yield found
    if found.estimates is not None:
        click.echo(f"{sum(found.estimates):,} bytes would be processed by {len(found.estimates)} queries")
        raise click.exceptions.Exit(0)


def _published(idc_index: str | None, sm_index: Path | None) -> PublishedFiles | None:
    from coverslip.catalog.published import choose_published

    if idc_index is None:
        if sm_index is not None:
            raise UsageError("--sm-index: expected --with-idc beside it")
        return None
    return choose_published(None if idc_index == "package" else Path(idc_index), sm_index)


def request_of(words: Sequence[str], options: Mapping[str, Any], **more: Any) -> SearchRequest:
    """Return what words and filters of a command line ask for."""
    from coverslip.catalog.search import SearchRequest, Unknown

    filters = {name: options[name.replace("-", "_")] for name in FILTERS}
    return SearchRequest(
        filters={name: values for name, values in filters.items() if values},
        text=" ".join(words),
        radiology=options["radiology"],
        unknown=Unknown(options["unknown"]),
        **more,
    )


@click.command(epilog=SEARCH_EXAMPLES, short_help="Find slides in a catalog, and the radiology of their patients.")
@click.argument("words", metavar="[WORD]...", nargs=-1)
@filter_options
@click.option("--sql", metavar="QUERY", help="Run a query instead; @FILE reads it from a file, @- from standard input.")
@click.option(
    "--dialect", type=click.Choice(["auto", "duckdb", "bigquery"]), default="auto", show_default=True, help="Of --sql."
)
@click.option("--timeout", type=float, default=60.0, show_default=True, metavar="SECONDS", help="Of --sql.")
@click.option("--limit", type=click.IntRange(0), help="Most slides or rows. Default: 50 in a table, else all.")
@click.option("--count", is_flag=True, help="Only say how many there are.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with all that is known of each slide.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")
@catalog_options
def search(
    *,
    words: tuple[str, ...],
    sql: str | None,
    dialect: str,
    timeout: float,
    limit: int | None,
    count: bool,
    as_json: bool,
    as_csv: bool,
    **options: Any,
) -> None:
    """Find the slides whose descriptions hold every WORD and that fulfil all filters.

    What IDC's index does not tell of a published slide, such as its stain, is unknown: such slides are counted apart,
    and never said not to match.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv: expected one of them")
    most = limit if limit is not None else (None if as_json or as_csv else _ROWS)
    form = "json" if as_json else "csv" if as_csv else "table"
    with open_catalog_of(options) as catalog:
        if sql is not None:
            if words or options["radiology"] or any(options[name.replace("-", "_")] for name in FILTERS):
                raise UsageError("--sql: expected without words and filters")
            if options["dry_run"]:
                catalog.run_sql(_sql_text(sql), dialect=dialect)
            else:
                _search_by_sql(catalog, _sql_text(sql), (dialect, timeout, most, count), form)
            return
        request = request_of(words, options, limit=0 if count else most, radiology_series=as_json and not count)
        result = catalog.search(request)
        hint = _hint(catalog, request)
    if count:
        _print_count(result, form)
    elif form == "json":
        click.echo(json.dumps(_as_json(result), indent=2))
    elif form == "csv":
        _print_csv(_CSV_COLUMNS, [_csv_row(slide) for slide in result.slides])
    else:
        _print_slides(result, with_radiology=bool(request.radiology))
    _print_unknown(result, options["unknown"])
    if hint:
        click.echo(hint, err=True)


_ROWS = 50
"""Of a table, unless it is told otherwise."""


def _sql_text(sql: str) -> str:
    if not sql.startswith("@"):
        return sql
    try:
        return sys.stdin.read() if sql == "@-" else Path(sql[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--sql {sql}: cannot be read: {error}") from None


def _search_by_sql(catalog: Catalog, sql: str, limits: tuple[str, float, int | None, bool], form: str) -> None:
    dialect, timeout, most, count = limits
    result = catalog.run_sql(sql, dialect=dialect, limit=None if count else most, timeout_s=timeout)
    if count:
        click.echo(json.dumps({"rows": len(result.rows)}) if form == "json" else len(result.rows))
    elif form == "json":
        click.echo(json.dumps(_sql_json(result), indent=2, default=str))
    elif form == "csv":
        _print_csv(result.columns, [[_cell(value) for value in row] for row in result.rows])
    else:
        _print_table(result.columns, [[str(_cell(value)) for value in row] for row in result.rows])
        click.echo(f"{counted(len(result.rows), 'row')}{', and more: see --limit' if result.more else ''}")


def _sql_json(result: SqlResult) -> dict[str, Any]:
    return {
        "dialect": result.dialect,
        "sql": result.sql,
        "columns": dict(zip(result.columns, result.types, strict=False)),
        "rows": [dict(zip(result.columns, row, strict=True)) for row in result.rows],
        "more": result.more,
    }


def _cell(value: object) -> object:
    if value is None:
        return ""
    return json.dumps(value, default=str) if isinstance(value, list | dict | tuple) else value


def _hint(catalog: Catalog, request: SearchRequest) -> str | None:
    if not request.radiology or catalog.published:
        return None
    return "IDC's index is not attached: only radiology in this catalog is seen; see coverslip attach --help"


def _as_json(result: SearchResult) -> dict[str, Any]:
    return {
        "total": result.total,
        "unknown": result.unknown,
        "unknown_filters": list(result.unknown_filters),
        "patients": result.patients,
        "collections": result.collections,
        "without_patient": result.without_patient,
        "size_mb": round(result.size_mb, 6),
        "radiology": [asdict(each) for each in result.radiology],
        "slides": [asdict(each) for each in result.slides],
        "radiology_series": [asdict(each) for each in result.radiology_series],
    }


def _print_count(result: SearchResult, form: str) -> None:
    if form == "json":
        told = {
            name: getattr(result, name) for name in ("total", "unknown", "patients", "collections", "without_patient")
        }
        radiology = [asdict(each) for each in result.radiology]
        click.echo(json.dumps({**told, "size_mb": round(result.size_mb, 6), "radiology": radiology}, indent=2))
    else:
        click.echo(result.total)


def _print_unknown(result: SearchResult, unknown: str) -> None:
    if not result.unknown:
        return
    names = ", ".join(result.unknown_filters)
    what, hint = f"{result.unknown} published slides", "; --unknown include adds them"
    if unknown != "exclude":
        what, hint = f"{result.unknown} of these slides are published and", ""
    click.echo(f"unknown: {what} may match: of some of them IDC's index does not tell {names}{hint}", err=True)


_CSV_COLUMNS = (
    "collection_id PatientID ContainerIdentifier StudyInstanceUID SeriesInstanceUID match known published "
    "SeriesDescription StudyDescription cancer_types stain stain_codes fixative fixative_codes embedding "
    "embedding_codes anatomy anatomy_codes tissue tissue_codes specimen_type specimen_type_codes diagnosis "
    "diagnosis_codes illumination illumination_codes channels targets antibodies fluorophores objective spacing_um "
    "matrix_columns matrix_rows Manufacturer ManufacturerModelName validation instance_count size_mb "
    "license_short_name source_doi crdc_series_uuid series_revised_version radiology"
).split()
_OF_CHANNELS = {"channels": "channel", "targets": "target", "antibodies": "antibody", "fluorophores": "fluorophore"}


def _csv_row(slide: FoundSlide) -> list[object]:
    row: list[object] = []
    for name in _CSV_COLUMNS:
        if name in _OF_CHANNELS:
            values = [getattr(each, _OF_CHANNELS[name]) for each in slide.channels or ()]
            row.append("; ".join(value for value in values if value))
        elif name == "radiology":
            row.append(_radiology(slide))
        else:
            value = getattr(slide, name)
            row.append("; ".join(each or "" for each in value) if isinstance(value, tuple) else value)
    return row


def _radiology(slide: FoundSlide) -> str:
    return ", ".join(f"{modality} {count}" for modality, count in slide.radiology.items())


def _print_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    import csv
    import io

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    click.echo(stream.getvalue(), nl=False)


def _print_slides(result: SearchResult, *, with_radiology: bool) -> None:
    columns = [
        "collection",
        "patient",
        "container",
        "description",
        "stain",
        "embedding",
        "anatomy",
        "objective",
        "µm/pixel",
        "pixels",
    ]
    rows = []
    for slide in result.slides:
        size = f"{slide.matrix_columns} x {slide.matrix_rows}" if slide.matrix_columns else None
        rows.append(
            [
                slide.collection_id or "-",
                slide.PatientID or "-",
                _shown(slide, slide.ContainerIdentifier),
                slide.SeriesDescription or "-",
                _shown(slide, slide.stain),
                _shown(slide, slide.embedding),
                _shown(slide, slide.anatomy),
                _shown(slide, slide.objective),
                _shown(slide, slide.spacing_um),
                _shown(slide, size),
                *([_radiology(slide)] if with_radiology else []),
            ]
        )
    if rows:
        _print_table([*columns, *(["radiology"] if with_radiology else [])], rows)
    shown = f"; {len(rows)} shown, see --limit" if len(rows) < result.total else ""
    of = f" of {counted(result.patients, 'patient')}" if result.patients or not result.total else ""
    within = f" in {counted(result.collections, 'collection')}" if result.collections or not result.total else ""
    nobody = f", {result.without_patient} without a patient" if result.without_patient else ""
    click.echo(f"{counted(result.total, 'slide')}{of}{within}, {result.size_mb:,.1f} MB{nobody}{shown}")
    if with_radiology:
        told = ", ".join(f"{each.modality} {each.series} series of {each.patients}" for each in result.radiology)
        click.echo(f"radiology of these patients: {told or 'none'}")


def counted(count: int, name: str) -> str:
    """Return a number of things: ``1 slide``, ``2 slides``."""
    return f"{count} {name}{'' if count == 1 else 's'}"


def _shown(slide: FoundSlide, value: object) -> str:
    """Return a value for people; what is not known of a published slide is told apart from what is not stated."""
    if value is None:
        return "unknown" if slide.known == "series" else "-"
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: with lines on a terminal, else plain and as wide as it is."""
    if not sys.stdout.isatty():
        widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
        for row in [columns, *rows]:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


@click.command(epilog=FACET_EXAMPLES, short_help="Count the values of slides' fields.")
@click.argument("names", metavar="[FACET]...", nargs=-1)
@filter_options
@click.option("--text", default="", metavar="WORDS", help="Words that the descriptions hold.")
@click.option("--disjunctive", is_flag=True, help="Count each facet under all filters but its own.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Most values of a facet.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")
@catalog_options
def facets(
    names: tuple[str, ...], text: str, disjunctive: bool, limit: int, as_json: bool, as_csv: bool, **options: Any
) -> None:
    """Count the values of each FACET, by default of all, among the slides that fulfil the filters."""
    from coverslip.catalog.search_filters import FIELDS

    if as_json and as_csv:
        raise UsageError("--json and --csv: expected one of them")
    wanted = names or tuple(name for name, field in FIELDS.items() if field.facet)
    with open_catalog_of(options) as catalog:
        request = request_of(text.split(), options, limit=0, facets=wanted, facet_values=limit, disjunctive=disjunctive)
        result = catalog.search(request)
    if as_json:
        told = {"total": result.total, "unknown": result.unknown, "facets": [asdict(each) for each in result.facets]}
        click.echo(json.dumps(told, indent=2))
    elif as_csv:
        rows: list[list[object]] = []
        for facet in result.facets:
            rows += [[facet.name, each.value, each.code, each.count] for each in facet.values]
        _print_csv(("facet", "value", "code", "slides"), rows)
    else:
        _print_facets(result)
    _print_unknown(result, options["unknown"])


def _print_facets(result: SearchResult) -> None:
    click.echo(counted(result.total, "slide"))
    for facet in result.facets:
        click.echo(f"\n{facet.name}")
        for each in facet.values:
            click.echo(f"  {each.count:7}  {each.value}{f'  {each.code}' if each.code else ''}")
        if facet.more:
            click.echo(f"           and {facet.more} more values: see --limit")
        if facet.not_stated:
            click.echo(f"  {facet.not_stated:7}  (not stated)")
        if facet.unknown:
            click.echo(f"  {facet.unknown:7}  (unknown: IDC's index does not tell)")


@click.command(epilog=ATTACH_EXAMPLES, short_help="Search IDC's index together with a catalog.")
@click.argument("idc_index", type=click.Path(path_type=Path), metavar="[PARQUET]", required=False)
@click.option("--sm-index", type=click.Path(path_type=Path), metavar="PARQUET", help="IDC's table sm_index.")
@click.option(
    "--collections", type=click.Path(path_type=Path), metavar="PARQUET", help="IDC's collections_index: cancer types."
)
@click.option("--detach", is_flag=True, help="Forget it.")
@click.option(
    "--catalog", type=click.Path(path_type=Path), default=Path("catalog.duckdb"), show_default=True, help="Catalog."
)
@click.option("--wait", "wait_s", type=float, default=60.0, show_default=True, help="Seconds to wait for a writer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def attach(
    *,
    idc_index: Path | None,
    sm_index: Path | None,
    collections: Path | None,
    detach: bool,
    catalog: Path,
    wait_s: float,
    as_json: bool,
) -> None:
    """Let searches of a catalog see what IDC has published: PARQUET, or the index of the package idc-index-data.

    The files stay where they are and must not be moved; attach again after the package was updated.
    """
    from coverslip.catalog.database import open_catalog
    from coverslip.catalog.published import attach_to_catalog, choose_published, detach_published
    from coverslip.errors import CatalogError

    if not catalog.is_file():
        raise CatalogError(f"{catalog}: no such catalog")
    if detach and (idc_index or sm_index or collections):
        raise UsageError("--detach: expected without files")
    if detach:
        with open_catalog(catalog, wait_s=wait_s) as connection:
            found = detach_published(connection)
        told: dict[str, Any] = {"detached": found}
        line = f"{catalog}: " + ("IDC's index detached" if found else "nothing was attached")
    else:
        files = choose_published(idc_index, sm_index, collections)
        index = attach_to_catalog(catalog, files, wait_s=wait_s)
        told = index.summary
        line = f"{catalog}: {index.line}"
    click.echo(json.dumps(told, indent=2) if as_json else line)
