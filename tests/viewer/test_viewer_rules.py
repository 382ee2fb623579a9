"""Each rule `viewer.*` fires on a series exactly when dicom-microscopy-viewer fails, complains or shows it wrong.

All series that are to be shown are shown in one run of Chromium. Rules about Slim alone, which has no page here, are
asserted by themselves; each such case says how it was seen in Slim.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless, generate_uid

from coverslip.validators import viewer as lint
from coverslip.validators.report import Finding
from coverslip.validators.rules import RULES
from coverslip.validators.series import open_series
from coverslip.validators.validate import ValidationOptions, validate_paths
from tests.factories.aperio import write_aperio_svs
from tests.viewer.conftest import Viewer

type Series = list[Dataset]
"""The levels of a slide, the base first."""

_SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Three levels, 900 x 700 and down, JPEG of RGB with a profile each."""
    folder = tmp_path_factory.mktemp("good")
    write_aperio_svs(folder / "slide.svs")
    command = [sys.executable, "-m", "coverslip.cli", "convert", str(folder / "slide.svs"), "-o", str(folder / "dicom")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(_SRC)})
    series = [pydicom.dcmread(path) for path in (folder / "dicom").rglob("*.dcm")]
    return sorted(series, key=lambda level: -level.TotalPixelMatrixColumns)


def decoded(level: Dataset) -> list[np.ndarray[Any, Any]]:
    """Return the frames as the decoder gives them."""
    return [
        imagecodecs.jpeg_decode(frame) for frame in generate_frames(level.PixelData, number_of_frames=frames(level))
    ]


def frames(level: Dataset) -> int:
    return int(level.get("NumberOfFrames", 1))


def store(level: Dataset, stored: list[bytes], transfer_syntax: str, photometric_interpretation: str) -> None:
    """Replace the frames."""
    level.file_meta.TransferSyntaxUID = transfer_syntax
    level.PhotometricInterpretation = photometric_interpretation
    if level.file_meta.TransferSyntaxUID.is_encapsulated:
        level.PixelData = encapsulate(stored)
    else:
        level.PixelData = b"".join(stored)
        level["PixelData"].is_undefined_length = False
        level["PixelData"].VR = "OB"
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        level.pop(keyword, None)


def as_native(level: Dataset) -> None:
    store(level, [pixels.tobytes() for pixels in decoded(level)], ExplicitVRLittleEndian, "RGB")


def as_jpeg2000(level: Dataset, *, transformed: bool = True, trailer: bytes = b"") -> None:
    """Store reversible JPEG 2000, of YCbCr when no component transform is used."""
    stored = []
    for pixels in decoded(level):
        picture = Image.fromarray(pixels)
        components = np.asarray(picture if transformed else picture.convert("YCbCr"))
        frame = imagecodecs.jpeg2k_encode(components, level=0, reversible=True, codecformat="J2K", mct=transformed)
        stored.append(frame + trailer)
    store(level, stored, JPEG2000Lossless, "YBR_RCT" if transformed else "YBR_FULL_422")


def monochrome(series: Series, bits: int = 8) -> Series:
    """Return the series with its red component alone, as uncompressed or, of 12 bits, JPEG 2000 frames."""
    for level in series:
        red = [np.ascontiguousarray(pixels[..., 0]) for pixels in decoded(level)]
        if bits == 8:
            store(level, [pixels.tobytes() for pixels in red], ExplicitVRLittleEndian, "MONOCHROME2")
        else:
            wide = [pixels.astype(np.uint16) << (bits - 8) for pixels in red]
            encode = partial(imagecodecs.jpeg2k_encode, level=0, reversible=True, codecformat="J2K", bitspersample=bits)
            store(level, [encode(pixels) for pixels in wide], JPEG2000Lossless, "MONOCHROME2")
            level.BitsAllocated, level.BitsStored, level.HighBit = 16, bits, bits - 1
        level.SamplesPerPixel = 1
        del level.PlanarConfiguration
        del level.OpticalPathSequence[0].ICCProfile
    return series


def channels(series: Series) -> Series:
    """Return two channels of the series, in instances of their own."""
    second = copy.deepcopy(monochrome(series))
    for level in second:
        rename(level, level.OpticalPathSequence[0], "second")
    return series + second


