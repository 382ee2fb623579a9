"""What a policy lets out, and how it is read."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta

import pytest

from coverslip.errors import UsageError
from coverslip.metadata_maps.deid.keys import DeidKey, load_key
from coverslip.metadata_maps.deid.policy import Action, apply_policy, load_policy

SECRET = bytes(range(32))
KEY = DeidKey(SECRET)
SCANNED = datetime(2020, 2, 29, 23, 30)
VALUES = {
    "Manufacturer": "Aperio",
    "DeviceSerialNumber": "SS1234",
    "SoftwareVersions": ("Aperio Image Library v11.2.1",),
    "ObjectiveLensPower": 40.0,
    "AcquisitionDateTime": SCANNED,
    "OperatorsName": "Jane Doe",
    "BarcodeValue": "S20-1234",
}


def write_policy(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_the_default_keeps_equipment_and_dates_and_removes_all_else():
    kept, record = apply_policy(load_policy(), VALUES)
    assert set(kept) == {"Manufacturer", "SoftwareVersions", "ObjectiveLensPower", "AcquisitionDateTime"}
    assert record.actions["OperatorsName"] is Action.REMOVE
    assert record.longitudinal == "UNMODIFIED"


def test_an_attribute_that_no_policy_names_is_removed():
    kept, _ = apply_policy(load_policy(), {"PatientName": "Jane Doe"})
    assert kept == {}


def test_dates_are_removed_on_request():
    kept, record = apply_policy(load_policy("remove-dates"), VALUES)
    assert "AcquisitionDateTime" not in kept
    assert record.longitudinal == "REMOVED"


def test_shifted_dates_keep_the_intervals_of_a_patient_and_the_time_of_day():
    policy = load_policy("shift-dates")
    later = VALUES | {"AcquisitionDateTime": SCANNED + timedelta(days=9, hours=1)}
    first, second = (apply_policy(policy, values, patient="P1", key=KEY)[0] for values in (VALUES, later))
    assert second["AcquisitionDateTime"] - first["AcquisitionDateTime"] == timedelta(days=9, hours=1)
    moved = SCANNED - first["AcquisitionDateTime"]
    assert moved.seconds == 0
    assert 1 <= moved.days <= 3652
    other, record = apply_policy(policy, VALUES, patient="P2", key=KEY)
    assert other["AcquisitionDateTime"] != first["AcquisitionDateTime"]
    assert record.longitudinal == "MODIFIED"


def test_a_date_too_early_to_shift_is_removed():
    values = {"AcquisitionDateTime": datetime(1, 1, 1)}
    assert apply_policy(load_policy("shift-dates"), values, patient="P1", key=KEY)[0] == {}


def test_a_shift_needs_a_patient_and_a_key():
    with pytest.raises(UsageError, match="needs a Patient ID"):
        apply_policy(load_policy("shift-dates"), VALUES, key=KEY)
    with pytest.raises(UsageError, match="--deid-key-file is needed"):
        apply_policy(load_policy("shift-dates"), VALUES, patient="P1")


def test_hashes_depend_on_key_attribute_and_text(tmp_path):
    text = 'extends = "default"\n[attributes]\nDeviceSerialNumber = "hash"\nBarcodeValue = "hash"\n'
    policy = load_policy(write_policy(tmp_path, text))
    same = {"DeviceSerialNumber": "A1", "BarcodeValue": "A1"}
    kept, _ = apply_policy(policy, same, key=KEY)
    again, _ = apply_policy(policy, same, key=DeidKey(SECRET[::-1]))
    assert len({*kept.values(), *again.values()}) == 4
    assert all(len(value) == 16 for value in kept.values())
    assert kept == apply_policy(policy, same, key=DeidKey(SECRET))[0]


def test_a_replacement_takes_the_place_of_any_text(tmp_path):
    policy = load_policy(write_policy(tmp_path, '[attributes]\nSoftwareVersions = { replace = "scanner" }\n'))
    assert apply_policy(policy, VALUES)[0] == {"SoftwareVersions": "scanner"}
    assert not policy.needs_key


def test_a_kept_text_that_repeats_an_identifying_one_is_removed():
    values = {"SoftwareVersions": ("scan 2.1", "licensed to JANE DOE"), "Manufacturer": "Aperio"}
    kept, record = apply_policy(load_policy(), values, identifying=["Jane Doe", "a"])
    assert kept == {"Manufacturer": "Aperio"}
    assert record.cleaned == ("SoftwareVersions",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[attributes", "is not TOML"),
        ("[rules]", "rules: wanted extends or"),
        ('extends = "nothing"', "nothing: wanted default"),
        ("extends = 3", "extends: wanted the name"),
        ("attributes = 3", "attributes: wanted a table"),
        ('[attributes]\nPatientName = "keep"', "attributes.PatientName: not fed by any slide"),
        ('[attributes]\nManufacturer = "shift"', "attributes.Manufacturer: 'shift', wanted \"hash\""),
        ('[attributes]\nAcquisitionDateTime = "hash"', '\'hash\', wanted "keep", "remove", "shift"'),
        ('[attributes]\nAcquisitionDateTime = { replace = "19000101" }', "wanted"),
        ('[attributes]\nManufacturer = { replace = "" }', "replacement of 0 characters"),
        ('[attributes]\nStationName = { replace = "' + "x" * 17 + '" }', "wanted 1 to 16"),
        ("[attributes]\nManufacturer = [1]", "wanted"),
    ],
)
def test_a_mistake_in_a_policy_is_a_usage_error_that_names_its_place(tmp_path, text, words):
    path = write_policy(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    assert words in str(caught.value)


def test_a_policy_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="wanted default, remove-dates, shift-dates or a TOML file"):
        load_policy("strict")
    with pytest.raises(UsageError, match="cannot be read"):
        load_policy(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize("secret", [b"", b"short", bytes(31), b"a" * 64, b"ab" * 40])
def test_a_short_or_simple_key_is_refused(tmp_path, secret):
    path = tmp_path / "key"
    path.write_bytes(secret)
    with pytest.raises(UsageError, match="de-identification key") as caught:
        load_key(path)
    assert not secret or secret.decode() not in str(caught.value)


def test_a_key_file_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_key(tmp_path / "key")


def test_a_line_end_after_the_key_does_not_count(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(SECRET + b"\n")
    assert load_key(path) == KEY


def test_a_key_tells_nothing_of_itself():
    assert repr(KEY) == "DeidKey(...)"
    assert SECRET.hex() not in KEY.fingerprint()
    assert hash(KEY) == hash(DeidKey(SECRET))
    assert KEY != SECRET
    with pytest.raises(TypeError):
        pickle.dumps(KEY)
