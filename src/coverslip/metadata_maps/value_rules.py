"""What a value of each DICOM value representation may be (PS3.5 6.2), and how a table's text becomes one."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal, InvalidOperation

__all__ = [
    "DATE_VRS",
    "MAX_LENGTHS",
    "MisfitError",
    "age_text",
    "decimal_text",
    "fit_text",
    "parse_quantity",
    "to_unit",
    "unit_name",
]

MAX_LENGTHS = {
    "AE": 16, "AS": 4, "CS": 16, "DA": 8, "DS": 16, "DT": 26, "IS": 12, "LO": 64, "LT": 10240, "PN": 64, "SH": 16,
    "ST": 1024, "TM": 14, "UI": 64,
}  # fmt: skip
"""Characters; of a person name, those of each of its component groups."""

DATE_VRS = ("DA", "TM", "DT")
_ISO_FORMATS = {
    "DA": ("%Y%m%d", "%Y-%m-%d"),
    "TM": ("%H%M%S", "%H:%M:%S", "%H:%M", "%H%M"),
    "DT": ("%Y%m%d%H%M%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y%m%d", "%Y-%m-%d"),
}
_INTEGERS = {
    "US": (0, 2**16), "SS": (-(2**15), 2**15), "UL": (0, 2**32), "SL": (-(2**31), 2**31), "IS": (-(2**31), 2**31),
    "UV": (0, 2**64), "SV": (-(2**63), 2**63),
}  # fmt: skip
_PATTERNS = {
    "AE": (r"[ -\[\]-~]*", "printable ASCII"),
    "AS": (r"\d{3}[DWMY]", "an age such as 042Y"),
    "CS": (r"[A-Z0-9 _]*", "capital letters, digits, spaces and underscores"),
    "UI": (r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", "a UID"),
}

# Each unit as a multiple of the first of its kind.
_UNITS = {
    "length": {"nm": "1", "um": "1000", "mm": "1000000", "cm": "10000000", "m": "1000000000", "in": "25400000"},
    "mass": {"mg": "1", "g": "1000", "kg": "1000000", "lb": "453592.37"},
    "duration": {"d": "1", "wk": "7", "mo": "30.4375", "a": "365.25"},
    "concentration": {"ug/ml": "1", "mg/ml": "1000"},
    "ratio": {"1": "1", "%": "0.01"},
}
_AGE_LETTERS = {"d": "D", "wk": "W", "mo": "M", "a": "Y"}
_UNIT_NAMES = {
    "µm": "um", "μm": "um", "âµm": "um", "micron": "um", "microns": "um", "micrometer": "um", "micrometre": "um",
    "day": "d", "days": "d", "week": "wk", "weeks": "wk", "month": "mo", "months": "mo", "year": "a", "years": "a",
    "inch": "in", "µg/ml": "ug/ml", "μg/ml": "ug/ml", "percent": "%",
}  # fmt: skip


class MisfitError(Exception):
    """A text is no value of its VR; `kind` is that of the problem to report."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def fit_text(text: str, vr: str, *, formats: tuple[str, ...] = (), max_length: int | None = None) -> str | int | float:
    """Return a text as one value of a VR.

    Parameters
    ----------
    text : str
        Not empty.
    vr : str
    formats : tuple of str
        Of dates and times, as `datetime.strptime` reads them; none: those of DICOM and ISO 8601.
    max_length : int, optional
        Characters, if fewer are wanted than the VR allows.

    Raises
    ------
    MisfitError
        If the text is not a value of this VR, or too long.
    """
    if vr in DATE_VRS:
        return _fit_date(text, vr, formats)
    if vr in _INTEGERS:
        return _fit_integer(text, vr)
    if vr in ("DS", "FL", "FD"):
        decimal = decimal_text(text)
        if vr != "DS":
            return float(decimal)
        text = decimal
    elif vr == "PN" and "^" not in text and "=" not in text:
        text += "^"  # one component only: it is the family name (PS3.5 6.2.1)
    _check_characters(text, vr)
    limit = min(filter(None, (MAX_LENGTHS.get(vr), max_length)), default=None)
    length = max(map(len, text.split("="))) if vr == "PN" else len(text)
    if limit is not None and length > limit:
        allowed = f"{vr} holds" if limit == MAX_LENGTHS.get(vr) else "the map allows"
        raise MisfitError("too-long", f"{length} characters, {allowed} {limit}")
    return text


