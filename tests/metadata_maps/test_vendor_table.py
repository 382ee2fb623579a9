"""The tables that say which field of a vendor's file feeds which attribute."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydicom.datadict import tag_for_keyword

from coverslip.metadata_maps import vendor_table
from coverslip.metadata_maps.vendor_table import load_vendor, parse_datetime, parse_zone

TABLES = sorted(Path(vendor_table.__file__).with_name("vendor").glob("*.toml"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_table_names_attributes_of_the_dictionary_and_has_no_other_keys(path):
    table = tomllib.loads(path.read_text())
    known = {"title", "manufacturer", "overview_label", "focus_method", "datetime_format", "fields", "identifying"}
    assert set(table) <= known
    assert table["focus_method"] in ("AUTO", "MANUAL")
    for keyword, names in table.get("fields", {}).items():
        assert keyword == "Background" or tag_for_keyword(keyword), keyword
        assert names
        assert all(isinstance(name, str) for name in names)
    load_vendor(path.stem)


def test_a_vendor_without_a_table_gets_the_generic_one():
    assert load_vendor("nobody") == load_vendor("generic")
    assert load_vendor("../vendor/leica") == load_vendor("generic")


def test_the_first_field_that_holds_text_is_taken():
    table = load_vendor("ventana")
    properties = {"tiff.Software": " ", "ventana.BuildVersion": " 3.3.1 "}
    assert table.text("SoftwareVersions", properties) == "3.3.1"
    assert table.text("StationName", properties) is None


def test_a_decimal_comma_is_read_and_an_absurd_lens_power_is_not():
    table = load_vendor("leica")
    assert table.number("ObjectiveLensNumericalAperture", {"leica.aperture": "0,75"}) == 0.75
    for text, power in (("40", 40), ("0", None), ("2000", None), ("nan", None), ("lens", None)):
        assert table.lens_power({"openslide.objective-power": text}) == power


def test_what_feeds_a_restricted_attribute_is_identifying():
    table = load_vendor("dicom")
    properties = {"dicom.StationName": "PC7", "dicom.Rows": "4", "dicom.DeviceSerialNumber": "77"}
    assert table.restricted(properties) == {"StationName": "PC7"}
    assert table.identifying_fields(properties) == {"dicom.StationName": "PC7", "dicom.DeviceSerialNumber": "77"}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2017:02:07 13:06:43", datetime(2017, 2, 7, 13, 6, 43)),
        ("20170207130643.123456", datetime(2017, 2, 7, 13, 6, 43)),
        ("2012-01-01T00:00:00Z", datetime(2012, 1, 1, tzinfo=UTC)),
        ("2012-01-01T00:00:00.5-05:30", datetime(2012, 1, 1, tzinfo=timezone(-timedelta(hours=5, minutes=30)))),
        ("20120101000000+0200", datetime(2012, 1, 1, tzinfo=timezone(timedelta(hours=2)))),
        ("2012-13-01T00:00:00", None),
        ("01/02/2012 00:00:00", None),
        ("", None),
    ],
)
def test_dates_with_and_without_a_zone_are_read(text, moment):
    read = parse_datetime(text)
    assert read == moment
    assert read is None or read.utcoffset() == moment.utcoffset()


@pytest.mark.parametrize("text", ["", "CET", "+2", "+9900", "+0075"])
def test_what_is_no_offset_is_no_zone(text):
    assert parse_zone(text) is None


def test_the_zone_of_its_own_field_holds_where_the_date_has_none():
    table = load_vendor("dicom")
    properties = {"dicom.AcquisitionDateTime": "20200102030405", "dicom.TimezoneOffsetFromUTC": "-0600"}
    assert table.acquisition_datetime(properties).utcoffset() == timedelta(hours=-6)


@pytest.mark.parametrize("text", ["02/01/2020 03:04:05", "20200102030405"])
def test_the_day_comes_first_in_dates_of_mirax(text):
    properties = {"mirax.GENERAL.SLIDE_CREATIONDATETIME": text}
    assert load_vendor("mirax").acquisition_datetime(properties) == datetime(2020, 1, 2, 3, 4, 5)
    assert load_vendor("mirax").acquisition_datetime({"mirax.GENERAL.SLIDE_CREATIONDATETIME": "31/31/2020 x"}) is None
