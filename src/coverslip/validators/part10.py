"""The file itself: preamble, file meta information, and what it says of the data set (PS3.10 7.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydicom.uid import UID

from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

_REQUIRED = (
    "FileMetaInformationGroupLength",
    "FileMetaInformationVersion",
    "MediaStorageSOPClassUID",
    "MediaStorageSOPInstanceUID",
    "TransferSyntaxUID",
    "ImplementationClassUID",
)
_LONG_VRS = (b"OB", b"OW", b"UN", b"SQ", b"UT", b"UC", b"UR")
_FIRST_ELEMENT = 132


def check(series: SeriesView, _options: ValidationOptions) -> Iterator[Finding]:
    """Tell which files cannot be read to the end of their header, and check the file meta information of the others."""
    yield from series.unreadable
    for instance in series.instances:
        yield from _check_instance(instance)


def _check_instance(instance: InstanceView) -> Iterator[Finding]:
    meta, ds, place = instance.file_meta, instance.header, instance.place()
    for tag in instance.unreadable:
        yield finding("part10.element", "the value cannot be read", f"{place}: {tag}")
    for keyword in _REQUIRED:
        if meta.get(keyword) in (None, "", b""):
            yield finding("part10.meta-missing", f"{keyword} is absent or empty", place)
    stated = meta.get("FileMetaInformationGroupLength")
    found = _group_length(instance)
    if isinstance(stated, int) and stated != found:
        yield finding("part10.group-length", f"group length is {stated}, the group has {found} bytes", place)
    if "MediaStorageSOPClassUID" in meta and meta.MediaStorageSOPClassUID != ds.get("SOPClassUID"):
        yield finding("part10.sop-class", "file meta and data set name different SOP classes", place)
    if "MediaStorageSOPInstanceUID" in meta and meta.MediaStorageSOPInstanceUID != ds.get("SOPInstanceUID"):
        yield finding("part10.sop-instance", "file meta and data set hold different SOP instance UIDs", place)
    syntax = instance.transfer_syntax_uid
    if syntax and not UID(syntax).is_transfer_syntax:
        yield finding("part10.transfer-syntax", f"{syntax} is no transfer syntax of DICOM", place)


def _group_length(instance: InstanceView) -> int:
    """Return the bytes of group 0002 after its first element."""
    data = instance.pread(1 << 16, _FIRST_ELEMENT)
    at, start = 0, 12
    while data[at : at + 2] == b"\x02\x00":
        if data[at + 4 : at + 6] in _LONG_VRS:
            at += 12 + int.from_bytes(data[at + 8 : at + 12], "little")
        else:
            at += 8 + int.from_bytes(data[at + 6 : at + 8], "little")
    return at - start
