"""What stores and the Imaging Data Commons take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

_UID = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))+")
_LONGEST_UID = 64
_MOST_NATIVE_BYTES = 2 << 30
_IN_THE_INDEX = frozenset(
    f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".4.50", ".4.51", ".4.70", ".4.80", ".4.90", ".4.91")
)
"""The transfer syntaxes that the SQL behind IDC's index lets through."""


def check(series: SeriesView, options: ValidationOptions) -> Iterator[Finding]:
    """Check what every store asks for, and what that of the profile does."""
    for instance in series.instances:
        yield from _check_uids(instance)
        if options.profile == "healthcare":
            yield from _check_healthcare(instance)
        elif options.profile == "idc":
            yield from _check_idc(instance)


def _check_uids(instance: InstanceView) -> Iterator[Finding]:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        uid = str(instance.header.get(keyword, ""))
        if len(uid) > _LONGEST_UID or not _UID.fullmatch(uid):
            yield finding("store.uid", f"{keyword} is {'no UID' if uid else 'absent'}", instance.place())


def _check_healthcare(instance: InstanceView) -> Iterator[Finding]:
    element = instance.pixel_element
    if element is not None and not instance.encapsulated and element[1] > _MOST_NATIVE_BYTES:
        yield finding("store.healthcare-native", f"{element[1]} bytes of uncompressed pixels", instance.place())


def _check_idc(instance: InstanceView) -> Iterator[Finding]:
    place = instance.place()
    if instance.transfer_syntax_uid not in _IN_THE_INDEX:
        yield finding("idc.transfer-syntax", f"transfer syntax {instance.transfer_syntax_uid}", place)
    if not str(instance.header.get("PatientID", "")).strip():
        yield finding("idc.patient-id", "Patient ID is empty", place)
    for item in instance.header.get("OpticalPathSequence") or ():
        power = str(item.get("ObjectiveLensPower") or "")
        if power and not re.fullmatch(r"[1-9]\d*", power):
            yield finding("idc.objective-power", f"Objective Lens Power is {power}, expected a whole number", place)
