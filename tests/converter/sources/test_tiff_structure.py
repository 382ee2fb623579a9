"""The TIFF structure reader, against tifffile and against files whose bytes are laid out by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.factories.aperio import write_aperio_svs
from tests.factories.damage import ifd_loop, truncate
from tests.factories.generic import write_tiled_tiff

from coverslip.converter.sources.tiff_structure import TagCode, TiffStructure
from coverslip.errors import CorruptSourceError, SourceError, UnsupportedSourceError


def assert_same_structure(path: Path) -> None:
    structure = TiffStructure(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            assert structure.is_bigtiff == tiff.is_bigtiff
            assert structure.byte_order == tiff.byteorder
            assert len(structure.pages) == len(tiff.pages)
            for page, theirs in zip(structure.pages, tiff.pages, strict=True):
                assert page.offset == theirs.offset
                assert (page.rows, page.columns) == (theirs.imagelength, theirs.imagewidth)
                assert page.compression == theirs.compression
                assert page.photometric == theirs.photometric
                assert page.description.strip() == theirs.description.strip()
                if not theirs.is_ndpi:  # tifffile computes the places of its tiles itself
                    offsets, counts = page.segments()
                    assert offsets.tolist() == list(theirs.dataoffsets)
                    assert counts.tolist() == list(theirs.databytecounts)
    finally:
        structure.close()


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("striped", [False, True])
def test_structure_of_every_kind_of_tiff_is_that_of_tifffile(tmp_path, byteorder, bigtiff, striped):
    path = tmp_path / "file.tif"
    write_tiled_tiff(path, rows=300, columns=200, tile=64, byteorder=byteorder, bigtiff=bigtiff, striped=striped)
    assert_same_structure(path)


@pytest.mark.parametrize("planar", [False, True])
def test_planes_have_tiles_of_their_own(tmp_path, planar):
    path = tmp_path / "file.tif"
    write_tiled_tiff(path, rows=100, columns=100, tile=64, compression="none", planar=planar, downsamples=())
    structure = TiffStructure(path)
    assert len(structure.pages[0].segments()[0]) == (12 if planar else 4)
    structure.close()


def test_structure_of_an_aperio_slide_is_that_of_tifffile(aperio_slide):
    assert_same_structure(aperio_slide)


def test_structure_of_shared_slides_is_that_of_tifffile(shared):
    names = [path for pattern in ("*.svs", "*.tif*", "*.scn", "*.bif", "*.ndpi") for path in
             [*(shared / "slides/synthetic").glob(pattern), *(shared / "slides/real").glob(pattern)]]  # fmt: skip
    assert len(names) > 10
    for path in names:
        assert_same_structure(path)


def test_sub_directories_are_found(tmp_path):
    path = tmp_path / "sub.tif"
    pixels = np.zeros((64, 64, 3), np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, photometric="rgb", subifds=2, tile=(16, 16))
        tiff.write(pixels[::2, ::2], photometric="rgb", subfiletype=1, tile=(16, 16))
        tiff.write(pixels[::4, ::4], photometric="rgb", subfiletype=1, tile=(16, 16))
    structure = TiffStructure(path)
    assert [page.rows for page in structure.sub_pages(structure.pages[0])] == [32, 16]
    structure.close()


def one_page_tiff(*entries: tuple[int, int, int, int], count: int | None = None, following: int = 0) -> bytes:
    """Return a little-endian file of one directory at byte 8, of (tag, type, count, value) entries."""
    directory = struct.pack("<H", len(entries) if count is None else count)
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + directory + struct.pack("<I", following)


def opened(tmp_path: Path, data: bytes) -> TiffStructure:
    path = tmp_path / "hand.tif"
    path.write_bytes(data)
    return TiffStructure(path)


def test_values_short_enough_stand_in_the_entry_itself(tmp_path):
    structure = opened(tmp_path, one_page_tiff((256, 3, 1, 640), (258, 3, 2, 8 | 9 << 16)))
    assert structure.pages[0].columns == 640
    assert structure.pages[0].integers(TagCode.BITS_PER_SAMPLE) == [8, 9]
    assert structure.pages[0].rows == 0
    structure.close()


def test_a_field_type_that_is_unknown_is_passed_over(tmp_path):
    structure = opened(tmp_path, one_page_tiff((256, 99, 1, 640), (257, 4, 1, 480)))
    assert TagCode.IMAGE_WIDTH not in structure.pages[0]
    assert structure.pages[0].rows == 480
    structure.close()


def test_text_that_is_no_utf8_is_latin1_and_ends_at_nul(tmp_path):
    structure = opened(tmp_path, one_page_tiff((270, 2, 4, int.from_bytes(b"\xb5m\0x", "little"))))
    assert structure.pages[0].description == "µm"
    structure.close()


@pytest.mark.parametrize(("value", "expected"), [((20000, 1), 20000.0), ((1, 0), None), ((3, 2), 1.5)])
def test_a_rational_is_a_quotient_unless_its_denominator_is_0(tmp_path, value, expected):
    data = one_page_tiff((282, 5, 1, 26)) + struct.pack("<II", *value)
    structure = opened(tmp_path, data)
    assert structure.pages[0].rational(TagCode.X_RESOLUTION) == expected
    assert structure.pages[0].rational(TagCode.Y_RESOLUTION) is None
    structure.close()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"II*\0", "inside the TIFF header"),
        (b"II*\0\0\0\0\0", "without a directory"),
        (b"II*\0\xff\xff\0\0", "truncated: 2 bytes expected"),
        (one_page_tiff((256, 3, 1, 1), count=9), "truncated"),
        (one_page_tiff(count=5000), "directory of 5000 tags"),
        (one_page_tiff((256, 3, 1, 1), following=8), "runs in a circle"),
        (b"II+\0\x04\0\0\0" + bytes(8), "unknown offset size"),
    ],
)
def test_a_damaged_directory_is_corrupt(tmp_path, data, message):
    with pytest.raises(CorruptSourceError, match=message):
        opened(tmp_path, data)


def test_values_past_the_end_are_truncated_when_asked_for(tmp_path):
    structure = opened(tmp_path, one_page_tiff((270, 2, 1 << 31, 8), (282, 5, 1, 1 << 30)))
    for tag in (TagCode.IMAGE_DESCRIPTION, TagCode.X_RESOLUTION):
        with pytest.raises(CorruptSourceError, match="truncated"):
            structure.pages[0].values(tag)
    structure.close()


def test_a_tag_of_the_wrong_type_is_corrupt(tmp_path):
    structure = opened(tmp_path, one_page_tiff((256, 11, 1, 0)))
    with pytest.raises(CorruptSourceError, match="holds no integers"):
        _ = structure.pages[0].columns
    structure.close()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(256, 3, 1, 0), (257, 3, 1, 9)], "pieces"),
        ([(256, 3, 1, 9), (257, 3, 1, 9), (322, 4, 1, 1 << 30), (323, 4, 1, 1 << 30)], "pieces"),
        ([(256, 3, 1, 9), (257, 3, 1, 9)], "1 tiles expected, 0 listed"),
        ([(256, 3, 1, 9), (257, 3, 1, 9), (273, 3, 1, 9), (279, 11, 1, 9)], "1 tiles expected"),
    ],
)
def test_a_page_whose_tiles_make_no_image_is_corrupt(tmp_path, entries, message):
    structure = opened(tmp_path, one_page_tiff(*entries))
    with pytest.raises(CorruptSourceError, match=message):
        structure.pages[0].segments()
    structure.close()


@pytest.mark.parametrize("data", [b"", b"II", b"no TIFF at all", b"II\x2a\x01" + bytes(20)])
def test_what_is_no_tiff_is_unsupported(tmp_path, data):
    with pytest.raises(UnsupportedSourceError, match="not a TIFF"):
        opened(tmp_path, data)


def test_a_circle_of_directories_is_found_in_a_real_file(tmp_path):
    path = tmp_path / "loop.svs"
    write_aperio_svs(path, rows=100, columns=100)
    ifd_loop(path)
    with pytest.raises(CorruptSourceError, match="runs in a circle"):
        TiffStructure(path)


def test_a_file_cut_anywhere_is_corrupt_or_no_tiff_and_leaks_no_descriptor(tmp_path, aperio_slide):
    size = aperio_slide.stat().st_size
    path = tmp_path / "cut.svs"
    before = len(list(Path("/proc/self/fd").iterdir()))
    for keep in (3, 7, 9, size // 2, size - 1):
        path.write_bytes(aperio_slide.read_bytes())
        truncate(path, keep)
        with pytest.raises((CorruptSourceError, UnsupportedSourceError)):
            TiffStructure(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_missing_file_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        TiffStructure(tmp_path / "none.tif")


def test_a_closed_file_is_a_source_error_when_read(aperio_slide):
    structure = TiffStructure(aperio_slide)
    structure.close()
    with pytest.raises(SourceError, match="cannot be read"):
        structure.read(0, 8)
