"""Texts of a table become values of DICOM's value representations, or are told not to."""

from __future__ import annotations

from decimal import Decimal

import pytest

from coverslip.metadata_maps.value_rules import MisfitError, age_text, fit_text, parse_quantity, to_unit


@pytest.mark.parametrize(
    ("text", "vr", "value"),
    [
        ("40.0", "DS", "40"),
        ("40", "DS", "40"),
        ("4e1", "DS", "40"),
        ("0.2500", "DS", "0.25"),
        ("0.123456789012345678", "DS", "0.123456789"),
        ("7.0", "IS", "7"),
        ("7", "US", 7),
        ("650.5", "FL", 650.5),
        ("20200213", "DA", "20200213"),
        ("2020-02-13", "DA", "20200213"),
        ("08:30", "TM", "083000"),
        ("2020-02-13T08:30:00", "DT", "20200213083000"),
        ("2020-02-13T08:30:00+01:00", "DT", "20200213083000+0100"),
        ("2020-02-13", "DT", "20200213"),
        ("Doe", "PN", "Doe^"),
        ("Doe^Jane", "PN", "Doe^Jane"),
        ("a" * 64, "LO", "a" * 64),
        ("a" * 65, "UT", "a" * 65),
        ("two\nlines \\ here", "LT", "two\nlines \\ here"),
        ("042Y", "AS", "042Y"),
        ("1.2.840", "UI", "1.2.840"),
    ],
)
def test_a_text_that_fits_becomes_a_value(text: str, vr: str, value: object) -> None:
    assert fit_text(text, vr) == value


@pytest.mark.parametrize(
    ("text", "vr", "kind"),
    [
        ("a" * 65, "LO", "too-long"),
        ("a" * 17, "SH", "too-long"),
        ("A" * 17, "CS", "too-long"),
        ("a" * 64, "PN", "too-long"),  # the caret makes it 65
        ("male", "CS", "invalid"),
        ("42", "AS", "invalid"),
        ("a\\b", "LO", "invalid"),
        ("a\nb", "SH", "invalid"),
        ("forty", "DS", "invalid"),
        ("nan", "DS", "invalid"),
        ("1.5", "IS", "invalid"),
        ("70000", "US", "invalid"),
        ("-1", "US", "invalid"),
        ("13.02.2020", "DA", "invalid"),
        ("2020-02-30", "DA", "invalid"),
        ("2020115", "DA", "invalid"),
        ("1.02", "UI", "invalid"),
    ],
)
def test_a_text_that_does_not_fit_is_told(text: str, vr: str, kind: str) -> None:
    with pytest.raises(MisfitError) as caught:
        fit_text(text, vr)
    assert caught.value.kind == kind


def test_a_date_is_read_in_the_forms_the_map_names_and_no_other() -> None:
    assert fit_text("2/13/2020", "DA", formats=("%m/%d/%Y",)) == "20200213"
    assert fit_text("13.02.2020", "DA", formats=("%m/%d/%Y", "%d.%m.%Y")) == "20200213"
    assert fit_text("13.02.2020 8:30", "DT", formats=("%d.%m.%Y %H:%M",)) == "20200213083000"
    with pytest.raises(MisfitError, match=r"wanted|form %m/%d/%Y"):
        fit_text("2020-02-13", "DA", formats=("%m/%d/%Y",))


def test_a_length_below_that_of_the_vr_is_held() -> None:
    with pytest.raises(MisfitError, match="9 characters, the map allows 8"):
        fit_text("a" * 9, "LO", max_length=8)


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [("0.25", "0.25", "um"), ("0.25 µm", "0.25", "um"), ("0.25Âµm", "0.25", "um"), ("250 nm", "250", "nm")],
)
def test_a_quantity_has_the_unit_it_names_or_the_default(text: str, number: str, unit: str) -> None:
    assert parse_quantity(text, "um") == (Decimal(number), unit)


def test_units_of_one_kind_convert_exactly() -> None:
    assert to_unit(Decimal("0.25"), "um", "mm") == Decimal("0.00025")
    assert to_unit(Decimal(172), "cm", "m") == Decimal("1.72")
    with pytest.raises(MisfitError, match="g cannot be given in mm"):
        to_unit(Decimal(1), "g", "mm")
    with pytest.raises(MisfitError, match="unit 'parsec' is not known"):
        parse_quantity("1 parsec", "um")
    with pytest.raises(MisfitError, match="is not a number with a unit"):
        parse_quantity("about 3", "um")


@pytest.mark.parametrize(
    ("number", "unit", "text"), [(42, "a", "042Y"), (20, "d", "020D"), (20000, "d", "054Y"), (18, "mo", "018M")]
)
def test_an_age_is_in_completed_units(number: int, unit: str, text: str) -> None:
    assert age_text(Decimal(number), unit) == text


def test_a_negative_age_is_none() -> None:
    with pytest.raises(MisfitError, match="-999 a is not an age"):
        age_text(Decimal(-999), "a")
