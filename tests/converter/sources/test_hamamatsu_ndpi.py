"""Hamamatsu NDPI, against libjpeg's reading of the whole picture and against OpenSlide and tifffile."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.contracts.slide_source import SlideSourceContract
from tests.factories.hamamatsu import NdpiCoding, encode_with_restarts, restart_starts, write_ndpi
from tests.factories.tissue import tissue

from coverslip.converter.sources import open_slide
from coverslip.converter.sources.restart_jpeg import IntervalGrid, RestartJpeg, intervals_of_tile, tile_intervals
from coverslip.converter.sources.restart_level import RestartLevel
from coverslip.converter.sources.tiff_structure import TiffStructure
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.tiler.codecs.jpeg_stream import parse_jpeg
from coverslip.tiler.grid import TileAddress


def whole(path, page):
    """Decode the JPEG of a page in one go."""
    with tifffile.TiffFile(path) as tiff:
        offset = int(tiff.pages[page].tags[273].value[0])
        size = int(tiff.pages[page].tags[279].value[0])
    with path.open("rb") as file:
        file.seek(offset)
        return np.asarray(Image.open(io.BytesIO(file.read(size))))


def read(level, plane=0):
    grid = level.grid
    size = grid.total_pixel_matrix_rows, grid.total_pixel_matrix_columns
    return level.read_region(0, 0, *size, focal_plane_index=plane)[0]


class TestCut(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        path = tmp_path / "slide.ndpi"
        write_ndpi(path)
        return path

    def test_every_level_is_the_whole_picture_to_the_last_bit(self, source, slide):
        levels = source.pyramids[0].levels
        assert [level.not_reusable for level in levels] == [None] * 3
        assert len({(level.grid.rows, level.grid.columns) for level in levels}) == 1
        for page, level in enumerate(levels):
            assert np.array_equal(read(level), whole(slide, page))

    def test_every_level_is_as_openslide_reads_it(self, source, slide):
        with openslide.OpenSlide(slide) as other:
            for level in source.pyramids[0].levels:
                size = level.grid.total_pixel_matrix_columns, level.grid.total_pixel_matrix_rows
                index = other.level_dimensions.index(size)
                expected = np.asarray(other.read_region((0, 0), index, size))[..., :3]
                assert np.array_equal(read(level), expected)

    def test_frames_are_baseline_jpegs_of_their_own_size_that_any_decoder_reads(self, source):
        level = source.pyramids[0].levels[0]
        for address in level.grid.iter_addresses():
            frame = level.read_frame(address)
            header = parse_jpeg(frame)
            assert (header.rows, header.columns) == (level.grid.rows, level.grid.columns)
            assert header.baseline
            assert b"a comment" not in frame
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(frame))), level.decode_frame(frame, address))

    def test_entropy_coded_bytes_are_those_of_the_file(self, source, slide):
        data = slide.read_bytes()
        level = source.pyramids[0].levels[0]
        frame = level.read_frame(TileAddress(0, 0))
        starts = [*restart_starts(frame), len(frame)]
        for start, stop in pairwise(starts):
            assert frame[start : stop - 2] in data

    def test_lengths_of_frames_are_told_exactly(self, source):
        for level in source.pyramids[0].levels:
            lengths = [len(level.read_frame(address)) for address in level.grid.iter_addresses()]
            assert level.expected_frame_lengths() == lengths

    def test_metadata_are_those_of_the_tags(self, source):
        metadata = source.metadata
        assert source.format_name == "hamamatsu-ndpi"
        assert (metadata.manufacturer, metadata.manufacturer_model_name) == ("Hamamatsu", "NanoZoomer")
        assert metadata.device_serial_number == "SN0001"
        assert metadata.software_versions == ("NDP.scan 3.2",)
        assert metadata.objective_lens_power == 20
        assert metadata.identifying["hamamatsu.Reference"] == "R1"
        assert source.pyramids[0].levels[0].pixel_spacing.row_mm == 0.0005

    def test_the_macro_image_is_the_overview_with_its_label_on_the_left(self, source, slide):
        image = source.associated_images["overview"]
        assert image.label_side == "left"
        assert np.array_equal(image.read(), whole(slide, 3))

    def test_chroma_at_full_resolution_is_told(self, source):
        assert "frames.ycbcr-444" in [finding.rule for finding in source.findings]


class TestSubsampled(SlideSourceContract):
    @pytest.fixture(params=["422", "420"])
    def slide(self, tmp_path, request):
        path = tmp_path / "slide.ndpi"
        write_ndpi(path, coding=NdpiCoding(subsampling=request.param))
        return path

    def test_pixels_are_those_of_the_whole_picture_but_at_the_edges_of_tiles(self, source, slide):
        # Decoders smooth chroma over its neighbours, which a tile does not have at its edge.
        level = source.pyramids[0].levels[0]
        found, expected = read(level).astype(int), whole(slide, 0)
        inside = np.ones(found.shape[:2], bool)
        for at in range(level.grid.rows, found.shape[0], level.grid.rows):
            inside[at - 2 : at + 2] = False
        for at in range(level.grid.columns, found.shape[1], level.grid.columns):
            inside[:, at - 2 : at + 2] = False
        assert inside.mean() > 0.95
        assert np.array_equal(found[inside], expected[inside])


@settings(max_examples=40, deadline=None)
@given(
    units=st.tuples(st.integers(1, 40), st.integers(1, 24)),
    odd=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    interval=st.integers(1, 24),
)
def test_tiles_of_any_jpeg_that_can_be_cut_make_the_whole(tmp_path_factory, units, odd, interval):
    rows, columns = units[0] * 8 - odd[0], units[1] * 8 - odd[1]
    stream = encode_with_restarts(tissue(rows, columns, 3), interval * 8, "444", 70)
    path = tmp_path_factory.mktemp("cut") / "slide.ndpi"
    write_ndpi(path, rows=64, columns=64, coding=NdpiCoding(interval=64), downsamples=())
    offset = path.stat().st_size
    with path.open("ab") as file:
        file.write(stream)
    structure = TiffStructure(path)
    try:
        jpeg = RestartJpeg(structure, offset, len(stream), (rows, columns), "ycbcr", None)
        level = RestartLevel([jpeg], 0, stored_bytes=0, color="ycbcr", background=(255, 255, 255))
        assert np.array_equal(read(level), np.asarray(Image.open(io.BytesIO(stream))))
        if level.frame_format is not None:
            lengths = [len(level.read_frame(address)) for address in level.grid.iter_addresses()]
            assert level.expected_frame_lengths() == lengths
        if units[1] % interval == 0:
            assert (jpeg.intervals.down, jpeg.intervals.across) == (units[0], units[1] // interval)
    finally:
        structure.close()


class _Intervals:
    def __init__(self, down, across, rows, columns):
        self.down, self.across, self.rows, self.columns = down, across, rows, columns


@pytest.mark.parametrize(
    ("down", "across", "columns", "tile"),
    [
        (4768, 100, 512, (64, 1)),  # one interval, 512 high
        (608, 1, 3968, (32, 1)),  # wider than 1024: 256 high
        (192, 16, 128, (64, 4)),  # four make 512
        (192, 6, 128, (64, 3)),  # three leave no rest
        (65, 4, 512, (33, 1)),  # two of 33 waste less than 64 and 1
        (10, 1, 62, (10, 1)),
        (7, 11, 64, (7, 6)),
    ],
)
def test_tiles_are_of_handy_size_and_waste_little(down, across, columns, tile):
    assert tile_intervals(_Intervals(down, across, 8, columns)) == tile


@pytest.mark.parametrize(
    ("tile", "most_padding", "expected"),
    [
        ((512, 512), 0.0, (64, 4)),
        ((512, 500), 0.0, None),  # not of whole intervals
        ((500, 512), 9.0, None),
        ((1024, 512), 0.4, (128, 4)),  # 3 rows of tiles become 2 of twice the height
        ((1024, 512), 0.3, None),
    ],
)
def test_tiles_of_a_level_are_those_of_the_base_where_that_costs_little(tile, most_padding, expected):
    header = parse_jpeg(encode_with_restarts(tissue(8, 16, 0), 8, "444", 80))
    header = replace(header, restart_interval=16)
    assert intervals_of_tile(IntervalGrid(header, 1536, 2048), tile, most_padding) == expected


@pytest.mark.parametrize("mcu_starts", [None, "wrong", "short"])
def test_places_of_intervals_that_are_not_told_rightly_are_searched_for(tmp_path, mcu_starts):
    path = tmp_path / "slide.ndpi"
    write_ndpi(path, coding=NdpiCoding(mcu_starts=mcu_starts), downsamples=())
    with open_slide(path) as source:
        assert np.array_equal(read(source.pyramids[0].levels[0]), whole(path, 0))


def test_a_jpeg_that_does_not_know_its_size_has_that_of_the_tags(tmp_path):
    path = tmp_path / "slide.ndpi"
    write_ndpi(path, downsamples=())
    expected = whole(path, 0)
    write_ndpi(path, coding=NdpiCoding(size_in_jpeg=False), downsamples=())
    with open_slide(path) as source:
        assert np.array_equal(read(source.pyramids[0].levels[0]), expected)


@pytest.mark.parametrize("first_byte", [(1 << 32) + 5000, (1 << 32) - 30000])
def test_a_file_over_4_gb_is_read_by_the_high_words_of_its_offsets(tmp_path, first_byte):
    path = tmp_path / "slide.ndpi"
    write_ndpi(path, first_byte=first_byte, downsamples=(2,))
    assert path.stat().st_size > 1 << 32
    with open_slide(path) as source:
        for page, level in enumerate(source.pyramids[0].levels):
            assert np.array_equal(read(level), whole(path, page))
        assert source.metadata.identifying["hamamatsu.Reference"] == "R1"


def test_focal_planes_are_kept_from_the_lowest_to_the_highest(tmp_path):
    path = tmp_path / "slide.ndpi"
    write_ndpi(path, focal_planes_nm=(0, -2000, 2000), missing_planes=[(2, 1)])
    with open_slide(path) as source:
        (pyramid,) = source.pyramids
        assert pyramid.focal_plane_offsets_um == (0, 2, 4)
        assert [level.grid.focal_planes for level in pyramid.levels] == [3, 3]
        for plane, page in enumerate((1, 0, 2)):
            assert np.array_equal(read(pyramid.levels[0], plane), whole(path, page))
            address = TileAddress(0, 0, plane)
            frame = pyramid.levels[0].read_frame(address)
            tile = pyramid.levels[0].decode_frame(frame, address)
            region, _ = pyramid.levels[0].read_region(0, 0, 100, 100, focal_plane_index=plane)
            assert np.array_equal(tile[:100, :100], region)


def test_a_level_without_restart_markers_is_read_with_openslide_and_said_so(tmp_path):
    path = tmp_path / "slide.ndpi"
    write_ndpi(path, rows=1100, columns=1200, coding=NdpiCoding(interval=None, mcu_starts=None))
    with open_slide(path) as source:
        base, half, quarter = source.pyramids[0].levels
        assert base.not_reusable == "the JPEG has no restart markers to be cut at"
        assert isinstance(half, RestartLevel)  # small enough to be decoded as a whole
        assert [level.frame_format for level in (base, half, quarter)] == [None] * 3
        assert [finding.rule for finding in source.findings if finding.place] == ["source.no-restart-markers"] * 3
        for page, level in enumerate(source.pyramids[0].levels):
            assert np.array_equal(read(level), whole(path, page))


def test_the_shared_slides_have_the_pixels_of_openslide(shared):
    for name in ("hamamatsu.ndpi", "hamamatsu_norst.ndpi"):
        path = shared / "slides/synthetic" / name
        with open_slide(path) as source, openslide.OpenSlide(path) as other:
            for level in source.pyramids[0].levels:
                size = level.grid.total_pixel_matrix_columns, level.grid.total_pixel_matrix_rows
                expected = np.asarray(other.read_region((0, 0), other.level_dimensions.index(size), size))[..., :3]
                assert np.array_equal(read(level), expected)


def test_fluorescence_is_refused_and_never_read_as_brightfield(shared, tmp_path):
    with pytest.raises(UnsupportedSourceError, match="fluorescence slide: one channel"):
        open_slide(shared / "slides/real/fluorescence-DAPI.ndpi")
    write_ndpi(tmp_path / "slide.ndpi", fluorescence="DAPI")
    with pytest.raises(UnsupportedSourceError, match="fluorescence") as caught:
        open_slide(tmp_path / "slide.ndpi")
    assert "DAPI" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"capture_mode": 7}, "16-bit"), ({"compression": 22610}, "JPEG XR"), ({"compression": 1}, "YCbCr")],
)
def test_other_kinds_of_pixels_are_refused(tmp_path, options, words):
    write_ndpi(tmp_path / "slide.ndpi", **options)
    with pytest.raises(UnsupportedSourceError, match=words):
        open_slide(tmp_path / "slide.ndpi")


def test_damage_is_told_by_level_frame_and_byte(tmp_path):
    path = tmp_path / "slide.ndpi"
    write_ndpi(path, downsamples=())
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        offset = int(tiff.pages[0].tags[273].value[0])
        starts = tiff.pages[0].tags[65426].value
    place = offset + int(starts[100])
    data[place - 2 : place] = b"\xff\xd9"  # ends the picture in the middle
    path.write_bytes(data)
    with (
        open_slide(path) as source,
        pytest.raises(
            CorruptSourceError, match=r"level 0, frame \d+, byte offset \d+: restart interval 99 ends without"
        ),
    ):
        read(source.pyramids[0].levels[0])


def test_a_file_cut_off_is_corrupt(tmp_path):
    path = tmp_path / "slide.ndpi"
    write_ndpi(path)
    path.write_bytes(path.read_bytes()[:40000])
    with pytest.raises(CorruptSourceError):
        open_slide(path)
