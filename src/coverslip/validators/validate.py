"""Validate a series: the checks of a profile, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from coverslip.errors import MissingDependencyError, UsageError
from coverslip.validators import viewer
from coverslip.validators.consistency import check_studies
from coverslip.validators.report import Checked, Finding, ValidationReport
from coverslip.validators.rules import finding
from coverslip.validators.series import SeriesView, open_series

__all__ = ["PROFILES", "ValidationOptions", "validate_paths", "validate_series"]

PROFILES = ("dicom", "idc", "slim", "healthcare", "openslide")
"""Names for `--profile`; `dicom` is what every profile asks for, the others add to it."""


@dataclass(frozen=True, slots=True)
class ValidationOptions:
    """What is asked of a validation.

    Parameters
    ----------
    profile : str
        One of `PROFILES`.
    thorough : bool
        Decode every frame, not a sample.
    source : Path or None
        Slide that the series was made from.
    """

    profile: str = "dicom"
    thorough: bool = False
    source: Path | None = None

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise UsageError(f"profile {self.profile!r} is not known, expected one of {', '.join(PROFILES)}")


@dataclass(frozen=True, slots=True)
class _Check:
    """A module with ``check(series, options) -> Iterator[Finding]``, loaded when it is its turn.

    Parameters
    ----------
    module : str
        Below `coverslip.validators`.
    profiles : sequence of str
        That ask for it.
    any_class : bool
        Whether it also looks at instances that are no slide images, such as annotations.
    needs_source : bool
        Whether it compares with the slide that the series was made from.
    """

    module: str
    profiles: Sequence[str] = PROFILES
    any_class: bool = False
    needs_source: bool = False


_VIEWER = _Check("viewer", profiles=("idc", "slim"))

_CHECKS = (
    _Check("part10", any_class=True),
    _Check("iod", any_class=True),
    _Check("frames"),
    _Check("pyramid"),
    _Check("content"),
    _Check("concatenation"),
    _Check("consistency", any_class=True),
    _Check("icc"),
    _Check("lossy"),
    _Check("associated"),
    _Check("readers"),
    _Check("stores", any_class=True),
    _Check("privacy", any_class=True),
    _Check("fidelity", needs_source=True),
    _VIEWER,
)
"""In the order in which they are made: what is wrong with the file itself comes before what follows from it."""


def validate_paths(paths: Sequence[Path], options: ValidationOptions) -> Iterator[ValidationReport]:
    """Validate all series in files and folders; the last report, if any, is that of files that cannot be read.

    Raises
    ------
    StoreError
        If there is nothing to validate.
    """
    series, unreadable = open_series(paths)
    if options.source is not None and len(series) != 1:
        raise UsageError(f"--source is that of one series, {len(series)} were given")
    of_studies = list(check_studies(series)) if len(series) > 1 else []
    if len(series) > 1 and options.profile in _VIEWER.profiles:
        of_studies += viewer.check_studies(series)
    for each in series:
        yield _with(validate_series(each, options), [found for of, found in of_studies if of is each])
    if unreadable:
        yield ValidationReport("", "", options.profile, tuple(unreadable))


def validate_series(series: SeriesView, options: ValidationOptions | None = None) -> ValidationReport:
    """Make all checks of a profile.

    A check that fails is an ERROR finding of its own; one whose library is not installed is a WARNING.
    """
    options = options or ValidationOptions()
    start = time.perf_counter()
    findings: list[Finding] = []
    for check in _CHECKS:
        if (
            options.profile in check.profiles
            and (check.any_class or series.is_wsi)
            and (options.source is not None or not check.needs_source)
        ):
            findings += _make(check, series, options)
    checked = Checked(
        instances=len(series.instances),
        frames=sum(instance.number_of_frames for instance in series.instances),
        frames_decoded=series.tally.frames_decoded,
        bytes_read=series.tally.bytes_read,
        seconds=round(time.perf_counter() - start, 4),
    )
    return ValidationReport(
        series.series_instance_uid, str(series.folder), options.profile, _gravest_first(findings), checked
    )


def _with(report: ValidationReport, more: Sequence[Finding]) -> ValidationReport:
    return replace(report, findings=_gravest_first([*report.findings, *more]))


def _gravest_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return each finding once, in order of severity and otherwise as they are."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda each: -each.severity.rank))


def _make(check: _Check, series: SeriesView, options: ValidationOptions) -> Iterator[Finding]:
    try:
        yield from import_module(f"coverslip.validators.{check.module}").check(series, options)
    except MissingDependencyError as error:
        yield finding("validator.dependency", f"{check.module}: {error}")
    except Exception as error:  # noqa: BLE001 - a damaged file may break a check in any way; the others go on
        yield finding("validator.failed", f"{check.module}: {type(error).__name__}: {error}")
