"""Frames are found in every way that pixel data can be written (PS3.5 A.4)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate, encapsulate_extended
from tests.factories.part10 import NATIVE, write_part10

from coverslip.errors import StoreError
from coverslip.stores.part10 import Part10File, sample_frame_numbers

FRAMES = [bytes([number]) * (10 + 2 * number) for number in range(1, 6)]


def rewrite(tmp_path: Path, pixel_data: bytes, number_of_frames: int = len(FRAMES)) -> Part10File:
    path = write_part10(tmp_path).path
    ds = dcmread(path)
    del ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths
    ds.NumberOfFrames = number_of_frames
    ds.PixelData = pixel_data
    ds["PixelData"].is_undefined_length = True
    dcmwrite(path, ds)
    return Part10File(path)


def frames_of(file: Part10File) -> list[bytes]:
    return [file.read_frame(number) for number in range(1, file.number_of_frames + 1)]


@pytest.mark.parametrize("has_table", [False, True])
def test_frames_of_one_fragment_are_found_with_and_without_a_basic_table(tmp_path, has_table) -> None:
    assert frames_of(rewrite(tmp_path, encapsulate(FRAMES, has_bot=has_table))) == FRAMES


def test_frames_of_several_fragments_are_found_by_the_basic_table(tmp_path) -> None:
    file = rewrite(tmp_path, encapsulate(FRAMES, fragments_per_frame=3, has_bot=True))
    assert frames_of(file) == FRAMES
    assert len(file.frame_places(1)) > 1


def test_a_single_frame_has_all_fragments(tmp_path) -> None:
    assert frames_of(rewrite(tmp_path, encapsulate(FRAMES[:1], fragments_per_frame=3, has_bot=False), 1)) == FRAMES[:1]


def test_several_fragments_without_a_table_cannot_be_told_apart(tmp_path) -> None:
    file = rewrite(tmp_path, encapsulate(FRAMES, fragments_per_frame=2, has_bot=False))
    with pytest.raises(StoreError, match="10 fragments without an offset table, expected 5"):
        file.read_frame(1)


def test_frames_are_found_by_the_extended_table(tmp_path) -> None:
    path = write_part10(tmp_path).path
    ds = dcmread(path)
    ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(FRAMES)
    dcmwrite(path, ds)
    assert frames_of(Part10File(path)) == FRAMES


def test_native_frames_are_found(tmp_path) -> None:
    path = write_part10(tmp_path, transfer_syntax_uid=NATIVE).path
    file = Part10File(path)
    assert b"".join(frames_of(file)) == dcmread(path).PixelData
    assert file.pixel_data_bytes == len(dcmread(path).PixelData)


def test_an_instance_without_pixel_data_has_no_frames(tmp_path) -> None:
    path = write_part10(tmp_path).path
    ds = dcmread(path)
    del ds.PixelData
    dcmwrite(path, ds)
    assert Part10File(path).number_of_frames == 0


@pytest.mark.parametrize("number", [0, -1, 6])
def test_a_number_that_no_frame_has_is_a_programming_mistake(tmp_path, number) -> None:
    with pytest.raises(ValueError, match="of 5"):
        Part10File(write_part10(tmp_path).path).read_frame(number)


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(128) + b"DICM" + b"\xff" * 50])
def test_what_is_no_dicom_file_is_an_error(tmp_path, content) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.dcm"):
        _ = Part10File(path).number_of_frames


@pytest.mark.parametrize(
    "frames, count, numbers",
    [(0, 5, ()), (3, 5, (1, 2, 3)), (100, 5, (1, 25, 50, 75, 100)), (9, 1, (1,)), (9, 0, ()), (9, 2, (1, 9))],
)
def test_samples_are_spread_evenly(frames, count, numbers) -> None:
    assert sample_frame_numbers(frames, count) == numbers
