"""Values of elements, from their bytes to what their columns hold."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from coverslip.catalog.columns import Column, Kind

__all__ = ["NUMBERS", "How", "misfit_reason", "values_of"]

NUMBERS = {
    b"US": ("H", 2), b"SS": ("h", 2), b"UL": ("L", 4), b"SL": ("l", 4), b"FL": ("f", 4), b"FD": ("d", 8),
    b"UV": ("Q", 8), b"SV": ("q", 8), b"AT": ("HH", 4),
}  # fmt: skip
"""Value representations that are binary numbers: how one is unpacked, and its size."""


class How:
    """How the elements of a data set are read: byte order, whether VRs are written, and the character sets of text."""

    __slots__ = ("byte_order", "character_sets", "decode", "implicit", "item", "long", "name", "short")

    def __init__(self, *, implicit: bool, big: bool = False, character_sets: tuple[str, ...] = ()) -> None:
        self.byte_order = ">" if big else "<"
        self.implicit = implicit
        self.character_sets = character_sets
        self.short = struct.Struct(f"{self.byte_order}HH2sH").unpack_from
        self.long = struct.Struct(f"{self.byte_order}L").unpack_from
        self.item = struct.Struct(f"{self.byte_order}HHL").unpack_from
        self.decode = _text_decoder(character_sets)
        self.name = f"{self.byte_order}{implicit}{character_sets}"


@lru_cache(maxsize=128)
def how_to_read(*, implicit: bool, big: bool, character_sets: tuple[str, ...] = ()) -> How:
    """Return a way of reading."""
    return How(implicit=implicit, big=big, character_sets=character_sets)


def _text_decoder(character_sets: tuple[str, ...]) -> Callable[[bytes], str]:
    """Return what turns bytes into text under a Specific Character Set."""
    from pydicom.charset import convert_encodings, decode_bytes, default_encoding
    from pydicom.valuerep import TEXT_VR_DELIMS

    try:
        encodings = list(convert_encodings(list(character_sets) or [""]))
    except LookupError:
        encodings = [default_encoding]
    if len(encodings) == 1:
        codec = encodings[0]
        return lambda raw: raw.decode(codec, "replace")
    return lambda raw: decode_bytes(raw, encodings, TEXT_VR_DELIMS)


@lru_cache(maxsize=256)
def _unpacker(byte_order: str, letters: str, count: int) -> Callable[[bytes], tuple[Any, ...]]:
    return struct.Struct(f"{byte_order}{letters * count}").unpack


def values_of(column: Column, vr: bytes, raw: bytes, how: How) -> list[Any]:
    """Return the values of an element as its column holds them.

    Raises
    ------
    ValueError, struct.error
        If they do not fit it.
    """
    numbers = NUMBERS.get(vr)
    if numbers is not None:
        found = _numbers(column, vr, raw, how)
    else:
        text = how.decode(raw)
        if column.single_text:
            parts = [text.rstrip(" \0")]
        elif column.repeated or column.kind is Kind.PRIVATE:
            parts = [part.strip(" \0") for part in text.split("\\")]
        else:
            parts = [text.strip(" \0")]
        if parts == [""]:
            return []
        if column.type == "STRING":
            return parts
        # An empty one among several has no value; neither Parquet nor BigQuery has a place for it in a list.
        found = [value for part in parts if part and (value := column.parse(part)) is not None]
    if not column.repeated and len(found) > 1 and column.kind is not Kind.PRIVATE:
        raise ValueError(f"{len(found)} values, expected 1")
    return list(found)


def _numbers(column: Column, vr: bytes, raw: bytes, how: How) -> Sequence[Any]:
    letters, size = NUMBERS[vr]
    if len(raw) % size:
        raise ValueError(f"{len(raw)} bytes, expected a multiple of {size}")
    found: Sequence[Any] = _unpacker(how.byte_order, letters, len(raw) // size)(raw)
    if vr == b"AT":
        found = [group << 16 | element for group, element in zip(found[::2], found[1::2], strict=True)]
    if column.type == "STRING":
        return [str(value) for value in found]
    return [_as_number(column.type, value) for value in found]


def _as_number(kind: str, value: float) -> Any:
    if kind == "FLOAT":
        return float(value)
    if kind == "INTEGER" and int(value) == value and -(2**63) <= value < 2**63:
        return int(value)
    raise ValueError("no such value")


_REASONS = ("no date", "no time of day", "more than 64 bits", "values, expected", "bytes, expected")


def misfit_reason(error: Exception) -> str:
    """Return why a value does not fit, without the value."""
    text = str(error)
    return text if any(each in text for each in _REASONS) else "no such value"
