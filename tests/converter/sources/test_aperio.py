"""Aperio SVS, against the pictures the factories draw and against OpenSlide and tifffile."""

from __future__ import annotations

import io
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from tests.contracts.slide_source import SlideSourceContract
from tests.factories.aperio import write_aperio_svs
from tests.factories.damage import corrupt_tile, cut_tail, garbage_mpp, tile_past_the_end, zero_length_tile

from coverslip.converter.sources import open_slide
from coverslip.converter.sources.aperio_description import parse_description
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.tiler.codecs.base import FrameFormat
from coverslip.tiler.grid import TileAddress
from coverslip.tiler.reading import read_frame_row

JPEG = "1.2.840.10008.1.2.4.50"
SHARED_SLIDES = [
    "real/CMU-1-Small-Region.svs",
    "synthetic/aperio_jpeg.svs",
    "synthetic/aperio_bigtiff.svs",
    "synthetic/aperio_icc.svs",
    "synthetic/aperio_j2k33005.svs",
]


@pytest.fixture
def copy(aperio_slide: Path, tmp_path: Path) -> Path:
    return shutil.copyfile(aperio_slide, tmp_path / "copy.svs")


def rules(path: Path) -> list[str]:
    with open_slide(path) as source:
        return [finding.rule for finding in source.findings]


class TestJpegRgb(SlideSourceContract):
    @pytest.fixture
    def slide(self, aperio_slide):
        return aperio_slide

    def test_pixels_are_those_of_openslide_on_every_level(self, source, slide):
        with openslide.OpenSlide(slide) as other:
            for level in source.pyramids[0].levels:
                size = other.level_dimensions[level.level_index]
                expected = np.asarray(other.read_region((0, 0), level.level_index, size))[..., :3]
                assert np.array_equal(level.read_region(0, 0, size[1], size[0])[0], expected)

    def test_associated_images_are_those_of_openslide(self, source, slide):
        with openslide.OpenSlide(slide) as other:
            for name, theirs in (("label", "label"), ("overview", "macro"), ("thumbnail", "thumbnail")):
                expected = np.asarray(other.associated_images[theirs])[..., :3]
                assert np.array_equal(source.associated_images[name].read(), expected)
        assert source.associated_images["label"].lossy_method is None
        assert source.associated_images["overview"].lossy_method == "ISO_10918_1"

    def test_entropy_coded_bytes_are_those_of_the_file(self, source, slide):
        with tifffile.TiffFile(slide) as tiff, slide.open("rb") as file:
            page = tiff.pages[0]
            for index, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
                file.seek(offset)
                stored = file.read(size)
                level = source.pyramids[0].levels[0]
                frame = level.read_frame(level.grid.address(index))
                assert frame.endswith(stored[stored.find(b"\xff\xda") :])
                assert frame.startswith(b"\xff\xd8\xff\xee\x00\x0eAdobe")

    def test_rgb_is_marked_and_named(self, source):
        level = source.pyramids[0].levels[0]
        assert level.frame_format == FrameFormat(JPEG, "RGB", 3, lossy_method="ISO_10918_1")
        assert (level.compression, level.color, level.lossy_method) == ("JPEG", "RGB", "ISO_10918_1")

    def test_metadata_are_those_of_the_description(self, source):
        metadata = source.metadata
        assert metadata.manufacturer == "Aperio"
        assert metadata.device_serial_number == "SS1234"
        assert metadata.software_versions == ("Aperio Image Library v11.2.1",)
        assert metadata.objective_lens_power == 40
        assert metadata.acquisition_datetime == datetime(2021, 3, 17, 10, 21, 33)
        assert metadata.identifying["Filename"] == "synthetic"
        assert {"User", "ScanScope ID", "ImageDescription"} <= set(metadata.identifying)
        assert metadata.icc_profile is None

    def test_spacing_is_mpp_in_millimetres(self, source):
        base, quarter = source.pyramids[0].levels
        assert (base.pixel_spacing.row_mm, base.pixel_spacing.column_mm) == (0.0002527, 0.0002527)
        assert base.pixel_spacing.origin == "Aperio MPP"
        # 700 x 900 becomes 175 x 225
        assert quarter.pixel_spacing.row_mm == pytest.approx(0.0010108)

    def test_origin_is_top_and_macro_width_less_left(self, source):
        # The macro is 1280 x 431 and 25.4 mm high.
        assert source.pyramids[0].origin_mm == pytest.approx((23.449873, 25.4 / 431 * 1280 - 25.691574))


