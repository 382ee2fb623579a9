"""What every `SlideSource` must do; a test class of a source inherits it and names a slide."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from coverslip.converter.sources import open_slide
from coverslip.converter.sources.base import SlideSource
from coverslip.tiler.grid import TileAddress
from coverslip.tiler.reading import read_frame_row


class SlideSourceContract:
    """Subclasses have a fixture `slide` that returns the path of a slide with at least 100 x 100 pixels."""

    @pytest.fixture
    def slide(self) -> Path:
        raise NotImplementedError

    @pytest.fixture
    def source(self, slide: Path) -> Iterator[SlideSource]:
        with open_slide(slide, background=(240, 241, 242)) as source:
            yield source

    def test_a_row_of_frames_is_that_of_the_frames_one_by_one(self, source):
        for level in (level for pyramid in source.pyramids for level in pyramid.levels if level.frame_format):
            for row in range(level.grid.tile_rows):
                addresses = [TileAddress(row, column) for column in range(level.grid.tile_columns)]
                together = read_frame_row(level, addresses[0], len(addresses))
                assert together == [level.read_frame(address) for address in addresses]

    def test_files_begin_with_the_path_and_exist(self, source, slide):
        assert source.path == slide
        assert source.files[0] == slide
        assert all(file.is_file() for file in source.files)
        assert len(set(source.files)) == len(source.files)

    def test_every_pyramid_has_a_base_and_shrinking_levels_of_one_kind(self, source):
        for pyramid in source.pyramids:
            sizes = [(it.grid.total_pixel_matrix_rows, it.grid.total_pixel_matrix_columns) for it in pyramid.levels]
            assert sizes == sorted(set(sizes), reverse=True)
            assert [level.level_index for level in pyramid.levels] == list(range(len(sizes)))
            assert len({(level.dtype, level.samples_per_pixel) for level in pyramid.levels}) == 1
            for level in pyramid.levels:
                assert level.grid.optical_paths == len(pyramid.optical_paths)
                assert level.grid.focal_planes == len(pyramid.focal_plane_offsets_um)

    def test_spacing_of_all_levels_spans_the_area_of_the_base(self, source):
        for pyramid in source.pyramids:
            base, *levels = pyramid.levels
            for level in levels:
                assert (level.pixel_spacing is None) == (base.pixel_spacing is None)
                if level.pixel_spacing:
                    width = level.pixel_spacing.column_mm * level.grid.total_pixel_matrix_columns
                    assert width == pytest.approx(
                        base.pixel_spacing.column_mm * base.grid.total_pixel_matrix_columns, rel=1e-9
                    )

    def test_a_level_is_reusable_or_says_why_not(self, source):
        for pyramid in source.pyramids:
            for level in pyramid.levels:
                assert (level.frame_format is None) == bool(level.not_reusable)
                assert level.compression
                assert level.color
                assert level.stored_bytes >= 0
                if level.frame_format and level.frame_format.lossy_method:
                    assert level.lossy_method

    def test_a_region_is_the_callers_own_contiguous_array(self, source):
        for pyramid in source.pyramids:
            for level in pyramid.levels:
                first, _ = level.read_region(0, 0, 20, 30)
                assert first.shape == (20, 30, level.samples_per_pixel)
                assert first.dtype == level.dtype
                assert first.flags.c_contiguous
                before = first.copy()
                first[...] = 7
                assert np.array_equal(level.read_region(0, 0, 20, 30)[0], before)

    def test_a_region_is_a_part_of_the_whole_level(self, source):
        level = source.pyramids[0].levels[0]
        rows, columns = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
        whole, _ = level.read_region(0, 0, rows, columns)
        top, left = rows // 3 + 1, columns // 3 + 1
        part, _ = level.read_region(top, left, rows // 2, columns // 2)
        assert np.array_equal(part, whole[top : top + rows // 2, left : left + columns // 2])

    def test_pixels_beyond_the_matrix_repeat_its_last_row_and_column(self, source):
        level = source.pyramids[0].levels[-1]
        rows, columns = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
        region, _ = level.read_region(rows - 10, columns - 12, 30, 40)
        inside, _ = level.read_region(rows - 10, columns - 12, 10, 12)
        assert np.array_equal(region, np.pad(inside, ((0, 20), (0, 28), (0, 0)), mode="edge"))

    @pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (10**9, 0), (0, 10**9)])
    def test_a_region_without_a_pixel_of_the_matrix_is_a_programming_mistake(self, source, corner):
        with pytest.raises(ValueError, match="no pixel of the matrix"):
            source.pyramids[0].levels[0].read_region(*corner, 5, 5)

    def test_stored_frames_decode_to_the_pixels_of_their_region(self, source):
        for level in (level for pyramid in source.pyramids for level in pyramid.levels if level.frame_format):
            for address in level.grid.iter_addresses():
                frame = level.read_frame(address)
                rows, columns = level.grid.valid_size(address)
                top, left = address.row_index * level.grid.rows, address.column_index * level.grid.columns
                region, missing = level.read_region(top, left, rows, columns)
                assert missing == (frame is None)
                if frame is not None:
                    decoded = level.decode_frame(frame, address)
                    assert decoded.shape == (level.grid.rows, level.grid.columns, level.samples_per_pixel)
                    assert np.array_equal(decoded[:rows, :columns], region)

    def test_half_decoding_gives_half_the_size_or_nothing(self, source):
        for level in (level for pyramid in source.pyramids for level in pyramid.levels if level.frame_format):
            address = next(it for it in level.grid.iter_addresses() if level.read_frame(it) is not None)
            half = level.decode_half_frame(level.read_frame(address), address)
            if half is not None:
                assert half.shape == (level.grid.rows // 2, level.grid.columns // 2, level.samples_per_pixel)

    def test_a_blank_frame_decodes_to_the_background(self, source):
        for level in (level for pyramid in source.pyramids for level in pyramid.levels if level.frame_format):
            pixels = level.decode_frame(level.blank_frame(), TileAddress(0, 0)).astype(int)
            assert pixels.shape == (level.grid.rows, level.grid.columns, 3)
            assert abs(pixels - (240, 241, 242)).max() <= 2

    def test_a_level_without_stored_frames_refuses_to_give_one(self, source):
        for level in (level for pyramid in source.pyramids for level in pyramid.levels if not level.frame_format):
            with pytest.raises(ValueError, match="no "):
                level.blank_frame()
            with pytest.raises(ValueError, match="no "):
                level.decode_frame(b"", TileAddress(0, 0))

    def test_regions_read_from_several_threads_are_those_read_alone(self, source):
        level = source.pyramids[0].levels[0]
        rows, columns = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
        corners = [(row, column) for row in range(0, rows, 150) for column in range(0, columns, 170)][:24]
        alone = [level.read_region(*corner, 64, 64)[0] for corner in corners]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda corner: level.read_region(*corner, 64, 64)[0], corners))
        assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))

    def test_associated_images_have_a_known_name_and_the_size_they_state(self, source):
        for name, image in source.associated_images.items():
            assert name == image.name
            assert name in ("label", "overview", "thumbnail")
            pixels = image.read()
            assert pixels.shape == (image.rows, image.columns, 3)
            assert pixels.dtype == np.uint8

    def test_findings_are_of_one_line_and_hold_no_identifying_text(self, source):
        for finding in source.findings:
            assert "\n" not in finding.message
            assert not any(len(text) > 3 and text in finding.message for text in source.metadata.identifying.values())

    def test_closing_twice_is_harmless(self, source):
        source.close()
        source.close()
