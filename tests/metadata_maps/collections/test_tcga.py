"""The map of TCGA against what is published of it."""

from __future__ import annotations

import pytest
from tests.metadata_maps.collections.golden import coded, map_slide, modifier, preparation, steps

from coverslip.metadata_maps.codes import Code

FFPE = "TCGA-05-4244-01Z-00-DX1.d4ff32cd-38cf-40ea-8213-45c2b100ac01.svs"
FROZEN = "TCGA-12-0819-01A-01-TS1.f94b9687-a5b8-4390-bd23-c913769e45be.svs"

HE_STEP = """
    121041 DCM Specimen Identifier = {slide}
    111701 DCM Processing type = 127790008 SCT Staining
    424361007 SCT Using substance = 12710003 SCT hematoxylin stain
    424361007 SCT Using substance = 36879007 SCT water soluble eosin stain"""

SAMPLING_STEPS = """
    121041 DCM Specimen Identifier = {sample}
    434711009 SCT Specimen container = 434711009 SCT Specimen container
    371439000 SCT Specimen type = 119376003 SCT Tissue specimen
    111701 DCM Processing type = 17636008 SCT Specimen Collection
    17636008 SCT Specimen Collection = 118292001 SCT Removal

    121041 DCM Specimen Identifier = {vial}
    434711009 SCT Specimen container = 434746001 SCT Specimen vial
    371439000 SCT Specimen type = 119376003 SCT Tissue specimen
    111701 DCM Processing type = 433465004 SCT Specimen Sampling
    111704 DCM Sampling Method = 433465004 SCT Sampling of tissue specimen
    111705 DCM Parent Specimen Identifier = {sample}
    111707 DCM Parent specimen type = 119376003 SCT Tissue specimen

    121041 DCM Specimen Identifier = {portion}
    434711009 SCT Specimen container = 434464009 SCT Tissue cassette
    371439000 SCT Specimen type = 430861001 SCT Gross specimen
    111701 DCM Processing type = 433465004 SCT Specimen Sampling
    111704 DCM Sampling Method = 433465004 SCT Sampling of tissue specimen
    111705 DCM Parent Specimen Identifier = {vial}
    111707 DCM Parent specimen type = 119376003 SCT Tissue specimen

    121041 DCM Specimen Identifier = {slide}
    434711009 SCT Specimen container = 433466003 SCT Microscope slide
    371439000 SCT Specimen type = 1179252003 SCT Slide
    111701 DCM Processing type = 433465004 SCT Specimen Sampling
    111704 DCM Sampling Method = 434472006 SCT Block sectioning
    111705 DCM Parent Specimen Identifier = {portion}
    111707 DCM Parent specimen type = 430861001 SCT Gross specimen"""

FFPE_STEPS = """
    121041 DCM Specimen Identifier = {portion}
    111701 DCM Processing type = 9265001 SCT Specimen processing
    430864009 SCT Tissue Fixative = 431510009 SCT Formalin

    121041 DCM Specimen Identifier = {portion}
    111701 DCM Processing type = 9265001 SCT Specimen processing
    430863003 SCT Embedding medium = 311731000 SCT Paraffin wax"""

FROZEN_STEP = """
    121041 DCM Specimen Identifier = {portion}
    111701 DCM Processing type = 9265001 SCT Specimen processing
    430863003 SCT Embedding medium = 433469005 SCT Tissue freezing medium"""