class TestJpegYcbcrBigTiff(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        path = tmp_path / "ycbcr.svs"
        missing = [(0, 1, 1), (1, 0, 0)]
        write_aperio_svs(path, compression="jpeg-ycbcr", bigtiff=True, missing_tiles=missing, icc=b"profile")
        return path

    def test_ycbcr_is_not_marked_and_is_ybr_full_422(self, source):
        level = source.pyramids[0].levels[0]
        assert level.frame_format == FrameFormat(JPEG, "YBR_FULL_422", 3, lossy_method="ISO_10918_1")
        assert level.color == "YCbCr 4:2:0"
        assert b"Adobe" not in level.read_frame(TileAddress(0, 0))

    def test_a_missing_tile_is_none_as_a_frame_and_background_as_pixels(self, source):
        level = source.pyramids[0].levels[0]
        assert level.read_frame(TileAddress(1, 1)) is None
        assert level.read_frame(TileAddress(1, 0)) is not None
        pixels, missing = level.read_region(256, 256, 256, 256)
        assert missing == 1
        assert np.array_equal(pixels, np.full((256, 256, 3), (240, 241, 242)))
        assert [finding.rule for finding in source.findings] == ["source.missing-tile"] * 2
        assert source.findings[0].place == "level 0"

    def test_the_profile_is_kept(self, source):
        assert source.metadata.icc_profile == b"profile"


class TestJpeg2000Untransformed(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        path = tmp_path / "j2k.svs"
        write_aperio_svs(path, rows=300, columns=400, compression="j2k-33003", quality=0, native_downsamples=())
        return path

    def test_components_stay_ycbcr(self, source):
        level = source.pyramids[0].levels[0]
        assert level.frame_format == FrameFormat("1.2.840.10008.1.2.4.90", "YBR_FULL_422", 3)
        assert (level.compression, level.color) == ("JPEG 2000", "YCbCr")

    def test_pixels_are_those_of_openslide(self, source, slide):
        with openslide.OpenSlide(slide) as other:
            expected = np.asarray(other.read_region((0, 0), 0, (400, 300)))[..., :3].astype(int)
        pixels, _ = source.pyramids[0].levels[0].read_region(0, 0, 300, 400)
        assert abs(pixels - expected).max() <= 1


class TestJpeg2000Transformed(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        path = tmp_path / "j2k.svs"
        write_aperio_svs(path, rows=300, columns=400, compression="j2k-33005", quality=0, native_downsamples=())
        return path

    def test_the_codestream_tells_the_colour_transform_and_is_kept(self, source, slide):
        level = source.pyramids[0].levels[0]
        assert level.frame_format == FrameFormat("1.2.840.10008.1.2.4.90", "YBR_RCT", 3)
        with tifffile.TiffFile(slide) as tiff:
            offset, size = tiff.pages[0].dataoffsets[1], tiff.pages[0].databytecounts[1]
        assert level.read_frame(TileAddress(0, 1)) == slide.read_bytes()[offset : offset + size]

    def test_a_lossless_page_keeps_the_lossy_history_of_the_description(self, source):
        assert source.pyramids[0].levels[0].lossy_method == "ISO_15444_1"


@pytest.mark.parametrize(
    ("mpp", "expected_mm"),
    [("0,2527", 0.0002527), ("0", None), ("abc", None), ("-0.5", None), ("nan", None), ("352.8", None), (None, None)],
)
def test_an_mpp_that_is_no_slides_is_unknown_with_a_finding(tmp_path, mpp, expected_mm):
    path = tmp_path / "slide.svs"
    write_aperio_svs(path, rows=100, columns=100, mpp=mpp, native_downsamples=(), label=False, macro=False)
    with open_slide(path) as source:
        spacing = source.pyramids[0].levels[0].pixel_spacing
        found = [finding.rule for finding in source.findings]
    assert (spacing.row_mm if spacing else None) == expected_mm
    assert found == ([] if expected_mm else ["source.spacing-unknown"])


def test_without_label_and_macro_there_is_neither_image_nor_origin(tmp_path):
    path = tmp_path / "slide.svs"
    write_aperio_svs(path, rows=100, columns=100, native_downsamples=(), label=False, macro=False, thumbnail=False)
    with open_slide(path) as source:
        assert not source.associated_images
        assert source.pyramids[0].origin_mm is None


def test_garbage_in_mpp_is_no_number(copy):
    garbage_mpp(copy)
    assert rules(copy) == ["source.spacing-unknown"]


def test_a_corrupt_tile_is_named_by_level_frame_and_byte_offset(copy):
    corrupt_tile(copy, tile=5)
    with tifffile.TiffFile(copy) as tiff:
        offset = tiff.pages[0].dataoffsets[5]
    with open_slide(copy) as source:
        level = source.pyramids[0].levels[0]
        address = level.grid.address(5)
        with pytest.raises(CorruptSourceError) as caught:
            level.decode_frame(level.read_frame(address), address)
        assert (caught.value.level_index, caught.value.frame_index) == (0, 5)
        with pytest.raises(CorruptSourceError) as caught:
            level.read_region(0, 0, 700, 900)
        assert (caught.value.level_index, caught.value.frame_index, caught.value.byte_offset) == (0, 5, offset)
        assert level.read_frame(level.grid.address(4))


def test_a_zero_length_tile_is_missing(copy):
    zero_length_tile(copy, tile=2)
    with open_slide(copy) as source:
        level = source.pyramids[0].levels[0]
        assert level.read_frame(TileAddress(0, 2)) is None
        assert level.read_frame(TileAddress(0, 3)) is not None
        assert [frame is None for frame in read_frame_row(level, TileAddress(0, 1), 3)] == [False, True, False]


def test_a_tile_past_the_end_is_found_when_opened_and_refused_when_read(copy):
    tile_past_the_end(copy, tile=3)
    with open_slide(copy) as source:
        assert [(finding.rule, finding.place) for finding in source.findings] == [
            ("source.truncated", "level 0, frame 3")
        ]
        with pytest.raises(CorruptSourceError, match=r"level 0, frame 3, byte offset [0-9]+: truncated"):
            source.pyramids[0].levels[0].read_frame(TileAddress(0, 3))
        with pytest.raises(CorruptSourceError, match=r"level 0, frame 3, byte offset [0-9]+: truncated"):
            read_frame_row(source.pyramids[0].levels[0], TileAddress(0, 0), 4)


def test_a_tile_of_another_size_is_refused(copy, tmp_path):
    other = tmp_path / "other.svs"
    write_aperio_svs(other, image=np.full((128, 128, 3), 90, np.uint8), tile=128, native_downsamples=())
    with tifffile.TiffFile(other) as tiff:
        offset, size = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    small = other.read_bytes()[offset : offset + size]
    with tifffile.TiffFile(copy) as tiff:
        page = tiff.pages[0]
        target, room = page.dataoffsets[1], page.databytecounts[1]
    assert size <= room
    with copy.open("r+b") as file:
        file.seek(target)
        file.write(small[:-2] + bytes(room - size) + b"\xff\xd9")
    with open_slide(copy) as source, pytest.raises(CorruptSourceError, match=r"frame 1.*128 x 128, expected 256 x 256"):
        source.pyramids[0].levels[0].read_frame(TileAddress(0, 1))


def test_a_first_tile_that_is_no_jpeg_is_named_when_the_slide_is_opened(copy):
    with tifffile.TiffFile(copy) as tiff:
        target = tiff.pages[0].dataoffsets[0]
    with copy.open("r+b") as file:
        file.seek(target)
        file.write(b"no jpeg")
    with pytest.raises(CorruptSourceError, match=rf"level 0, frame 0, byte offset {target}: .*expected JPEG"):
        open_slide(copy)


def test_a_tile_that_is_no_jpeg_is_refused(copy):
    with tifffile.TiffFile(copy) as tiff:
        target = tiff.pages[0].dataoffsets[1]
    with copy.open("r+b") as file:
        file.seek(target)
        file.write(b"no jpeg")
    with open_slide(copy) as source, pytest.raises(CorruptSourceError, match=r"frame 1.*expected JPEG"):
        source.pyramids[0].levels[0].read_frame(TileAddress(0, 1))
    missed = pytest.raises(CorruptSourceError, match=rf"frame 1, byte offset {target}.*expected")
    with open_slide(copy) as source, missed:
        read_frame_row(source.pyramids[0].levels[0], TileAddress(0, 0), 4)


def test_a_file_cut_at_its_end_is_truncated(copy):
    cut_tail(copy)
    with pytest.raises(CorruptSourceError, match="truncated"), open_slide(copy):
        pass


def test_a_file_whose_tiles_are_all_missing_still_opens(tmp_path):
    path = tmp_path / "slide.svs"
    write_aperio_svs(path, rows=100, columns=100, native_downsamples=(), missing_tiles=[(0, 0, 0)])
    with open_slide(path) as source:
        level = source.pyramids[0].levels[0]
        assert level.not_reusable == "the file holds no tile of this level"
        assert level.read_region(0, 0, 100, 100)[0].min() == 255


def test_an_svs_of_strips_alone_is_refused(tmp_path):
    path = tmp_path / "slide.svs"
    pixels = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", description="Aperio Image Library v11.2.1 \n64x64", metadata=None)
    with pytest.raises(UnsupportedSourceError, match="without tiled pages"):
        open_slide(path)


@pytest.mark.parametrize("name", SHARED_SLIDES)
def test_shared_slides_have_the_pixels_of_openslide(shared, name):
    with open_slide(shared / "slides" / name) as source, openslide.OpenSlide(shared / "slides" / name) as other:
        assert len(source.pyramids[0].levels) == other.level_count
        for level in source.pyramids[0].levels:
            columns, rows = other.level_dimensions[level.level_index]
            expected = np.asarray(other.read_region((0, 0), level.level_index, (columns, rows)))[..., :3]
            assert np.array_equal(level.read_region(0, 0, rows, columns)[0], expected)
        for name, theirs in (("label", "label"), ("overview", "macro"), ("thumbnail", "thumbnail")):
            if theirs in other.associated_images:
                expected = np.asarray(other.associated_images[theirs])[..., :3]
                assert np.array_equal(source.associated_images[name].read(), expected)


def test_the_shared_icc_profile_is_that_of_openslide(shared):
    path = shared / "slides/synthetic/aperio_icc.svs"
    with open_slide(path) as source, openslide.OpenSlide(path) as other:
        assert other.color_profile is not None
        stream = io.BytesIO(source.metadata.icc_profile)
        assert stream.getvalue() == other.color_profile.tobytes()


def test_software_versions_are_all_that_the_header_names():
    header = "Aperio Image Library v11.2.1 \r\n1x1 [0,0 1x1] (2x2) JPEG/RGB Q=30;Aperio Image Library v10.0.51\r\n1x1"
    assert parse_description(header).software_versions == (
        "Aperio Image Library v11.2.1",
        "Aperio Image Library v10.0.51",
    )


def test_a_time_zone_makes_the_time_aware():
    text = "Aperio Leica Biosystems GT450 v1.0.1 \r\n1x1|Date = 09/12/2019|Time = 11:08:42|Time Zone = GMT-0430"
    zone = timezone(-timedelta(hours=4, minutes=30))
    description = parse_description(text)
    assert description.acquisition_datetime == datetime(2019, 9, 12, 11, 8, 42, tzinfo=zone)
    assert description.software_versions == ("Aperio Leica Biosystems GT450 v1.0.1",)


@pytest.mark.parametrize("fields", ["Date = 13/45/20|Time = 10:00:00", "Date = 01/02/20", "Date = x|Time = y"])
def test_a_date_that_is_none_is_unknown(fields):
    assert parse_description(f"Aperio|{fields}").acquisition_datetime is None


def test_the_header_tells_of_earlier_lossy_compression():
    assert parse_description("Aperio v1\r\n1x1 JPEG/RGB Q=30|MPP = 1").lossy_method == "ISO_10918_1"
    assert parse_description("Aperio v1\r\n1x1 J2K/KDU Q=30|MPP = 1").lossy_method == "ISO_15444_1"
    assert parse_description("Aperio v1\r\n1x1 |Parmset = JPEG/").lossy_method is None
