"""Which statements about de-identification are true of a series: nothing is claimed that was not done.

PS3.15 E.1.1 and E.3, PS3.16 CID 7050, PS3.3 C.7.1.1 and C.12.1. The reasons are in docs/deidentification.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coverslip.metadata_maps.codes import Code
from coverslip.metadata_maps.deid.policy import Action, DeidRecord

__all__ = ["NOTHING_CLAIMED", "DeidClaims", "claim", "claim_again"]

BASIC_PROFILE = Code("113100", "DCM", "Basic Application Confidentiality Profile")
CLEAN_PIXEL_DATA = Code("113101", "DCM", "Clean Pixel Data Option")
CLEAN_STRUCTURED_CONTENT = Code("113104", "DCM", "Clean Structured Content Option")
CLEAN_DESCRIPTORS = Code("113105", "DCM", "Clean Descriptors Option")
FULL_DATES = Code("113106", "DCM", "Retain Longitudinal Temporal Information Full Dates Option")
MODIFIED_DATES = Code("113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option")
PATIENT_CHARACTERISTICS = Code("113108", "DCM", "Retain Patient Characteristics Option")
DEVICE_IDENTITY = Code("113109", "DCM", "Retain Device Identity Option")
INSTITUTION_IDENTITY = Code("113112", "DCM", "Retain Institution Identity Option")

_PERSONS = frozenset(
    "PatientBirthDate PatientBirthTime PatientBirthName PatientMotherBirthName PatientAddress PatientTelephoneNumbers "
    "OtherPatientIDs OtherPatientIDsSequence OtherPatientNames MedicalRecordLocator MilitaryRank BranchOfService "
    "CountryOfResidence RegionOfResidence PatientInsurancePlanCodeSequence ResponsiblePerson "
    "PatientReligiousPreference Occupation ReferringPhysicianName ReferringPhysicianAddress "
    "ReferringPhysicianTelephoneNumbers ConsultingPhysicianName PhysiciansOfRecord PerformingPhysicianName "
    "NameOfPhysiciansReadingStudy RequestingPhysician OperatorsName PersonName ImageComments BarcodeValue LabelText "
    "AdmissionID IssuerOfPatientID".split()
)
"""Attributes that the Basic Profile takes away and no option gives back: with one of them its code is not true."""

_CHARACTERISTICS = frozenset(
    "PatientSex PatientAge PatientSize PatientWeight EthnicGroup EthnicGroups EthnicGroupCodeSequence SmokingStatus "
    "PregnancyStatus PatientState PreMedication SpecialNeeds Allergies PatientSpeciesDescription "
    "PatientSpeciesCodeSequence".split()
)
_INSTITUTIONS = frozenset(
    "InstitutionName InstitutionAddress InstitutionCodeSequence InstitutionalDepartmentName ClinicalTrialSiteID "
    "ClinicalTrialSiteName ClinicalTrialCoordinatingCenterName".split()
)
_DEVICES = frozenset(("DeviceSerialNumber", "StationName", "DeviceUID", "GantryID"))
_DESCRIPTORS = frozenset(
    # Table E.1-1 lets Patient Comments stay once they are cleaned, as descriptions may.
    "PatientComments StudyDescription SeriesDescription ProtocolName AdmittingDiagnosesDescription "
    "AdmittingDiagnosesCodeSequence "
    "AdditionalPatientHistory ClinicalTrialSeriesDescription ClinicalTrialTimePointDescription "
    "ContainerDescription SpecimenShortDescription SpecimenDetailedDescription ContributionDescription "
    "RequestedProcedureDescription ReasonForStudy DerivationDescription".split()
)
_STRUCTURED = frozenset(
    ("SpecimenPreparationSequence", "AcquisitionContextSequence", "SpecimenLocalizationContentItemSequence")
)


@dataclass(frozen=True, slots=True)
class DeidClaims:
    """What the headers say of de-identification.

    Parameters
    ----------
    patient_identity_removed : bool
    method : str
        De-identification Method.
    codes : tuple of Code
        De-identification Method Code Sequence; empty unless the Basic Profile was followed.
    longitudinal : str
        Longitudinal Temporal Information Modified.
    """

    patient_identity_removed: bool
    method: str
    codes: tuple[Code, ...]
    longitudinal: str


NOTHING_CLAIMED = DeidClaims(False, "", (), "UNMODIFIED")
"""Of what was not de-identified."""


def claim(
    record: DeidRecord, curated: Mapping[str, str], *, shows_label: bool = False, masked: bool = False
) -> DeidClaims:
    """Say what may be claimed of a series.

    Parameters
    ----------
    record : DeidRecord
        What was done to the text of the slide's file.
    curated : mapping
        Keyword to text of all that a map or the user sets, nested attributes too; empty ones do not count.
    shows_label : bool
        Whether the series holds a picture of the slide's label.
    masked : bool
        Whether the label was masked in a picture of the series that showed it.
    """
    # By the policy, not by what one file states: the claims are attributes of the patient, equal on all the slides.
    let_out = {keyword for keyword, action in record.actions.items() if action is Action.KEEP}
    of_the_slide = {
        CLEAN_PIXEL_DATA: masked,
        FULL_DATES: "AcquisitionDateTime" in let_out,
        MODIFIED_DATES: record.actions.get("AcquisitionDateTime") is Action.SHIFT,
        DEVICE_IDENTITY: bool(_DEVICES & let_out),
    }
    method = f"coverslip, policy {record.policy}"[:64]
    if shows_label or _PERSONS & let_out or _names_a_person(curated):
        return DeidClaims(False, method, (), record.longitudinal)
    return DeidClaims(True, method, _options(of_the_slide, curated), record.longitudinal)


def claim_again(before: DeidClaims, curated: Mapping[str, str]) -> DeidClaims:
    """Say what may be claimed of a series whose curated metadata are replaced by others.

    What was claimed of the slide's own text and pictures stays true; where nothing was, nothing is.

    Parameters
    ----------
    before : DeidClaims
        Of the series as it was.
    curated : mapping
        As in `claim`.
    """
    if not before.patient_identity_removed or _names_a_person(curated):
        return DeidClaims(False, before.method, (), before.longitudinal)
    of_the_slide = dict.fromkeys(before.codes, True)
    return DeidClaims(True, before.method, _options(of_the_slide, curated), before.longitudinal)


def _names_a_person(curated: Mapping[str, str]) -> bool:
    # A name that repeats the pseudonym names nobody.
    named = curated.get("PatientName", "").rstrip("^") not in ("", curated.get("PatientID", ""))
    return named or any(curated.get(keyword) for keyword in _PERSONS)


def _options(of_the_slide: Mapping[Code, bool], curated: Mapping[str, str]) -> tuple[Code, ...]:
    """Return the Basic Profile and the options that are true, in the order of their codes."""
    present = {keyword for keyword, text in curated.items() if text}
    options = (
        (CLEAN_PIXEL_DATA, of_the_slide.get(CLEAN_PIXEL_DATA)),
        (CLEAN_STRUCTURED_CONTENT, _STRUCTURED & present),
        (CLEAN_DESCRIPTORS, _DESCRIPTORS & present),
        (FULL_DATES, of_the_slide.get(FULL_DATES)),
        (MODIFIED_DATES, of_the_slide.get(MODIFIED_DATES)),
        (PATIENT_CHARACTERISTICS, _CHARACTERISTICS & present),
        (DEVICE_IDENTITY, of_the_slide.get(DEVICE_IDENTITY) or _DEVICES & present),
        (INSTITUTION_IDENTITY, _INSTITUTIONS & present),
    )
    return (BASIC_PROFILE, *(code for code, true in options if true))
