"""Trestle, Huron, Argos and exported TIFF: tiles copied where OpenSlide shows them side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from openslide import OpenSlide
from tests.contracts.slide_source import SlideSourceContract
from tests.factories import damage
from tests.factories.vendor_tiff import write_argos, write_export, write_huron, write_trestle

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.converter.sources import open_slide
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.tiler.grid import TileAddress

# What writes the slide, its format, manufacturer, and associated images.
MADE: dict[str, tuple[Callable[[Path], object], str, str, set[str]]] = {
    "trestle": (write_trestle, "trestle", "Trestle", set()),
    "huron": (write_huron, "huron-tiff", "Huron", set()),
    "argos": (write_argos, "argos-avs", "ARGOS", {"thumbnail", "overview"}),
    "argos-stack": (lambda path: write_argos(path, planes=3), "argos-avs", "ARGOS", {"thumbnail", "overview"}),
    "motic": (lambda path: write_export(path, "Motic"), "generic-tiff", "Motic", set()),
    "mikroscan": (lambda path: write_export(path, "Mikroscan"), "generic-tiff", "Mikroscan", set()),
}


class TestTrestle(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        write_trestle(tmp_path / "slide.tif", missing=[(0, 1)])
        return tmp_path / "slide.tif"

    def test_missing_tiles_are_told(self, source):
        assert [finding.rule for finding in source.findings] == ["source.missing-tile"]

    def test_a_blank_frame_decodes_to_the_background(self, source):
        for level in source.pyramids[0].levels:  # that of the slide's own description
            pixels = level.decode_frame(level.blank_frame(), TileAddress(0, 0)).astype(int)
            assert abs(pixels - 0xF0).max() <= 2


class TestArgos(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        write_argos(tmp_path / "slide.avs", planes=3)
        return tmp_path / "slide.avs"


@pytest.mark.parametrize("name", MADE)
def test_tiles_are_copied_and_show_what_openslide_shows(tmp_path: Path, name: str):
    write, format_name, manufacturer, pictures = MADE[name]
    path = tmp_path / "case-7731.tif"
    write(path)
    with open_slide(path) as source, OpenSlide(path) as other:
        assert (source.format_name, source.metadata.manufacturer) == (format_name, manufacturer)
        assert set(source.associated_images) == pictures
        pyramid = source.pyramids[0]
        assert not pyramid.stitched
        assert len(pyramid.levels) == other.level_count == 2
        for level in pyramid.levels:
            assert level.frame_format is not None
            rows, columns = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
            expected = np.asarray(other.read_region((0, 0), level.level_index, (columns, rows)))[..., :3]
            assert np.array_equal(level.read_region(0, 0, rows, columns)[0], expected)
        rules = [finding.rule for finding in source.findings]
        assert ("source.focal-planes-unused" in rules) == (name == "argos-stack")
        assert pyramid.levels[0].pixel_spacing.row_mm == pytest.approx(0.0005)
    (series,) = convert_slide(ConversionRequest(path, tmp_path / "out")).series
    assert all(one.reuses_frames for one in series.instances[:2])


def test_a_resolution_of_1_without_a_unit_is_no_spacing(shared):
    with open_slide(shared / "slides/synthetic/trestle.tif") as source:
        assert source.pyramids[0].levels[0].pixel_spacing is None
        assert [finding.rule for finding in source.findings] == ["source.spacing-unknown"]


def test_tiles_that_overlap_are_stitched(tmp_path: Path):
    path = tmp_path / "case-7731.tif"
    write_trestle(path, overlap=16)
    with open_slide(path) as source, OpenSlide(path) as other:
        pyramid = source.pyramids[0]
        assert pyramid.stitched
        level = pyramid.levels[0]
        assert level.frame_format is None
        columns, rows = other.dimensions
        expected = np.asarray(other.read_region((0, 0), 0, (columns, rows)))[..., :3]
        assert np.array_equal(level.read_region(0, 0, rows, columns)[0], expected)


def test_a_tile_that_does_not_decode_is_named_by_level_frame_and_offset(tmp_path: Path):
    path = tmp_path / "slide.tif"
    write_huron(path)
    damage.corrupt_tile(path, tile=4)
    with open_slide(path) as source, pytest.raises(CorruptSourceError, match="level 0, frame 4, byte offset"):
        source.pyramids[0].levels[0].read_region(0, 0, 300, 420)


def test_a_motic_file_of_its_own_kind_is_refused_with_a_way_out(tmp_path: Path):
    path = tmp_path / "slide.mdsx"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(UnsupportedSourceError, match=r"Motic MDS.*export it as TIFF"):
        open_slide(path)
