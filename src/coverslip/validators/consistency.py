"""What the instances of a series, and the series of a study, must have in common (PS3.3 A.1.4, PS3.3 7.3)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import FoundSeries, SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check", "check_across_studies", "check_study"]

_PATIENT = "PatientID PatientName PatientBirthDate PatientSex IssuerOfPatientID".split()
_STUDY = "StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName StudyDescription".split()
_SERIES = "Modality SeriesNumber SeriesDescription".split()
_EQUIPMENT = "Manufacturer ManufacturerModelName DeviceSerialNumber SoftwareVersions StationName".split()
_CONTAINER = "ContainerIdentifier IssuerOfTheContainerIdentifierSequence ContainerTypeCodeSequence".split()
_IN_THE_PYRAMID = ("VOLUME", "THUMBNAIL")


def check(series: SeriesView, _options: ValidationOptions) -> Iterator[Finding]:
    """Check what all instances share, and what all of the pyramid share."""
    instances = series.instances
    uids = Counter(str(instance.header.get("SOPInstanceUID", "")) for instance in instances)
    for instance in instances:
        if uids[str(instance.header.get("SOPInstanceUID", ""))] > 1:
            yield finding("series.duplicate-instance", "another file has the same SOP Instance UID", instance.place())
    yield from (
        finding("series.patient", text, odd.place())
        for text, odd in _odd_attributes(instances, (*_PATIENT, "PatientIdentityRemoved"))
    )
    yield from (finding("series.study", text, odd.place()) for text, odd in _odd_attributes(instances, _STUDY))
    yield from (finding("series.series", text, odd.place()) for text, odd in _odd_attributes(instances, _SERIES))
    yield from (finding("series.equipment", text, odd.place()) for text, odd in _odd_attributes(instances, _EQUIPMENT))
    yield from (
        finding("series.container", text, odd.place()) for text, odd in _odd_attributes(series.slide_images, _CONTAINER)
    )
    yield from _check_pyramid(series)
    yield from _check_numbers(series)


def _check_pyramid(series: SeriesView) -> Iterator[Finding]:
    pyramid = [instance for instance in series.slide_images if instance.flavor in _IN_THE_PYRAMID]
    levels = list(chain.from_iterable(series.levels))
    for text, odd in _odd_attributes(pyramid, ("FrameOfReferenceUID", "PositionReferenceIndicator")):
        yield finding("series.frame-of-reference", text, odd.place())
    for text, odd in _odd_attributes(pyramid, ("AcquisitionUID", "AcquisitionDateTime")):
        yield finding("series.acquisition", text, odd.place())
    yield from (
        finding("series.specimen", text, odd.place())
        for text, odd in _odd_attributes(pyramid, ("SpecimenDescriptionSequence",))
    )
    yield from (
        finding("series.pyramid-uid", text, odd.place()) for text, odd in _odd_attributes(pyramid, ("PyramidUID",))
    )
    for text, odd in _odd_attributes(levels, ("ImageOrientationSlide",)):
        yield finding("series.orientation", text, odd.place())
    for text, odd in _odd(levels, "the origin of the total pixel matrix", _origin):
        yield finding("series.origin", text, odd.place())
    for identifier in sorted({path for instance in levels for path in instance.optical_path_identifiers}):
        having = [instance for instance in levels if identifier in instance.optical_path_identifiers]
        for text, odd in _odd(having, "an optical path", partial(_optical_path, identifier=identifier)):
            yield finding("series.optical-path", text, odd.place())


def _check_numbers(series: SeriesView) -> Iterator[Finding]:
    numbers = Counter(instance.number("InstanceNumber", -1) for instance in series.instances)
    for instance in series.instances:
        number = instance.number("InstanceNumber", -1)
        if number >= 0 and numbers[number] > 1 and "ConcatenationUID" not in instance.header:
            yield finding("series.instance-number", f"instance number {number} is used twice", instance.place())


def _odd_attributes(instances: Sequence[InstanceView], keywords: Iterable[str]) -> Iterator[tuple[str, InstanceView]]:
    """Yield (message, instance) of each instance that differs from most others in an attribute."""
    for keyword in keywords:
        yield from _odd(instances, keyword, partial(_text, keyword=keyword))


def _odd(
    instances: Sequence[InstanceView], name: str, value_of: Callable[[InstanceView], str]
) -> Iterator[tuple[str, InstanceView]]:
    values = [value_of(instance) for instance in instances]
    if len(set(values)) < 2:
        return
    usual = Counter(values).most_common(1)[0][0]
    example = instances[values.index(usual)].name
    for instance, value in zip(instances, values, strict=True):
        if value != usual:
            how = "is absent or empty, but not" if not value else "differs from that"
            yield f"{name} {how} in {example}", instance


def _text(instance: InstanceView, keyword: str) -> str:
    """Return a value, or a whole sequence, in a form that can be compared; empty and absent are the same."""
    value = instance.header.get(keyword)
    return "" if value is None or (hasattr(value, "__len__") and not len(value)) else str(value)


def _origin(instance: InstanceView) -> str:
    """Return X and Y to a micrometre: they are written with few digits."""
    sequence = instance.header.get("TotalPixelMatrixOriginSequence")
    if not sequence:
        return ""
    keywords = ("XOffsetInSlideCoordinateSystem", "YOffsetInSlideCoordinateSystem")
    return " ".join(f"{float(sequence[0].get(keyword) or 0):.3f}" for keyword in keywords)


def _optical_path(instance: InstanceView, identifier: str) -> str:
    """Return an optical path without its colour profile, which has rules of its own."""
    item = instance.header.OpticalPathSequence[instance.optical_path_identifiers.index(identifier)]
    return "\n".join(str(element) for element in item if element.keyword != "ICCProfile")


def check_study(study: Sequence[SeriesView]) -> Iterator[tuple[SeriesView, Finding]]:
    """Check what the series of a study have in common; yield the series that differs."""
    series_of = {id(series.instances[0]): series for series in study}
    firsts = [series.instances[0] for series in study]
    for text, odd in _odd_attributes(firsts, _STUDY[1:]):
        yield series_of[id(odd)], finding("study.study", text, odd.place())
    for text, odd in _odd_attributes(firsts, _PATIENT):
        yield series_of[id(odd)], finding("study.patient", text, odd.place())


def check_across_studies(found: Sequence[FoundSeries]) -> dict[str, list[Finding]]:
    """Check that studies of a patient agree about the patient, and that each instance is in one series.

    Returns
    -------
    dict
        Findings by Series Instance UID.
    """
    findings: dict[str, list[Finding]] = defaultdict(list)
    by_patient: dict[str, list[FoundSeries]] = defaultdict(list)
    series_of_instance: dict[str, FoundSeries] = {}
    for series in found:
        by_patient[series.patient[0]].append(series)
        for uid in series.sop_instance_uids:
            if series_of_instance.setdefault(uid, series) is not series:
                message = "an instance of another series has the same SOP Instance UID"
                findings[series.series_instance_uid].append(finding("study.duplicate-instance", message))
    for identifier, of_patient in by_patient.items():
        for number, keyword in enumerate(("PatientName", "PatientBirthDate", "PatientSex"), 1):
            usual = Counter(series.patient[number] for series in of_patient).most_common(1)[0][0]
            for series in of_patient if identifier else ():
                if series.patient[number] != usual:
                    message = f"{keyword} differs from that in other series of the same Patient ID"
                    findings[series.series_instance_uid].append(finding("study.patient", message))
    return findings
