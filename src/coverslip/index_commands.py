"""The command `coverslip index`: headers into a catalog."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.errors import UsageError
from coverslip.store_arguments import open_stores, store_arguments

if TYPE_CHECKING:
    from coverslip.catalog.index import IndexReport
    from coverslip.catalog.published import PublishedFiles, PublishedIndex

__all__ = ["index"]

EXAMPLES = """
\b
Examples:
  coverslip index out --to catalog.duckdb
  coverslip index out --to catalog.duckdb --prune --version-label "second delivery"
  coverslip index slides-1 --to parquet:shards
  coverslip index --merge parquet:shards --to catalog.duckdb
  coverslip index out --to ndjson:tables --json
  coverslip index out --to bigquery://project.dataset --dry-run
  coverslip index --merge parquet:shards --to bigquery://project.dataset
  coverslip index gs://bucket/slides dicomweb+https://pacs.example/dicom-web
  coverslip index out --with-idc
"""

_MOST_SHOWN = 50
"""Failures that are printed; `--json` tells all."""


@click.command(epilog=EXAMPLES, short_help="Put headers into a catalog that can be searched.")
@click.argument("paths", metavar="PATH|URL...", nargs=-1)
@click.option(
    "--to",
    default="catalog.duckdb",
    show_default=True,
    metavar="FILE|parquet:DIR|ndjson:DIR|bigquery://PROJECT.DATASET",
    help="Catalog.",
)
@click.option("--merge", metavar="parquet:DIR", help="Merge all shards of a folder, in place of reading PATH.")
@click.option("--prune", is_flag=True, help="Retire instances that the catalog has below PATH and that are gone.")
@click.option(
    "--shard", metavar="NAME", help="Name of the shard that parquet: writes; by default it follows from PATH."
)
@click.option("--facts", type=click.Path(path_type=Path), help="JSON object: what is known of the collection.")
@click.option(
    "--md5",
    "digest",
    type=click.Choice(["read", "known"]),
    help="Whether files without a stated MD5 are read as a whole for it. Default: local files are.",
)
@click.option("--catalog-version", type=int, metavar="N", help="Number of the version made; default: the next one.")
@click.option("--version-label", metavar="TEXT", help="What the version is called.")
@click.option("--version-date", metavar="YYYY-MM-DD", help="Its date; never taken from a clock.")
@click.option("--with-idc", is_flag=True, help="Attach IDC's index too, as coverslip attach does, also without PATH.")
@click.option(
    "--idc-index", type=click.Path(path_type=Path), metavar="PARQUET", help="In place of that of idc-index-data."
)
@click.option("--idc-sm-index", type=click.Path(path_type=Path), metavar="PARQUET", help="IDC's table sm_index.")
@click.option("--workers", type=click.IntRange(1), help="Processes that read. Default: the cores at hand.")
@click.option(
    "--wait", "wait_s", type=float, default=60.0, show_default=True, help="Seconds to wait for another writer."
)
@click.option("--dry-run", is_flag=True, help="Of BigQuery: only tell how many bytes its queries would process.")
@click.option("--max-bytes-billed", metavar="SIZE", help="Of BigQuery: what one query may bill. Default: 100GB.")
@store_arguments
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def index(paths: tuple[str, ...], to: str, merge: str | None, as_json: bool, **options: Any) -> None:
    """Read the headers of all instances in PATH, at any depth, into the tables of a catalog.

    Indexing again changes nothing. A file that cannot be read is told, the others are indexed; the exit code is that of
    the worst: 3 no DICOM or damaged, 6 a folder or store, 7 the catalog, or a value or file that does not fit it.
    """
    from coverslip.catalog.index import IndexReport

    files = _published(to, options)
    if (paths and merge) or not (paths or merge or files):
        raise UsageError("expected PATH, or --merge parquet:DIR")
    report = IndexReport()
    if (options["dry_run"] or options["max_bytes_billed"]) and not to.lower().startswith("bigquery:"):
        raise UsageError("--dry-run and --max-bytes-billed: expected with --to bigquery://project.dataset")
    to = _with_limit(to, options["max_bytes_billed"])
    if merge:
        report = _merge(merge, to, options)
    elif paths:
        with _progress_bar() as on_progress:
            report = _index(paths, to, options, on_progress)
    attached = _attach(to, files, options) if files else None
    if as_json:
        idc = {"place": str(_catalog_file(to)), "idc": attached.summary} if attached else {}
        click.echo(json.dumps({**_as_json(report), **idc}, indent=2))
    else:
        _print(report)
        if attached:
            click.echo(f"{_catalog_file(to)}: {attached.line}")
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)


def _catalog_file(to: str) -> Path | None:
    """Return the file of DuckDB that ``--to`` names, None if it is something else."""
    if ":" in to and not to.startswith("duckdb:"):
        return None
    return Path(to.removeprefix("duckdb:"))


def _published(to: str, options: dict[str, Any]) -> PublishedFiles | None:
    """Return the files of IDC's index that are to be attached; looked for before anything is read."""
    if not options["with_idc"]:
        for name in ("--idc-index", "--idc-sm-index"):
            if options[name.removeprefix("--").replace("-", "_")]:
                raise UsageError(f"{name}: expected --with-idc beside it")
        return None
    from coverslip.catalog.published import choose_published

    if _catalog_file(to) is None:
        raise UsageError(f"--to {to}: IDC's index is attached to a file of DuckDB")
    return choose_published(options["idc_index"], options["idc_sm_index"])


