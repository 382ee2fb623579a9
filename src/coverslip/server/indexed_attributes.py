"""The attributes that searches know without opening a file, their values as in DICOM JSON (PS3.18 Annex F)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from functools import cache
from typing import TYPE_CHECKING, Any

from coverslip.stores.quiet import no_pydicom_warnings

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
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_NUMBERS = {"US", "UL", "SS", "SL", "IS", "UV", "SV"}
_DECIMALS = {"DS", "FL", "FD"}
_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


@cache
def tag_and_vr(keyword: str) -> tuple[str, str] | None:
    """Return (tag as eight hexadecimal digits, VR) of a keyword or tag of the dictionary, None if it is none."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None and _TAG.fullmatch(keyword):
        tag = int(keyword, 16)
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
    """Return the values of attributes of a data set, by keyword; damaged ones are empty."""
    found: dict[str, Values] = dict.fromkeys(keywords, ())
    for keyword in keywords:
        if keyword in header:
            with suppress(Exception), no_pydicom_warnings():  # pydicom lets through what its conversions raise
                values = header[keyword].to_json_dict(None, 1 << 20).get("Value", ())
                json.dumps(values, allow_nan=False)  # JSON knows no NaN
                found[keyword] = tuple(values)
    return found


def from_catalog(keyword: str, value: Any) -> Values:
    """Return the values of a column of the catalog's table of headers, without those that are not of their VR."""
    if value is None or value == []:
        return ()
    known = tag_and_vr(keyword)
    assert known is not None
    each = value if isinstance(value, list) else [value]
    found = []
    for one in each:
        with suppress(TypeError, ValueError, OverflowError):  # one damaged value must not hide all others
            found.append(_json_value(known[1], one))
    return tuple(found)


def _json_value(vr: str, value: Any) -> Any:
    if vr == "PN":
        return _name(value)
    if vr in _NUMBERS or vr in _DECIMALS:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError("JSON knows no NaN")
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
