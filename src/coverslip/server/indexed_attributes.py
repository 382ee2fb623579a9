"""The attributes that searches know without opening a file, their values as in DICOM JSON (PS3.18 Annex F)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "INSTANCE_KEYWORDS",
    "SERIES_KEYWORDS",
    "STUDY_KEYWORDS",
    "JsonElement",
    "Values",
    "as_element",
    "from_catalog",
    "from_header",
    "tag_and_vr",
]

type JsonElement = dict[str, Any]
type Values = tuple[Any, ...]
"""Of one attribute, as its Value is in JSON; empty for an empty or absent attribute."""

STUDY_KEYWORDS = tuple(
    "StudyInstanceUID StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyDescription StudyID PatientName "
    "PatientID IssuerOfPatientID PatientBirthDate PatientSex PatientAge".split()
)
SERIES_KEYWORDS = tuple(
    "SeriesInstanceUID Modality SeriesNumber SeriesDescription SeriesDate SeriesTime Manufacturer "
    "ManufacturerModelName BodyPartExamined ProtocolName ContainerIdentifier FrameOfReferenceUID "
    "PerformedProcedureStepStartDate PerformedProcedureStepStartTime".split()
)
INSTANCE_KEYWORDS = tuple(
    "SOPClassUID SOPInstanceUID InstanceNumber ImageType Rows Columns BitsAllocated NumberOfFrames "
    "TotalPixelMatrixColumns TotalPixelMatrixRows".split()
)
_NUMBERS = {"US", "UL", "SS", "SL", "IS", "UV", "SV"}
_DECIMALS = {"DS", "FL", "FD"}
_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


@cache
def tag_and_vr(keyword: str) -> tuple[str, str] | None:
    """Return (tag as eight hexadecimal digits, VR) of a keyword or tag of the dictionary, None if it is none."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None and len(keyword) == 8:
        try:
            tag = int(keyword, 16)
        except ValueError:
            return None
    if tag is None:
        return None
    try:
        return f"{tag:08X}", dictionary_VR(tag).split(" or ")[0]
    except KeyError:
        return None


def as_element(vr: str, values: Values) -> JsonElement:
    """Return an attribute in the DICOM JSON model."""
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def from_header(header: Dataset, keywords: Sequence[str]) -> Mapping[str, Values]:
    """Return the values of attributes of a data set, by keyword."""
    found: dict[str, Values] = dict.fromkeys(keywords, ())
    for keyword in keywords:
        if keyword in header:
            found[keyword] = tuple(header[keyword].to_json_dict(None, 1 << 20).get("Value", ()))
    return found


def from_catalog(keyword: str, value: Any) -> Values:
    """Return the values of a column of the catalog's table of headers."""
    if value is None or value == []:
        return ()
    known = tag_and_vr(keyword)
    assert known is not None
    each = value if isinstance(value, list) else [value]
    return tuple(_json_value(known[1], one) for one in each)


def _json_value(vr: str, value: Any) -> Any:
    if vr == "PN":
        return _name(value)
    if vr in _NUMBERS or vr in _DECIMALS:
        number = float(value)
        return int(number) if vr in _NUMBERS or number.is_integer() else number
    if isinstance(value, datetime):
        return f"{value:%Y%m%d%H%M%S.%f}"
    if isinstance(value, date):
        return f"{value:%Y%m%d}"
    if isinstance(value, time):
        return f"{value:%H%M%S.%f}" if value.microsecond else f"{value:%H%M%S}"
    return str(value)


def _name(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {"Alphabetic": str(value)}
    found = {}
    for group in _NAME_GROUPS:
        parts = value.get(group) or {}
        text = "^".join((parts.get(part) or "") for part in _NAME_PARTS).rstrip("^")
        if text:
            found[group] = text
    return found
