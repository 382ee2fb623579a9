"""Data sets as DICOMweb tells of them (PS3.18 Annex F), and their comparison with those of files.

A store may change what has no meaning: padding, the character set it answers in, numbers written another way, empty
elements left out. All else is a difference, which is told without values.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from coverslip.errors import StoreError
from coverslip.stores.quiet import no_pydicom_warnings

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

__all__ = ["iter_differences", "parse_instances", "parse_metadata"]

_PIXEL_GROUP = 0x7FE0
_OF_THE_STORE = frozenset(
    {
        0x00080005,  # Specific Character Set: of the answer
        0x00080054,  # Retrieve AE Title
        0x00080056,  # Instance Availability
        0x00081190,  # Retrieve URL
        0x00083001,  # Available Transfer Syntax UID, as dictionaries have had it
        0x00083002,  # Available Transfer Syntax UID
        0xFFFCFFFC,  # Data Set Trailing Padding
    }
)


def parse_instances(content: bytes, what: str) -> list[dict[str, Any]]:
    """Return the data sets of an answer in the DICOM JSON model.

    Raises
    ------
    StoreError
        If it is something else.
    """
    if not content.strip():
        return []
    try:
        found = json.loads(content)
    except ValueError:
        raise StoreError(f"{what}: the store's answer is no JSON", retryable=True) from None
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise StoreError(f"{what}: the store's answer is not in the DICOM JSON model")
    return found


def parse_metadata(model: Mapping[str, Any], read_bulk: Callable[[str], bytes], what: str) -> Dataset:
    """Return a data set without pixel data.

    Parameters
    ----------
    model : mapping
        One data set in the DICOM JSON model.
    read_bulk : callable
        Gives the bytes at a BulkDataURI.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    kept = {tag: value for tag, value in model.items() if tag[:4].upper() not in ("0002", "7FE0")}
    try:
        with no_pydicom_warnings():
            header = Dataset.from_json(kept, bulk_data_uri_handler=lambda _tag, _vr, uri: read_bulk(uri))
    except StoreError:
        raise
    except Exception:  # noqa: BLE001 - pydicom lets through what its conversions raise; values are not shown
        raise StoreError(f"{what}: metadata that cannot be read as DICOM JSON") from None
    header.file_meta = FileMetaDataset()
    syntax = next((model[tag].get("Value") for tag in ("00020010", "00083002") if tag in model), None)
    if syntax:
        header.file_meta.TransferSyntaxUID = UID(str(syntax[0]))
    return header


def iter_differences(found: Dataset, wanted: Dataset, path: str = "") -> Iterator[str]:
    """Yield a line for each element of two data sets that means something else in the other."""
    found_elements, wanted_elements = _compared(found), _compared(wanted)
    for tag in sorted(found_elements.keys() | wanted_elements.keys()):
        one, other = found_elements.get(tag), wanted_elements.get(tag)
        name = path + _name(one or other)
        if one is not None and other is not None and "SQ" in (one.VR, other.VR):
            yield from _sequence_differences(one, other, name)
            continue
        one_value, other_value = _meaning(one), _meaning(other)
        if _is_same(one_value, other_value):
            continue
        if not one_value:
            yield f"{name}: not in the store"
        elif not other_value:
            yield f"{name}: only in the store"
        else:
            yield f"{name}: another value"


def _sequence_differences(one: DataElement, other: DataElement, name: str) -> Iterator[str]:
    if one.VR != other.VR:
        yield f"{name}: {one.VR}, expected {other.VR}"
        return
    if len(one.value) != len(other.value):
        yield f"{name}: {len(one.value)} items, expected {len(other.value)}"
        return
    for number, (found, wanted) in enumerate(zip(one.value, other.value, strict=True), 1):
        yield from iter_differences(found, wanted, f"{name}[{number}].")


def _compared(header: Dataset) -> dict[int, DataElement]:
    return {
        int(element.tag): element
        for element in header
        if element.tag.element != 0 and element.tag.group not in (2, _PIXEL_GROUP) and element.tag not in _OF_THE_STORE
    }


def _name(element: DataElement | None) -> str:
    assert element is not None
    return element.keyword or f"({element.tag.group:04X},{element.tag.element:04X})"


def _meaning(element: DataElement | None) -> tuple[Any, ...]:
    """Return the values of an element as far as they mean something; none if it is absent or empty."""
    if element is None or element.value is None:
        return ()
    if element.VR == "SQ":
        return tuple(element.value)
    values = element.value if element.VM > 1 else [element.value]
    meant = tuple(_plain(element.VR, value) for value in values)
    return () if all(value in ("", b"", None) for value in meant) else meant


def _plain(vr: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return value.rstrip(b"\0") if len(value) % 2 == 0 and value.endswith(b"\0") else value
    if vr in ("DS", "FD", "OD") and value not in ("", None):
        return float(value)
    if vr == "FL" and value is not None:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    if vr == "IS" and value not in ("", None):
        return int(value)
    if vr == "PN":
        return str(value).rstrip("=^ ")
    return value.strip(" \0") if isinstance(value, str) else value


def _is_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    if len(one) != len(other):
        return False
    for left, right in zip(one, other, strict=True):
        if isinstance(left, float) and isinstance(right, float):
            if not (math.isclose(left, right, rel_tol=1e-12) or (math.isnan(left) and math.isnan(right))):
                return False
        elif isinstance(left, bytes) != isinstance(right, bytes):
            # A private element whose VR only one side knows.
            if _as_bytes(left) != _as_bytes(right):
                return False
        elif left != right:
            return False
    return True


def _as_bytes(value: Any) -> bytes:
    return (value if isinstance(value, bytes) else str(value).encode()).rstrip(b" \0")
