"""The rules of export once more, by way of pydicom's values: slow, and written without a look at the reader."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
NUMBERS = {"US", "SS", "UL", "SL", "AT", "SV", "UV"}
NAME_PARTS = (
    ("family_name", "FamilyName"),
    ("given_name", "GivenName"),
    ("middle_name", "MiddleName"),
    ("name_prefix", "NamePrefix"),
    ("name_suffix", "NameSuffix"),
)


def reference_row(ds: Dataset) -> dict[str, Any]:
    """Return the row of a data set that was read without pixel data."""
    row = {**(level(ds.file_meta) if hasattr(ds, "file_meta") else {}), **level(ds)}
    row.pop("FileMetaInformationGroupLength", None)
    row.pop("PerFrameFunctionalGroupsSequence", None)
    return row


def level(ds: Dataset) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for element in ds:
        if element.tag >= 0x7FE00000 or element.tag.element == 0:
            continue
        if element.tag.is_private:
            if element.VR == "SQ":
                row[f"Tag_{int(element.tag):08X}"] = [level(item) for item in element.value]
            elif element.VR not in BINARY and element.value not in (None, ""):
                data = [str(value) for value in many(element.value)]
                row.setdefault("OtherElements", []).append({"Tag": f"Tag_{int(element.tag):08X}", "Data": data})
            continue
        if not dictionary_has_tag(element.tag):
            continue
        keyword, vr = dictionary_keyword(element.tag), dictionary_VR(element.tag).split(" or ")[0]
        if vr == "SQ":
            items = [level(item) for item in element.value]
            value: Any = items or None
        elif vr in BINARY or element.VR in BINARY:
            continue
        else:
            values = [converted for each in many(element.value) if (converted := convert(vr, each)) is not None]
            value = values if dictionary_VM(element.tag) != "1" else (values[0] if values else None)
        if value is not None and value != []:
            row[keyword] = value
    return row


def many(value: Any) -> list[Any]:
    if value is None or (isinstance(value, str) and value == ""):
        return []
    return list(value) if isinstance(value, MultiValue | list) else [value]


def convert(vr: str, value: Any) -> Any:
    if vr == "PN":
        return person(value)
    if vr in NUMBERS:
        return int(value)
    if vr in ("FL", "FD"):
        return float(value)
    text = getattr(value, "original_string", None) or str(value)
    text = text.removesuffix("+0000") if vr == "DT" else text
    if vr == "DA":
        return dt.datetime.strptime(text, "%Y%m%d").date()
    if vr == "TM":
        whole, _, fraction = text.partition(".")
        clock = dt.datetime.strptime(whole, {2: "%H", 4: "%H%M", 6: "%H%M%S"}[len(whole)]).time()
        return clock.replace(microsecond=int(fraction.ljust(6, "0")) if fraction else 0)
    if vr == "DT":
        whole, _, fraction = text.partition(".")
        moment = dt.datetime.strptime(whole.ljust(14, "0"), "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)
        return moment.replace(microsecond=int(fraction.ljust(6, "0")) if fraction else 0)
    return text


def person(value: Any) -> dict[str, Any] | None:
    groups = {}
    for group, text in (
        ("Alphabetic", value.alphabetic),
        ("Ideographic", value.ideographic),
        ("Phonetic", value.phonetic),
    ):
        found = dict(zip([name for _, name in NAME_PARTS], text.split("^"), strict=False))
        found = {name: part for name, part in found.items() if part}
        if found:
            groups[group] = found
    return groups or None