# Project: protocol name, anatomic structure; 33 projects, then the controls and pilots.
PROJECTS = """
TCGA-ACC  | Adrenocortical carcinoma                                 | 68594002 SCT Adrenal cortex
TCGA-BLCA | Bladder Urothelial Carcinoma                             | 89837001 SCT Bladder
TCGA-BRCA | Breast invasive carcinoma                                | 76752008 SCT Breast
TCGA-CESC | Cervical squamous cell, endocervical adeno, carcinoma    | 71252005 SCT Cervix
TCGA-CHOL | Cholangiocarcinoma                                       | 28273000 SCT Bile duct
TCGA-COAD | Colon adenocarcinoma                                     | 71854001 SCT Colon
TCGA-DLBC | Lymphoid Neoplasm Diffuse Large B-cell Lymphoma          | 6969002 SCT Lymphoid tissue
TCGA-ESCA | Esophageal carcinoma                                     | 32849002 SCT Esophagus
TCGA-GBM  | Glioblastoma multiforme                                  | 12738006 SCT Brain
TCGA-HNSC | Head and Neck squamous cell carcinoma                    | 774007 SCT Head and Neck
TCGA-KICH | Kidney Chromophobe                                       | 64033007 SCT Kidney
TCGA-KIRC | Kidney renal clear cell carcinoma                        | 64033007 SCT Kidney
TCGA-KIRP | Kidney renal papillary cell carcinoma                    | 64033007 SCT Kidney
TCGA-LAML | Acute Myeloid Leukemia                                   | 14016003 SCT Bone marrow
TCGA-LGG  | Brain Lower Grade Glioma                                 | 12738006 SCT Brain
TCGA-LIHC | Liver hepatocellular carcinoma                           | 10200004 SCT Liver
TCGA-LUAD | Lung adenocarcinoma                                      | 39607008 SCT Lung
TCGA-LUSC | Lung squamous cell carcinoma                             | 39607008 SCT Lung
TCGA-MESO | Mesothelioma                                             | 71400007 SCT Mesothelium
TCGA-OV   | Ovarian serous cystadenocarcinoma                        | 15497006 SCT Ovary
TCGA-PAAD | Pancreatic adenocarcinoma                                | 15776009 SCT Pancreas
TCGA-PCPG | Pheochromocytoma and Paraganglioma                       |
TCGA-PRAD | Prostate adenocarcinoma                                  | 41216001 SCT Prostate
TCGA-READ | Rectum adenocarcinoma                                    | 34402009 SCT Rectum
TCGA-SARC | Sarcoma                                                  |
TCGA-SKCM | Skin Cutaneous Melanoma                                  | 39937001 SCT Skin
TCGA-STAD | Stomach adenocarcinoma                                   | 69695003 SCT Stomach
TCGA-TGCT | Testicular Germ Cell Tumors                              | 40689003 SCT Testis
TCGA-THCA | Thyroid carcinoma                                        | 69748006 SCT Thyroid
TCGA-THYM | Thymoma                                                  | 9875009 SCT Thymus
TCGA-UCEC | Uterine Corpus Endometrial Carcinoma                     | 35039007 SCT Uterus
TCGA-UCS  | Uterine Carcinosarcoma                                   | 35039007 SCT Uterus
TCGA-UVM  | Uveal Melanoma                                           | 74862005 SCT Uvea
TCGA-CNTL | Controls                                                 |
TCGA-FPPP | FFPE Pilot Phase II                                      |
TCGA-MISC | Miscellaneous                                            |
""".strip().splitlines()


def tcga(file: str, project: str):
    return map_slide("tcga", f"some/folder/{file}", {"file": file, "project": project})


def test_a_diagnostic_slide_has_the_published_attributes():
    slide = tcga(FFPE, "TCGA-LUAD")
    assert slide.problems == ()
    assert slide.container_identifier == "TCGA-05-4244-01Z-00-DX1"
    assert slide.attributes == {
        "PatientID": "TCGA-05-4244",
        "PatientName": "TCGA-05-4244^",
        "StudyID": "TCGA-05-4244",
        "AccessionNumber": "TCGA-05-4244",
        "StudyDescription": "Histopathology",
        "SeriesDescription": "FFPE HE TP DX1",
        "SeriesNumber": "1",
        "InstitutionName": "Indivumed",
        "ContainerIdentifier": "TCGA-05-4244-01Z-00-DX1",
        "ClinicalTrialSponsorName": "TCGA",
        "ClinicalTrialProtocolID": "TCGA-LUAD",
        "ClinicalTrialProtocolName": "TCGA Lung adenocarcinoma",
        "ClinicalTrialSiteID": "TCGA-05",
        "ClinicalTrialSiteName": "Indivumed",
        "ClinicalTrialSubjectID": "TCGA-05-4244",
        "ClinicalTrialCoordinatingCenterName": "NCI Genomic Data Commons (GDC) - Imaging Data Commons (IDC)",
        "OtherClinicalTrialProtocolIDsSequence": (
            {
                "ClinicalTrialProtocolID": "doi:10.5281/zenodo.12689915",
                "IssuerOfClinicalTrialProtocolID": "DOI",
            },
        ),
        '(0013,"CTP",10)': "TCGA-LUAD",
    }


