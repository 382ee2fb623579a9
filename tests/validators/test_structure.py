"""The self-check, against files damaged on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coverslip.converter.instance_writer import md5_of_file
from coverslip.errors import ValidationFailedError
from coverslip.validators.structure import StructureExpectation, check_structure
from tests.factories.instances import FRAMES, PLAIN, expected, write

ITEM = b"\xfe\xff\x00\xe0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0"


def write_good(tmp_path: Path, table: str = "bot") -> tuple[Path, StructureExpectation]:
    written = write(tmp_path / "a.dcm", FRAMES, table=table)
    return written.path, expected(written)


def change(path: Path, edit: Callable[[bytearray], Any]) -> None:
    data = bytearray(path.read_bytes())
    edit(data)
    path.write_bytes(data)


def item(data: bytearray, index: int) -> int:
    """Return where an item of the pixel data starts; 0 is the Basic Offset Table."""
    position = data.rindex(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 12
    for _ in range(index):
        position += 8 + int.from_bytes(data[position + 4 : position + 8], "little")
    return position


@pytest.mark.parametrize("table", ["bot", "eot", "none"])
def test_whole_file_passes(tmp_path: Path, table: str):
    check_structure(*write_good(tmp_path, table))


@pytest.mark.parametrize("length", [1, 8, 20, 100])
def test_truncated_file_is_caught_by_its_size(tmp_path: Path, length: int):
    path, wanted = write_good(tmp_path)
    change(path, lambda data: data.__delitem__(slice(-length, None)))
    with pytest.raises(ValidationFailedError, match="file size"):
        check_structure(path, wanted)


@pytest.mark.parametrize("length", [1, 8, 9, 20])
def test_truncated_file_is_caught_by_its_items_too(tmp_path: Path, length: int):
    path, wanted = write_good(tmp_path)
    change(path, lambda data: data.__delitem__(slice(-length, None)))
    with pytest.raises(ValidationFailedError, match=r"end in the middle|tag of item"):
        check_structure(path, replace(wanted, size_bytes=wanted.size_bytes - length))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("sop_instance_uid", "2.25.9", "SOP Instance UID is 2.25.1234, expected 2.25.9"),
        ("transfer_syntax_uid", "1.2.840.10008.1.2.4.90", "transfer syntax"),
        ("number_of_frames", 5, "number of frames is 4, expected 5"),
        ("size_bytes", 10, "file size"),
        ("offset_table", "eot", "length of the basic offset table"),
        ("offset_table", "none", "length of the basic offset table"),
    ],
)
def test_file_that_is_not_the_one_meant_is_caught(tmp_path: Path, field: str, value: object, words: str):
    path, wanted = write_good(tmp_path)
    with pytest.raises(ValidationFailedError, match=words):
        check_structure(path, replace(wanted, **{field: value}))


def test_missing_table_is_caught(tmp_path: Path):
    path, wanted = write_good(tmp_path, "none")
    with pytest.raises(ValidationFailedError, match="length of the basic offset table is 0, expected 16"):
        check_structure(path, replace(wanted, offset_table="bot"))
    with pytest.raises(ValidationFailedError, match="offset table is 0 entries, expected the 4 of the items"):
        check_structure(path, replace(wanted, offset_table="eot"))


@pytest.mark.parametrize("entry", [0, 1, 3])
def test_shifted_entry_of_the_basic_table_is_caught(tmp_path: Path, entry: int):
    path, wanted = write_good(tmp_path)

    def shift(data: bytearray) -> None:
        data[item(data, 0) + 8 + 4 * entry] += 2

    change(path, shift)
    with pytest.raises(ValidationFailedError, match="offset table"):
        check_structure(path, wanted)


@pytest.mark.parametrize("tag", [b"\xe0\x7f\x01\x00OV", b"\xe0\x7f\x02\x00OV"])
@pytest.mark.parametrize("entry", [0, 3])
def test_shifted_entry_of_the_extended_table_or_its_lengths_is_caught(tmp_path: Path, tag: bytes, entry: int):
    path, wanted = write_good(tmp_path, "eot")

    def shift(data: bytearray) -> None:
        data[data.index(tag) + 12 + 8 * entry] += 2

    change(path, shift)
    with pytest.raises(ValidationFailedError, match="offset table"):
        check_structure(path, wanted)


def test_item_that_is_none_is_caught(tmp_path: Path):
    path, wanted = write_good(tmp_path)

    def break_tag(data: bytearray) -> None:
        data[item(data, 2)] ^= 1

    change(path, break_tag)
    with pytest.raises(ValidationFailedError, match="tag of item 1"):
        check_structure(path, wanted)


@pytest.mark.parametrize("length", [0, 3])
def test_item_of_impossible_length_is_caught(tmp_path: Path, length: int):
    path, wanted = write_good(tmp_path)

    def break_length(data: bytearray) -> None:
        data[item(data, 1) + 4] = length

    change(path, break_length)
    with pytest.raises(ValidationFailedError, match=f"item 0 has {length} bytes"):
        check_structure(path, wanted)


def test_frames_that_are_fewer_than_stated_are_caught(tmp_path: Path):
    path, wanted = write_good(tmp_path, "none")

    def drop(data: bytearray) -> None:
        del data[item(data, 4) : item(data, 5)]

    change(path, drop)
    with pytest.raises(ValidationFailedError, match="number of items is 3, expected 4"):
        check_structure(path, replace(wanted, size_bytes=path.stat().st_size))


def test_trailing_bytes_are_caught(tmp_path: Path):
    path, wanted = write_good(tmp_path)
    change(path, lambda data: data.extend(b"trailing"))
    with pytest.raises(ValidationFailedError, match="end of pixel data"):
        check_structure(path, replace(wanted, size_bytes=path.stat().st_size))


def test_native_pixels_of_another_length_are_caught(tmp_path: Path):
    written = write(tmp_path / "a.dcm", [bytes(48)] * 2, PLAIN)
    wanted = expected(written, PLAIN)
    check_structure(written.path, wanted)

    def shorten(data: bytearray) -> None:
        del data[-2:]
        data[-94 - 4] = 94

    change(written.path, shorten)
    with pytest.raises(ValidationFailedError, match="length of pixel data is 94, expected 96"):
        check_structure(written.path, replace(wanted, size_bytes=wanted.size_bytes - 2))


def test_header_that_is_garbage_is_caught(tmp_path: Path):
    path, wanted = write_good(tmp_path)
    path.write_bytes(bytes(wanted.size_bytes))
    with pytest.raises(ValidationFailedError, match="cannot be read"):
        check_structure(path, wanted)


def test_md5_is_that_of_the_whole_file(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"a" * 3_000_000)
    assert md5_of_file(path) == hashlib.md5(b"a" * 3_000_000).hexdigest()
    path.write_bytes(b"")
    assert md5_of_file(path) == "d41d8cd98f00b204e9800998ecf8427e"