def _attach(to: str, files: PublishedFiles, options: dict[str, Any]) -> PublishedIndex:
    from coverslip.catalog.published import attach_to_catalog

    catalog = _catalog_file(to)
    assert catalog is not None
    return attach_to_catalog(catalog, files, wait_s=options["wait_s"])


def _version(options: dict[str, Any]) -> Any:
    from datetime import date

    from coverslip.catalog.merge import NewVersion

    try:
        day = date.fromisoformat(options["version_date"]).isoformat() if options["version_date"] else None
    except ValueError:
        raise UsageError(f"--version-date {options['version_date']}: expected a date such as 2026-01-31") from None
    return NewVersion(options["catalog_version"], options["version_label"], day)


def _index(
    paths: tuple[str, ...], to: str, options: dict[str, Any], on_progress: Callable[[int, int], None]
) -> IndexReport:
    from coverslip.catalog.conversion_record import read_facts
    from coverslip.catalog.index import IndexRequest, index_paths
    from coverslip.catalog.reading import Digest
    from coverslip.catalog.store_reading import THREADS, is_store_url

    urls = [path for path in paths if is_store_url(path)]
    with ExitStack() as stack:
        stores = stack.enter_context(open_stores(urls, options, naming="uuid", workers=THREADS)) if urls else []
        request = IndexRequest(
            paths=tuple(path for path in paths if not is_store_url(path)),
            stores=tuple(stores),
            to=to,
            version=_version(options),
            prune=options["prune"],
            shard=options["shard"],
            digest=Digest(options["digest"] or "read"),
            facts=read_facts(options["facts"]) if options["facts"] else None,
            workers=options["workers"] or len(os.sched_getaffinity(0)),
            wait_s=options["wait_s"],
            dry_run=options["dry_run"],
        )
        return index_paths(request, on_progress)


def _with_limit(to: str, limit: str | None) -> str:
    return to if limit is None else f"{to}{'&' if '?' in to else '?'}max_bytes_billed={limit}"


def _merge(merge: str, to: str, options: dict[str, Any]) -> IndexReport:
    from coverslip.catalog.index import IndexReport
    from coverslip.catalog.staging import list_shards
    from coverslip.catalog.writers import merging_writer

    scheme, _, folder = merge.partition(":")
    if scheme != "parquet" or not folder:
        raise UsageError(f"--merge {merge}: expected parquet:DIR")
    writer = merging_writer(to, dry_run=options["dry_run"])
    outcome = writer.merge(list_shards(Path(folder)), _version(options), wait_s=options["wait_s"])
    read = outcome.merge.new + outcome.merge.changed + outcome.merge.unchanged if outcome.merge else 0
    return IndexReport(read, outcome.failures, outcome, list(outcome.warnings))


def _as_json(report: IndexReport) -> dict[str, Any]:
    outcome = report.outcome
    merged = outcome.merge if outcome else None
    return {
        "place": outcome.place if outcome else None,
        "read": report.read,
        **(
            {
                "version": merged.version,
                "new": merged.new,
                "changed": merged.changed,
                "unchanged": merged.unchanged,
                "retired": merged.retired,
                "duplicates": merged.duplicates,
                "added_columns": merged.added_columns,
            }
            if merged
            else {}
        ),
        **({"bytes_processed": dict(outcome.estimates)} if outcome and outcome.estimates is not None else {}),
        "warnings": report.warnings,
        "failures": [asdict(failure) for failure in report.failures],
    }


def _print(report: IndexReport) -> None:
    for failure in report.failures[:_MOST_SHOWN]:
        click.echo(f"{failure.location}: {failure.reason}", err=True)
    if len(report.failures) > _MOST_SHOWN:
        click.echo(f"and {len(report.failures) - _MOST_SHOWN} more; --json tells all", err=True)
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    outcome = report.outcome
    if outcome is None:
        return
    merged = outcome.merge
    if outcome.estimates is not None:
        click.echo(
            f"{outcome.place}: nothing was written; reading would process {sum(outcome.estimates.values()):,} bytes"
        )
        for name, count in outcome.estimates.items():
            click.echo(f"  {count:16,}  {name}")
        return
    if merged is None:
        click.echo(f"{outcome.place}: {report.read} instances")
        return
    click.echo(
        f"{outcome.place}: version {merged.version or 0}: {merged.new} new, {merged.changed} changed, "
        f"{merged.unchanged} unchanged, {merged.retired} retired"
    )
    if merged.added_columns:
        click.echo(f"  {len(merged.added_columns)} columns added to dicom_metadata, told by schema_changes")


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("headers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
