"""The policy at work in a conversion."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from tests.factories.aperio import FIELDS, write_aperio_svs

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.metadata_maps.deid.keys import DeidKey
from coverslip.metadata_maps.deid.policy import load_policy

KEY = DeidKey(bytes(range(32)))


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "slide.svs"
    write_aperio_svs(path, fields=FIELDS | {"Barcode": "S20-1234", "User": "Jane Doe", "Time Zone": "GMT-05:00"})
    return path


def header(slide: Path, output: Path, **options):
    series = convert_slide(ConversionRequest(slide, output, **options)).series[0]
    return dcmread(series.folder / series.instances[-1].file_name, stop_before_pixels=True), series


def policy(tmp_path, **actions):
    text = "\n".join(f'{keyword} = "{action}"' for keyword, action in actions.items())
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
    path.write_text(f'extends = "default"\n[attributes]\n{text}\n')
    return load_policy(str(path))


def test_by_default_the_equipment_and_the_date_are_kept_and_the_serial_number_is_not(slide, tmp_path):
    ds, _ = header(slide, tmp_path / "out")
    assert (ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber) == ("Aperio", "ScanScope", "Unknown")
    assert ds.AcquisitionDateTime == "20210317102133-0500"
    assert [item.CodeValue for item in ds.DeidentificationMethodCodeSequence] == ["113100", "113106"]
    assert (ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified) == ("YES", "UNMODIFIED")


def test_what_a_policy_keeps_is_written_where_it_belongs(slide, tmp_path):
    names = ("DeviceSerialNumber", "OperatorsName", "BarcodeValue", "ImageComments")
    kept = policy(tmp_path, **dict.fromkeys(names, "keep"))
    ds, _ = header(slide, tmp_path / "out", policy=kept, include=("label",))
    assert (ds.DeviceSerialNumber, ds.OperatorsName, ds.BarcodeValue) == ("SS1234", "Jane Doe", "S20-1234")
    assert ds.ContainerIdentifier == "S20-1234"
    assert "Aperio Image Library" in ds.ImageComments
    assert "PatientIdentityRemoved" not in ds
    assert "DeidentificationMethodCodeSequence" not in ds


def test_a_hashed_barcode_names_the_container_and_its_uids_follow_from_the_hash(slide, tmp_path):
    hashed = policy(tmp_path, BarcodeValue="hash")
    ds, _ = header(slide, tmp_path / "out", policy=hashed, deid_key=KEY)
    assert ds.ContainerIdentifier == KEY.pseudonym("BarcodeValue", "S20-1234")
    other, _ = header(slide, tmp_path / "out", policy=hashed, deid_key=DeidKey(bytes(range(1, 33))))
    assert ds.FrameOfReferenceUID != other.FrameOfReferenceUID


def test_a_removed_date_is_the_constant_with_a_finding(slide, tmp_path):
    ds, series = header(slide, tmp_path / "out", policy=load_policy("remove-dates"))
    assert (ds.AcquisitionDateTime, ds.ContentDate) == ("19000101000000", "19000101")
    assert ds.LongitudinalTemporalInformationModified == "REMOVED"
    assert "the date is removed" in " ".join(finding.message for finding in series.findings)


def test_policy_and_key_shape_the_uids_and_the_key_only_where_it_is_used(slide, tmp_path):
    options = [
        {},
        {"policy": load_policy("remove-dates")},
        {"policy": load_policy("shift-dates"), "deid_key": KEY},
        {"policy": load_policy("shift-dates"), "deid_key": DeidKey(bytes(range(1, 33)))},
    ]
    request = [ConversionRequest(slide, tmp_path, **each).shaping_options() for each in options]
    assert len(set(request)) == 4
    assert ConversionRequest(slide, tmp_path, deid_key=KEY).shaping_options() == request[0]


def test_a_label_in_the_series_withdraws_the_claim_from_all_of_it(slide, tmp_path):
    ds, series = header(slide, tmp_path / "out", include=("label",))
    base = dcmread(series.folder / series.instances[0].file_name, stop_before_pixels=True)
    assert ds.BurnedInAnnotation == "YES"
    assert base.BurnedInAnnotation == "NO"
    assert "PatientIdentityRemoved" not in ds
    assert "PatientIdentityRemoved" not in base
