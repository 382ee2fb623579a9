"""Part 10 files, read back by pydicom and by the self-check."""

from __future__ import annotations

import hashlib
import io
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from openslide import OpenSlide
from pydicom import dcmread
from pydicom.encaps import generate_frames, get_frame, parse_basic_offsets
from pydicom.pixels import pixel_array
from tests.factories.instances import FRAMES, JPEG, LOSSLESS, PLAIN, SOP_INSTANCE_UID, expected, header, padded, write
from wsidicom import WsiDicom

from coverslip.converter import instance_writer
from coverslip.converter.dataset import (
    InstanceDescription,
    SeriesDescription,
    SeriesIdentity,
    build_instance_dataset,
    build_series_dataset,
    encode_header,
)
from coverslip.converter.instance_writer import HeaderWriter, InstanceWriter
from coverslip.converter.sources.base import OpticalPath, SlideMetadata
from coverslip.converter.uids import derive_uid
from coverslip.errors import StoreError, ValidationFailedError
from coverslip.metadata_maps.icc import srgb_input_profile
from coverslip.tiler.codecs.base import FrameFormat
from coverslip.tiler.grid import TileGrid
from coverslip.validators.structure import check_structure


@pytest.mark.parametrize(("table", "kind"), [("auto", "bot"), ("bot", "bot"), ("eot", "eot"), ("none", "none")])
@pytest.mark.parametrize("frames", [FRAMES, [b"x"], [bytes([index]) * (index + 1) for index in range(50)]])
def test_frames_come_back_padded_to_even_length(tmp_path: Path, table: str, kind: str, frames: list[bytes]):
    written = write(tmp_path / "a.dcm", frames, table=table)
    check_structure(written.path, expected(written))
    assert written.offset_table == kind
    assert written.size_bytes == written.path.stat().st_size
    assert written.frame_bytes == sum(map(len, frames))
    assert written.md5 == hashlib.md5(written.path.read_bytes()).hexdigest()
    ds = dcmread(written.path)
    assert list(generate_frames(ds.PixelData, number_of_frames=len(frames))) == padded(frames)
    extended = (ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths) if kind == "eot" else None
    for index in range(len(frames)):
        found = get_frame(ds.PixelData, index, number_of_frames=len(frames), extended_offsets=extended)
        assert found == padded(frames)[index]
    assert len(parse_basic_offsets(ds.PixelData)) == (len(frames) if kind == "bot" else 0)
    assert ("ExtendedOffsetTable" in ds) == (kind == "eot")


def test_native_frames_stand_one_after_another(tmp_path: Path):
    frames = [bytes(range(48)), bytes(range(48, 96))]
    written = write(tmp_path / "a.dcm", frames, PLAIN)
    check_structure(written.path, expected(written, PLAIN))
    assert written.offset_table == "none"
    assert dcmread(written.path).PixelData == b"".join(frames)


def test_native_pixels_of_odd_length_are_padded_once(tmp_path: Path):
    frame_format = FrameFormat("1.2.840.10008.1.2.1", "MONOCHROME2", 1, 8)
    written = write(tmp_path / "a.dcm", [b"a" * 9] * 3, frame_format, size=(3, 3))
    check_structure(written.path, expected(written, frame_format))
    assert dcmread(written.path).PixelData == b"a" * 27 + b"\0"


def test_wide_native_samples_are_other_word(tmp_path: Path):
    frame_format = FrameFormat("1.2.840.10008.1.2.1", "MONOCHROME2", 1, 16)
    written = write(tmp_path / "a.dcm", [bytes(32)], frame_format)
    assert dcmread(written.path)["PixelData"].VR == "OW"


def test_ratio_is_that_of_the_bytes_written(tmp_path: Path):
    written = write(tmp_path / "a.dcm", FRAMES)
    assert dcmread(written.path).LossyImageCompressionRatio == round(4 * 48 / sum(map(len, FRAMES)), 2)


def test_lossless_frames_have_no_ratio(tmp_path: Path):
    written = write(tmp_path / "a.dcm", FRAMES, LOSSLESS)
    assert "LossyImageCompressionRatio" not in dcmread(written.path)


@pytest.mark.parametrize("frames", [FRAMES[:3], [*FRAMES, b"more"]])
def test_wrong_number_of_frames_leaves_no_file(tmp_path: Path, frames: list[bytes]):
    path = tmp_path / "a.dcm"
    with pytest.raises(ValidationFailedError, match=f"{len(frames)} frames written, expected 4"):
        write(path, frames, number_of_frames=4)
    assert not path.exists()


def test_writer_left_early_leaves_no_file(tmp_path: Path):
    path = tmp_path / "a.dcm"
    with InstanceWriter(path, header(JPEG, 4, 4, 4), JPEG, 4, 48) as writer:
        writer.write_frames(FRAMES)
        assert writer.complete
    assert not path.exists()


def test_existing_file_is_never_written_to(tmp_path: Path):
    path = tmp_path / "a.dcm"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write(path, FRAMES)
    assert path.read_bytes() == b"mine"


def test_header_that_changes_its_length_is_caught(tmp_path: Path):
    def grow(ratio: float | None) -> bytes:
        return bytes(200 if not ratio else 201)

    with pytest.raises(ValidationFailedError, match="header of 221 bytes, 220 were reserved"):
        write(tmp_path / "a.dcm", FRAMES, table="none", write_header=grow)


