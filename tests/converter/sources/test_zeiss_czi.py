"""CZI of brightfield slides, read by OpenSlide and by Zeiss's library."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from openslide import OpenSlide
from pylibCZIrw import czi
from tests.contracts.slide_source import SlideSourceContract
from tests.factories.czi import CziScene, write_czi

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.converter.sources import open_slide
from coverslip.errors import CorruptSourceError, MissingDependencyError, UnsupportedSourceError

TWO_SCENES = (CziScene(), CziScene(200, 250, (500, 1000)))


def whole(level, plane: int = 0) -> np.ndarray:
    size = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
    return level.read_region(0, 0, *size, focal_plane_index=plane)[0]


class TestReadByOpenSlide(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        write_czi(tmp_path / "slide.czi", compression="zstd")
        return tmp_path / "slide.czi"

    def test_it_has_all_levels_and_pictures(self, source):
        assert (source.format_name, source.format_title) == ("zeiss-czi", "Zeiss CZI")
        assert len(source.pyramids[0].levels) == 2
        assert set(source.associated_images) == {"label", "overview"}


class TestReadByZeissLibrary(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        write_czi(tmp_path / "slide.czi", dimensions="CZT", planes=2)
        return tmp_path / "slide.czi"

    def test_it_has_the_base_and_its_focal_planes(self, source):
        (pyramid,) = source.pyramids
        assert (len(pyramid.levels), pyramid.focal_plane_offsets_um) == (1, (0, 2))
        assert not np.array_equal(whole(pyramid.levels[0], 0), whole(pyramid.levels[0], 1))
        assert source.findings == ()


@pytest.mark.parametrize("dimensions", ["C", "CZT"])
def test_pixels_and_metadata_are_the_same_whichever_library_reads_them(tmp_path: Path, dimensions: str):
    path = tmp_path / "slide.czi"
    (picture,) = write_czi(path, dimensions=dimensions)
    with open_slide(path) as source:
        level = source.pyramids[0].levels[0]
        assert np.array_equal(whole(level), picture)
        assert (level.pixel_spacing.row_mm, level.compression) == (0.0005, "none")
        stated = source.metadata
        assert (stated.manufacturer, stated.manufacturer_model_name) == ("Zeiss", "Axioscan 7")
        assert (stated.software_versions, stated.objective_lens_power) == (("3.5",), 20)
        assert stated.objective_lens_numerical_aperture == 0.8
        assert stated.acquisition_datetime.isoformat() == "2023-04-05T06:07:08+00:00"
        assert {"Ann Other", "ann.other", "case-4711-7"} <= set(stated.identifying.values())
    with czi.open_czi(str(path)) as other:
        assert np.array_equal(other.read()[..., ::-1], picture)


@pytest.mark.parametrize("dimensions", ["C", "CZT"])
def test_scenes_are_series_of_their_own_that_lie_to_each_other_as_on_the_glass(tmp_path: Path, dimensions: str):
    path = tmp_path / "case-7731.czi"
    pictures = write_czi(path, TWO_SCENES, dimensions=dimensions)
    with open_slide(path) as source:
        first, second = source.pyramids
        assert all(np.array_equal(whole(one.levels[0]), it) for one, it in zip(source.pyramids, pictures, strict=True))
        assert first.origin_mm[0] - second.origin_mm[0] == pytest.approx(-500 * 0.0005)
        assert first.origin_mm[1] - second.origin_mm[1] == pytest.approx(1000 * 0.0005)
    series = convert_slide(ConversionRequest(path, tmp_path / "out")).series
    assert [one.instances[0].total_pixel_matrix_columns for one in series] == [400, 250]
    for one, picture in zip(series, pictures, strict=True):
        with OpenSlide(one.folder / one.instances[0].file_name) as made:
            assert np.array_equal(np.asarray(made.read_region((0, 0), 0, made.dimensions))[..., :3], picture)


def test_scenes_that_cover_each_other_are_one_region(tmp_path: Path):
    path = tmp_path / "slide.czi"
    write_czi(path, (CziScene(), CziScene(200, 250, (100, 100))))
    with open_slide(path) as source:
        assert len(source.pyramids) == 1


def test_a_real_file_that_openslide_refuses_is_read(shared, tmp_path):
    path = shared / "slides/real/RGB-8bit.czi"
    with open_slide(path) as source, czi.open_czi(str(path)) as other:
        level = source.pyramids[0].levels[0]
        assert np.array_equal(whole(level), other.read()[..., ::-1])
        assert level.pixel_spacing.row_mm == pytest.approx(0.00108333, rel=1e-5)
        assert not source.pyramids[0].stitched
    assert convert_slide(ConversionRequest(path, tmp_path / "out")).series[0].instances


@pytest.mark.parametrize("shared_file", [True, False])
def test_what_is_no_8_bit_rgb_is_refused(shared, tmp_path, *, shared_file: bool):
    path = shared / "slides/real/mosaic_test.czi" if shared_file else tmp_path / "slide.czi"
    if not shared_file:
        write_czi(path, pixel_type="Gray16", dimensions="CZ")
    with pytest.raises(UnsupportedSourceError, match="1 channels of Gray16 and 1 time points, which is not read yet"):
        open_slide(path)


def test_a_spacing_that_is_not_there_is_told(tmp_path: Path):
    write_czi(tmp_path / "slide.czi", spacing_um=None, dimensions="CZ")
    with open_slide(tmp_path / "slide.czi") as source:
        assert [finding.rule for finding in source.findings] == ["source.spacing-unknown"]


def test_without_the_second_library_its_install_command_is_told(tmp_path: Path, monkeypatch):
    write_czi(tmp_path / "slide.czi", dimensions="CZ")
    monkeypatch.setitem(sys.modules, "pylibCZIrw", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'coverslip\[czi\]'"):
        open_slide(tmp_path / "slide.czi")


def test_a_tile_that_does_not_decode_is_corrupt(tmp_path: Path):
    path = tmp_path / "slide.czi"
    write_czi(path, compression="zstd", dimensions="CZ", attachments=False)
    data = path.read_bytes()
    at = data.find(b"\x28\xb5\x2f\xfd")  # of the first Zstandard frame
    path.write_bytes(data[:at] + bytes(40) + data[at + 40 :])
    with open_slide(path) as source, pytest.raises(CorruptSourceError, match="pylibCZIrw cannot read"):
        whole(source.pyramids[0].levels[0])


def test_a_directory_that_does_not_fit_the_tiles_is_corrupt_before_any_library_reads_it(tmp_path: Path):
    path = tmp_path / "slide.czi"
    write_czi(path, dimensions="CZ", attachments=False)
    data = path.read_bytes()
    tile = data.find(b"ZISRAWSUBBLOCK")
    size = data.find(b"X\0\0\0", tile)
    for damaged, words in (
        (data[:-1500], "cut off"),
        (data[: size + 8] + b"\xff\0" + data[size + 10 :], "says otherwise of itself"),
        (data[:tile] + b"X" + data[tile + 1 :], "is not where the directory says"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(CorruptSourceError, match=words):
            open_slide(path)
