"""What the user may set, and texts and numbers as DICOM writes them."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from coverslip.converter.dataset import _long_string, _ratio, check_attributes, format_decimal, set_attribute
from coverslip.errors import UsageError


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("PatientName", "Müller^Zoë"),
        ("PatientName", "山田\u3000太郎"),
        ("PatientBirthDate", "19500101"),
        ("StudyInstanceUID", "1.2.3"),
        ("PatientSize", "1.75"),
        ("ClinicalTrialProtocolID", "TCGA-LUAD"),
        ("StudyDescription", "x" * 64),
        ("PatientComments", "two\nlines"),
        ("SpecimenShortDescription", "Liver"),
        ("ObjectiveLensPower", "40"),
        ("SoftwareVersions", "1\\2"),
        ("OtherPatientNames", "A^B\\C^D"),
        ("AcquisitionMatrix", "1\\0\\0\\1"),
        ("PatientID", ""),
        ("PatientSex", "O"),
        ("PatientSex", ""),
    ],
)
def test_attribute_that_fits_is_taken(keyword: str, text: str):
    check_attributes({keyword: text})


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("NoSuchKeyword", "1"),
        ("Rows", "1"),
        ("SOPInstanceUID", "1.2.3"),
        ("ImageType", "ORIGINAL"),
        ("TotalPixelMatrixRows", "1"),
        ("DerivationDescription", "mine"),
        ("CommandGroupLength", "5"),
        ("FileSetID", "X"),
        ("TransferSyntaxUID", "1.2"),
        ("PatientBirthDate", "1950-01-01"),
        ("StudyInstanceUID", "1.02.3"),
        ("StudyInstanceUID", "../../x"),
        ("StudyDescription", "x" * 65),
        ("AccessionNumber", "x" * 17),
        ("PatientSex", "female"),
        ("PatientSex", "X"),
        ("AcquisitionMatrix", "70000"),
        ("AcquisitionMatrix", "-1"),
        ("AcquisitionMatrix", "one"),
        ("SpecimenDescriptionSequence", "x"),
        ("PatientName", "\udcff"),
        ("PatientName", "a\x00b"),
        ("StudyDescription", "two\nlines"),
        ("StudyDescription", "two\\values"),
        ("StudyInstanceUID", "1.2.3\\1.2.4"),
        ("ObjectiveLensPower", "20\\40"),
        ("SpecimenIdentifier", "A\\B"),
        ("AcquisitionMatrix", "1\\2\\3"),
        ("PositionReferenceIndicator", "CORNER"),
        ("ConcatenationUID", "1.2.3"),
        ("", "x"),
    ],
)
def test_attribute_that_does_not_fit_is_refused_in_one_line(keyword: str, text: str):
    with pytest.raises(UsageError, match=f"--set {keyword}") as caught:
        check_attributes({keyword: text})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Doe", "Doe^"),
        ("Doe^John", "Doe^John"),
        ("A\\B^C", ["A^", "B^C"]),
        ("Yamada^T=山田", "Yamada^T=山田"),
        ("", ""),
    ],
)
def test_name_of_one_component_becomes_a_family_name(text: str, name: str | list[str]):
    ds = Dataset()
    set_attribute(ds, "OtherPatientNames", text)
    assert ds.OtherPatientNames == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0002527, "0.0002527"),
        (0.0002527 * 2**9, "0.1293824"),
        (1.0, "1"),
        (40.0, "40"),
        (0.75, "0.75"),
        (0.000252712345, "0.000252712345"),
        (123.4567890123456, "123.456789012346"),
        (-12.345678, "-12.345678"),
    ],
)
def test_numbers_are_short_decimal_strings(value: float, text: str):
    assert format_decimal(value) == text
    assert len(text) <= 16
    ds = Dataset()
    ds.ObjectiveLensPower = text


def test_number_too_long_for_a_decimal_string_is_a_mistake():
    with pytest.raises(ValueError, match="Decimal String"):
        format_decimal(1e17)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1, 9.99999, 9.5, 99.99999, 12.3456, 999.99, 12345.6, 99999.4, 150000, 1e7])
def test_ratio_takes_six_characters_whatever_it_is(ratio: float):
    text = _ratio(ratio)
    assert len(text) == 6
    assert float(text) == pytest.approx(min(ratio, 999999), rel=1e-3, abs=1e-3)


def test_text_of_a_slide_becomes_a_long_string():
    assert _long_string(None) == _long_string("") == _long_string(" \x00\\ ") == "Unknown"
    assert _long_string("a\\b\x01c ") == "abc"
    assert _long_string("x" * 63 + " y") == "x" * 63
