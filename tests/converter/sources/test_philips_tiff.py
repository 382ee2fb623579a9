"""Philips TIFF, against tifffile's and OpenSlide's reading."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import openslide
import pytest
import tifffile
from tests.contracts.slide_source import SlideSourceContract
from tests.factories.philips import write_philips

from coverslip.converter.sources import open_slide
from coverslip.errors import CorruptSourceError, UnsupportedSourceError


def read(level):
    return level.read_region(0, 0, level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns)[0]


@pytest.mark.parametrize("pages_of_pictures", [False, True])
class TestPhilips(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path, pages_of_pictures):
        path = tmp_path / "slide.tiff"
        write_philips(path, pages_of_pictures=pages_of_pictures, missing_tiles=[(0, 1, 2), (1, 0, 0)])
        return path

    def test_levels_are_those_of_openslide_without_the_padding(self, source, slide):
        levels = source.pyramids[0].levels
        sizes = [(level.grid.total_pixel_matrix_columns, level.grid.total_pixel_matrix_rows) for level in levels]
        assert sizes == [(640, 384), (320, 192), (160, 96), (80, 48)]
        with openslide.OpenSlide(slide) as other:
            assert list(other.level_dimensions) == sizes
            for level, size in zip(levels, sizes, strict=True):
                assert level.frame_format is not None
                picture = np.asarray(other.read_region((0, 0), level.level_index, size)).copy()
                picture[picture[..., 3] == 0] = (240, 241, 242, 255)  # sparse tiles
                assert np.array_equal(read(level), picture[..., :3])

    def test_tiles_that_are_not_stored_are_missing_and_counted(self, source):
        level = source.pyramids[0].levels[0]
        found, missing = level.read_region(0, 0, 384, 640)
        assert missing == 1
        assert (found[128:256, 256:384] == (240, 241, 242)).all()
        assert [finding.rule for finding in source.findings] == ["source.missing-tile"] * 2

    def test_label_and_macro_image_are_found_in_the_xml_and_as_pages(self, source, slide):
        with openslide.OpenSlide(slide) as other:
            for ours, theirs in (("label", "label"), ("overview", "macro")):
                expected = np.asarray(other.associated_images[theirs])[..., :3]
                assert np.array_equal(source.associated_images[ours].read(), expected)

    def test_metadata_are_those_of_the_xml(self, source):
        metadata = source.metadata
        assert source.format_name == "philips-tiff"
        assert (metadata.manufacturer, metadata.device_serial_number) == ("PHILIPS", "FMT0000")
        assert metadata.objective_lens_power == 40
        assert metadata.acquisition_datetime == datetime(2016, 7, 18, 12, 23)
        assert metadata.restricted["BarcodeValue"] == "BC-4711"


def test_spacing_is_by_row_and_column(tmp_path):
    write_philips(tmp_path / "slide.tiff", spacing_mm=(0.0005, 0.00025))
    with open_slide(tmp_path / "slide.tiff") as source:
        spacing = source.pyramids[0].levels[0].pixel_spacing
        assert (spacing.row_mm, spacing.column_mm, spacing.origin) == (0.0005, 0.00025, "Philips XML")


def test_tiles_beyond_the_picture_are_left_out(tmp_path):
    # 200 x 100 at level 1 lies on 2 x 1 tiles of the page's 2 x 1; level 2 of 100 x 50 on one of two
    write_philips(tmp_path / "slide.tiff", rows=400, columns=200, levels=3)
    with open_slide(tmp_path / "slide.tiff") as source:
        levels = source.pyramids[0].levels
        assert [level.grid.number_of_frames for level in levels] == [8, 2, 1]
        for level in levels:
            expected = tifffile.imread(tmp_path / "slide.tiff", key=level.level_index)
            assert np.array_equal(
                read(level), expected[: level.grid.total_pixel_matrix_rows, : level.grid.total_pixel_matrix_columns]
            )


def test_the_shared_slide_has_the_pixels_of_openslide(shared):
    path = shared / "slides/synthetic/philips.tiff"
    with open_slide(path) as source, openslide.OpenSlide(path) as other:
        for level in source.pyramids[0].levels:
            size = other.level_dimensions[level.level_index]
            assert np.array_equal(read(level), np.asarray(other.read_region((0, 0), level.level_index, size))[..., :3])


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        (
            {"spacings": ['"0.0005" "0.0005"']},
            CorruptSourceError,
            "1 levels in the XML of a Philips slide, 4 in its pages",
        ),
        ({"spacings": ["x"] * 4}, CorruptSourceError, "lacks its pixel spacing"),
        ({"spacings": ['"1" "1"', '"1" "1"', '"1" "1"', '"1" "1"']}, CorruptSourceError, "larger than its page"),
        ({"scanned_images": 2}, UnsupportedSourceError, "2 scanned images"),
    ],
)
def test_xml_that_does_not_fit_the_pages_is_refused(tmp_path, options, kind, words):
    write_philips(tmp_path / "slide.tiff", **options)
    with pytest.raises(kind, match=words):
        open_slide(tmp_path / "slide.tiff")


def test_a_label_that_does_not_decode_is_left_out_with_a_finding(tmp_path):
    write_philips(tmp_path / "slide.tiff", label=b"no picture")
    with open_slide(tmp_path / "slide.tiff") as source:
        assert list(source.associated_images) == ["overview"]
        assert [finding.rule for finding in source.findings] == ["source.associated-image-unread"]
