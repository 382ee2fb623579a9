"""What the headers say of de-identification must be true."""

from __future__ import annotations

from datetime import datetime

import pytest

from coverslip.metadata_maps.deid.claims import claim, claim_again
from coverslip.metadata_maps.deid.keys import DeidKey
from coverslip.metadata_maps.deid.policy import Action, DeidRecord, apply_policy, load_policy

DATED = DeidRecord("default", {"AcquisitionDateTime": Action.KEEP, "OperatorsName": Action.REMOVE})


def codes(record=DATED, curated=None, **pictures):
    return [code.value for code in claim(record, curated or {}, **pictures).codes]


def test_the_default_policy_claims_the_basic_profile_with_full_dates():
    claims = claim(DATED, {})
    assert claims.patient_identity_removed
    assert claims.method == "coverslip, policy default"
    assert claims.longitudinal == "UNMODIFIED"
    assert codes() == ["113100", "113106"]


@pytest.mark.parametrize("action", [Action.KEEP, Action.SHIFT, Action.REMOVE])
def test_a_slide_without_a_date_claims_what_the_others_of_its_patient_do(action, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f'[attributes]\nAcquisitionDateTime = "{action}"\n')
    dated, undated = (
        claim(apply_policy(load_policy(str(path)), values, patient="P1", key=DeidKey(bytes(range(32))))[1], {})
        for values in ({"AcquisitionDateTime": datetime(2020, 1, 2)}, {})
    )
    assert undated == dated


@pytest.mark.parametrize(
    ("action", "longitudinal", "option"), [(Action.SHIFT, "MODIFIED", ["113107"]), (Action.REMOVE, "REMOVED", [])]
)
def test_dates_are_claimed_as_they_are(action, longitudinal, option):
    record = DeidRecord("mine", {"AcquisitionDateTime": action})
    assert claim(record, {}).longitudinal == longitudinal
    assert codes(record) == ["113100", *option]


@pytest.mark.parametrize(
    ("curated", "option"),
    [
        ({"SpecimenPreparationSequence": "1 item"}, ["113104"]),
        ({"SeriesDescription": "FFPE HE"}, ["113105"]),
        ({"PatientSex": "F"}, ["113108"]),
        ({"ClinicalTrialSiteID": "TCGA-05"}, ["113112"]),
        ({"PatientSex": "", "InstitutionName": ""}, []),
        ({"PatientID": "P1", "PatientName": "P1^"}, []),
    ],
)
def test_options_are_claimed_for_what_a_map_sets(curated, option):
    assert codes(curated=curated) == ["113100", *sorted([*option, "113106"])]


def test_a_serial_number_that_is_kept_is_a_retained_device_identity():
    assert codes(DeidRecord("mine", {"DeviceSerialNumber": Action.KEEP})) == ["113100", "113109"]
    assert codes(DeidRecord("mine", {"DeviceSerialNumber": Action.HASH})) == ["113100"]


@pytest.mark.parametrize(
    "curated",
    [
        {"PatientName": "Doe^Jane", "PatientID": "P1"},
        {"PatientName": "Doe^Jane"},
        {"PatientBirthDate": "19500101"},
        {"ReferringPhysicianName": "Roe^Richard"},
    ],
)
def test_nothing_is_claimed_of_a_patient_who_is_named(curated):
    claims = claim(DATED, curated)
    assert (claims.patient_identity_removed, claims.codes) == (False, ())


@pytest.mark.parametrize("keyword", ["OperatorsName", "BarcodeValue", "ImageComments"])
def test_nothing_is_claimed_when_the_policy_lets_names_out(keyword):
    assert not claim(DeidRecord("mine", {keyword: Action.KEEP}), {}).patient_identity_removed
    assert claim(DeidRecord("mine", {keyword: Action.HASH}), {}).patient_identity_removed


def test_a_label_that_can_be_read_is_not_de_identified_and_a_masked_one_is():
    assert codes(shows_label=True) == []
    assert codes(masked=True) == ["113100", "113101", "113106"]
    assert codes(masked=True, shows_label=True) == []


def test_replaced_metadata_claim_no_more_of_the_slide_than_was_claimed_before():
    before = claim(DATED, {"PatientSex": "F"})
    again = claim_again(before, {"SeriesDescription": "FFPE HE"})
    assert [code.value for code in again.codes] == ["113100", "113105", "113106"]
    assert again.patient_identity_removed
    assert claim_again(claim(DATED, {}, shows_label=True), {}).codes == ()


def test_replaced_metadata_that_name_a_person_end_all_claims():
    again = claim_again(claim(DATED, {}), {"PatientName": "Doe^Jane", "PatientID": "P1"})
    assert (again.patient_identity_removed, again.codes) == (False, ())
