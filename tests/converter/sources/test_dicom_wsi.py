"""DICOM slides made elsewhere: frames kept as they are, pixels as OpenSlide and wsidicom read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames
from tests.contracts.slide_source import SlideSourceContract
from tests.factories.dicom_wsi import DicomCoding, write_dicom_wsi
from wsidicom import WsiDicom

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.converter.sources import open_slide
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.tiler.grid import TileAddress
from coverslip.validators.report import Severity
from coverslip.validators.validate import ValidationOptions, validate_paths

CODINGS = [
    DicomCoding(),
    DicomCoding(sparse=True),
    DicomCoding("jpeg", "422"),
    DicomCoding("jpeg", "444"),
    DicomCoding("jpeg-rgb"),
    DicomCoding("jpeg-rgb-unmarked"),
    DicomCoding("j2k"),
    DicomCoding("j2k-lossy", sparse=True),
    DicomCoding("jpegls"),
    DicomCoding("none"),
    DicomCoding("none", planar=True),
    DicomCoding("implicit"),
]


def whole(level, plane: int = 0) -> np.ndarray:
    size = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
    return level.read_region(0, 0, *size, focal_plane_index=plane)[0]


def stored_frames(path: Path) -> list[bytes]:
    ds = dcmread(path)
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:
        return list(generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames))
    size = ds.Rows * ds.Columns * ds.SamplesPerPixel
    return [ds.PixelData[at : at + size] for at in range(0, size * ds.NumberOfFrames, size)]


def rules(source) -> list[str]:
    return [finding.rule for finding in source.findings]


class TestDicom(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        write_dicom_wsi(tmp_path / "series")
        return tmp_path / "series" / "01-volume.dcm"


class TestSparseWithMissingTiles(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        write_dicom_wsi(tmp_path / "series", coding=DicomCoding(sparse=True), missing=[(0, 1), (2, 2)])
        return tmp_path / "series" / "01-volume.dcm"

    def test_what_is_missing_is_told(self, source):
        assert rules(source) == ["source.missing-tile"]


class TestPlanar(SlideSourceContract):
    @pytest.fixture
    def slide(self, tmp_path):
        write_dicom_wsi(tmp_path / "series", coding=DicomCoding("none", planar=True), tile=(127, 129))
        return tmp_path / "series" / "01-volume.dcm"


@pytest.mark.parametrize("coding", CODINGS, ids=str)
def test_pixels_are_those_of_other_readers_and_frames_are_copied(tmp_path: Path, coding: DicomCoding):
    folder = tmp_path / "series"
    picture = write_dicom_wsi(folder, coding=coding)
    path = folder / "01-volume.dcm"
    with open_slide(path) as source:
        levels = source.pyramids[0].levels
        assert [level.level_index for level in levels] == [0, 1]
        base = whole(levels[0])
        assert np.abs(base.astype(int) - picture).mean() < (0.01 if levels[0].lossy_method is None else 6)
        if coding.name not in ("jpegls", "implicit") and not coding.planar:
            with openslide.OpenSlide(path) as other:
                for level in levels:
                    expected = np.asarray(other.read_region((0, 0), level.level_index, whole(level).shape[1::-1]))
                    # libjpeg takes components without a marker for YCbCr, whatever the header says.
                    assert coding.name == "jpeg-rgb-unmarked" or np.array_equal(whole(level), expected[..., :3])
    (series,) = convert_slide(ConversionRequest(path, tmp_path / "out")).series
    made = series.instances[0]
    assert made.reuses_frames == (not coding.planar)
    if made.reuses_frames:
        before, after = stored_frames(path), stored_frames(series.folder / made.file_name)
        before = before[::-1] if coding.sparse else before
        if coding.name == "jpeg-rgb-unmarked":
            assert "source.rgb-unmarked" in [finding.rule for finding in series.findings]
            assert all(b"Adobe" in frame for frame in after)
            before, after = ([frame[frame.find(b"\xff\xda") :] for frame in frames] for frames in (before, after))
        assert before == after
    (report,) = validate_paths([series.folder], ValidationOptions(source=path, thorough=True))
    assert [finding for finding in report.findings if finding.severity is Severity.ERROR] == []
    if coding.name != "jpegls":
        with openslide.OpenSlide(series.folder / made.file_name) as other:
            pixels = np.asarray(other.read_region((0, 0), 0, other.dimensions))[..., :3]
        assert np.array_equal(pixels, base) or coding.planar


def test_missing_levels_are_completed_and_metadata_replaced(tmp_path: Path):
    write_dicom_wsi(tmp_path / "series", rows=700, columns=900)
    slide = tmp_path / "series" / "01-volume.dcm"
    request = ConversionRequest(
        slide,
        tmp_path / "out",
        include=("label", "overview", "thumbnail"),
        attributes={"PatientID": "P-1", "ContainerIdentifier": "S-1"},
    )
    (series,) = convert_slide(request).series
    volumes = [instance for instance in series.instances if instance.image_flavor == "VOLUME"]
    assert [(one.total_pixel_matrix_columns, one.reuses_frames) for one in volumes] == [
        (900, True),
        (450, False),
        (225, True),
        (113, False),
    ]
    ds = dcmread(series.folder / volumes[0].file_name, stop_before_pixels=True)
    assert (ds.PatientID, ds.ContainerIdentifier) == ("P-1", "S-1")
    assert ds.SeriesInstanceUID != "2.25.6"
    assert (ds.Manufacturer, ds.ManufacturerModelName) == ("Maker", "Scanner 7")
    assert ds.OpticalPathSequence[0].ObjectiveLensPower == 20
    origin = ds.TotalPixelMatrixOriginSequence[0]
    assert (origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem) == (12.5, 31)
    assert {one.image_flavor for one in series.instances} == {"VOLUME", "LABEL", "OVERVIEW", "THUMBNAIL"}
    text = b"".join((series.folder / one.file_name).read_bytes() for one in series.instances)
    assert not [secret for secret in (b"PAT-4711", b"Other^Ann", b"ACC-4711", b"SN-4711") if secret in text]
    with WsiDicom.open(series.folder) as made:
        assert len(made.levels) == 4


def test_a_slide_is_the_same_whichever_instance_it_is_opened_by(tmp_path: Path):
    write_dicom_wsi(tmp_path / "series")
    write_dicom_wsi(tmp_path / "other", SeriesInstanceUID="2.25.66")
    for number, path in enumerate(sorted((tmp_path / "other").iterdir())):  # of another series, in the same folder
        path.rename(tmp_path / "series" / f"other {number}.dcm")
    (tmp_path / "series" / "notes.txt").write_text("not DICOM")
    results = [
        convert_slide(ConversionRequest(tmp_path / "series" / name, tmp_path / name))
        for name in ("01-volume.dcm", "03-label.dcm")
    ]
    assert results[0].source_sha256 == results[1].source_sha256
    digests = [[one.md5 for one in result.series[0].instances] for result in results]
    assert digests[0] == digests[1]


def test_parts_of_a_concatenation_are_one_level(tmp_path: Path):
    whole_picture = write_dicom_wsi(tmp_path / "whole", coding=DicomCoding("j2k"))
    write_dicom_wsi(tmp_path / "parted", coding=DicomCoding("j2k"), parts=3)
    with open_slide(tmp_path / "parted" / "01-volume.dcm") as source:
        assert np.array_equal(whole(source.pyramids[0].levels[0]), whole_picture)
        assert len(source.pyramids[0].levels) == 2
    (tmp_path / "parted" / "02-volume.dcm").unlink()
    with pytest.raises(CorruptSourceError, match="part of a concatenation with frames 5 and up is missing"):
        open_slide(tmp_path / "parted" / "01-volume.dcm")


@pytest.mark.parametrize("sparse", [False, True])
def test_focal_planes_are_kept(tmp_path: Path, *, sparse: bool):
    write_dicom_wsi(tmp_path / "series", coding=DicomCoding("j2k", sparse=sparse), planes=3, downsamples=())
    with open_slide(tmp_path / "series" / "01-volume.dcm") as source:
        pyramid = source.pyramids[0]
        assert pyramid.focal_plane_offsets_um == (0, 2, 4)
        level = pyramid.levels[0]
        assert not np.array_equal(whole(level, 0), whole(level, 2))
        frame = level.read_frame(TileAddress(1, 1, 2))
        assert np.array_equal(level.decode_frame(frame, TileAddress(1, 1, 2))[:60], whole(level, 2)[128:188, 128:256])
    (series,) = convert_slide(ConversionRequest(source.path, tmp_path / "out", focal_planes="middle")).series
    assert series.instances[0].reuses_frames


def test_the_orientation_of_the_slide_is_kept(tmp_path: Path):
    write_dicom_wsi(tmp_path / "series", ImageOrientationSlide=[-1, 0, 0, 0, 1, 0])
    request = ConversionRequest(tmp_path / "series" / "01-volume.dcm", tmp_path / "out")
    (series,) = convert_slide(request).series
    for instance in series.instances:
        ds = dcmread(series.folder / instance.file_name, stop_before_pixels=True)
        assert ds.ImageOrientationSlide == [-1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("coding", "reencode", "methods", "ratios"),
    [
        ("jpeg", False, ["ISO_10918_1", "ISO_10918_1"], [15, None]),
        ("j2k", False, ["ISO_10918_1", "ISO_10918_1"], [15, 24]),
        ("j2k", True, ["ISO_10918_1", "ISO_10918_1", "ISO_10918_1"], [15, 24, None]),
    ],
)
def test_the_history_of_lossy_compression_is_kept(tmp_path: Path, coding, reencode, methods, ratios):
    from coverslip.tiler.codecs import parse_codec
    from coverslip.tiler.pyramid import PyramidOptions

    write_dicom_wsi(
        tmp_path / "series",
        coding=DicomCoding(coding),
        LossyImageCompression="01",
        LossyImageCompressionMethod=["ISO_10918_1", "ISO_10918_1"],
        LossyImageCompressionRatio=[15, 24],
    )
    pyramid = PyramidOptions(codec=parse_codec("jpeg:80:420"), reencode=True) if reencode else PyramidOptions()
    request = ConversionRequest(tmp_path / "series" / "01-volume.dcm", tmp_path / "out", pyramid=pyramid)
    (series,) = convert_slide(request).series
    ds = dcmread(series.folder / series.instances[0].file_name, stop_before_pixels=True)
    assert ds.LossyImageCompressionMethod == methods
    found = list(map(float, ds.LossyImageCompressionRatio))
    assert [ratio for ratio, wanted in zip(found, ratios, strict=True) if wanted] == [one for one in ratios if one]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}, "8-bit monochrome"),
        ({"BitsAllocated": 16, "BitsStored": 12}, "12-bit samples"),
        ({"NumberOfOpticalPaths": 3}, "several optical paths"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.4"}, "DICOM of another kind"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, "without a VOLUME instance"),
        ({"PixelRepresentation": 1}, "signed samples"),
    ],
)
def test_what_is_no_brightfield_slide_is_refused(tmp_path: Path, attributes, words):
    write_dicom_wsi(tmp_path / "series", pictures=False, **attributes)
    with pytest.raises(UnsupportedSourceError, match=words):
        open_slide(next((tmp_path / "series").iterdir()))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"NumberOfFrames": 11}, "11 frames, expected 12|cannot be told apart"),
        ({"TotalPixelMatrixRows": 0}, "a matrix of 0 x 420 pixels"),
        ({"TotalPixelMatrixRows": 2**31, "TotalPixelMatrixColumns": 2**31}, "which no slide has"),
    ],
)
def test_a_header_that_does_not_fit_the_frames_is_corrupt(tmp_path: Path, attributes, words):
    write_dicom_wsi(tmp_path / "series", pictures=False, downsamples=(), **attributes)
    with pytest.raises(CorruptSourceError, match=words):
        open_slide(tmp_path / "series" / "01-volume.dcm")


def test_frames_off_the_grid_are_refused(tmp_path: Path):
    write_dicom_wsi(tmp_path / "series", coding=DicomCoding(sparse=True), Columns=100, Rows=100)
    with pytest.raises(UnsupportedSourceError, match="do not lie in a grid"):
        open_slide(tmp_path / "series" / "01-volume.dcm")


def test_jpeg_ls_of_another_colour_space_than_rgb_is_refused(tmp_path: Path):
    write_dicom_wsi(
        tmp_path / "series", coding=DicomCoding("jpegls"), pictures=False, PhotometricInterpretation="YBR_FULL"
    )
    with pytest.raises(UnsupportedSourceError, match="JPEG-LS frames that are not RGB"):
        open_slide(tmp_path / "series" / "01-volume.dcm")


def test_two_frames_at_one_place_are_refused(tmp_path: Path):
    write_dicom_wsi(tmp_path / "series", coding=DicomCoding(sparse=True), pictures=False, downsamples=())
    path = tmp_path / "series" / "01-volume.dcm"
    ds = dcmread(path)
    groups = ds.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSlideSequence = groups[0].PlanePositionSlideSequence
    ds.save_as(path)
    with pytest.raises(UnsupportedSourceError, match="several frames at one place"):
        open_slide(path)


def test_a_loss_of_which_the_header_does_not_tell_how_is_told(tmp_path: Path):
    for lossy, rules in (("00", []), ("01", ["source.compression-unknown"])):
        folder = tmp_path / lossy
        write_dicom_wsi(folder, coding=DicomCoding("none"), pictures=False, downsamples=(), LossyImageCompression=lossy)
        with open_slide(folder / "01-volume.dcm") as source:
            assert [one.rule for one in source.findings if one.rule == "source.compression-unknown"] == rules


def test_instances_of_one_size_are_refused(tmp_path: Path):
    write_dicom_wsi(tmp_path / "series", pictures=False)
    ds = dcmread(tmp_path / "series" / "01-volume.dcm")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "2.25.7799"
    ds.save_as(tmp_path / "series" / "99-volume.dcm")
    with pytest.raises(UnsupportedSourceError, match="2 instances of one size"):
        open_slide(tmp_path / "series" / "01-volume.dcm")


def test_a_slide_that_states_no_spacing_takes_it_from_its_extent_or_says_so(tmp_path: Path):
    groups = {"SharedFunctionalGroupsSequence": None, "downsamples": ()}
    write_dicom_wsi(tmp_path / "a", **groups, ImagedVolumeHeight=0.15, ImagedVolumeWidth=0.21)
    with open_slide(tmp_path / "a" / "01-volume.dcm") as source:
        spacing = source.pyramids[0].levels[0].pixel_spacing
        assert (spacing.row_mm, spacing.origin) == (pytest.approx(0.0005), "DICOM Imaged Volume")
    write_dicom_wsi(tmp_path / "b", **groups)
    with open_slide(tmp_path / "b" / "01-volume.dcm") as source:
        assert source.pyramids[0].levels[0].pixel_spacing is None
        assert rules(source) == ["source.spacing-unknown"]


def test_items_of_no_bytes_are_missing_tiles(tmp_path: Path):
    write_dicom_wsi(tmp_path / "series", downsamples=(), pictures=False)
    path = tmp_path / "series" / "01-volume.dcm"
    ds = dcmread(path)
    frames = list(generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames))
    frames[3] = frames[7] = b""
    items = (b"\xfe\xff\x00\xe0" + len(frame).to_bytes(4, "little") + frame for frame in frames)
    ds.PixelData = b"\xfe\xff\x00\xe0" + bytes(4) + b"".join(items) + b"\xfe\xff\xdd\xe0" + bytes(4)
    ds.save_as(path)
    with open_slide(path) as source:
        assert rules(source) == ["source.missing-tile"]
        assert source.pyramids[0].levels[0].read_frame(TileAddress(0, 3)) is None
    (series,) = convert_slide(ConversionRequest(path, tmp_path / "out")).series
    assert series.instances[0].missing_tiles == 2
    after = stored_frames(series.folder / series.instances[0].file_name)
    assert [frame for index, frame in enumerate(after) if index not in (3, 7)] == [frame for frame in frames if frame]


def test_a_frame_that_does_not_decode_is_named_by_level_frame_and_offset(tmp_path: Path):
    write_dicom_wsi(tmp_path / "series")
    path = tmp_path / "series" / "01-volume.dcm"
    data = path.read_bytes()
    frame = stored_frames(path)[5]
    at = data.find(frame)
    path.write_bytes(data[: at + 700] + bytes(200) + data[at + 900 :])
    with open_slide(path) as source, pytest.raises(CorruptSourceError, match=rf"level 0, frame 5, byte offset {at}"):
        whole(source.pyramids[0].levels[0])


@pytest.mark.parametrize(
    ("pattern", "files", "compression", "method"),
    [
        ("cmu1-pyramid-1989*.dcm", 4, "JPEG", "ISO_10918_1"),
        ("highdicom-sm_image.dcm", 1, "none", None),
        ("wsi2dcm-jpeg.dcm", 1, "JPEG", "ISO_10918_1"),
        ("wsi2dcm-jpeg2000.dcm", 1, "JPEG 2000", None),
    ],
)
def test_shared_slides_are_read_as_openslide_reads_them_and_copied(
    shared, tmp_path, pattern, files, compression, method
):
    (path,) = (shared / "slides/dicom").glob(pattern)
    with open_slide(path) as source, openslide.OpenSlide(path) as other:
        assert (source.format_name, len(source.files)) == ("dicom", files)
        level = source.pyramids[0].levels[0]
        assert (level.compression, level.lossy_method) == (compression, method)
        expected = np.asarray(other.read_region((0, 0), 0, other.dimensions))[..., :3]
        assert np.array_equal(whole(level), expected)
        for ours, theirs in (("label", "label"), ("overview", "macro"), ("thumbnail", "thumbnail")):
            assert (ours in source.associated_images) == (theirs in other.associated_images)
            if theirs in other.associated_images:
                picture = np.asarray(other.associated_images[theirs])[..., :3]
                assert np.array_equal(source.associated_images[ours].read(), picture)
    (series,) = convert_slide(ConversionRequest(path, tmp_path / "out")).series
    made = series.instances[0]
    assert made.reuses_frames
    (base,) = path.parent.glob(pattern.replace("1989", "4840"))
    assert stored_frames(base) == stored_frames(series.folder / made.file_name)


def test_dicom_that_is_no_slide_is_named(shared):
    with pytest.raises(UnsupportedSourceError, match=r"Segmentation Storage.*expected a whole slide image"):
        open_slide(shared / "slides/dicom/highdicom-seg_image_sm_dots_tiled_full.dcm")