def rename(level: Dataset, path: Dataset, identifier: str) -> None:
    path.OpticalPathIdentifier = identifier
    shared = level.SharedFunctionalGroupsSequence[0]
    if "OpticalPathIdentificationSequence" in shared:
        shared.OpticalPathIdentificationSequence[0].OpticalPathIdentifier = identifier
    level.SOPInstanceUID = level.file_meta.MediaStorageSOPInstanceUID = generate_uid()


def drop(path: str, series: Series, *, only: int | None = None) -> Series:
    """Delete the attribute at a path such as ``OpticalPathSequence.ICCProfile`` from all levels, or from one."""
    for level in series if only is None else [series[only]]:
        *parents, keyword = path.split(".")
        item = level
        for parent in parents:
            item = item[parent].value[0]
        del item[keyword]
    return series


def put(series: Series, index: int, **values: object) -> Series:
    """Set attributes of one level."""
    for keyword, value in values.items():
        setattr(series[index], keyword, value)
    return series


def thumbnail(series: Series, index: int) -> Series:
    series[index].ImageType[2] = "THUMBNAIL"
    return series


def with_copy(series: Series) -> Series:
    again = copy.deepcopy(series[1])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return [*series, again]


def concatenated(series: Series) -> Series:
    """Cut the base in two parts of half the frames each."""
    base = series[0]
    stored = list(generate_frames(base.PixelData, number_of_frames=frames(base)))
    parts = [copy.deepcopy(base), copy.deepcopy(base)]
    for number, part in enumerate(parts):
        half = len(stored) // 2
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        part.SOPInstanceUIDOfConcatenationSource, part.ConcatenationUID = base.SOPInstanceUID, generate_uid()
        part.ConcatenationFrameOffsetNumber, part.InConcatenationNumber = number * half, number + 1
        part.NumberOfFrames = half
        store(part, stored[number * half :][:half], base.file_meta.TransferSyntaxUID, base.PhotometricInterpretation)
    return parts + series[1:]


def change_frames(series: Series, change: Callable[[Dataset], None]) -> Series:
    for level in series:
        change(level)
    return series


def change_jpeg(level: Dataset, change: Callable[[bytes], bytes]) -> None:
    stored = [change(frame) for frame in generate_frames(level.PixelData, number_of_frames=frames(level))]
    store(level, stored, JPEGBaseline8Bit, level.PhotometricInterpretation)


def app8_first(frame: bytes) -> bytes:
    return b"\xff\xd8\xff\xe8\x00\x04\x00\x00" + frame[2:]


def without_color(frame: bytes) -> bytes:
    """Number the components 1, 2, 3 and drop APP14, which say that they are red, green and blue."""
    at = frame.index(b"\xff\xee")
    rest = bytearray(frame[:at] + frame[at + 2 + int.from_bytes(frame[at + 2 : at + 4]) :])
    start, scan = rest.index(b"\xff\xc0"), rest.index(b"\xff\xda")
    for component in range(3):
        rest[start + 10 + 3 * component] = rest[scan + 5 + 2 * component] = component + 1
    return bytes(rest)


def native_ending_like_jpeg2000(level: Dataset) -> None:
    as_native(level)
    level.PixelData = level.PixelData[:-2] + b"\xff\xd9"


def run_length(level: Dataset) -> None:
    as_native(level)
    level.compress(RLELossless, generate_instance_uid=False)


def high_throughput(level: Dataset) -> None:
    stored = [imagecodecs.htj2k_encode(pixels, reversible=True) for pixels in decoded(level)]
    store(level, stored, "1.2.840.10008.1.2.4.201", "YBR_RCT")


def planar(level: Dataset) -> None:
    stored = [np.moveaxis(pixels, 2, 0).tobytes() for pixels in decoded(level)]
    store(level, stored, ExplicitVRLittleEndian, "RGB")
    level.PlanarConfiguration = 1


@dataclass(frozen=True, slots=True)
class Case:
    """One way to break the good series.

    Parameters
    ----------
    name : str
    rules : str
        That fire, with blanks between.
    break_it : callable
        From the levels of the good series to those of another; may change them.
    """

    name: str
    rules: str
    break_it: Callable[[Series], Series]


