"""Slides with tiles that do not decode, stopped at or written with background in their place."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydicom import dcmread
from tests.factories.aperio import write_aperio_svs
from tests.factories.damage import corrupt_tile, tile_past_the_end
from tests.factories.generic import write_tiled_tiff
from tests.factories.hamamatsu import write_ndpi
from tests.factories.vendor_tiff import write_trestle

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.converter.sources import open_slide
from coverslip.converter.sources.bad_tiles import screen_pyramid
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.tiler.grid import TileAddress

WHITE = (255, 255, 255)


def convert(slide, output, **options):
    (series,) = convert_slide(ConversionRequest(slide, output, spacing_mm=(0.0005, 0.0005), **options)).series
    return series


def svs(path):
    write_aperio_svs(path, rows=300, columns=500, tile=128, native_downsamples=(4,))
    corrupt_tile(path, tile=5)


def lzw(path):
    write_tiled_tiff(path, rows=300, columns=500, tile=128, compression="lzw", downsamples=(4,))
    corrupt_tile(path, tile=5)


def beyond(path):
    write_tiled_tiff(path, rows=300, columns=500, tile=128, compression="none", downsamples=())
    tile_past_the_end(path, tile=11)


@pytest.mark.parametrize(("write_slide", "frame"), [(svs, 5), (lzw, 5), (beyond, 11)])
def test_a_bad_tile_stops_the_slide_or_is_blank_counted_and_recorded(tmp_path, write_slide, frame):
    slide = tmp_path / "slide.tif"
    write_slide(slide)
    with pytest.raises(CorruptSourceError, match=rf"level 0, frame {frame}, byte offset \d+"):
        convert(slide, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    series = convert(slide, tmp_path / "out", blank_bad_tiles=True)
    base = series.instances[0]
    assert (base.bad_tiles, base.missing_tiles) == (1, 0)
    assert sum(instance.bad_tiles for instance in series.instances) == 1
    (finding,) = [finding for finding in series.findings if finding.rule == "source.bad-tile"]
    assert f"frame {frame}" in finding.message
    for instance in series.instances:
        header = dcmread(series.folder / instance.file_name, stop_before_pixels=True)
        told = f"1 tile that does not decode (frame {frame}) of stored level 0 written as background"
        from_base = "stored level 1 of the slide" not in instance.origin
        assert (told in header.DerivationDescription) == from_base
        assert header.ImageType[0] == "DERIVED"
    stated = json.loads((series.folder / "conversion.json").read_text())
    assert stated["instances"][0]["bad_tiles"] == 1


def test_a_slide_without_bad_tiles_is_converted_as_without_the_option_but_for_its_uids(tmp_path, aperio_slide):
    plain, screened = (convert(aperio_slide, tmp_path / str(blank), blank_bad_tiles=blank) for blank in (False, True))
    assert plain.series_instance_uid != screened.series_instance_uid
    assert [one.frame_bytes for one in plain.instances] == [one.frame_bytes for one in screened.instances]
    assert {one.bad_tiles for one in screened.instances} == {0}


def test_regions_and_frames_of_a_screened_level_are_background_where_it_is_bad(tmp_path):
    slide = tmp_path / "slide.svs"
    svs(slide)
    with open_slide(slide) as source:
        pyramid = screen_pyramid(source.pyramids[0], (1, 2, 3), 2)
        assert pyramid.bad_tiles == {0: (5,)}
        level = pyramid.levels[0]
        assert level.read_frame(TileAddress(1, 1)) is None
        pixels, missing = level.read_region(0, 0, 300, 500)
        assert missing == 1
        assert (pixels[128:256, 128:256] == (1, 2, 3)).all()
        around, _ = source.pyramids[0].levels[0].read_region(0, 0, 128, 500)
        assert np.array_equal(pixels[:128], around)
        lengths = level.expected_frame_lengths()
        for index, address in enumerate(level.grid.iter_addresses()):
            assert lengths[index] == len(level.read_frame(address) or level.blank_frame())


def test_a_bad_interval_of_an_ndpi_costs_one_frame(tmp_path):
    slide = tmp_path / "slide.ndpi"
    write_ndpi(slide, rows=1100, columns=512, downsamples=())
    with open_slide(slide) as source:
        level = source.pyramids[0].levels[0]
        bounds = level._planes[0].bounds()
        at = level._planes[0]._offset + int(bounds[8])
    data = bytearray(slide.read_bytes())
    data[at - 2 : at] = b"\xff\xd9"
    slide.write_bytes(data)
    series = convert(slide, tmp_path / "out", blank_bad_tiles=True)
    assert series.instances[0].bad_tiles == 1
    assert series.instances[0].number_of_frames == 3


def test_a_slide_of_nothing_but_bad_tiles_is_refused(tmp_path):
    slide = tmp_path / "slide.tif"
    write_tiled_tiff(slide, rows=100, columns=100, tile=128, compression="lzw", downsamples=())
    corrupt_tile(slide, tile=0)
    with pytest.raises(CorruptSourceError, match="level 0, frame 0"):
        convert(slide, tmp_path / "out", blank_bad_tiles=True)


def test_a_library_that_reads_nothing_after_a_bad_tile_is_not_trusted(tmp_path):
    slide = tmp_path / "slide.tif"
    write_trestle(slide, rows=1300, columns=700, overlap=16)
    corrupt_tile(slide, tile=40)
    with pytest.raises(UnsupportedSourceError, match="reads nothing after a bad tile"):
        convert(slide, tmp_path / "out", blank_bad_tiles=True)
