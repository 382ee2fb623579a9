from __future__ import annotations

import datetime as dt
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from coverslip.catalog.columns import ColumnTree
from coverslip.catalog.export_rules import Drop
from coverslip.catalog.found_files import FileSource
from coverslip.catalog.header_reader import BytesSource, Header, HeaderReader, as_part10
from coverslip.catalog.schema import Field
from coverslip.errors import CorruptSourceError, MissingMetadataError, UnsupportedSourceError
from tests.catalog.reference import reference_row
from tests.factories.headers import code, slide_header, write_header

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big endian": "1.2.840.10008.1.2.2",
    "encapsulated": "1.2.840.10008.1.2.4.50",
}


def read(path: Path, tree: ColumnTree | None = None) -> Header:
    with FileSource(str(path)) as source:
        return HeaderReader(tree or ColumnTree()).read(source, whole=True)


def row_of(tmp_path: Path, **attributes: Any) -> dict[str, Any]:
    return read(write_header(tmp_path, slide_header(**attributes))).row


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
@pytest.mark.filterwarnings("ignore:.*big endian.*")
def test_every_encoding_gives_the_values_that_pydicom_reads(tmp_path: Path, syntax: str) -> None:
    ds = slide_header(SmallestImagePixelValue=3, FrameIncrementPointer=[0x00181063], PatientComments=" a\\b ")
    ds.private_block(0x0013, "CTP", create=True).add_new(0x10, "LO", "TRIAL-ONE")
    path = write_header(tmp_path, ds, syntax=syntax)
    expected = reference_row(pydicom.dcmread(path, stop_before_pixels=True))
    found = read(path).row
    if syntax == SYNTAXES["implicit"]:
        # Without a VR in the file nobody knows what a private element is; pydicom tells of its bytes.
        expected["OtherElements"] = found["OtherElements"]
    assert found == expected


def test_every_shared_instance_gives_the_values_that_pydicom_reads(shared: Path) -> None:
    reader = HeaderReader(ColumnTree())
    paths = sorted((shared / "slides" / "dicom").glob("*.dcm"))
    assert paths
    for path in paths:
        with FileSource(str(path)) as source:
            header = reader.read(source, whole=True)
        assert header.misfits == ()
        assert header.row == reference_row(pydicom.dcmread(path, stop_before_pixels=True)), path.name


def test_a_converted_slide_gives_the_values_that_pydicom_reads(tcga_series: Path) -> None:
    for path in sorted(tcga_series.glob("*.dcm")):
        assert read(path).row == reference_row(pydicom.dcmread(path, stop_before_pixels=True)), path.name


def test_a_data_set_without_file_is_read_as_its_file(tmp_path: Path) -> None:
    path = write_header(tmp_path, slide_header())
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    assert HeaderReader(ColumnTree()).read(BytesSource(as_part10(ds))).row == read(path).row


def test_metadata_of_a_service_tells_the_transfer_syntax_in_an_element_of_its_own() -> None:
    ds = slide_header(AvailableTransferSyntaxUID="1.2.840.10008.1.2.4.90")
    row = HeaderReader(ColumnTree()).read(BytesSource(as_part10(ds))).row
    assert row["TransferSyntaxUID"] == "1.2.840.10008.1.2.4.90"
    assert row["MediaStorageSOPInstanceUID"] == "1.2.3.1"


def test_bytes_that_a_service_tells_as_numbers_are_dropped_as_bytes_are() -> None:
    ds = slide_header()
    with pytest.warns(UserWarning, match="cannot be assigned to a tag with VR OD"):
        ds.DoublePointCoordinatesData = 34.6
    header = HeaderReader(ColumnTree()).read(BytesSource(as_part10(ds)))
    assert header.drops == (Drop("DoublePointCoordinatesData", "binary"),)


def test_types_and_modes_are_those_of_the_export(tmp_path: Path) -> None:
    row = row_of(
        tmp_path, AcquisitionDateTime="20240102030405.5+0100", ImagedVolumeWidth=1.5, RecognitionCode="x", PatientAge=""
    )
    assert row["StudyDate"] == dt.date(2024, 1, 2)
    assert row["StudyTime"] == dt.time(3, 4, 5, 250000)
    assert row["AcquisitionDateTime"] == dt.datetime(2024, 1, 2, 2, 4, 5, 500000, tzinfo=dt.UTC)
    assert row["ImagedVolumeWidth"] == 1.5
    assert row["Rows"] == 16
    assert row["ImageType"] == ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    assert row["PatientName"] == {"Alphabetic": {"FamilyName": "Doe", "GivenName": "Jane", "NamePrefix": "Dr"}}
    assert row["OpticalPathSequence"][0]["ObjectiveLensPower"] == "20"
    assert "PatientAge" not in row


def test_text_of_numbers_stays_the_text(tmp_path: Path) -> None:
    path = Dataset()
    path.ObjectiveLensPower = "40.0"
    row = row_of(tmp_path, OpticalPathSequence=Sequence([path]), SliceThickness="0.0010")
    assert row["OpticalPathSequence"] == [{"ObjectiveLensPower": "40.0"}]
    assert row["SliceThickness"] == "0.0010"


