"""The rules by which an attribute of DICOM becomes a column: those of the Healthcare API's export to BigQuery.

docs/tables.md states them. Type and mode follow from the data dictionary alone, never from what a file holds, so that
one keyword has one column whoever wrote the file. What has no column, or does not fit it, is dropped and recorded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import lru_cache
from typing import Any

from coverslip.catalog.schema import Field

__all__ = [
    "MAX_DEPTH",
    "MAX_SEQUENCE_BYTES",
    "OTHER_ELEMENTS",
    "PARSERS",
    "PERSON_NAME_FIELDS",
    "Drop",
    "field_of",
    "parse_person_name",
    "type_of",
]

MAX_DEPTH = 15
"""Nesting beyond this has no column."""

MAX_SEQUENCE_BYTES = 1024 * 1024
"""A sequence of the top level whose extracted values reach this is dropped."""

_TYPES = {
    **dict.fromkeys("AE AS CS LO LT SH ST UC UI UR UT DS IS".split(), "STRING"),
    **dict.fromkeys("AT SL SS UL US SV UV".split(), "INTEGER"),
    **dict.fromkeys("FL FD".split(), "FLOAT"),
    "DA": "DATE",
    "TM": "TIME",
    "DT": "TIMESTAMP",
    "PN": "RECORD",
    "SQ": "RECORD",
}

_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")

PERSON_NAME_FIELDS = tuple(
    Field(group, "RECORD", "NULLABLE", tuple(Field(part) for part in _NAME_PARTS)) for group in _NAME_GROUPS
)

OTHER_ELEMENTS = Field("OtherElements", "RECORD", "REPEATED", (Field("Tag"), Field("Data", "STRING", "REPEATED")))
"""Private elements that are no sequences, at their nesting level."""


@dataclass(frozen=True, slots=True, order=True)
class Drop:
    """What of a data set is not in its row, and why: ``ICCProfile``, ``binary``."""

    path: str
    reason: str


def type_of(vr: str) -> str | None:
    """Return the type of a column for a value representation of the dictionary, None if it has none.

    Where the dictionary leaves a choice, it is among numbers ("US or SS") or with bytes ("US or OW"), and the number
    decides.
    """
    for choice in vr.split(" or "):
        if choice in _TYPES:
            return _TYPES[choice]
    return None


@lru_cache(maxsize=8192)
def field_of(tag: int) -> Field | None:
    """Return the column of a public tag, records of sequences without their fields; None if it has none."""
    from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VM, dictionary_VR, repeater_has_tag

    repeats = not dictionary_has_tag(tag)
    if repeats and not repeater_has_tag(tag):
        return None
    vr, vm, name = dictionary_VR(tag), dictionary_VM(tag), dictionary_keyword(tag)
    kind = type_of(vr)
    if kind is None or not name:
        return None
    if vr == "SQ":
        return Field(name, "RECORD", "REPEATED")
    fields = PERSON_NAME_FIELDS if vr == "PN" else ()
    mode = "NULLABLE" if vm == "1" else "REPEATED"
    if repeats and tag >> 24 in (0x50, 0x60):
        return Field(name, "RECORD", "REPEATED", (Field("Id"), Field("Value", kind, mode, fields)))
    return Field(name, kind, mode, fields)


_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})[.-](\d\d)[.-](\d\d)")
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6})\d*)?)?)?")
_DATETIME = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.(\d{1,6})\d*)?([+-]\d{4})?")


def _parse_date(text: str) -> date:
    found = _DATE.fullmatch(text)
    if not found:
        raise ValueError("no date")
    year, month, day = (int(part) for part in found.groups() if part)
    return date(year, month, day)


def _parse_time(text: str) -> time:
    found = _TIME.fullmatch(text)
    if not found:
        raise ValueError("no time of day")
    hour, minute, second, fraction = found.groups()
    # A leap second has no place in a TIME: it becomes the last one that has.
    return time(int(hour), int(minute or 0), min(int(second or 0), 59), int((fraction or "").ljust(6, "0")))


def _parse_datetime(text: str) -> datetime:
    found = _DATETIME.fullmatch(text)
    if not found:
        raise ValueError("no date and time")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    offset = timezone.utc if not zone else timezone(_offset(zone))  # noqa: UP017 - either kind of zone
    moment = datetime(
        int(year),
        int(month or 1),
        int(day or 1),
        int(hour or 0),
        int(minute or 0),
        min(int(second or 0), 59),
        int((fraction or "").ljust(6, "0")),
        tzinfo=offset,
    )
    return moment.astimezone(UTC)


def _offset(zone: str) -> timedelta:
    minutes = int(zone[1:3]) * 60 + int(zone[3:])
    return timedelta(minutes=-minutes if zone[0] == "-" else minutes)


def _parse_integer(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError("more than 64 bits")
    return value


def parse_person_name(text: str) -> dict[str, Any] | None:
    """Return the record of one PN value, None if nothing is in it."""
    found = {}
    for group, value in zip(_NAME_GROUPS, text.split("="), strict=False):
        parts = {
            part: given for part, each in zip(_NAME_PARTS, value.split("^"), strict=False) if (given := each.strip())
        }
        if parts:
            found[group] = parts
    return found or None


def _parse_string(text: str) -> str:
    return text


PARSERS: dict[str, Callable[[str], Any]] = {
    "STRING": _parse_string,
    "INTEGER": _parse_integer,
    "FLOAT": float,
    "DATE": lru_cache(maxsize=1024)(_parse_date),
    "TIME": lru_cache(maxsize=1024)(_parse_time),
    "TIMESTAMP": lru_cache(maxsize=1024)(_parse_datetime),
    "RECORD": parse_person_name,
}
"""From the text of one value to what its column holds, by type; ValueError if it does not fit."""
