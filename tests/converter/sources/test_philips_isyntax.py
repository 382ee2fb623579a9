"""iSyntax files, as far as one can be made here: of a blank slide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from isyntax import ISyntax
from tests.contracts.slide_source import SlideSourceContract
from tests.factories.isyntax import write_isyntax

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.converter.sources import open_slide
from coverslip.errors import CorruptSourceError, UnsupportedSourceError


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    path = tmp_path / "case-7731.isyntax"
    write_isyntax(path)
    return path


class TestIsyntax(SlideSourceContract):
    @pytest.fixture
    def slide(self, blank):
        return blank

    def test_it_is_described_as_its_xml_says(self, source):
        assert source.format_name == "philips-isyntax"
        levels = source.pyramids[0].levels
        sizes = [(level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns) for level in levels]
        assert sizes == [(600, 900), (300, 450), (150, 225)]
        assert levels[0].pixel_spacing.row_mm == 0.00025
        assert levels[0].lossy_method == "PHILIPS_DP_1_0"
        stated = source.metadata
        assert (stated.manufacturer, stated.manufacturer_model_name) == ("PHILIPS", "UFS Scanner")
        assert (stated.software_versions, stated.device_serial_number) == (("1.8.6824",), "FMT4711-9")
        assert stated.acquisition_datetime.isoformat() == "2023-04-05T06:07:08"
        assert stated.restricted["BarcodeValue"] == "BC-4711-7"


def test_pixels_are_those_of_the_library(blank):
    with open_slide(blank) as source, ISyntax.open(blank) as other:
        for level in source.pyramids[0].levels:
            rows, columns = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
            expected = other.read_region(0, 0, columns, rows, level.level_index)[..., :3]
            assert np.array_equal(level.read_region(0, 0, rows, columns)[0], expected)


def test_it_converts_with_label_and_overview(blank, tmp_path):
    request = ConversionRequest(blank, tmp_path / "out", include=("label", "overview"))
    (series,) = convert_slide(request).series
    assert {instance.image_flavor for instance in series.instances} == {"VOLUME", "LABEL", "OVERVIEW"}


def test_a_file_that_is_cut_off_or_damaged_is_corrupt(blank):
    data = blank.read_bytes()
    blank.write_bytes(data[:3000])
    with pytest.raises(CorruptSourceError, match="whose XML has no end"):
        open_slide(blank)
    blank.write_bytes(data.replace(b'ObjectType="DPScannedImage"', b'ObjectType="DPScannedImag"'))
    with pytest.raises(CorruptSourceError, match=r"does not parse|cannot open"):
        open_slide(blank)


def test_a_file_at_which_the_library_ends_its_process_is_corrupt(blank):
    # Without text before an array it finds no size of tiles, and divides by zero.
    blank.write_bytes(blank.read_bytes().replace(b">\n<Array>\n", b"><Array>\n\n"))
    code = "import sys; from isyntax import ISyntax; ISyntax.open(sys.argv[1])"
    assert subprocess.run([sys.executable, "-c", code, blank], capture_output=True, check=False).returncode < 0
    with pytest.raises(CorruptSourceError, match="pyisyntax cannot open"):
        open_slide(blank)


def test_a_file_of_no_scan_is_unsupported(blank):
    blank.write_bytes(blank.read_bytes().replace(b">WSI<", b">XYZ<"))
    with pytest.raises(UnsupportedSourceError, match="of 0 scanned images"):
        open_slide(blank)
