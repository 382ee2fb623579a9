"""The command `coverslip validate`: say whether series are right."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.store_arguments import open_stores, store_arguments

if TYPE_CHECKING:
    from coverslip.validators.html import HtmlReport
    from coverslip.validators.report import Finding, ValidationReport
    from coverslip.validators.series import FoundSeries
    from coverslip.validators.validate import ValidationOptions

__all__ = ["validate"]

_FAILED = 5
SWITCH_INTERVAL_S = 0.0005
_MOST_SHOWN = 20
"""Findings of one rule and series that are printed; `--json` tells all."""

EXAMPLES = """
\b
Examples:
  coverslip validate out
  coverslip validate out --source slide.svs --thorough
  coverslip validate series/*.dcm --profile idc --json
  coverslip validate out --html report.html
  coverslip validate gs://bucket/prefix --credentials adc
  coverslip validate dicomweb+https://host/dicom-web/studies/1.2/series/1.3
"""


@click.command(epilog=EXAMPLES, short_help="Check series, made here or elsewhere.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--source", type=click.Path(path_type=Path), help="The slide it was made from, to compare with.")
@click.option(
    "--profile",
    type=click.Choice(["dicom", "idc", "slim", "healthcare", "openslide"]),
    default="dicom",
    show_default=True,
    help="Whose rules, besides those of DICOM.",
)
@click.option("--thorough", is_flag=True, help="Decode every frame, not a sample.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write the report as a page for people.")
@store_arguments
def validate(paths: tuple[str, ...], as_json: bool, html: Path | None, **options: Any) -> None:
    """Check the DICOM series in PATH: files, folders at any depth, and URLs of stores.

    Ends with 5 if there is an ERROR finding, else with 0.
    """
    from coverslip.validators.validate import ValidationOptions, validate_found

    # Threads that need Python for some microseconds between decodings shall not wait 5 ms for it.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    asked = ValidationOptions(options["profile"], options["thorough"], options["source"])
    with ExitStack() as stack:
        found, unreadable = _find(paths, options, stack)
        page = stack.enter_context(_page(html))
        validated = validate_found(found, asked, page.add if page else None)
        last = [_of_unreadable(unreadable, asked, page)] if unreadable else []
        reports = stack.enter_context(_progress(chain(validated, last), len(found) + len(last)))
        totals = _print_json(reports) if as_json else _print_reports(reports)
        if page is not None:
            page.write()
    if totals.failed:
        raise click.exceptions.Exit(_FAILED)


def _find(
    paths: Sequence[str], options: Mapping[str, Any], stack: ExitStack
) -> tuple[list[FoundSeries], list[Finding]]:
    """Find the series in files, folders and stores, which stay open as long as `stack`."""
    from coverslip.validators.series import find_series, local_files

    local = [Path(path) for path in paths if "://" not in path]
    series, unreadable = find_series(local_files(local)) if local else ([], [])
    if len(local) < len(paths):
        from coverslip.validators.stored_series import StorePlace, find_stored_series

        places = [StorePlace.of(path) for path in paths if "://" in path]
        urls = list(dict.fromkeys(place.url for place in places))
        workers = len(os.sched_getaffinity(0))
        stores = stack.enter_context(open_stores(urls, options, naming="uuid", workers=workers))
        for place in places:
            more, failed = find_stored_series(stores[urls.index(place.url)], place)
            series += more
            unreadable += failed
    return series, unreadable


@dataclass(slots=True)
class _Totals:
    """Counts over all series, for the end of the report; the reports themselves are not kept."""

    series: int = 0
    failed: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    affected: Counter[str] = field(default_factory=Counter)

    def add(self, report: ValidationReport) -> None:
        """Count a report."""
        counts = report.counts()
        self.series += 1
        self.failed += not report.passed
        self.findings.update(counts)
        self.affected.update(counts.keys())


def _page(path: Path | None) -> AbstractContextManager[HtmlReport | None]:
    if path is None:
        return nullcontext()
    from coverslip.validators.html import HtmlReport

    return HtmlReport(path)


def _of_unreadable(
    unreadable: Sequence[Finding], options: ValidationOptions, page: HtmlReport | None
) -> ValidationReport:
    """Return the report of the files that cannot be read."""
    from coverslip.validators.report import ValidationReport

    report = ValidationReport("", "", options.profile, tuple(unreadable))
    if page is not None:
        page.add(report, None)
    return report


@contextmanager
def _progress(reports: Iterable[ValidationReport], total: int) -> Iterator[Iterable[ValidationReport]]:
    """Show on standard error how far it is, where somebody is looking and there are several series."""
    if total < 2 or not sys.stderr.isatty():
        yield reports
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        yield bar.track(reports, total=total)


def _print_json(reports: Iterable[ValidationReport]) -> _Totals:
    """Print one JSON object, a series at a time."""
    totals = _Totals()
    click.echo('{\n"series": [', nl=False)
    for report in reports:
        click.echo(("," if totals.series else "") + "\n" + json.dumps(report.as_json(), indent=2), nl=False)
        totals.add(report)
    rest = {
        "passed": not totals.failed,
        "failed": totals.failed,
        "counts": dict(sorted(totals.findings.items())),
        "series_with": dict(sorted(totals.affected.items())),
    }
    click.echo(f"\n],\n{json.dumps(rest, indent=2)[2:]}")
    return totals


def _print_reports(reports: Iterable[ValidationReport]) -> _Totals:
    totals = _Totals()
    for report in reports:
        _print_report(report)
        totals.add(report)
    if totals.series > 1:
        click.echo(f"{totals.series} series, {totals.failed} failed")
        if totals.findings:
            click.echo("findings  series  rule")
        for rule, count in sorted(totals.findings.items()):
            click.echo(f"{count:8}  {totals.affected[rule]:6}  {rule}")
    return totals


def _print_report(report: ValidationReport) -> None:
    checked = report.checked
    click.echo(f"{report.series_instance_uid or 'no series'}: {'passed' if report.passed else 'FAILED'}")
    click.echo(
        f"  {report.place or '-'}: {checked.instances} instances, {checked.frames} frames, "
        f"{checked.frames_decoded} decoded, {checked.seconds:.2f} s"
    )
    shown: dict[str, int] = {}
    for finding in report.findings:
        shown[finding.rule] = shown.get(finding.rule, 0) + 1
        if shown[finding.rule] <= _MOST_SHOWN:
            place = f"{finding.place}: " if finding.place else ""
            click.echo(f"  {finding.severity.lower()}: {place}{finding.message} [{finding.rule}]")
    for rule, count in shown.items():
        if count > _MOST_SHOWN:
            click.echo(f"  and {count - _MOST_SHOWN} more [{rule}]")
