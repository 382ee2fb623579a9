"""MIRAX slides that were made here, as OpenSlide stitches them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from openslide import OpenSlide
from pydicom import dcmread
from tests.contracts.slide_source import SlideSourceContract
from tests.factories.mirax import write_mirax

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.converter.sources import open_slide
from coverslip.errors import CorruptSourceError


def whole(level) -> np.ndarray:
    return level.read_region(0, 0, level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns)[0]


class TestOverlapping(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        write_mirax(tmp_path / "slide.mrxs", overlap=(8, 16))
        return tmp_path / "slide.mrxs"

    def test_all_files_of_the_folder_belong_to_it(self, source):
        names = [file.name for file in source.files]
        assert names == ["slide.mrxs", "Data0000.dat", "Data0001.dat", "Index.dat", "Slidedat.ini"]


@pytest.mark.parametrize("overlap", [(0, 0), (8, 16), (1, 0)])
def test_photos_that_overlap_are_the_picture_again(tmp_path: Path, overlap):
    path = tmp_path / "slide.mrxs"
    picture = write_mirax(path, overlap=overlap)
    with open_slide(path) as source, OpenSlide(path) as other:
        pyramid = source.pyramids[0]
        assert pyramid.stitched
        assert np.array_equal(whole(pyramid.levels[0]), picture)
        for level in pyramid.levels:
            expected = np.asarray(other.read_region((0, 0), level.level_index, whole(level).shape[1::-1]))
            assert np.array_equal(whole(level), expected[..., :3])
        stated = source.metadata
        assert (stated.manufacturer, stated.objective_lens_power) == ("3DHISTECH", 20)
        assert stated.acquisition_datetime.isoformat() == "2023-04-05T06:07:08"
        assert "case-4711-7" in stated.identifying.values()
        assert set(source.associated_images) == {"label", "overview", "thumbnail"}


def test_what_was_not_scanned_has_the_fill_colour_and_is_cropped_at_the_edges(tmp_path: Path):
    path = tmp_path / "case-7731.mrxs"
    missing = [(1, 1), *((0, column) for column in range(4))]
    picture = write_mirax(path, missing=missing, fill_bgr=0x0A1E5A)
    with open_slide(path, background=(1, 2, 3)) as source:
        pixels = whole(source.pyramids[0].levels[0])
    assert pixels.shape == (384, 512, 3)
    assert np.array_equal(pixels[128:], picture[256:])
    assert np.array_equal(pixels[:128, :128], picture[128:256, :128])
    assert (pixels[:128, 128:256] == (0x5A, 0x1E, 0x0A)).all()
    (series,) = convert_slide(ConversionRequest(path, tmp_path / "out")).series
    ds = dcmread(series.folder / series.instances[0].file_name, stop_before_pixels=True)
    assert ds.ImageType == ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    assert "stitched" in ds.DerivationDescription
    with OpenSlide(series.folder / series.instances[0].file_name) as made:
        assert np.array_equal(np.asarray(made.read_region((0, 0), 0, made.dimensions))[..., :3], pixels)


@pytest.mark.parametrize("name", ["Data0001.dat", "Index.dat", "Slidedat.ini"])
def test_a_missing_file_is_named_before_anything_is_written(tmp_path: Path, name: str):
    path = tmp_path / "case-7731.mrxs"
    write_mirax(path)
    (path.with_suffix("") / name).unlink()
    with pytest.raises(CorruptSourceError, match=f"missing: {name}"):
        convert_slide(ConversionRequest(path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_data_file_that_is_cut_off_ends_the_conversion_and_leaves_nothing(tmp_path: Path):
    path = tmp_path / "case-7731.mrxs"
    write_mirax(path, pictures=False)
    data = path.with_suffix("") / "Data0001.dat"
    data.write_bytes(data.read_bytes()[:20_000])
    with pytest.raises(CorruptSourceError, match="level 0: OpenSlide cannot read"):
        convert_slide(ConversionRequest(path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