REQUIRED = [
    "ImageType",
    "PhotometricInterpretation",
    "DimensionOrganizationType",
    "TotalPixelMatrixOriginSequence",
    "ImageOrientationSlide",
    "OpticalPathSequence",
    "OpticalPathSequence.IlluminationTypeCodeSequence",
    "SharedFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence.PixelMeasuresSequence.PixelSpacing",
]
CASES = [
    Case("a good series", "", lambda series: series),
    Case("good JPEG 2000", "", lambda series: change_frames(series, as_jpeg2000)),
    Case("good uncompressed frames", "", lambda series: change_frames(series, as_native)),
    *(Case(f"no {path}", "viewer.missing-attribute", partial(drop, path)) for path in REQUIRED),
    Case(
        "a level of another frame of reference",
        "viewer.frame-of-reference",
        lambda series: put(series, 1, FrameOfReferenceUID="2.25.1"),
    ),
    Case(
        "a level of another container", "viewer.container", lambda series: put(series, 1, ContainerIdentifier="another")
    ),
    Case("two equal levels", "viewer.equal-sizes", with_copy),
    Case("a TILED_FULL concatenation", "viewer.concatenation viewer.several-bases", concatenated),
    Case(
        "levels of equal width",
        "viewer.equal-widths",
        lambda series: put(
            series,
            2,
            TotalPixelMatrixColumns=450,
            NumberOfFrames=2,
            PixelData=encapsulate(list(generate_frames(series[2].PixelData, number_of_frames=1)) * 2),
        ),
    ),
    Case("a thumbnail wider than a level", "viewer.thumbnail-hides-level", lambda series: thumbnail(series, 1)),
    Case(
        "no profile at all",
        "viewer.no-profile",
        partial(drop, "OpticalPathSequence.ICCProfile"),
    ),
    Case("a level without a profile", "viewer.profile-count", partial(drop, "OpticalPathSequence.ICCProfile", only=1)),
    Case(
        "a level of another optical path",
        "viewer.optical-path-identifier",
        lambda series: (rename(series[1], series[1].OpticalPathSequence[0], "another"), series)[1],
    ),
    Case("several focal planes in one", "viewer.focal-planes", lambda series: put(series, 0, NumberOfFocalPlanes=3)),
    Case(
        "a palette",
        "viewer.photometric",
        lambda series: [*(put([level], 0, PhotometricInterpretation="PALETTE COLOR")[0] for level in series)],
    ),
    Case(
        "a monochrome level among colour",
        "viewer.mixed-colors",
        lambda series: [*series[:2], *monochrome(series[2:])],
    ),
    Case(
        "a JPEG frame that starts with APP8",
        "viewer.frame-type",
        lambda series: change_frames(series, partial(change_jpeg, change=app8_first)),
    ),
    Case(
        "an uncompressed frame that ends with FFD9",
        "viewer.frame-type",
        lambda series: change_frames(series, native_ending_like_jpeg2000),
    ),
    Case(
        "JPEG 2000 with bytes after its end",
        "viewer.frame-type",
        lambda series: change_frames(series, partial(as_jpeg2000, trailer=b"\0\0")),
    ),
    Case("run length encoding", "viewer.transfer-syntax", lambda series: change_frames(series, run_length)),
    Case("high-throughput JPEG 2000", "", lambda series: change_frames(series, high_throughput)),
    Case("12 bits in JPEG 2000", "viewer.frame-depth", partial(monochrome, bits=12)),
    Case(
        "YCbCr in JPEG 2000",
        "viewer.colors",
        lambda series: change_frames(series, partial(as_jpeg2000, transformed=False)),
    ),
    Case(
        "RGB in JPEG that does not say so",
        "viewer.colors",
        lambda series: [*change_frames(series[:1], partial(change_jpeg, change=without_color)), *series[1:]],
    ),
    Case("colour planes", "viewer.colors", lambda series: change_frames(series, planar)),
    Case("two good channels", "", channels),
    Case("a channel without a level", "viewer.channel-pyramid", lambda series: channels(series)[:-1]),
    Case("a channel of another spacing", "viewer.channel-pyramid", lambda series: other_spacing(channels(series))),
    Case(
        "a wrong number of optical paths",
        "viewer.channel-count",
        lambda series: put(channels(series), 0, NumberOfOpticalPaths=2),
    ),
]


def other_spacing(series: Series) -> Series:
    measures = series[-1].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [value * 2 for value in measures.PixelSpacing]
    return series