def decimal_text(text: str) -> str:
    """Return a number in its shortest form without exponent, "40" for "40.0", where 16 characters hold it."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise MisfitError("invalid", f"{text!r} is not a number")
    plain = f"{number:f}"
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return plain if len(plain) <= MAX_LENGTHS["DS"] else f"{float(number):.10g}"


def parse_quantity(text: str, default_unit: str) -> tuple[Decimal, str]:
    """Part a text such as ``"0.25 µm"`` into number and unit; without a unit it is in the default one."""
    match = re.fullmatch(r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(\S*)", text)
    if match is None:
        raise MisfitError("invalid", f"{text!r} is not a number with a unit")
    unit = unit_name(match[2]) if match[2] else default_unit
    return Decimal(decimal_text(match[1])), unit


def unit_name(text: str) -> str:
    """Return the UCUM symbol of a unit.

    Raises
    ------
    MisfitError
        If the unit is not known.
    """
    lower = text.strip().lower()
    unit = _UNIT_NAMES.get(lower, lower)
    if not any(unit in units for units in _UNITS.values()):
        raise MisfitError("invalid", f"unit {text!r} is not known")
    return unit


def to_unit(number: Decimal, unit: str, wanted: str) -> Decimal:
    """Convert between units of one kind, exactly."""
    for units in _UNITS.values():
        if unit in units and wanted in units:
            return number * Decimal(units[unit]) / Decimal(units[wanted])
    raise MisfitError("invalid", f"{unit} cannot be given in {wanted}")


def age_text(number: Decimal, unit: str) -> str:
    """Return an Age String in completed units: the given unit where three digits hold the age, else years."""
    for wanted in (unit, "a"):
        count = int(to_unit(number, unit, wanted))
        if 0 <= count <= 999:
            return f"{count:03}{_AGE_LETTERS[wanted]}"
    raise MisfitError("invalid", f"{number} {unit} is not an age")


def _fit_date(text: str, vr: str, formats: tuple[str, ...]) -> str:
    for each in formats or _ISO_FORMATS[vr]:
        try:
            found = datetime.strptime(text, each)
        except ValueError:
            continue
        if text.isdigit() and len(text) != len(found.strftime(each)):
            continue  # "2020115" would pass for the fifth of November
        day = found.date().isoformat().replace("-", "")
        if vr == "DA":
            return day
        if vr == "TM":
            return found.strftime("%H%M%S")
        return f"{day}{found:%H%M%S}{found:%z}" if "%H" in each or "%I" in each else day
    wanted = " or ".join(formats) if formats else "YYYYMMDD or ISO 8601; `date` tells another form"
    raise MisfitError("invalid", f"{text!r} is not a date or time of the form {wanted}")


def _fit_integer(text: str, vr: str) -> str | int:
    try:
        number = int(decimal_text(text))
    except ValueError:
        raise MisfitError("invalid", f"{text!r} is not a whole number") from None
    low, high = _INTEGERS[vr]
    if not low <= number < high:
        raise MisfitError("invalid", f"{number} is not a value of {vr}")
    return str(number) if vr == "IS" else number


def _check_characters(text: str, vr: str) -> None:
    pattern, wanted = _PATTERNS.get(vr, ("", ""))
    if pattern and not re.fullmatch(pattern, text):
        # Text of the right characters that is merely too long is told so.
        raise MisfitError("invalid", f"{text!r} is not a value of {vr}, wanted {wanted}")
    if vr in ("ST", "LT", "UT"):
        control = re.search(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]", text)
    else:
        control = re.search(r"[\x00-\x1f\x7f\\]", text)
    if control:
        raise MisfitError("invalid", f"holds the character {control[0]!r}, which {vr} does not allow")
