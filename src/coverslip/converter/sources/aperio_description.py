"""What the ImageDescription of an Aperio SVS file says (Aperio "Digital Slides and Third-Party Data Interchange")."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from coverslip.metadata_maps.vendor_table import load_vendor, parse_zone

__all__ = ["AperioDescription", "parse_description"]

_TABLE = load_vendor("aperio")
_SOFTWARE = re.compile(r"(?:^|;)\s*(Aperio[^\r\n;|]*?)\s*(?=[\r\n;|]|$)")
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})$")
_TIME = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})$")
_KIND = re.compile(r"[\r\n]\s*(label|macro)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AperioDescription:
    """Header and fields of one ImageDescription."""

    text: str
    header: str
    fields: Mapping[str, str]

    @property
    def page_kind(self) -> str | None:
        """``label`` or ``macro`` if the header names the page so."""
        match = _KIND.search(self.header)
        return match[1].lower() if match else None

    @property
    def software_versions(self) -> tuple[str, ...]:
        """Programs that wrote the image, the last one first, e.g. ``("Aperio Image Library v11.2.1",)``."""
        return tuple(dict.fromkeys(_SOFTWARE.findall(self.header)))

    @property
    def lossy_method(self) -> str | None:
        """Lossy Image Compression Method of the compression that the header tells of."""
        if re.search(r"\bJPEG/", self.header):
            return "ISO_10918_1"
        return "ISO_15444_1" if re.search(r"\bJ2K\b.*\bQ=", self.header) else None

    @property
    def acquisition_datetime(self) -> datetime | None:
        """Date and Time, with Time Zone if it is given; None unless both are whole."""
        date = _DATE.match(_TABLE.text("AcquisitionDate", self.fields) or "")
        time = _TIME.match(_TABLE.text("AcquisitionTime", self.fields) or "")
        if not date or not time:
            return None
        year = int(date[3]) + (2000 if len(date[3]) == 2 else 0)
        try:
            moment = datetime(year, int(date[1]), int(date[2]), int(time[1]), int(time[2]), int(time[3]))
        except ValueError:
            return None
        if moment.year < 1900:
            # Scanners are younger: an earlier year is a mistake, and not all readers take one.
            return None
        return moment.replace(tzinfo=parse_zone(_TABLE.text("TimezoneOffsetFromUTC", self.fields) or ""))

    @property
    def identifying(self) -> dict[str, str]:
        """Fields that may identify a person or a slide, and the whole text."""
        return _TABLE.identifying_fields({**self.fields, "ImageDescription": self.text})

    def number(self, name: str) -> float | None:
        """Return a field as a number, with a decimal point or comma; None if it is absent or no finite number."""
        try:
            number = float(self.fields[name].replace(",", "."))
        except (KeyError, ValueError):
            return None
        return number if math.isfinite(number) else None


def parse_description(text: str) -> AperioDescription:
    """Split the text of an Aperio ImageDescription into header and ``name = value`` fields.

    Of fields with the same name the first wins.
    """
    header, *rest = text.split("|")
    fields: dict[str, str] = {}
    for part in rest:
        name, _, value = part.partition("=")
        fields.setdefault(name.strip(), value.strip())
    return AperioDescription(text, header, fields)
