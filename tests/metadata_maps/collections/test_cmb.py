"""The map of the Cancer Moonshot Biobank, on rows as its table has them and on the whole table."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from tests.metadata_maps.collections.golden import coded, map_slide, modifier, preparation, shipped_map, steps

from coverslip.metadata_maps.check import check_table
from coverslip.metadata_maps.codes import Code
from coverslip.metadata_maps.tables import read_table

BIOPSY = {
    "participant_id": "MSB-01234",
    "sample_id": "MSB-01234-05-02",
    "gender": "Female",
    "race": "BLACK OR AFRICAN AMERICAN",
    "ethnicity": "NOT HISPANIC OR LATINO",
    "primary_diagnosis": "Colorectal Carcinoma",
    "file_name": "MSB-01234-05-02.svs",
    "organ_or_tissue": "Colon",
    "sample_type": "Liver",
    "tumor_tissue_type": "METASTATIC",
    "tissue_fixative": "Formalin",
    "embedding_medium": "Paraffin Wax",
    "staining_method": "Hematoxylin and Eosin Staining Method",
    "collection": "CMB-CRC",
    "material_type": "Glass H&E Slide",
    "collection_event": "ON TREATMENT",
}
SMEAR = BIOPSY | {
    "primary_diagnosis": "Plasma Cell Myeloma",
    "organ_or_tissue": "Whole Blood",
    "sample_type": "general blood draw",
    "tumor_tissue_type": "NA",
    "tissue_fixative": "EDTA",
    "embedding_medium": "",
    "staining_method": "Wright-Giemsa Staining Method",
    "collection": "CMB-MML",
    "collection_event": "BASELINE",
}


def cmb(row):
    return map_slide("cmb", row["file_name"], row)


def test_a_biopsy_has_the_attributes_of_its_row():
    slide = cmb(BIOPSY)
    assert slide.problems == ()
    assert slide.attributes == {
        "PatientID": "MSB-01234",
        "PatientName": "MSB-01234^",
        "PatientSex": "F",
        "EthnicGroup": "Black",
        "PatientComments": "Race: BLACK OR AFRICAN AMERICAN; ethnicity: NOT HISPANIC OR LATINO",
        "StudyID": "MSB-01234-ONTRT",
        "AccessionNumber": "MSB-01234-ONTRT",
        "StudyDescription": "Histopathology",
        "AdmittingDiagnosesDescription": "Colorectal Carcinoma",
        "AdmittingDiagnosesCodeSequence": Code("1286877004", "SCT", "Colorectal cancer"),
        "SeriesDescription": "FF PE HE",
        "SeriesNumber": "1",
        "ContainerIdentifier": "MSB-01234-05-02",
        "ClinicalTrialSponsorName": "National Cancer Institute (NCI)",
        "ClinicalTrialProtocolID": "CMB-CRC",
        "IssuerOfClinicalTrialProtocolID": "NCI",
        "ClinicalTrialProtocolName": "Cancer Moonshot Biobank - Colorectal Cancer (CMB-CRC)",
        "ClinicalTrialSiteID": "",
        "ClinicalTrialSiteName": "",
        "ClinicalTrialSubjectID": "MSB-01234",
        "ClinicalTrialTimePointID": "on treatment",
        "OtherClinicalTrialProtocolIDsSequence": (
            {"ClinicalTrialProtocolID": "doi:10.5281/zenodo.13993769", "IssuerOfClinicalTrialProtocolID": "DOI"},
        ),
        '(0013,"CTP",10)': "CMB-CRC",
    }
    assert slide.collection["collection_id"] == "cmb_crc"
    assert slide.collection["license_short_name"] == "CC BY 4.0"


def test_a_biopsy_is_fixed_embedded_and_stained_and_says_where_it_was_taken():
    (specimen,) = cmb(BIOPSY).specimens
    assert preparation(specimen) == steps("""
        121041 DCM Specimen Identifier = MSB-01234-05-02
        111701 DCM Processing type = 17636008 SCT Specimen Collection
        111709 DCM Location of sampling site = Liver

        121041 DCM Specimen Identifier = MSB-01234-05-02
        111701 DCM Processing type = 9265001 SCT Specimen processing
        430864009 SCT Tissue Fixative = 431510009 SCT Formalin

        121041 DCM Specimen Identifier = MSB-01234-05-02
        111701 DCM Processing type = 9265001 SCT Specimen processing
        430863003 SCT Embedding medium = 311731000 SCT Paraffin wax

        121041 DCM Specimen Identifier = MSB-01234-05-02
        111701 DCM Processing type = 127790008 SCT Staining
        424361007 SCT Using substance = 12710003 SCT hematoxylin stain
        424361007 SCT Using substance = 36879007 SCT water soluble eosin stain
    """)
    assert coded(specimen["PrimaryAnatomicStructureSequence"]) == "71854001 SCT Colon"
    assert modifier(specimen) == "14799000 SCT Metastatic neoplasm"
    assert specimen["SpecimenShortDescription"] == "FF PE HE"
    assert specimen["SpecimenDetailedDescription"] == (
        "Formalin Paraffin Wax Hematoxylin and Eosin Staining Method METASTATIC"
    )


def test_a_blood_smear_has_edta_and_the_stains_of_wright_and_giemsa():
    slide = cmb(SMEAR)
    (specimen,) = slide.specimens
    assert slide.problems == ()
    assert preparation(specimen)[1:] == steps("""
        121041 DCM Specimen Identifier = MSB-01234-05-02
        111701 DCM Processing type = 9265001 SCT Specimen processing
        430864009 SCT Tissue Fixative = 69519002 SCT EDTA

        121041 DCM Specimen Identifier = MSB-01234-05-02
        111701 DCM Processing type = 127790008 SCT Staining
        424361007 SCT Using substance = 373682001 SCT wright stain
        424361007 SCT Using substance = 373646006 SCT giemsa stain
    """)
    assert slide.attributes["SeriesDescription"] == "EDTA WG"
    assert specimen["PrimaryAnatomicStructureSequence"] == Code("420135007", "SCT", "Whole Blood")


def test_an_unstained_slide_has_no_staining_step():
    slide = cmb(BIOPSY | {"staining_method": "Unstained"})
    assert slide.attributes["SeriesDescription"] == "FF PE Unstained"
    assert not any("Staining" in line for step in preparation(slide.specimens[0]) for line in step)


@pytest.mark.parametrize(
    "race, ethnic_group",
    [
        ("WHITE+AMERICAN INDIAN OR ALASKA NATIVE", "White+AmerIndian"),
        ("NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "Pacific Islander"),
        ("UNKNOWN", None),
    ],
)
def test_race_has_a_short_form_and_is_never_clipped(race, ethnic_group):
    slide = cmb(BIOPSY | {"race": race})
    assert slide.problems == ()
    assert slide.attributes.get("EthnicGroup") == ethnic_group
    assert (race in slide.attributes["PatientComments"]) == (ethnic_group is not None)


@pytest.mark.parametrize(
    "column, value, keyword",
    [
        ("organ_or_tissue", "Elbow", "PrimaryAnatomicStructureSequence"),
        ("primary_diagnosis", "Cold", "AdmittingDiagnosesCodeSequence"),
        ("staining_method", "Ink", "stain"),
        ("race", "MARTIAN", "EthnicGroup"),
        ("collection_event", "LATER", "event_letters"),
    ],
)
def test_a_value_that_the_map_does_not_know_is_a_problem(column, value, keyword):
    problems = cmb(BIOPSY | {column: value}).problems
    assert ("unmapped", keyword) in {(problem.kind, problem.keyword) for problem in problems}


@pytest.mark.serial
def test_the_whole_table_maps_but_for_one_patient_of_two_collections(shared: Path):
    start = time.perf_counter()
    report = check_table(shipped_map("cmb"), read_table(shared / "manifests" / "cmb-path-slides.csv"))
    assert time.perf_counter() - start < 10
    assert (report.rows, report.slides) == (1534, 1534)
    assert report.absent_columns == ()
    # MSB-05251 takes part in CMB-AML and CMB-MML: one patient and study cannot have both protocols and diagnoses.
    assert {problem.kind for problem in report.problems} == {"inconsistent"}
    assert set(Counter(problem.keyword for problem in report.problems)) == {
        "ClinicalTrialProtocolID",
        "ClinicalTrialProtocolName",
        "OtherClinicalTrialProtocolIDsSequence",
        "AdmittingDiagnosesDescription",
        "AdmittingDiagnosesCodeSequence",
    }
    rows = read_table(shared / "manifests" / "cmb-path-slides.csv").rows
    numbers = {problem.row for problem in report.problems}
    assert {row["participant_id"] for row in rows if row.number in numbers} == {"MSB-05251"}