def write(series: Series, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, level in enumerate(series):
        with pydicom.config.disable_value_validation():
            level.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def findings(folder: Path) -> list[Finding]:
    series, unreadable = open_series([folder])
    assert unreadable == []
    return [each for one in series for each in lint.check(one, ValidationOptions())]


@pytest.fixture(scope="module")
def shown(good: Series, viewer: Viewer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """The folder of each case, and what the viewer reports of it."""
    place = tmp_path_factory.mktemp("cases")
    folders = [write(case.break_it(copy.deepcopy(good)), place / str(at)) for at, case in enumerate(CASES)]
    reports = viewer.show(folders, tmp_path_factory.mktemp("screenshots"))
    return {case.name: each for case, *each in zip(CASES, folders, reports, strict=True)}


def complaints(folder: Path, report: dict[str, Any], reference: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with what the viewer shows: it says so, leaves a level out, or shows other colours."""
    yield from report["messages"]
    yield from report["failed_requests"]
    levels = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.iterdir()]
    if {str(level.SOPInstanceUID) for level in levels} != set(report["frames_of"]):
        yield "a level is not shown"
    if levels[0].SamplesPerPixel == 3:
        for view, wanted in zip(report["views"], reference["views"], strict=False):
            if np.abs(picture(view) - picture(wanted)).mean() > 2:
                yield "other colours"


def picture(view: dict[str, Any]) -> np.ndarray[Any, Any]:
    with Image.open(view["file"]) as screenshot:
        return np.asarray(screenshot.convert("RGB").resize((100, 80), Image.Resampling.BOX), np.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_viewer_fails_or_complains_exactly_when_a_rule_does(case: Case, shown: dict[str, Any]) -> None:
    folder, report = shown[case.name]
    said = list(complaints(folder, report, shown["a good series"][1]))
    rules = {each.rule for each in findings(folder)}
    assert (rules, bool(said)) == (set(case.rules.split()), bool(case.rules)), said


def rules_of(series: Series, folder: Path) -> set[str]:
    return {each.rule for each in findings(write(series, folder))}


def study_rules(folder: Path, *several: Series) -> set[str]:
    for number, series in enumerate(several):
        write(series, folder / str(number))
    study, _unreadable = open_series([folder])
    return {each.rule for _series, each in lint.check_studies(study)}


def of_another_series(series: Series, **values: object) -> Series:
    """Return a copy as a series of its own, with other attributes."""
    series, uid = copy.deepcopy(series), generate_uid()
    for level in series:
        level.SOPInstanceUID = level.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        level.SeriesInstanceUID = uid
        for keyword, value in values.items():
            setattr(level, keyword, value)
    return series


def presentation_state(sop_class_uid: str, like: Dataset) -> Series:
    state = Dataset()
    state.file_meta = copy.deepcopy(like.file_meta)
    state.SOPClassUID, state.SOPInstanceUID, state.SeriesInstanceUID = sop_class_uid, generate_uid(), generate_uid()
    state.StudyInstanceUID, state.Modality = like.StudyInstanceUID, "PR"
    state.file_meta.MediaStorageSOPClassUID = sop_class_uid
    state.file_meta.MediaStorageSOPInstanceUID = state.SOPInstanceUID
    state.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return [state]


# A slide of one level: Slim shows a warning sign, "This slide is missing a multi-resolution pyramid".
def test_one_level_is_no_pyramid(good: Series, tmp_path: Path) -> None:
    assert rules_of(copy.deepcopy(good[:1]), tmp_path / "series") == {"viewer.no-pyramid"}


# Slim warns on the console that a slide must contain "only a single image that has not been resampled".
def test_two_levels_that_are_not_resampled_are_several_bases(good: Series, tmp_path: Path) -> None:
    series = copy.deepcopy(good)
    series[1].ImageType[3] = "NONE"
    assert rules_of(series, tmp_path / "series") == {"viewer.several-bases"}


# Slim's page of a slide with such a step is empty: "Option 'value' is required for CodedConcept" on its console.
def test_long_code_value_in_a_preparation_step_is_told(good: Series, tmp_path: Path) -> None:
    series = copy.deepcopy(good)
    name, code, item, step = Dataset(), Dataset(), Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "424361007", "SCT", "Using substance"
    code.LongCodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "12345678901234567", "99X", "A stain"
    item.ValueType, item.ConceptNameCodeSequence, item.ConceptCodeSequence = "CODE", [name], [code]
    step.SpecimenPreparationStepContentItemSequence = [item]
    series[0].SpecimenDescriptionSequence[0].SpecimenPreparationSequence = [step]
    assert rules_of(series, tmp_path / "series") == {"viewer.preparation-code"}


# Slim makes no slide of a series without VOLUME and THUMBNAIL images.
def test_series_without_a_volume_is_told(good: Series, tmp_path: Path) -> None:
    series = copy.deepcopy(good[:1])
    series[0].ImageType[2] = "LABEL"
    assert rules_of(series, tmp_path / "series") == {"viewer.no-volume"}


# No failure, so not shown on the page: the viewer takes the level instead, as its frames asked for tell.
def test_thumbnail_as_wide_as_a_level_is_not_used(good: Series, tmp_path: Path) -> None:
    again = with_copy(copy.deepcopy(good))
    again[-1].ImageType[2] = "THUMBNAIL"
    assert rules_of(again, tmp_path / "series") == {"viewer.thumbnail-unused"}


# The viewer asks for the frames of one plane and says nothing.
def test_focal_planes_that_are_not_shown_are_told(good: Series, tmp_path: Path) -> None:
    series = put(copy.deepcopy(good), 0, TotalPixelMatrixFocalPlanes=3)
    assert rules_of(series, tmp_path / "series") == {"viewer.focal-stack"}


# Series of equal frame of reference and container are one slide in Slim, which then notifies "Failed to instantiate
# viewer". So it does when Acquisition UIDs differ: it compares them, but its dictionary of attributes lacks this one.
# With another frame of reference, two slides are shown.
def test_two_colour_series_merged_by_mistake_are_told(good: Series, tmp_path: Path) -> None:
    merged = {"viewer.equal-sizes", "viewer.several-bases"}
    assert study_rules(tmp_path / "merged", good, of_another_series(good, AcquisitionUID=generate_uid())) == merged
    assert study_rules(tmp_path / "apart", good, of_another_series(good, FrameOfReferenceUID=generate_uid())) == set()


def test_levels_apart_from_their_base_are_a_split_slide(good: Series, tmp_path: Path) -> None:
    lower = of_another_series(good[1:])
    assert study_rules(tmp_path / "one", good[:1], lower) == set()
    for level in lower:
        level.FrameOfReferenceUID = "2.25.7"
    assert study_rules(tmp_path / "split", good[:1], lower) == {"viewer.split-slide"}


def test_channels_of_two_frames_of_reference_are_a_split_slide(good: Series, tmp_path: Path) -> None:
    both = channels(copy.deepcopy(good))
    first, second = both[:3], of_another_series(both[3:])
    assert study_rules(tmp_path / "one", first, second) == set()
    second = of_another_series(second, FrameOfReferenceUID=generate_uid())
    assert study_rules(tmp_path / "split", first, second) == {"viewer.split-slide"}


def test_validation_for_slim_tells_of_series_merged_by_mistake_and_another_does_not(
    good: Series, tmp_path: Path
) -> None:
    write(good, tmp_path / "one")
    write(of_another_series(good), tmp_path / "two")
    for profile, told in (("slim", True), ("dicom", False)):
        reports = list(validate_paths([tmp_path], ValidationOptions(profile)))
        assert ["viewer.equal-sizes" in report.counts() for report in reports] == [told, told]


# Slim notifies "Presentation State could not be loaded", and logs that it ignores the states of a colour slide.
def test_presentation_states_that_slim_cannot_apply_are_told(good: Series, tmp_path: Path) -> None:
    gray = monochrome(copy.deepcopy(good))
    pseudo_color = presentation_state("1.2.840.10008.5.1.4.1.1.11.3", good[0])
    blending = [presentation_state("1.2.840.10008.5.1.4.1.1.11.8", good[0]) for _ in range(2)]
    assert study_rules(tmp_path / "class", gray, pseudo_color) == {"viewer.presentation-state-class"}
    assert study_rules(tmp_path / "order", gray, *blending) == {"viewer.presentation-state-order"}
    assert study_rules(tmp_path / "one", gray, blending[0]) == set()
    assert study_rules(tmp_path / "color", good, blending[0]) == {"viewer.presentation-state-ignored"}


def test_every_rule_about_viewers_is_provoked_here() -> None:
    text = Path(__file__).read_text()
    assert [rule for rule in RULES if rule.startswith("viewer.") and rule not in text] == []
