"""Ventana BIF and TIFF, against tifffile's and OpenSlide's reading."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
import tifffile
from tests.contracts.slide_source import SlideSourceContract
from tests.factories.ventana import ISCAN, write_ventana

from coverslip.converter.sources import open_slide
from coverslip.errors import CorruptSourceError, UnsupportedSourceError


def read(level):
    return level.read_region(0, 0, level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns)[0]


@pytest.mark.parametrize("areas", [True, False])
class TestSideBySide(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path, areas):
        path = tmp_path / "slide.bif"
        write_ventana(path, areas=areas)
        return path

    def test_tiles_are_frames_with_the_pixels_of_openslide(self, source, slide):
        assert not source.pyramids[0].stitched
        with openslide.OpenSlide(slide) as other:
            assert other.properties["openslide.vendor"] == "ventana"
            for level in source.pyramids[0].levels:
                assert level.frame_format is not None
                expected = tifffile.imread(slide, key=2 + level.level_index)
                assert np.array_equal(read(level), expected)
                size = other.level_dimensions[level.level_index]
                assert np.array_equal(
                    read(level), np.asarray(other.read_region((0, 0), level.level_index, size))[..., :3]
                )

    def test_metadata_are_those_of_the_scanners_xml(self, source):
        metadata = source.metadata
        assert source.format_name == "ventana"
        assert metadata.manufacturer == "Ventana"
        assert metadata.device_serial_number == "2000515"
        assert metadata.software_versions == ("3.3.1.1",)
        assert metadata.objective_lens_power == 20
        assert metadata.restricted["OperatorsName"] == "Ann Other"
        assert metadata.restricted["BarcodeValue"] == "BC-4711"
        assert source.pyramids[0].levels[0].pixel_spacing.row_mm == 0.000465

    def test_the_image_of_the_whole_glass_is_the_overview(self, source, slide):
        assert np.array_equal(source.associated_images["overview"].read(), tifffile.imread(slide, key=0))
        assert np.array_equal(source.associated_images["thumbnail"].read(), tifffile.imread(slide, key=1))


class TestOverlapping(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        path = tmp_path / "slide.bif"
        self.picture = write_ventana(path, overlap=(8, 16), quality=95)
        return path

    def test_tiles_are_stitched_to_the_picture(self, source):
        (pyramid,) = source.pyramids
        assert pyramid.stitched
        assert source.format_name == "ventana"
        base = pyramid.levels[0]
        assert base.frame_format is None
        assert read(base).shape == self.picture.shape
        assert np.abs(read(base).astype(int) - self.picture).mean() < 4

    def test_the_scanners_metadata_are_the_same(self, source):
        assert source.metadata.device_serial_number == "2000515"
        assert source.pyramids[0].levels[0].pixel_spacing.row_mm == 0.000465


def test_the_shared_slides_have_the_pixels_of_openslide(shared):
    for name in ("ventana.bif", "ventana_nobif.tif"):
        path = shared / "slides/synthetic" / name
        with open_slide(path) as source, openslide.OpenSlide(path) as other:
            for level in source.pyramids[0].levels:
                size = other.level_dimensions[level.level_index]
                assert level.frame_format is not None
                assert np.array_equal(
                    read(level), np.asarray(other.read_region((0, 0), level.level_index, size))[..., :3]
                )


@pytest.mark.parametrize(
    ("iscan", "spacing"),
    [('<?xml version="1.0"?><Metadata><iScan ScanRes="0.25"/></Metadata>', 0.00025), ("<iScan/>", None)],
)
def test_the_scanners_element_may_lie_deeper_or_say_nothing(tmp_path, iscan, spacing):
    write_ventana(tmp_path / "slide.bif", iscan=iscan)
    with open_slide(tmp_path / "slide.bif") as source:
        found = source.pyramids[0].levels[0].pixel_spacing
        assert (found and found.row_mm) == spacing
        assert ("source.spacing-unknown" in [finding.rule for finding in source.findings]) == (spacing is None)


def test_xml_that_is_damaged_is_told_in_one_line(tmp_path):
    write_ventana(tmp_path / "slide.bif", iscan=ISCAN.format(" broken"))
    with pytest.raises(CorruptSourceError, match="XML of a Ventana slide does not parse"):
        open_slide(tmp_path / "slide.bif")


@pytest.mark.parametrize(("rows", "columns", "words"), [(1, 3, "not joined down"), (3, 1, "not joined across")])
def test_overlapping_tiles_in_one_line_are_refused_because_openslide_would_hang(tmp_path, rows, columns, words):
    overlap = (0, 8) if rows == 1 else (8, 0)
    write_ventana(tmp_path / "slide.bif", tile_rows=rows, tile_columns=columns, overlap=overlap)
    with pytest.raises(UnsupportedSourceError, match=words):
        open_slide(tmp_path / "slide.bif")
