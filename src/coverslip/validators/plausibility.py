"""Values that the standard lets stand and that cannot be: dates that no calendar has, and specimens of no type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from coverslip.validators.rules import finding

if TYPE_CHECKING:
    from pydicom import Dataset

    from coverslip.validators.instance import InstanceView
    from coverslip.validators.report import Finding
    from coverslip.validators.series import SeriesView
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

_DATE_TIME = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.\d{1,6})?)?)?)?)?)?(?:[+-](?:0\d|1[0-4])[0-5]\d)?"
)
_FIRST_SCANNERS = 1990
_NO_DATE = "19000101"
"""What stands for a date of scanning that is not known."""


def check(series: SeriesView, _options: ValidationOptions) -> Iterator[Finding]:
    """Check dates against the calendar and each other, and the specimens of slide images."""
    for instance in series.instances:
        for path, text in _dates(instance.header):
            if _as_datetime(text) is None:
                # A date may identify: its place tells enough.
                yield finding("date.impossible", "no such date or time", f"{instance.place()}: {path}")
        yield from _check_order(instance)
    for instance in series.slide_images:
        for number, specimen in enumerate(instance.header.get("SpecimenDescriptionSequence") or (), 1):
            if not specimen.get("SpecimenTypeCodeSequence"):
                message = f"specimen {number} has no Specimen Type Code Sequence, 'Slide' expected"
                yield finding("specimen.no-type", message, instance.place())


def _dates(ds: Dataset, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and value of every date and date with time, but for those of single frames."""
    for element in ds:
        here = f"{path}{element.keyword or element.tag}"
        if element.VR == "SQ" and element.keyword != "PerFrameFunctionalGroupsSequence":
            for number, item in enumerate(element.value):
                yield from _dates(item, f"{here}[{number}].")
        elif element.VR in ("DA", "DT") and element.value:
            values = element.value if element.VM > 1 else [element.value]
            yield from ((here, str(each)) for each in values)


def _as_datetime(text: str) -> datetime | None:
    """Return a DICOM date or date with time, its absent parts the first there are; None if there is no such."""
    match = _DATE_TIME.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) if part else None for part in match.groups())
    try:
        # A leap second is the last of its minute.
        return datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, min(second or 0, 59))
    except ValueError:
        return None


def _check_order(instance: InstanceView) -> Iterator[Finding]:
    stated = {
        keyword: _as_datetime(str(instance.header.get(keyword) or ""))
        for keyword in ("PatientBirthDate", "StudyDate", "AcquisitionDateTime")
    }
    birth, study, scan = stated.values()
    unknown = str(instance.header.get("AcquisitionDateTime") or "").startswith(_NO_DATE)
    for name, date in (("study", study), ("scan", None if unknown else scan)):
        if birth is not None and date is not None and birth.date() > date.date():
            yield finding("date.birth", f"the patient is born after the {name}", instance.place())
    if scan is not None and scan.year < _FIRST_SCANNERS and not unknown:
        message = f"scanned before {_FIRST_SCANNERS}, when there were no slide scanners"
        yield finding("date.early", message, instance.place())