def test_a_diagnostic_slide_has_the_seven_published_preparation_steps():
    (specimen,) = tcga(FFPE, "TCGA-LUAD").specimens
    expected = f"{SAMPLING_STEPS}\n\n{FFPE_STEPS}\n\n{HE_STEP}".format(
        sample="TCGA-05-4244-01",
        vial="TCGA-05-4244-01Z",
        portion="TCGA-05-4244-01Z-00",
        slide="TCGA-05-4244-01Z-00-DX1",
    )
    assert preparation(specimen) == steps(expected)
    assert specimen["SpecimenIdentifier"] == "TCGA-05-4244-01Z-00-DX1"
    assert specimen["SpecimenShortDescription"] == "FFPE HE TP DX1"
    assert specimen["SpecimenTypeCodeSequence"] == Code("1179252003", "SCT", "Slide")
    assert coded(specimen["PrimaryAnatomicStructureSequence"]) == "39607008 SCT Lung"
    assert modifier(specimen) == "86049000 SCT Neoplasm, Primary"


def test_a_frozen_slide_is_not_fixed_and_lies_in_a_freezing_medium():
    slide = tcga(FROZEN, "TCGA-GBM")
    (specimen,) = slide.specimens
    expected = f"{SAMPLING_STEPS}\n\n{FROZEN_STEP}\n\n{HE_STEP}".format(
        sample="TCGA-12-0819-01",
        vial="TCGA-12-0819-01A",
        portion="TCGA-12-0819-01A-01",
        slide="TCGA-12-0819-01A-01-TS1",
    )
    assert slide.problems == ()
    assert preparation(specimen) == steps(expected)
    assert slide.attributes["SeriesDescription"] == "Frozen HE TP TS1"
    assert slide.attributes["ClinicalTrialSiteName"] == "Duke"
    assert coded(specimen["PrimaryAnatomicStructureSequence"]) == "12738006 SCT Brain"


def test_the_optical_path_is_brightfield_with_the_full_spectrum():
    assert tcga(FFPE, "TCGA-LUAD").optical_paths[0] == {
        "OpticalPathIdentifier": "1",
        "IlluminationTypeCodeSequence": Code("111744", "DCM", "Brightfield illumination"),
        "IlluminationColorCodeSequence": Code("414298005", "SCT", "Full Spectrum"),
    }


def test_the_collection_has_the_facts_that_idc_lists():
    assert tcga(FFPE, "TCGA-LUAD").collection == {
        "collection_id": "tcga_luad",
        "name": "TCGA-LUAD",
        "cancer_types": ("Lung Adenocarcinoma",),
        "tumor_locations": ("Chest",),
        "species": ("Human",),
        "license_url": "https://creativecommons.org/licenses/by/3.0/",
        "license_long_name": "Creative Commons Attribution 3.0 Unported License",
        "license_short_name": "CC BY 3.0",
        "source_doi": "10.5281/zenodo.12689915",
        "source_url": "https://doi.org/10.5281/zenodo.12689915",
        "access": "Public",
    }


@pytest.mark.parametrize("line", PROJECTS, ids=lambda line: line.split()[0])
def test_every_project_has_its_name_and_anatomy(line):
    project, name, anatomy = (part.strip() for part in line.split("|"))
    slide = tcga(FFPE, project)
    assert slide.problems == ()
    assert slide.attributes["ClinicalTrialProtocolID"] == project
    assert slide.attributes["ClinicalTrialProtocolName"] == f"TCGA {name}"
    assert slide.collection["collection_id"] == project.lower().replace("-", "_")
    found = slide.specimens[0].get("PrimaryAnatomicStructureSequence")
    assert (coded(found) if found else "") == anatomy


def test_thirty_two_projects_have_a_doi_and_those_without_slides_have_none():
    dois = {line.split()[0]: tcga(FFPE, line.split()[0]).collection.get("source_doi", "") for line in PROJECTS}
    assert {project for project, doi in dois.items() if not doi} == {
        "TCGA-LAML", "TCGA-CNTL", "TCGA-FPPP", "TCGA-MISC",
    }  # fmt: skip
    assert len(set(dois.values())) == 33
    assert "OtherClinicalTrialProtocolIDsSequence" not in tcga(FFPE, "TCGA-LAML").attributes


