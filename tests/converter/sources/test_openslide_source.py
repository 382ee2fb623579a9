"""Slides that only OpenSlide reads, against OpenSlide's own Pillow pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest
from openslide import OpenSlide
from tests.contracts.slide_source import SlideSourceContract
from tests.factories import damage
from tests.factories.hamamatsu import write_vms, write_vmu
from tests.factories.vendor_tiff import write_trestle

from coverslip.converter.sources import open_slide, openslide_source
from coverslip.converter.sources.openslide_source import _over_background
from coverslip.errors import CorruptSourceError, SourceError, UnsupportedSourceError

# Name, format, manufacturer, levels, files, stitched.
SLIDES = [
    ("huron.tif", "huron-tiff", "Huron", 3, 1, False),
    ("mirax.mrxs", "mirax", "3DHISTECH", 3, 4, True),
    ("trestle.tif", "trestle", "Trestle", 3, 1, False),
    ("vms/slide.vms", "hamamatsu-vms", "Hamamatsu", 6, 7, False),
]
BY_NAME = {slide[0]: slide for slide in SLIDES}


class TestMirax(SlideSourceContract):
    @pytest.fixture
    def slide(self, shared):
        return shared / "slides/synthetic/mirax.mrxs"

    def test_a_blank_frame_decodes_to_the_background(self, source):
        assert all(level.frame_format is None for level in source.pyramids[0].levels)


@pytest.fixture
def leica(shared):
    """A slide on a canvas that is larger than what was scanned."""
    with openslide_source.open_source(shared / "slides/synthetic/leica.scn", None, (10, 20, 30)) as source:
        yield source


def test_levels_are_cropped_to_the_bounds(leica, shared):
    # bounds 10000, 20000, 2048 x 1536; level 1 is a quarter
    levels = leica.pyramids[0].levels
    sizes = [(level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns) for level in levels]
    assert sizes == [(1536, 2048), (384, 512)]
    with openslide.OpenSlide(shared / "slides/synthetic/leica.scn") as other:
        for level, (rows, columns) in zip(levels, sizes, strict=True):
            picture = other.read_region((10000, 20000), level.level_index, (columns, rows))
            assert np.array_equal(level.read_region(0, 0, rows, columns)[0], np.asarray(picture)[..., :3])


def test_origin_is_that_of_the_bounds(leica):
    # The canvas is 53130 pixels of 0.5 um wide.
    assert leica.pyramids[0].origin_mm == pytest.approx((20000 * 0.0005, (53130 - 10000) * 0.0005))


@pytest.mark.parametrize("name", BY_NAME)
def test_every_vendor_is_read_as_openslide_reads_it(shared, name):
    _, format_name, manufacturer, level_count, file_count, stitched = BY_NAME[name]
    path = shared / "slides/synthetic" / name
    with open_slide(path) as source, openslide.OpenSlide(path) as other:
        assert source.format_name == format_name
        assert source.metadata.manufacturer == manufacturer
        assert len(source.files) == file_count
        pyramid = source.pyramids[0]
        assert pyramid.stitched == stitched
        assert len(pyramid.levels) == level_count
        left = int(other.properties.get("openslide.bounds-x", 0))
        top = int(other.properties.get("openslide.bounds-y", 0))
        for level in pyramid.levels:
            assert (level.compression, level.lossy_method) == ("JPEG", "ISO_10918_1")
            rows, columns = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
            expected = np.asarray(other.read_region((left, top), level.level_index, (columns, rows)))
            assert expected[..., 3].min() == 255
            assert np.array_equal(level.read_region(0, 0, rows, columns)[0], expected[..., :3])
        for ours, theirs in (("label", "label"), ("overview", "macro"), ("thumbnail", "thumbnail")):
            assert (ours in source.associated_images) == (theirs in other.associated_images)
            if theirs in other.associated_images:
                expected = np.asarray(other.associated_images[theirs])[..., :3]
                assert np.array_equal(source.associated_images[ours].read(), expected)


def test_premultiplied_colour_is_laid_over_the_background():
    # opaque, transparent, and half covered by a colour already multiplied by its alpha
    words = np.array([[0xFF102030, 0x00000000, 0x80402000]], np.uint32)
    pixels = _over_background(words, np.array((200, 100, 255), np.uint16))
    # 0x80 covers 128 of 255: 127 / 255 of the background shows
    half = [0x40 + round(200 * 127 / 255), 0x20 + round(100 * 127 / 255), 0 + round(255 * 127 / 255)]
    assert pixels.tolist() == [[[0x10, 0x20, 0x30], [200, 100, 255], half]]


def test_outside_the_scanned_area_of_a_canvas_is_background(leica):
    level = leica.pyramids[0].levels[0]
    level._left, level._top = 0, 0
    assert np.array_equal(level.read_region(0, 0, 4, 4)[0], np.full((4, 4, 3), (10, 20, 30)))


def test_a_slide_that_tells_its_background_gets_it(shared):
    with open_slide(shared / "slides/synthetic/trestle.tif", background=(1, 2, 3)) as source:
        assert source.pyramids[0].levels[0]._background.tolist() == [0xF0, 0xF0, 0xF0]


def test_a_slide_damaged_inside_is_corrupt_when_read(tmp_path):
    path = tmp_path / "slide.tif"
    write_trestle(path, overlap=16)
    damage.corrupt_tile(path, tile=0)
    with open_slide(path) as source, pytest.raises(CorruptSourceError, match="level 0: OpenSlide cannot read"):
        source.pyramids[0].levels[0].read_region(0, 0, 200, 200)


def test_a_file_of_no_vendor_under_a_vendors_name_is_unsupported(tmp_path):
    path = tmp_path / "slide.mrxs"
    path.write_bytes(b"\xff\xd8\xff\xd9")
    with pytest.raises(UnsupportedSourceError, match="a MIRAX index without its folder"):
        open_slide(path)


@pytest.fixture
def mirax(shared, tmp_path):
    """A MIRAX slide that may be damaged."""
    shutil.copytree(shared / "slides/synthetic/mirax", tmp_path / "slide")
    path = shutil.copyfile(shared / "slides/synthetic/mirax.mrxs", tmp_path / "slide.mrxs")
    for file in (tmp_path / "slide").iterdir():
        file.chmod(0o644)
    (tmp_path / "slide").chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["Data0000.dat", "Index.dat", "Slidedat.ini"])
def test_a_file_that_is_missing_from_a_mirax_folder_is_named(mirax, name):
    (mirax.with_suffix("") / name).unlink()
    with pytest.raises(CorruptSourceError, match=f"missing: {name}"):
        open_slide(mirax)


def test_settings_of_a_mirax_slide_that_do_not_parse_are_told(mirax):
    (mirax.with_suffix("") / "Slidedat.ini").write_text("no settings")
    with pytest.raises(CorruptSourceError, match=r"Slidedat\.ini of the slide's folder does not parse"):
        open_slide(mirax)


def test_a_mirax_slide_has_the_background_that_its_settings_fill_with(mirax):
    settings = mirax.with_suffix("") / "Slidedat.ini"
    settings.write_bytes(settings.read_bytes().replace(b"FILL_COLOR_BGR = 16777215", b"FILL_COLOR_BGR = 15790320"))
    with open_slide(mirax, background=(1, 2, 3)) as source:
        assert source.pyramids[0].levels[0]._background.tolist() == [0xF0, 0xF0, 0xF0]


class TestVmu(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        path = tmp_path / "slide.vmu"
        self.picture = write_vmu(path)
        return path

    def test_samples_of_12_bits_are_read_as_their_upper_eight_and_that_is_told(self, source):
        level = source.pyramids[0].levels[0]
        assert source.format_name == "hamamatsu-vms"
        assert (level.compression, level.lossy_method) == ("none", None)
        assert np.array_equal(level.read_region(0, 0, 130, 192)[0], self.picture)
        assert [finding.rule for finding in source.findings] == ["source.bits-dropped"]
        assert len(source.files) == 4
        assert level.pixel_spacing.row_mm == 0.0005


@pytest.fixture(scope="module")
def vms_slide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("vms") / "slide.vms"
    return path, write_vms(path)


class TestHamamatsuVms(SlideSourceContract):
    @pytest.fixture
    def slide(self, vms_slide):
        return vms_slide[0]

    def test_files_side_by_side_make_one_picture(self, source, slide, vms_slide):
        level = source.pyramids[0].levels[0]
        assert (source.format_name, level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns) == (
            "hamamatsu-vms", 1536, 2048,
        )  # fmt: skip
        pixels, missing = level.read_region(0, 0, 1536, 2048)
        assert missing == 0
        with OpenSlide(slide) as other:
            expected = np.asarray(other.read_region((0, 0), 0, (2048, 1536)))[..., :3]
        assert np.array_equal(pixels, expected)
        assert np.abs(pixels.astype(int) - vms_slide[1]).mean() < 4
        assert level.pixel_spacing.row_mm == pytest.approx(0.0005)

    def test_all_files_are_the_slides(self, source, slide):
        names = {file.name for file in source.files}
        assert names == {"slide.vms", "map.jpg", "macro.jpg", *(f"part_{x}_{y}.jpg" for x in (0, 1) for y in (0, 1))}

    def test_a_file_that_is_missing_is_an_error_of_the_slide(self, slide, tmp_path):
        copy = shutil.copytree(slide.parent, tmp_path / "copy") / slide.name
        copy.with_name("part_1_0.jpg").unlink()
        with pytest.raises(SourceError, match="part_1_0"):
            open_slide(copy)