def test_private_elements_stand_at_their_level_and_private_sequences_in_columns(tmp_path: Path) -> None:
    inner = Dataset()
    inner.private_block(0x0011, "ACME", create=True).add_new(0x02, "SH", ["p", "q"])
    ds = slide_header()
    block = ds.private_block(0x0009, "ACME", create=True)
    block.add_new(0x01, "US", 7)
    block.add_new(0x03, "OB", b"xx")
    block.add_new(0x04, "SQ", Sequence([inner]))
    tree = ColumnTree()
    header = read(write_header(tmp_path, ds), tree)
    assert header.row["OtherElements"] == [
        {"Tag": "Tag_00090010", "Data": ["ACME"]},
        {"Tag": "Tag_00091001", "Data": ["7"]},
    ]
    nested = [{"Tag": "Tag_00110010", "Data": ["ACME"]}, {"Tag": "Tag_00111002", "Data": ["p", "q"]}]
    assert header.row["Tag_00091004"] == [{"OtherElements": nested}]
    assert Drop("Tag_00091003", "binary") in header.drops
    (added,) = (field for field in tree.fields() if field.name == "Tag_00091004")
    others = Field("OtherElements", "RECORD", "REPEATED", (Field("Tag"), Field("Data", "STRING", "REPEATED")))
    assert added == Field("Tag_00091004", "RECORD", "REPEATED", (others,))


def test_repeating_groups_are_records_of_group_and_value(tmp_path: Path) -> None:
    ds = slide_header()
    for group in (0x6000, 0x6002):
        ds.add_new((group, 0x0010), "US", 5)
        ds.add_new((group, 0x0050), "SS", [1, -1])
        ds.add_new((group, 0x3000), "OW", b"xx")
    header = read(write_header(tmp_path, ds))
    assert header.row["OverlayRows"] == [{"Id": "6000", "Value": 5}, {"Id": "6002", "Value": 5}]
    assert header.row["OverlayOrigin"] == [{"Id": "6000", "Value": [1, -1]}, {"Id": "6002", "Value": [1, -1]}]


def nest(depth: int) -> Dataset:
    ds = Dataset()
    ds.CodeMeaning = str(depth)
    if depth:
        ds.EquivalentCodeSequence = Sequence([nest(depth - 1)])
    return ds


def test_nesting_beyond_fifteen_levels_is_dropped_and_told(tmp_path: Path) -> None:
    header = read(write_header(tmp_path, slide_header(PatientSpeciesCodeSequence=Sequence([nest(20)]))))
    levels, row = 1, header.row["PatientSpeciesCodeSequence"][0]
    while "EquivalentCodeSequence" in row:
        levels, row = levels + 1, row["EquivalentCodeSequence"][0]
    assert levels == 14  # below the data set itself
    assert [drop.reason for drop in header.drops if drop.path.startswith("PatientSpecies")] == ["nested too deep"]


def test_a_sequence_of_a_mebibyte_is_dropped_and_told(tmp_path: Path) -> None:
    def comments(count: int) -> Sequence:
        items = [Dataset() for _ in range(count)]
        for item in items:
            item.SpecimenDetailedDescription = "x" * 1000
        return Sequence(items)

    kept = read(write_header(tmp_path, slide_header(SpecimenDescriptionSequence=comments(1000))))
    assert len(kept.row["SpecimenDescriptionSequence"]) == 1000
    dropped = read(write_header(tmp_path, slide_header(SpecimenDescriptionSequence=comments(1060))))
    assert "SpecimenDescriptionSequence" not in dropped.row
    assert dropped.drops == (Drop("SpecimenDescriptionSequence", "1 MiB or more"),)


def test_a_large_profile_does_not_cost_the_optical_path_its_columns(tmp_path: Path) -> None:
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.ICCProfile = bytes(3_000_000)
    header = read(write_header(tmp_path, slide_header(OpticalPathSequence=Sequence([path]))))
    assert header.row["OpticalPathSequence"] == [{"OpticalPathIdentifier": "1"}]
    assert header.drops == (Drop("OpticalPathSequence.ICCProfile", "binary"),)


@pytest.mark.parametrize("undefined", [False, True])
def test_per_frame_groups_are_left_out_without_being_read(tmp_path: Path, undefined: bool) -> None:
    item = Dataset()
    item.PlanePositionSlideSequence = Sequence([Dataset()])
    item.PlanePositionSlideSequence[0].ColumnPositionInTotalImagePixelMatrix = 1
    ds = slide_header(PerFrameFunctionalGroupsSequence=Sequence([item] * 20_000))
    ds["PerFrameFunctionalGroupsSequence"].is_undefined_length = undefined
    path = write_header(tmp_path, ds)
    assert path.stat().st_size > 800_000
    read(path)  # loads what is loaded once
    tracemalloc.start()
    header = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "PerFrameFunctionalGroupsSequence" not in header.row
    assert header.drops == (Drop("PerFrameFunctionalGroupsSequence", "per frame"),)
    assert peak < 300_000


