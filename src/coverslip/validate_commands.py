"""The command `coverslip validate`: say whether series are right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from coverslip.validators.report import ValidationReport

__all__ = ["validate"]

_FAILED = 5
_MOST_SHOWN = 20
"""Findings of one rule and series that are printed; `--json` tells all."""

EXAMPLES = """
\b
Examples:
  coverslip validate out
  coverslip validate out --source slide.svs --thorough
  coverslip validate series/*.dcm --profile idc --json
  coverslip validate out --html report.html
"""


@click.command(epilog=EXAMPLES, short_help="Check series, made here or elsewhere.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
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
def validate(
    paths: tuple[Path, ...], source: Path | None, profile: str, thorough: bool, as_json: bool, html: Path | None
) -> None:
    """Check the DICOM series in PATH: files, and folders at any depth.

    Ends with 5 if there is an ERROR finding, else with 0.
    """
    from coverslip.validators.validate import ValidationOptions, validate_paths

    reports = list(validate_paths(paths, ValidationOptions(profile, thorough, source)))
    if html is not None:
        from coverslip.validators.html import write_html_report

        write_html_report(reports, html)
    if as_json:
        click.echo(json.dumps(_as_json(reports), indent=2))
    else:
        for report in reports:
            _print_report(report)
        if len(reports) > 1:
            _print_summary(reports)
    if not all(report.passed for report in reports):
        raise click.exceptions.Exit(_FAILED)


def _as_json(reports: Sequence[ValidationReport]) -> dict[str, object]:
    from coverslip.validators.report import count_rules

    return {
        "passed": all(report.passed for report in reports),
        "counts": count_rules(finding for report in reports for finding in report.findings),
        "series": [report.as_json() for report in reports],
    }


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


def _print_summary(reports: Sequence[ValidationReport]) -> None:
    from coverslip.validators.report import count_rules

    failed = sum(not report.passed for report in reports)
    click.echo(f"{len(reports)} series, {failed} failed")
    for rule, count in count_rules(finding for report in reports for finding in report.findings).items():
        click.echo(f"  {count:6} {rule}")
