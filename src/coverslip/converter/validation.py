"""What is written is validated before it is delivered; a series that fails goes into quarantine with its report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip.converter.request import SeriesResult, ValidationSummary
from coverslip.converter.staging import QUARANTINE_FOLDER, publish_folder, remove_if_empty
from coverslip.errors import ValidationFailedError
from coverslip.validators.report import Severity, ValidationReport

if TYPE_CHECKING:
    from coverslip.converter.request import ConversionRequest
    from coverslip.converter.series_plan import SeriesPlan
    from coverslip.converter.sources.base import SlideSource
    from coverslip.validators.validate import ValidationOptions

__all__ = ["leave_quarantine", "quarantine", "summarize", "validate_conversion", "validate_headers"]

_REPORT_FILE = "report.json"
_REPORT_PAGE = "report.html"
_MOST_NAMED = 5


def validate_conversion(
    staged: Path, plan: SeriesPlan, request: ConversionRequest, source: SlideSource
) -> ValidationReport | None:
    """Validate a staged series and compare it with its slide, which is open; None if that is not asked for."""
    if request.validate == "off":
        return None
    from coverslip.converter.sources.region import RegionOfSlide
    from coverslip.validators.validate import ValidationOptions

    # What was taken from the slide; of chosen focal planes a header tells which they are.
    region = source.pyramids[plan.region_number - 1] if request.focal_planes != "all" else plan.source_pyramid
    written = (*request.curated_texts().values(), *plan.metadata.restricted.values(), plan.container_identifier)
    options = ValidationOptions(
        thorough=request.validate == "thorough",
        slide=RegionOfSlide(source, region),
        allowed_texts=(*written, plan.metadata.device_serial_number or ""),
        workers=request.workers,
    )
    # Who gives a spacing knows that the slide states another one, and who has bad tiles blanked that they are.
    ignored: tuple[str, ...] = ("fidelity.spacing",) if request.spacing_mm else ()
    if plan.source_pyramid.bad_tiles:
        ignored += ("fidelity.colour", "pyramid.content")
    return _validate(staged, options, ignored=ignored)


def validate_headers(folder: Path) -> ValidationReport:
    """Validate the one series of a folder by its headers alone."""
    from coverslip.validators.validate import ValidationOptions

    return _validate(folder, ValidationOptions(headers_only=True))


def _validate(staged: Path, options: ValidationOptions, ignored: Collection[str] = ()) -> ValidationReport:
    """Validate the one series of a folder.

    Parameters
    ----------
    staged : Path
    options : ValidationOptions
    ignored : collection of str
        Rules whose findings are meant to be.
    """
    from coverslip.validators.series import find_series, local_files
    from coverslip.validators.validate import validate_found

    found, unreadable = find_series(local_files([staged]))
    (report,) = validate_found(found, options)
    findings = (each for each in (*unreadable, *report.findings) if each.rule not in ignored)
    return replace(report, findings=tuple(findings))


def summarize(report: ValidationReport, mode: str) -> ValidationSummary:
    """Return what `conversion.json` tells of a report."""
    return ValidationSummary(mode, report.profile, report.worst, report.counts())


def quarantine(staged: Path, output: Path, report: ValidationReport) -> ValidationFailedError:
    """Put a series that failed where nobody takes it for a good one, in place of what an earlier run left there.

    Parameters
    ----------
    staged : Path
        Holds all that would have been delivered.
    output : Path
    report : ValidationReport

    Returns
    -------
    ValidationFailedError
        Names the place and the rules.
    """
    from coverslip.validators.html import write_html_report

    place = output / QUARANTINE_FOLDER / report.series_instance_uid
    write_html_report([report], staged / _REPORT_PAGE)
    text = json.dumps(replace(report, place=str(place)).as_json(), indent=2)
    (staged / _REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    publish_folder(staged, place, overwrite=True)
    rules = list(dict.fromkeys(each.rule for each in report.findings if each.severity is Severity.ERROR))
    more = f" and {len(rules) - _MOST_NAMED} more rules" if len(rules) > _MOST_NAMED else ""
    number = sum(each.severity is Severity.ERROR for each in report.findings)
    return ValidationFailedError(
        f"the series fails its validation with {number} {'error' if number == 1 else 'errors'}, expected none: "
        f"{', '.join(rules[:_MOST_NAMED])}{more}; nothing was delivered, it is in {place} with its {_REPORT_FILE}"
    )


def leave_quarantine(output: Path, series: SeriesResult) -> None:
    """Remove what an earlier run put into quarantine of a series that is good now."""
    folder = output / QUARANTINE_FOLDER
    shutil.rmtree(folder / series.series_instance_uid, ignore_errors=True)
    remove_if_empty(folder)
