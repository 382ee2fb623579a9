"""What dicom-microscopy-viewer, the viewer inside Slim, shows of a series, compared with its source in OpenSlide."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
import pydicom
import pytest
from PIL import Image

from tests.factories.aperio import write_aperio_svs
from tests.faults.command_line import run
from tests.orthanc import Orthanc
from tests.viewer.conftest import Viewer

_HERE = Path(__file__).resolve().parent
_REDUCTION = 4


@dataclass(frozen=True, slots=True)
class ConvertedSlide:
    """A source slide and the folder with the DICOM files made from it."""

    slide: Path
    series: Path


@pytest.fixture(scope="module")
def converted_series(tmp_path_factory: pytest.TempPathFactory) -> ConvertedSlide:
    """A synthetic Aperio slide and what ``coverslip convert`` makes of it."""
    folder = tmp_path_factory.mktemp("viewer")
    slide, output = folder / "slide.svs", folder / "dicom"
    write_aperio_svs(slide, rows=1500, columns=2100)
    command = [sys.executable, "-m", "coverslip.cli", "convert", str(slide), "-o", str(output)]
    subprocess.run(
        [*command, "--include", "label,overview"],
        check=True,
        env=os.environ | {"PYTHONPATH": str(_HERE.parents[1] / "src")},
    )
    return ConvertedSlide(slide, output)


@pytest.fixture
def series_made_elsewhere(shared: Path, tmp_path: Path) -> ConvertedSlide:
    """A series another converter made: when the viewer fails on this one too, the fault is not in ours."""
    for file in (shared / "slides" / "dicom").glob("cmu1-pyramid-*.dcm"):
        shutil.copy(file, tmp_path)
    return ConvertedSlide(shared / "slides" / "real" / "CMU-1-Small-Region.svs", tmp_path)


def _source_view(base: Image.Image, view: dict[str, Any], size: tuple[int, int]) -> Image.Image:
    """Return what the viewer should show: the rectangle of `view` cut from `base`, scaled to `size`, white outside."""
    corner = view["column"], view["row"], view["column"] + view["columns"], view["row"] + view["rows"]
    margin = max(base.size)
    canvas = Image.new("RGB", (base.width + 2 * margin, base.height + 2 * margin), "white")
    canvas.paste(base, (margin, margin))
    box = tuple(edge + margin for edge in corner)
    return canvas.resize(size, Image.Resampling.BOX, box=box)


def _coarse(picture: Image.Image) -> npt.NDArray[np.float64]:
    return np.asarray(picture.reduce(_REDUCTION), np.float64)


def _assert_shows_source(converted: ConvertedSlide, report: dict[str, Any]) -> None:
    assert report["messages"] == []
    assert report["failed_requests"] == []
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in converted.series.rglob("*.dcm")]
    levels = {str(header.SOPInstanceUID) for header in headers if header.ImageType[2] in {"VOLUME", "THUMBNAIL"}}
    assert set(report["frames_of"]) == levels
    with openslide.OpenSlide(converted.slide) as source:
        base = source.read_region((0, 0), 0, source.dimensions).convert("RGB")
    for view in report["views"]:
        with Image.open(view["file"]) as picture:
            screenshot = picture.convert("RGB")
        shown, expected = _coarse(screenshot), _coarse(_source_view(base, view, screenshot.size))
        assert np.ptp(expected, axis=2).max() > 60, f"no tissue in the source of {view}"
        correlation = np.corrcoef(shown.ravel(), expected.ravel())[0, 1]
        assert correlation > 0.99, f"{view} correlates {correlation:.3f} with the source"
        assert np.abs(shown.mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 3, f"{view} has other colours"


def test_the_viewer_shows_every_level_of_a_converted_slide(
    converted_series: ConvertedSlide, viewer: Viewer, tmp_path: Path
) -> None:
    report = viewer.show([converted_series.series], tmp_path)[0]
    assert len(report["views"]) >= 3
    _assert_shows_source(converted_series, report)


def test_the_viewer_shows_every_level_from_orthanc_after_an_upload(
    converted_series: ConvertedSlide, viewer: Viewer, orthanc: Orthanc, tmp_path: Path
) -> None:
    orthanc.clear()
    to, ledger = f"dicomweb+{orthanc.dicomweb_url}", tmp_path / "ledger.sqlite"
    assert run("upload", converted_series.series, "--to", to, "--ledger", ledger).returncode == 0
    report = viewer.show_store(orthanc.dicomweb_url, tmp_path)
    orthanc.clear()
    assert len(report["views"]) >= 3
    _assert_shows_source(converted_series, report)


def test_the_viewer_shows_a_series_of_another_converter(
    series_made_elsewhere: ConvertedSlide, viewer: Viewer, tmp_path: Path
) -> None:
    report = viewer.show([series_made_elsewhere.series], tmp_path)[0]
    _assert_shows_source(series_made_elsewhere, report)
