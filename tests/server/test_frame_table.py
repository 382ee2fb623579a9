"""Frames are found from whatever tells where they lie."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended

from coverslip.errors import CorruptSourceError
from coverslip.server.frame_table import build_frame_table, unwrap_items
from coverslip.validators.instance import InstanceView
from tests.factories.part10 import NATIVE, write_part10

FRAMES = [bytes([65 + index]) * (10 + 2 * index) for index in range(5)]


def written(folder: Path, kind: str) -> Path:
    path = write_part10(folder).path
    ds = pydicom.dcmread(path)
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        delattr(ds, keyword)
    if kind == "extended":
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(FRAMES)
    elif kind == "fragments":
        ds.PixelData = encapsulate(FRAMES, fragments_per_frame=2, has_bot=True)
    else:
        ds.PixelData = encapsulate(FRAMES, has_bot=kind == "basic")
    ds.save_as(path)
    return path


def read_frames(view: InstanceView) -> tuple[str, list[bytes]]:
    table = build_frame_table(view)
    assert table is not None
    spans = [view.pread(end - start, start) for start, end in zip(table.starts, table.ends, strict=True)]
    return table.origin, [unwrap_items(span) if table.encapsulated else span for span in spans]


@pytest.mark.parametrize(
    ("kind", "origin"), [("extended", "extended"), ("basic", "basic"), ("fragments", "basic"), ("none", "scan")]
)
def test_every_table_gives_the_same_frames(tmp_path: Path, kind: str, origin: str) -> None:
    assert read_frames(InstanceView(written(tmp_path, kind))) == (origin, FRAMES)


def test_native_frames_are_cut(tmp_path: Path) -> None:
    path = write_part10(tmp_path, transfer_syntax_uid=NATIVE).path
    origin, frames = read_frames(InstanceView(path))
    assert origin == "native"
    assert b"".join(frames) == pydicom.dcmread(path).PixelData


@pytest.mark.parametrize("offset", [7, 1 << 40, (1 << 64) - 1])
def test_a_table_that_lies_is_not_believed(tmp_path: Path, offset: int) -> None:
    path = written(tmp_path, "extended")
    ds = pydicom.dcmread(path)
    ds.ExtendedOffsetTable = ds.ExtendedOffsetTable[:-8] + offset.to_bytes(8, "little")
    ds.save_as(path)
    assert read_frames(InstanceView(path)) == ("scan", FRAMES)


def test_a_file_cut_short_has_no_table(tmp_path: Path) -> None:
    path = written(tmp_path, "basic")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(CorruptSourceError):
        build_frame_table(InstanceView(path))


def test_a_span_that_is_no_item_is_told() -> None:
    for span in (b"", b"12345678", b"\xfe\xff\x00\xe0\xff\xff\xff\x7fabc"):
        with pytest.raises(CorruptSourceError):
            unwrap_items(span)