def test_a_value_that_does_not_fit_its_column_is_left_out_and_told_without_itself(tmp_path: Path) -> None:
    path = write_header(tmp_path, slide_header())
    data = path.read_bytes().replace(b"20240102", b"2024SECR").replace(b"030405.25 ", b"990405.25 ")
    path.write_bytes(data)
    header = read(path)
    assert "StudyDate" not in header.row
    assert "StudyTime" not in header.row
    assert header.row["PatientID"] == "P1"
    assert [misfit.path for misfit in header.misfits] == ["StudyDate", "StudyTime"]
    assert "SECR" not in str(header.misfits)
    assert header.misfits[0].reason == "does not fit DATE: no date"


def test_number_in_an_element_of_text_is_taken_as_the_number_it_says(tmp_path: Path) -> None:
    path = write_header(tmp_path, slide_header())
    element = struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 2) + struct.pack("<H", 16)
    data = path.read_bytes()
    assert element in data
    path.write_bytes(data.replace(element, struct.pack("<HH2sH", 0x0028, 0x0010, b"IS", 4) + b"512 "))
    assert read(path).row["Rows"] == 512


def test_sequences_of_undefined_length_and_unknown_vr_are_followed(tmp_path: Path) -> None:
    ds = slide_header(AdmittingDiagnosesCodeSequence=Sequence([code("1", "SCT", "One")]))
    for keyword in ("AdmittingDiagnosesCodeSequence", "OpticalPathSequence", "SharedFunctionalGroupsSequence"):
        ds[keyword].is_undefined_length = True
        for item in ds[keyword].value:
            item.is_undefined_length_sequence_item = True
    path = write_header(tmp_path, ds)
    expected = reference_row(pydicom.dcmread(path, stop_before_pixels=True))
    assert read(path).row == expected
    # The same as a relay writes it that does not know the element: UN, its items implicit little endian.
    start = struct.pack("<HH2sHL", 0x0008, 0x1084, b"SQ", 0, 0xFFFFFFFF)
    items = b"".join(
        struct.pack("<HHL", 0x0008, element, 4) + value
        for element, value in ((0x0100, b"1   "), (0x0102, b"SCT "), (0x0104, b"One "))
    )
    data = path.read_bytes()
    begin = data.index(start)
    end = data.index(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0), begin)
    unknown = struct.pack("<HH2sHL", 0x0008, 0x1084, b"UN", 0, 0xFFFFFFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(items)) + items
    path.write_bytes(data[:begin] + unknown + item + data[end:])
    assert read(path).row == expected


@pytest.mark.parametrize(
    ("character_set", "name"),
    [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 192", "山田^太郎"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")],
)
def test_text_is_read_by_its_character_set(tmp_path: Path, character_set: Any, name: str) -> None:
    path = write_header(tmp_path, slide_header(SpecificCharacterSet=character_set, PatientName=name))
    found = read(path).row["PatientName"]
    assert [[*group.values()] for group in found.values()] == [group.split("^") for group in name.split("=")]


def test_remembered_sequences_are_told_apart(tmp_path: Path) -> None:
    reader = HeaderReader(ColumnTree())
    for number, power in enumerate(("20", "40", "20"), 1):
        path = Dataset()
        path.ObjectiveLensPower = power
        file = write_header(tmp_path, slide_header(number=number, OpticalPathSequence=Sequence([path])))
        with FileSource(str(file)) as source:
            assert reader.read(source).row["OpticalPathSequence"] == [{"ObjectiveLensPower": power}]


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "encapsulated"])
def test_a_file_that_ends_anywhere_early_is_told(tmp_path: Path, syntax: str) -> None:
    ds = slide_header(AdmittingDiagnosesCodeSequence=Sequence([code("1", "SCT", "One")]))
    ds["AdmittingDiagnosesCodeSequence"].is_undefined_length = True
    path = write_header(tmp_path, ds, syntax=SYNTAXES[syntax])
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises((CorruptSourceError, UnsupportedSourceError, MissingMetadataError)):
            read(path)


def test_frames_without_their_end_are_told_and_padding_behind_them_is_not(tmp_path: Path) -> None:
    path = write_header(tmp_path, slide_header())
    whole = path.read_bytes()
    path.write_bytes(whole + struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 4) + b"\0\0\0\0")
    assert read(path).row["SOPInstanceUID"] == "1.2.3.1"
    path.write_bytes(whole[:-8])
    with pytest.raises(CorruptSourceError, match="ends before the pixel data do"):
        read(path)


def test_what_is_no_dicom_or_no_instance_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x" * 200)
    with pytest.raises(UnsupportedSourceError, match="no DICM at byte 128"):
        read(tmp_path / "text")
    ds = slide_header()
    del ds.SeriesInstanceUID
    with pytest.raises(MissingMetadataError, match="SeriesInstanceUID is missing"):
        read(write_header(tmp_path, ds))


def test_bytes_that_are_no_elements_are_told(tmp_path: Path) -> None:
    path = write_header(tmp_path, slide_header())
    data = bytearray(path.read_bytes())
    at = data.index(b"DA")
    data[at : at + 2] = b"\x01\x02"
    path.write_bytes(data)
    with pytest.raises(CorruptSourceError, match="no value representation"):
        read(path)
