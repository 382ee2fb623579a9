"""Validate series: the checks of a profile, one after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip.errors import MissingDependencyError, SourceError, UsageError
from coverslip.validators import viewer
from coverslip.validators.consistency import check_across_studies, check_study
from coverslip.validators.report import Checked, Finding, ValidationReport
from coverslip.validators.rules import finding
from coverslip.validators.series import FoundSeries, SeriesView, find_series, local_files

if TYPE_CHECKING:
    from coverslip.converter.sources.base import SlideSource

__all__ = ["PROFILES", "ValidationOptions", "validate_found", "validate_paths", "validate_series"]

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
    slide : SlideSource or None
        The same, open already; it stays open.
    headers_only : bool
        Leave the pixel data alone.
    allowed_texts : tuple of str
        Texts of the slide that were written on purpose.
    workers : int
        Threads that decode; shapes no finding.
    """

    profile: str = "dicom"
    thorough: bool = False
    source: Path | None = None
    slide: SlideSource | None = None
    headers_only: bool = False
    allowed_texts: tuple[str, ...] = ()
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

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
    reads_pixel_data : bool
        Whether there is nothing to check in headers alone.
    beside : bool
        Whether it mostly waits for another program, so that the other checks are made meanwhile.
    """

    module: str
    profiles: Sequence[str] = PROFILES
    any_class: bool = False
    reads_pixel_data: bool = False
    beside: bool = False


_VIEWER = _Check("viewer", profiles=("idc", "slim"))

_CHECKS = (
    _Check("part10", any_class=True),
    _Check("iod", any_class=True, beside=True),
    _Check("frames", reads_pixel_data=True),
    _Check("pyramid"),
    _Check("content", reads_pixel_data=True),
    _Check("concatenation"),
    _Check("consistency", any_class=True),
    _Check("plausibility", any_class=True),
    _Check("icc"),
    _Check("lossy", reads_pixel_data=True),
    _Check("associated"),
    _Check("readers"),
    _Check("stores", any_class=True),
    _Check("privacy", any_class=True),
    _VIEWER,
)
"""In the order in which they are told: what is wrong with the file itself comes before what follows from it."""

type Observer = Callable[[ValidationReport, SeriesView], None]


def validate_paths(paths: Sequence[Path], options: ValidationOptions) -> Iterator[ValidationReport]:
    """Validate all series in files and folders; the last report, if any, is that of files that cannot be read.

    Raises
    ------
    StoreError
        If there is nothing to validate.
    """
    found, unreadable = find_series(local_files(paths))
    yield from validate_found(found, options)
    if unreadable:
        yield ValidationReport("", "", options.profile, tuple(unreadable))


def validate_found(
    found: Sequence[FoundSeries], options: ValidationOptions, observe: Observer | None = None
) -> Iterator[ValidationReport]:
    """Validate series, study by study; the headers of one study are in memory at a time.

    Parameters
    ----------
    found : sequence of FoundSeries
    options : ValidationOptions
    observe : callable, optional
        Shown each report and its series while that is open.
    """
    if options.source is not None and len(found) != 1:
        raise UsageError(f"--source is that of one series, {len(found)} were given")
    across = check_across_studies(found)
    studies: dict[str, list[FoundSeries]] = {}
    for each in found:
        # Of series that must be fetched one is on disk at a time.
        studies.setdefault(each.series_instance_uid if each.fetched else each.study_instance_uid, []).append(each)
    for members in studies.values():
        study = [each.open() for each in members]
        try:
            of_study: list[tuple[SeriesView, Finding]] = []
            if len(study) > 1:
                whole = [series for series in study if series.instances]
                of_study += check_study(whole)
                if options.profile in _VIEWER.profiles:
                    of_study += viewer.check_studies(whole)
            for series in study:
                more = across.get(series.series_instance_uid, [])
                more = [*more, *(each for of, each in of_study if of is series)]
                report = validate_series(series, options)
                report = replace(report, findings=_gravest_first([*report.findings, *more]))
                if observe is not None:
                    observe(report, series)
                yield report
                series.decoded.clear()
        finally:
            for series in study:
                series.close()


def validate_series(series: SeriesView, options: ValidationOptions | None = None) -> ValidationReport:
    """Make all checks of a profile.

    A check that fails is an ERROR finding of its own; one whose library is not installed is a WARNING.
    """
    options = options or ValidationOptions()
    start = time.perf_counter()
    try:
        with _opened(options) as slide:
            findings = _make_all(series, replace(options, slide=slide))
    except SourceError as error:
        unreadable = finding("fidelity.source-unreadable", f"{type(error).__name__}: {error}")
        findings = [*_make_all(series, replace(options, slide=None)), unreadable]
    checked = Checked(
        instances=len(series.instances),
        frames=sum(instance.number_of_frames for instance in series.instances),
        frames_decoded=series.tally.frames_decoded,
        bytes_read=series.tally.bytes_read,
        seconds=round(time.perf_counter() - start, 4),
    )
    return ValidationReport(
        series.series_instance_uid, series.folder, options.profile, _gravest_first(findings), checked
    )


def _opened(options: ValidationOptions) -> AbstractContextManager[SlideSource | None]:
    if options.slide is not None or options.source is None:
        return nullcontext(options.slide)
    from coverslip.converter.sources import open_slide

    return open_slide(options.source)


def _gravest_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return each finding once, in order of severity and otherwise as they are."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda each: -each.severity.rank))


def _make_all(series: SeriesView, options: ValidationOptions) -> list[Finding]:
    """Make the checks that are asked for; those that wait for another program begin first, in a thread of their own."""
    wanted = [
        check
        for check in _CHECKS
        if options.profile in check.profiles
        and (check.any_class or series.is_wsi)
        and not (options.headers_only and check.reads_pixel_data)
    ]
    with ThreadPoolExecutor(1) as executor:
        beside = {check.module: executor.submit(_make, check, series, options) for check in wanted if check.beside}
        return [
            each
            for check in wanted
            for each in (beside[check.module].result() if check.beside else _make(check, series, options))
        ]


def _make(check: _Check, series: SeriesView, options: ValidationOptions) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(import_module(f"coverslip.validators.{check.module}").check(series, options))
    except MissingDependencyError as error:
        found.append(finding("validator.dependency", f"{check.module}: {error}"))
    except Exception as error:  # noqa: BLE001 - a damaged file may break a check in any way; the others go on
        found.append(finding("validator.failed", f"{check.module}: {type(error).__name__}: {error}"))
    return found
