"""Rules about what instances, series and studies share; each shown by a good series broken in one way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames

from coverslip.validators.validate import ValidationOptions, validate_paths
from tests.validators.broken import errors, good_series, level_files, rewrite, validate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture
def lower(good: Path, tmp_path: Path) -> Path:
    """File of the second level of a copy that may be broken."""
    good_series(good, tmp_path)
    return level_files(tmp_path)[1]


def path_item(ds: Dataset) -> Dataset:
    return ds.OpticalPathSequence[0]


def put(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda ds: setattr(ds, keyword, value)


def edit_profile(start: int, value: bytes) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        profile = bytearray(path_item(ds).ICCProfile)
        profile[start : start + len(value)] = value
        path_item(ds).ICCProfile = bytes(profile)

    return change


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (put("PatientID", "P2"), "series.patient"),
        (put("StudyDate", "20200101"), "series.study"),
        (put("StudyInstanceUID", "2.25.7"), "series.study"),
        (put("SeriesNumber", 7), "series.series"),
        (put("DeviceSerialNumber", "7"), "series.equipment"),
        (put("ContainerIdentifier", "7"), "series.container"),
        (put("FrameOfReferenceUID", "2.25.7"), "series.frame-of-reference"),
        (put("AcquisitionUID", "2.25.7"), "series.acquisition"),
        (put("AcquisitionDateTime", "20200101"), "series.acquisition"),
        (put("PyramidUID", "2.25.7"), "series.pyramid-uid"),
        (put("ImageOrientationSlide", [0, 1, 0, 1, 0, 0]), "series.orientation"),
        (
            lambda ds: setattr(ds.TotalPixelMatrixOriginSequence[0], "XOffsetInSlideCoordinateSystem", "1.5"),
            "series.origin",
        ),
        (lambda ds: setattr(ds.SpecimenDescriptionSequence[0], "SpecimenIdentifier", "7"), "series.specimen"),
        (lambda ds: setattr(path_item(ds), "ObjectiveLensPower", "7"), "series.optical-path"),
        (edit_profile(12, b"mntr"), "color.icc-class"),
        (edit_profile(16, b"CMYK"), "color.icc-space"),
        (edit_profile(20, b"RGB "), "color.icc-connection"),
        (edit_profile(36, b"none"), "color.icc-damaged"),
        (put("LossyImageCompressionMethod", "ISO_15444_1"), "lossy.method"),
        (put("LossyImageCompressionRatio", "2.5"), "lossy.ratio"),
        (put("LossyImageCompressionRatio", ["2.5"] * 5), "lossy.values"),
        (put("LossyImageCompression", "00"), "lossy.flag"),
    ],
)
def test_difference_is_caught_by_its_own_rule_alone(lower: Path, change: Callable[[Any], Any], rule: str):
    rewrite(lower, change)
    found = errors(validate(lower.parent))
    assert rule in found
    assert {each for each in found if not each.startswith(("iod.", "lossy."))} <= {rule}


def test_level_that_forgets_losses_is_caught(lower: Path):
    def become_lossless(ds: Dataset) -> None:
        ds.LossyImageCompression = "00"
        del ds.LossyImageCompressionMethod, ds.LossyImageCompressionRatio

    rewrite(lower, become_lossless)
    assert {"lossy.flag", "lossy.history"} <= errors(validate(lower.parent))


def test_level_without_a_profile_among_others_is_caught(lower: Path):
    rewrite(lower, lambda ds: delattr(path_item(ds), "ICCProfile"))
    assert "color.icc-levels" in errors(validate(lower.parent))


def test_two_files_of_one_instance_are_caught(lower: Path):
    shutil.copy(lower, lower.with_name("copy.dcm"))
    assert {"series.duplicate-instance", "pyramid.duplicate-level"} == errors(validate(lower.parent))


def label_file(folder: Path) -> Path:
    return next(p for p in folder.glob("*.dcm") if dcmread(p, stop_before_pixels=True).ImageType[2] == "LABEL")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (put("PyramidUID", "2.25.7"), "label.pyramid-uid"),
        (put("SpecimenLabelInImage", "NO"), "label.not-in-image"),
        (put("BurnedInAnnotation", "NO"), "label.burned-in"),
        (put("ImageType", ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"]), "label.several"),
    ],
)
def test_label_that_is_wrong_is_caught(lower: Path, change: Callable[[Any], Any], rule: str):
    rewrite(label_file(lower.parent), change)
    assert rule in validate(lower.parent).counts()


def test_thumbnail_that_hides_levels_is_caught(lower: Path):
    rewrite(lower, put("ImageType", ["DERIVED", "PRIMARY", "THUMBNAIL", "RESAMPLED"]))
    assert "label.thumbnail-size" in validate(lower.parent).counts()


def test_studies_and_patients_must_agree_over_series(good: Path, tmp_path: Path):
    for name, sex in (("a", "M"), ("b", "F")):
        (tmp_path / name).mkdir()
        for file in (good_series(good, tmp_path / name).parent).glob("*.dcm"):

            def change(ds: Dataset, name: str = name, sex: str = sex) -> None:
                ds.PatientID, ds.PatientSex, ds.SeriesInstanceUID = "P1", sex, f"2.25.{ord(name)}"

            rewrite(file, change)
    found = [errors(report) for report in validate_paths([tmp_path], ValidationOptions())]
    assert {"study.patient", "study.duplicate-instance"} in found


@pytest.mark.parametrize(
    ("profile", "change", "rule"),
    [
        ("idc", put("PatientID", ""), "idc.patient-id"),
        ("idc", lambda ds: setattr(path_item(ds), "ObjectiveLensPower", "40.0"), "idc.objective-power"),
        (
            "idc",
            lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2.4.201"),
            "idc.transfer-syntax",
        ),
        ("dicom", put("SOPInstanceUID", "1.2.03"), "store.uid"),
    ],
)
def test_profile_adds_its_rules(lower: Path, profile: str, change: Callable[[Any], Any], rule: str):
    rewrite(lower, change)
    assert rule in errors(validate(lower.parent, ValidationOptions(profile)))
    if profile != "dicom":
        assert rule not in errors(validate(lower.parent))


def test_openslide_opens_a_good_series(good: Path):
    assert errors(validate(good, ValidationOptions("openslide"))) == set()


def test_series_that_openslide_refuses_is_caught_in_its_profile(lower: Path):
    rewrite(level_files(lower.parent)[0], put("PhotometricInterpretation", "YBR_FULL"))
    report = validate(lower.parent, ValidationOptions("openslide"))
    assert {"reader.openslide"} <= errors(report)
    assert "reader.openslide-limits" in report.counts()


def split(path: Path) -> list[Path]:
    """Make a level a concatenation of two parts."""
    ds = dcmread(path)
    frames = list(generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames))
    half = len(frames) // 2
    parts = []
    for number, (first, last) in enumerate(((0, half), (half, len(frames))), start=1):
        part = deepcopy(ds)
        part.SOPInstanceUIDOfConcatenationSource = ds.SOPInstanceUID
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number}"
        part.ConcatenationUID = "2.25.77"
        part.InConcatenationNumber, part.InConcatenationTotalNumber = number, 2
        part.ConcatenationFrameOffsetNumber = first
        part.NumberOfFrames = last - first
        part.PixelData = encapsulate(frames[first:last])
        ratio = ds.Rows * ds.Columns * 3 * (last - first) / sum(map(len, frames[first:last]))
        part.LossyImageCompressionRatio = (
            [*list(ds.LossyImageCompressionRatio)[:-1], f"{ratio:.3f}"]
            if isinstance(ds.LossyImageCompressionMethod, list)
            else f"{ratio:.3f}"
        )
        parts.append(path.with_name(f"part{number}.dcm"))
        part.save_as(parts[-1], enforce_file_format=False)
    path.unlink()
    return parts


def concatenation_errors(folder: Path) -> set[str]:
    return {rule for rule in errors(validate(folder)) if rule.startswith(("concatenation.", "pyramid.", "frames."))}


def test_whole_concatenation_is_no_defect(good: Path, tmp_path: Path):
    split(good_series(good, tmp_path))
    assert concatenation_errors(tmp_path) == set()


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (put("InConcatenationNumber", 3), {"concatenation.parts"}),
        (put("ConcatenationFrameOffsetNumber", 1), {"concatenation.offset", "pyramid.content"}),
        (put("SOPInstanceUIDOfConcatenationSource", "2.25.3"), {"concatenation.differs"}),
    ],
)
def test_part_that_is_wrong_is_caught(good: Path, tmp_path: Path, change: Callable[[Any], Any], rules: set[str]):
    parts = split(good_series(good, tmp_path))
    rewrite(parts[1], change)
    found = concatenation_errors(tmp_path)
    assert found
    assert found <= rules


def test_missing_part_is_caught(good: Path, tmp_path: Path):
    split(good_series(good, tmp_path))[1].unlink()
    assert concatenation_errors(tmp_path) == {"concatenation.parts", "concatenation.frames"}


def test_identifying_texts_of_the_slide_are_searched_for(good: Path, aperio_slide: Path, tmp_path: Path):
    source = tmp_path / "Roe_Jane_4711.svs"
    shutil.copy(aperio_slide, source)
    (tmp_path / "series").mkdir()
    rewrite(good_series(good, tmp_path / "series"), put("ImageComments", "slide of Roe Jane 4711"))
    report = validate(tmp_path / "series", ValidationOptions(source=source))
    assert "privacy.source-value" in errors(report)
    assert not any("Roe" in finding.message for finding in report.findings)
