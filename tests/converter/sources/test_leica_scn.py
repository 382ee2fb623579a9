"""Leica SCN, against tifffile's and OpenSlide's reading."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import openslide
import pytest
import tifffile
from tests.contracts.slide_source import SlideSourceContract
from tests.factories.leica import ScnRegion, write_scn

from coverslip.converter.sources import open_slide
from coverslip.errors import CorruptSourceError, UnsupportedSourceError

TWO = (ScnRegion(), ScnRegion(rows=200, columns=260, place_nm=(9_000_000, 30_000_000)))


COLLECTION = '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection sizeX="9" sizeY="9">'
FAR_IMAGE = (
    f'{COLLECTION}<image><pixels><dimension sizeX="1" sizeY="1" ifd="77"/></pixels><view sizeX="3" sizeY="3"/>'
    "<scanSettings><illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings>"
    "</scanSettings></image></collection></scn>"
)


def read(level):
    return level.read_region(0, 0, level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns)[0]


class TestTwoRegions(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        path = tmp_path / "slide.scn"
        write_scn(path, TWO)
        return path

    def test_each_region_is_a_pyramid_of_its_own(self, source, slide):
        assert [pyramid.levels[0].grid.total_pixel_matrix_rows for pyramid in source.pyramids] == [300, 200]
        for index, pyramid in enumerate(source.pyramids):
            for level in pyramid.levels:
                expected = tifffile.imread(slide, key=1 + 2 * index + level.level_index)
                assert np.array_equal(read(level), expected)
                assert level.frame_format is not None
                assert level.pixel_spacing.origin == "TIFF resolution"
            assert pyramid.levels[0].pixel_spacing.row_mm == 0.0005
            assert not pyramid.stitched

    def test_regions_lie_where_they_were_scanned_against_the_axes_of_the_slide(self, source):
        (x, y), (other_x, other_y) = (pyramid.origin_mm for pyramid in source.pyramids)
        # The second lies 20 mm further down the rows and 4 mm further along the columns.
        assert (x - other_x, y - other_y) == pytest.approx((20, 4))

    def test_pixels_are_those_of_openslide(self, source, slide):
        with openslide.OpenSlide(slide) as other:
            for pyramid, region in zip(source.pyramids, TWO, strict=True):
                place = region.place_nm[0] // 500, region.place_nm[1] // 500
                expected = np.asarray(other.read_region(place, 0, (region.columns, region.rows)))[..., :3]
                assert np.array_equal(read(pyramid.levels[0]), expected)

    def test_metadata_are_those_of_the_xml(self, source):
        metadata = source.metadata
        assert source.format_name == "leica-scn"
        assert (metadata.manufacturer, metadata.manufacturer_model_name) == ("Leica", "Leica SCN400")
        assert (metadata.objective_lens_power, metadata.objective_lens_numerical_aperture) == (20, 0.4)
        assert metadata.acquisition_datetime == datetime(2012, 1, 1, tzinfo=UTC)
        assert metadata.identifying["leica.barcode"] == "BC-4711"

    def test_the_macro_image_is_the_overview(self, source, slide):
        assert np.array_equal(source.associated_images["overview"].read(), tifffile.imread(slide, key=0))


def test_the_shared_slide_has_the_pixels_of_openslide(shared):
    path = shared / "slides/synthetic/leica.scn"
    with open_slide(path) as source, openslide.OpenSlide(path) as other:
        (pyramid,) = source.pyramids
        for level in pyramid.levels:
            size = level.grid.total_pixel_matrix_columns, level.grid.total_pixel_matrix_rows
            expected = np.asarray(other.read_region((10000, 20000), level.level_index, size))[..., :3]
            assert np.array_equal(read(level), expected)
        macro = np.asarray(other.associated_images["macro"])[..., :3]
        assert np.array_equal(source.associated_images["overview"].read(), macro)


def test_spacing_is_that_of_the_view_where_the_tags_state_none(tmp_path):
    write_scn(tmp_path / "slide.scn", resolution=False)
    with open_slide(tmp_path / "slide.scn") as source:
        spacing = source.pyramids[0].levels[0].pixel_spacing
        assert (spacing.row_mm, spacing.origin) == (0.0005, "SCN view")


@pytest.mark.parametrize("regions", [[ScnRegion(illumination="fluorescence")], [ScnRegion(channels=3)]])
def test_fluorescence_is_refused(tmp_path, regions):
    write_scn(tmp_path / "slide.scn", regions)
    with pytest.raises(UnsupportedSourceError, match="fluorescence, which is not read yet"):
        open_slide(tmp_path / "slide.scn")


def test_a_fluorescence_region_beside_brightfield_is_left_out_with_a_finding(tmp_path):
    write_scn(tmp_path / "slide.scn", [ScnRegion(illumination="fluorescence"), *TWO])
    with open_slide(tmp_path / "slide.scn") as source:
        assert len(source.pyramids) == 2
        assert "1 of 3 regions are fluorescence" in source.findings[0].message


def test_of_several_focal_planes_the_first_is_read_and_the_others_told(tmp_path):
    write_scn(tmp_path / "slide.scn", [ScnRegion(planes=3)])
    with open_slide(tmp_path / "slide.scn") as source:
        assert np.array_equal(read(source.pyramids[0].levels[0]), tifffile.imread(tmp_path / "slide.scn", key=1))
        assert "source.focal-planes-unused" in [finding.rule for finding in source.findings]


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ('<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><coll', "does not parse"),
        ('<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"/>', "has no collection"),
        (
            '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection sizeX="1" sizeY="a"/></scn>',
            "sizeY in the XML of a Leica SCN slide is no whole number",
        ),
        (
            COLLECTION + "<image><pixels/></image></collection></scn>",
            "lacks its view",
        ),
        (
            FAR_IMAGE,
            "directory 77 of 3",
        ),
    ],
)
def test_xml_that_is_damaged_is_told_in_one_line(tmp_path, xml, words):
    write_scn(tmp_path / "slide.scn", xml=xml)
    with pytest.raises(CorruptSourceError, match=words):
        open_slide(tmp_path / "slide.scn")
