"""Which field of a vendor's file feeds which DICOM attribute: one TOML table per vendor, in `vendor/`.

A table names fields; how their text is parsed is the business of the code that reads the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["RESTRICTED", "VendorTable", "load_vendor", "parse_datetime", "parse_zone"]

RESTRICTED = ("OperatorsName", "StationName", "BarcodeValue", "ImageComments")
"""Attributes that only a de-identification policy which asks for them lets out."""

_FOLDER = Path(__file__).with_name("vendor")
_DATE_TIME = re.compile(
    r"(\d{4})\D?(\d\d)\D?(\d\d)\D?(\d\d)\D?(\d\d)\D?(\d\d)(?:\.\d+)?\s?(Z|[+-]\d\d:?\d\d)?(?!\d)", re.ASCII
)
_ZONE = re.compile(r"(?:GMT|UTC)?([+-])(\d\d):?(\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class VendorTable:
    """What one vendor's fields mean.

    Parameters
    ----------
    title : str or None
        Of the format, for people.
    manufacturer : str or None
        Where the file names none.
    overview_label : str or None
        End of the overview that shows the label: ``"left"`` or ``"right"``; None if that is not certain.
    focus_method : str
        Focus Method (PS3.3 C.8.12.4) of the vendor's scanners.
    datetime_format : str or None
        Form of dates that do not begin with the year, as `datetime.strptime` has it.
    fields : mapping
        DICOM keyword to names of fields; the first that holds text is taken.
    identifying : re.Pattern
        Finds the names of fields that may identify a person, a slide or a place.
    """

    title: str | None
    manufacturer: str | None
    overview_label: str | None
    focus_method: str
    datetime_format: str | None
    fields: Mapping[str, tuple[str, ...]]
    identifying: re.Pattern[str]

    def text(self, keyword: str, properties: Mapping[str, str]) -> str | None:
        """Return the text that feeds an attribute, without spaces around it; None if no field holds any."""
        found = (properties.get(name, "").strip() for name in self.fields.get(keyword, ()))
        return next(filter(None, found), None)

    def number(self, keyword: str, properties: Mapping[str, str]) -> float | None:
        """Return the same as a number, with a decimal point or comma; None if it is absent or no number."""
        try:
            return float((self.text(keyword, properties) or "").replace(",", "."))
        except ValueError:
            return None

    def lens_power(self, properties: Mapping[str, str]) -> float | None:
        """Return the objective's magnification, None if it is absent or absurd."""
        power = self.number("ObjectiveLensPower", properties)
        return power if power is not None and 0 < power <= 200 else None

    def acquisition_datetime(self, properties: Mapping[str, str]) -> datetime | None:
        """Return Acquisition DateTime, with the time zone where the text or its own field gives one."""
        moment = parse_datetime(self.text("AcquisitionDateTime", properties) or "", self.datetime_format)
        if moment is None or moment.tzinfo is not None:
            return moment
        return moment.replace(tzinfo=parse_zone(self.text("TimezoneOffsetFromUTC", properties) or ""))

    def restricted(self, properties: Mapping[str, str]) -> dict[str, str]:
        """Return the attributes of `RESTRICTED` that the file gives."""
        return {keyword: text for keyword in RESTRICTED if (text := self.text(keyword, properties))}

    def identifying_fields(self, properties: Mapping[str, str]) -> dict[str, str]:
        """Return the fields whose names say that they may identify, those that feed such attributes among them."""
        restricted = self._feeding(*RESTRICTED, "DeviceSerialNumber")
        equipment = self._feeding("Manufacturer", "ManufacturerModelName", "SoftwareVersions")
        return {
            name: text
            for name, text in properties.items()
            if text and (name in restricted or (self.identifying.search(name) and name not in equipment))
        }

    def _feeding(self, *keywords: str) -> set[str]:
        return {name for keyword in keywords for name in self.fields.get(keyword, ())}


@cache
def load_vendor(name: str) -> VendorTable:
    """Return the table of a vendor, the generic one if it has none of its own.

    A vendor's table adds to the generic one; what both have is the vendor's.
    """
    generic = _read("generic")
    path = _FOLDER / f"{name}.toml"
    own = _read(name) if re.fullmatch(r"[a-z-]+", name) and path.is_file() else generic
    fields = {**generic["fields"], **own.get("fields", {})}
    return VendorTable(
        title=own.get("title"),
        manufacturer=own.get("manufacturer"),
        overview_label=own.get("overview_label"),
        focus_method=own["focus_method"],
        datetime_format=own.get("datetime_format"),
        fields={keyword: tuple(names) for keyword, names in fields.items()},
        identifying=re.compile(own.get("identifying", generic["identifying"])["fields"], re.IGNORECASE),
    )


def parse_datetime(text: str, other_format: str | None = None) -> datetime | None:
    """Read year, month, day, hour, minute and second, parted or not, and a time zone after them; else another form."""
    parts = _DATE_TIME.match(text)
    if parts is None:
        try:
            return datetime.strptime(text, other_format) if other_format else None
        except ValueError:
            return None
    zone = parts[7]
    try:
        numbers = [int(part) for part in parts.groups()[:6]]
        moment = datetime(*numbers)  # type: ignore[arg-type]
    except ValueError:
        return None
    return moment.replace(tzinfo=parse_zone("+00:00" if zone == "Z" else zone or ""))


def parse_zone(text: str) -> timezone | None:
    """Read an offset from UTC such as ``+0200``, ``-05:00`` or ``GMT-05:00``."""
    parts = _ZONE.fullmatch(text.strip())
    if parts is None:
        return None
    offset = timedelta(hours=int(parts[2]), minutes=int(parts[3])) * (-1 if parts[1] == "-" else 1)
    return timezone(offset) if abs(offset) <= timedelta(hours=14) and int(parts[3]) < 60 else None


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
