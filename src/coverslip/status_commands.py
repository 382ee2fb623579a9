"""The commands `coverslip status` and `collect`: what a run has done, and what its shards have put together."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.errors import CatalogError, UsageError
from coverslip.store_arguments import open_stores, store_arguments

if TYPE_CHECKING:
    from rich.console import RenderableType

    from coverslip.pipeline.status import RunStatus

__all__ = ["collect", "status"]

_WATCH_S = 2.0
_MOST_SHOWN = 20

STATUS_EXAMPLES = """
\b
Examples:
  coverslip status work
  coverslip status gs://bucket/run --watch
  coverslip status work --price 0.12 --html status.html
"""

COLLECT_EXAMPLES = """
\b
Examples:
  coverslip collect gs://bucket/run --catalog catalog.duckdb
"""


@click.command(epilog=STATUS_EXAMPLES, short_help="Tell how far a run has come.")
@click.argument("run", metavar="DIR|URL")
@click.option("--watch", is_flag=True, help="Show it again and again, until the run is over.")
@click.option("--price", type=float, default=0.0, show_default=True, metavar="N", help="Of an hour of what works on "
              "one slide, for the cost of stages.")  # fmt: skip
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write it as a page for people.")
@store_arguments
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def status(run: str, watch: bool, price: float, html: Path | None, as_json: bool, **options: Any) -> None:
    """Tell how far a run has come: by its folder (--work), or by the --state of its shards.

    With time and cost of each stage, the slowest slides, and failures by class; slides are named by key and row.
    """
    if watch and as_json:
        raise UsageError("--watch and --json: wanted one of them")
    found = _read(run, price, options)
    if html is not None:
        from coverslip.pipeline.status_page import status_page

        html.write_text(status_page(found), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    elif watch and sys.stdout.isatty():
        _watch(run, price, options)
    else:
        _print(found)


@click.command(epilog=COLLECT_EXAMPLES, short_help="Put together what the shards of a run have made.")
@click.argument("state", metavar="URL")
@click.option(
    "--catalog", required=True, metavar="FILE|bigquery://...", help="Catalog to merge the rows of all slides into."
)
@store_arguments
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def collect(state: str, catalog: str, as_json: bool, **options: Any) -> None:
    """Merge the rows that the shards of a run have put into its --state into one catalog, in one transaction.

    May be done at any time, and again.
    """
    from coverslip.pipeline.catalog_parts import collect_parts, merge_parts, require_known_catalog
    from coverslip.stores.base import ObjectStore

    require_known_catalog(catalog)
    with open_stores([state], options, naming="uuid", workers=16) as (store,), tempfile.TemporaryDirectory() as folder:
        if not isinstance(store, ObjectStore):
            raise UsageError(f"{state}: wanted a bucket or folder")
        keys = collect_parts(store, Path(folder) / "parts")
        if not keys:
            raise UsageError(f"{state}: no rows for a catalog there")
        merged = merge_parts(Path(folder) / "parts", keys, catalog)
    if merged.problem is not None:
        raise CatalogError(merged.problem.message)
    refused = merged.refused or {}
    if as_json:
        told = {key: problem.message for key, problem in refused.items()}
        click.echo(json.dumps({"catalog": catalog, "slides": len(merged.merged), "refused": told}))
    else:
        click.echo(f"{catalog}: {len(merged.merged)} slides, {len(refused)} refused")
        for key, problem in list(refused.items())[:_MOST_SHOWN]:
            click.echo(f"  {key[:12]}: {problem.message}")
    if refused:
        raise click.exceptions.Exit(CatalogError.exit_code)


def _read(run: str, price: float, options: dict[str, Any]) -> RunStatus:
    from coverslip.pipeline.status import read_folder, read_state, summarize_run
    from coverslip.stores.base import ObjectStore

    if (Path(run) / "ledger.sqlite").is_file():
        return summarize_run(*read_folder(Path(run)), price)
    with open_stores([run], options, naming="uuid", workers=16) as (store,):
        if not isinstance(store, ObjectStore):
            raise UsageError(f"{run}: wanted the folder of a run, or the bucket of its state")
        return summarize_run(*read_state(store), price)


def _watch(run: str, price: float, options: dict[str, Any]) -> None:
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        while True:
            found = _read(run, price, options)
            live.update(_view(found), refresh=True)
            if found.done + found.failed == found.slides:
                return
            time.sleep(_WATCH_S)


def _print(found: RunStatus) -> None:
    from rich.console import Console

    Console(file=sys.stdout, highlight=False).print(_view(found))


def _view(found: RunStatus) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    counts = (
        f"{found.run}: {found.done} of {found.slides} slides done, {found.failed} failed, {found.under_way} under way, "
        f"{found.pending} pending"
    )
    rate = f"{found.slides_per_hour:.0f} slides an hour" if found.slides_per_hour else ""
    left = f"{found.left_s / 3600:.1f} h left" if found.left_s else ""
    stages = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("stage", "done", "failed", "under way", "hours", "GB", *(["cost"] if found.cost else [])):
        stages.add_column(heading, justify="left" if heading == "stage" else "right")
    for each in found.stages:
        cells = [str(each.stage), str(each.done), str(each.failed), str(each.under_way), f"{each.seconds / 3600:.3f}",
                 f"{each.size_bytes / 1e9:.3f}", *([f"{each.cost:.2f}"] if found.cost else [])]  # fmt: skip
        stages.add_row(*map(Text, cells))
    lines: list[RenderableType] = [Text(", ".join(part for part in (counts, rate, left) if part)), stages]
    for name, count in found.classes.items():
        lines.append(Text(f"{name}: {count}"))
    failures = found.failures[:_MOST_SHOWN]
    lines.extend(Text(f"  row {slide.row}, {slide.stage}: {slide.error_message}") for slide in failures)
    if len(found.failures) > _MOST_SHOWN:
        lines.append(Text(f"  and {len(found.failures) - _MOST_SHOWN} more"))
    if found.slowest:
        slowest = ", ".join(f"row {each.row} {each.seconds:.1f} s ({each.stage})" for each in found.slowest[:5])
        lines.append(Text(f"slowest: {slowest}"))
    return Group(*lines)