@pytest.mark.parametrize(
    "file, series_description, portion",
    [
        ("TCGA-HC-7819-01A-01-TS1.svs", "Frozen HE TP TS1", "TCGA-HC-7819-01A-01"),
        ("TCGA-A6-2671-11A-01-BSB.5c3a.svs", "Frozen HE NT BSB", "TCGA-A6-2671-11A-01"),
        ("TCGA-A2-A0T2-01A-03-MSA.svs", "Frozen HE TP MSA", "TCGA-A2-A0T2-01A-03"),
        ("TCGA-AA-A00A-01Z-00-DX1", "FFPE HE TP DX1", "TCGA-AA-A00A-01Z-00"),
        ("TCGA-AY-4070A-01Z-00-DX1.svs", "FFPE HE TP DX1", "TCGA-AY-4070A-01Z-00"),
        ("TCGA-DD-A1EG-02A-01D-TSA.svs", "Frozen HE TR TSA", "TCGA-DD-A1EG-02A-01D"),
        ("TCGA-EB-A3XC-06Z-00-DX2.svs", "FFPE HE TM DX2", "TCGA-EB-A3XC-06Z-00"),
    ],
)
def test_barcodes_are_parsed_with_letters_without_uuid_and_with_other_samples(file, series_description, portion):
    slide = tcga(file, "TCGA-COAD")
    assert slide.problems == ()
    assert slide.attributes["SeriesDescription"] == series_description
    fixation_or_freezing = preparation(slide.specimens[0])[4]
    assert f"121041 DCM Specimen Identifier = {portion}" in fixation_or_freezing


@pytest.mark.parametrize(
    "sample, expected",
    [
        ("01", "86049000 SCT Neoplasm, Primary"),
        ("02", "25173007 SCT Recurrent tumor"),
        ("06", "14799000 SCT Neoplasm, Metastatic"),
        ("11", "17621005 SCT Normal"),
    ],
)
def test_the_sample_type_modifies_the_anatomic_structure(sample, expected):
    assert modifier(tcga(f"TCGA-05-4244-{sample}A-01-TS1.svs", "TCGA-LUAD").specimens[0]) == expected


def test_a_control_sample_has_no_modifier():
    (specimen,) = tcga("TCGA-05-4244-20A-01-TS1.svs", "TCGA-LUAD").specimens
    assert specimen["PrimaryAnatomicStructureSequence"] == Code("39607008", "SCT", "Lung")


def test_the_radiology_identifier_of_four_patients_is_told_beside_their_own():
    slide = tcga("TCGA-AY-6197-01Z-00-DX1.svs", "TCGA-COAD")
    assert slide.attributes["PatientID"] == "TCGA-AY-6197"
    assert slide.attributes["OtherPatientIDsSequence"] == ({"PatientID": "TCGA-AY-6197A", "TypeOfPatientID": "TEXT"},)
    assert "OtherPatientIDsSequence" not in tcga(FFPE, "TCGA-LUAD").attributes


def test_the_project_is_that_of_the_folder_where_the_table_has_none():
    path = f"data/TCGA-GBM/0c159ca4/{FROZEN}"
    slide = map_slide("tcga", path, {"file": path})
    assert slide.problems == ()
    assert slide.attributes["ClinicalTrialProtocolID"] == "TCGA-GBM"
    assert slide.collection["collection_id"] == "tcga_gbm"


def test_a_project_in_lower_case_is_the_same():
    assert tcga(FFPE, "tcga-luad").attributes == tcga(FFPE, "TCGA-LUAD").attributes


@pytest.mark.parametrize(
    "file, project, keyword",
    [
        ("TCGA-05-4244.svs", "TCGA-LUAD", "slide"),
        ("TCGA-05-4244-01Z-00-DX1-extra.svs", "TCGA-LUAD", "slide"),
        ("TCGA-05-4244-77Z-00-DX1.svs", "TCGA-LUAD", "sample_letters"),
        (FFPE, "TCGA-LUDA", "ClinicalTrialProtocolName"),
        (FFPE, "", "ClinicalTrialProtocolID"),
    ],
)
def test_a_wrong_name_sample_or_project_is_a_problem(file, project, keyword):
    assert keyword in {problem.keyword for problem in tcga(file, project).problems}