def test_native_pixels_too_long_for_one_instance_are_refused_with_advice(tmp_path: Path):
    with pytest.raises(StoreError, match="choose a compressed codec"):
        InstanceWriter(tmp_path / "a.dcm", header(PLAIN, 4, 4, 1), PLAIN, 1 << 12, 1 << 20)
    assert list(tmp_path.iterdir()) == []


# Beyond the reach of 32-bit offsets.


@pytest.mark.parametrize("chunk", [7, 64, 1 << 24])
def test_frames_move_to_make_room_for_an_extended_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int):
    monkeypatch.setattr(instance_writer, "_LARGEST_BASIC_OFFSET", 30)
    monkeypatch.setattr(instance_writer, "_COPY_BYTES", chunk)
    written = write(tmp_path / "a.dcm", FRAMES)
    assert written.offset_table == "eot"
    check_structure(written.path, expected(written))
    ds = dcmread(written.path)
    assert list(generate_frames(ds.PixelData, number_of_frames=4)) == padded(FRAMES)
    monkeypatch.undo()
    assert written.path.read_bytes() == write(tmp_path / "b.dcm", FRAMES, table="eot").path.read_bytes()


def test_last_offset_that_just_fits_stays_in_the_basic_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Items of 4, 4 and 8 bytes and their headers stand before the last one.
    monkeypatch.setattr(instance_writer, "_LARGEST_BASIC_OFFSET", 40)
    assert write(tmp_path / "a.dcm", FRAMES).offset_table == "bot"
    monkeypatch.setattr(instance_writer, "_LARGEST_BASIC_OFFSET", 39)
    assert write(tmp_path / "b.dcm", FRAMES).offset_table == "eot"


def test_basic_table_that_was_asked_for_is_refused_where_it_does_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(instance_writer, "_LARGEST_BASIC_OFFSET", 30)
    with pytest.raises(StoreError, match="--offset-table eot"):
        write(tmp_path / "a.dcm", FRAMES, table="bot")
    assert not (tmp_path / "a.dcm").exists()


ZEROS = bytes(16 << 20)
FILLING = 2_200 << 20


def write_all_sparsely(file: io.FileIO, data: bytes) -> None:
    """Write as the writer does, but leave holes for zeros."""
    if len(data) > 4096 and data == ZEROS[: len(data)]:
        file.seek(len(data), os.SEEK_CUR)
    else:
        assert file.write(data) == len(data)


def slide_header(grid: TileGrid, frame_format: FrameFormat) -> HeaderWriter:
    """Return the header of a whole slide image of one level."""
    names = ("study", "series", "frame of reference", "acquisition", "pyramid", "dimension", "specimen")
    size = grid.total_pixel_matrix_rows, grid.total_pixel_matrix_columns
    identity = SeriesIdentity(*(derive_uid("2.25", name) for name in names), "S1")
    spacing_mm = 0.0005, 0.0005
    shared = build_series_dataset(
        SeriesDescription(identity, SlideMetadata(), (OpticalPath(),), 1, size, spacing_mm, None, srgb_input_profile())
    )
    image_type = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
    instance = InstanceDescription(SOP_INSTANCE_UID, 1, image_type, grid, frame_format, spacing_mm)
    return partial(encode_header, build_instance_dataset(shared, instance), instance)


@pytest.mark.parametrize("table", ["auto", "eot"])
def test_file_over_4_gib_is_read_to_its_last_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str):
    """Two frames carry 2.1 GiB of padding each, which a sparse file holds for nothing."""
    monkeypatch.setattr(instance_writer, "write_all", write_all_sparsely)
    monkeypatch.setattr(instance_writer, "md5_of_file", lambda path: "")  # of 4 GiB of holes takes ten seconds
    grid = TileGrid(256, 1024, 256, 256)
    picture = np.random.default_rng(1).integers(0, 256, (8, 32, 3), np.uint8).repeat(32, axis=0).repeat(32, axis=1)
    tiles = np.split(picture, 4, axis=1)
    frames = [simplejpeg.encode_jpeg(np.ascontiguousarray(tile), 95, "RGB", "422") for tile in tiles]
    frames = padded(frames)
    frame_format = FrameFormat("1.2.840.10008.1.2.4.50", "YBR_FULL_422", 3, 8, "ISO_10918_1")
    path = tmp_path / "a.dcm"
    with InstanceWriter(path, slide_header(grid, frame_format), frame_format, 4, 256 * 256 * 3, table) as writer:
        for frame in frames[:2]:
            writer._lengths.append(len(frame) + FILLING)
            writer._write(instance_writer._ITEM.pack(0xFFFE, 0xE000, len(frame) + FILLING) + frame)
            writer._file.seek(FILLING, os.SEEK_CUR)
        writer.write_frames(frames[2:])
        written = writer.finish()
    assert written.size_bytes > 4 << 30
    assert written.offset_table == "eot"
    assert path.stat().st_blocks * 512 < 100 << 20
    check_structure(path, expected(written, frame_format))

    last = simplejpeg.decode_jpeg(frames[3])
    with OpenSlide(path) as slide:
        assert slide.dimensions == (1024, 256)
        found = np.asarray(slide.read_region((768, 0), 0, (256, 256)).convert("RGB"))
        np.testing.assert_array_equal(found, last)
    with WsiDicom.open(path) as slide:
        np.testing.assert_array_equal(np.asarray(slide.read_region((768, 0), 0, (256, 256))), last)
    np.testing.assert_array_equal(pixel_array(path, index=3), last)
