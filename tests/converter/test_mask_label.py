"""The label in an overview is painted over, generously or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from tests.factories.aperio import write_aperio_svs

from coverslip.converter.convert import convert_slide
from coverslip.converter.mask_label import label_columns, mask_label
from coverslip.converter.request import ConversionRequest
from coverslip.converter.sources import openslide_source
from coverslip.converter.sources.base import AssociatedImage


def overview(rows=431, columns=1280, side="left"):
    return AssociatedImage("overview", rows, columns, lambda: np.full((rows, columns, 3), 7, np.uint8), label_side=side)


def test_27_mm_are_painted_at_the_scale_that_the_slides_width_gives():
    assert label_columns(431, 1280) == 459  # 27 / 25.4 * 431 = 458.1


@pytest.mark.parametrize(("rows", "columns"), [(0, 10), (1280, 431), (431, 431), (400, 1600)])
def test_a_picture_that_shows_no_whole_slide_has_no_scale(rows, columns):
    assert label_columns(rows, columns) is None
    assert mask_label(overview(rows, columns)) is None


def test_an_overview_whose_label_may_be_anywhere_is_not_masked():
    assert mask_label(overview(side=None)) is None


@pytest.mark.parametrize(("side", "grey"), [("left", slice(0, 459)), ("right", slice(821, 1280))])
def test_the_labels_end_is_one_grey_and_the_rest_is_untouched(side, grey):
    masked = mask_label(overview(side=side))
    pixels = masked.read()
    assert (pixels[:, grey] == 128).all()
    assert int((pixels == 7).sum()) == 431 * (1280 - 459) * 3
    assert masked.masked
    assert not masked.shows_label
    assert overview(side=side).shows_label


@pytest.mark.parametrize("name", ["real/CMU-1-Small-Region.svs", "real/fluorescence-DAPI.ndpi"])
def test_nothing_of_the_label_of_a_real_slide_is_left(shared, name):
    # Straight through OpenSlide: what else the second one holds is fluorescence, which is refused.
    with openslide_source.open_source(shared / "slides" / name, None, (255, 255, 255)) as source:
        image = source.associated_images["overview"]
        before, after = image.read(), mask_label(image).read()
    changed = (before != after).any(axis=(0, 2))
    edge = label_columns(image.rows, image.columns)
    assert not changed[edge:].any()
    assert (after[:, :edge] == 128).all()
    # Both pictures show the end of the label's field as a step in brightness, before this column.
    assert edge > 300


def test_a_masked_overview_is_derived_and_says_that_no_label_can_be_read(tmp_path):
    from pydicom import dcmread

    write_aperio_svs(tmp_path / "slide.svs")
    request = ConversionRequest(tmp_path / "slide.svs", tmp_path / "out", include=("overview",), mask_label=True)
    series = convert_slide(request).series[0]
    ds = dcmread(series.folder / series.instances[-1].file_name)
    assert list(ds.ImageType) == ["DERIVED", "PRIMARY", "OVERVIEW", "NONE"]
    assert (ds.BurnedInAnnotation, ds.PatientIdentityRemoved) == ("NO", "YES")
    assert "113101" in [item.CodeValue for item in ds.DeidentificationMethodCodeSequence]
    assert "label painted over" in ds.DerivationDescription
    frame = ds.pixel_array
    assert (abs(frame[:, :440].astype(int) - 128) < 3).all()


def test_an_overview_that_cannot_be_masked_is_left_out_with_a_finding(tmp_path, shared):
    slide = shared / "slides/synthetic/ventana.bif"
    series = convert_slide(ConversionRequest(slide, tmp_path, include=("overview",), mask_label=True)).series[0]
    assert {instance.image_flavor for instance in series.instances} == {"VOLUME"}
    assert "privacy.label-not-located" in {finding.rule for finding in series.findings}
