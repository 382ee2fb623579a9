"""The map of HTAN: identifiers of both phases, biospecimen, acquisition, assay and stain."""

from __future__ import annotations

import pytest
from tests.metadata_maps.collections.golden import coded, map_slide, modifier, preparation, steps, table_of

from coverslip.metadata_maps.codes import Code

MANIFEST = {
    "Filename": "imaging_level_2/BEMS350173_Scene-004.ome.tif",
    "HTAN Participant ID": "HTA9_1",
    "HTAN Parent Biospecimen ID": "HTA9_1_93",
    "HTAN Data File ID": "HTA9_1_9304",
    "Imaging Assay Type": "CyCIF",
    "Microscope": "AxiScan Z1",
    "NominalMagnification": "20",
    "LensNA": "0.75",
}
BIOSPECIMEN = {
    "HTAN Biospecimen ID": "HTA9_1_93",
    "Timepoint Label": "Biopsy 1",
    "Acquisition Method Type": "Biopsy",
    "Fixative Type": "Formalin",
    "Preservation Method": "Formalin fixed paraffin embedded - FFPE",
    "Site of Resection or Biopsy": "Liver",
    "Tumor Tissue Type": "Metastatic",
}
DEMOGRAPHICS = {"HTAN Participant ID": "HTA9_1", "Gender": "female", "Race": "white", "Vital Status": "Alive"}

COMMON_STEPS = """
    121041 DCM Specimen Identifier = {block}
    111701 DCM Processing type = 17636008 SCT Specimen Collection
    17636008 SCT Specimen Collection = {acquisition}

    121041 DCM Specimen Identifier = {slide}
    434711009 SCT Specimen container = 433466003 SCT Microscope slide
    371439000 SCT Specimen type = 1179252003 SCT Slide
    111701 DCM Processing type = 433465004 SCT Specimen Sampling
    111704 DCM Sampling Method = 434472006 SCT Block sectioning
    111705 DCM Parent Specimen Identifier = {block}
    111707 DCM Parent specimen type = 430861001 SCT Gross specimen

    121041 DCM Specimen Identifier = {block}
    111701 DCM Processing type = 9265001 SCT Specimen processing
    430864009 SCT Tissue Fixative = 431510009 SCT Formalin

    121041 DCM Specimen Identifier = {block}
    111701 DCM Processing type = 9265001 SCT Specimen processing
    430863003 SCT Embedding medium = 311731000 SCT Paraffin wax
"""


def htan(manifest=None, biospecimen=None, **tables):
    row = MANIFEST | (manifest or {})
    specimen = BIOSPECIMEN | {"HTAN Biospecimen ID": row["HTAN Parent Biospecimen ID"]} | (biospecimen or {})
    return map_slide("htan", row["Filename"], row, biospecimen=table_of(specimen), **tables)


def test_a_cycif_slide_has_the_published_attributes():
    slide = htan(demographics=table_of(DEMOGRAPHICS))
    assert slide.problems == ()
    assert slide.attributes == {
        "PatientID": "HTA9_1",
        "PatientName": "HTA9_1^",
        "PatientSex": "F",
        "EthnicGroup": "White",
        "StudyID": "HTA9_1",
        "AccessionNumber": "HTA9_1_93",
        "StudyDescription": "Histopathology",
        "SeriesDescription": "CyCIF",
        "SeriesNumber": "1",
        "InstitutionName": "Oregon Health Sciences University",
        "ContainerIdentifier": "HTA9_1_9304",
        "ClinicalTrialSponsorName": "NCI",
        "ClinicalTrialProtocolID": "HTAN-OHSU",
        "ClinicalTrialProtocolName": "",
        "ClinicalTrialSiteID": "HTAN-OHSU",
        "ClinicalTrialSiteName": "Oregon Health Sciences University",
        "ClinicalTrialSubjectID": "HTA9_1",
        "ClinicalTrialTimePointID": "Biopsy 1",
        "ClinicalTrialCoordinatingCenterName": "HTAN",
        "Manufacturer": "ZEISS",
        "ManufacturerModelName": "AxioScan.Z1",
        "OtherClinicalTrialProtocolIDsSequence": (
            {"ClinicalTrialProtocolID": "doi:10.5281/zenodo.12689950", "IssuerOfClinicalTrialProtocolID": "DOI"},
        ),
        "AcquisitionContextSequence": (
            {
                "ValueType": "CODE",
                "ConceptNameCodeSequence": Code("11323-3", "LN", "Health status"),
                "ConceptCodeSequence": Code("438949009", "SCT", "Alive"),
            },
        ),
        '(0013,"CTP",10)': "HTAN-OHSU",
    }


def test_a_cycif_slide_is_cut_from_a_fixed_biopsy_and_stained_for_fluorescence():
    slide = htan()
    (specimen,) = slide.specimens
    expected = (
        COMMON_STEPS
        + """
    121041 DCM Specimen Identifier = {slide}
    111701 DCM Processing type = 127790008 SCT Staining
    424361007 SCT Using substance = Antibodies
    703857004 SCT Staining Technique = 406858009 SCT Fluorescent staining"""
    )
    assert preparation(specimen) == steps(
        expected.format(block="HTA9_1_93", slide="HTA9_1_9304", acquisition="86273004 SCT Biopsy")
    )
    assert specimen["SpecimenIdentifier"] == "HTA9_1_9304"
    assert specimen["SpecimenShortDescription"] == "CyCIF"
    assert coded(specimen["PrimaryAnatomicStructureSequence"]) == "10200004 SCT Liver"
    assert modifier(specimen) == "14799000 SCT Neoplasm, Metastatic"
    assert slide.optical_paths[0] == {
        "ObjectiveLensPower": "20",
        "ObjectiveLensNumericalAperture": "0.75",
        "IlluminationTypeCodeSequence": Code("111743", "DCM", "Epifluorescence illumination"),
        "IlluminationColorCodeSequence": Code("134223000", "SCT", "Narrow"),
    }


CHANNELS = (
    {
        "Channel Metadata Filename": "channels/BEMS350173.csv",
        "Channel ID": "Channel:0:0",
        "Channel Name": "DAPI",
        "Cycle Number": "1",
        "Target Name": "DNA",
        "Antibody Name": "DAPI",
        "RRID identifier": "Not Applicable",
        "Fluorophore": "",
        "Clone": "",
        "Excitation Wavelength": "395",
        "Emission Wavelength": "431",
        "Dilution": "",
    },
    {
        "Channel Metadata Filename": "channels/BEMS350173.csv",
        "Channel ID": "Channel:0:1",
        "Channel Name": "CD45-2",
        "Cycle Number": "2",
        "Target Name": "CD45",
        "Antibody Name": "Anti-CD45",
        "RRID identifier": "RRID: AB_394606",
        "Fluorophore": "Alexa Fluor 488",
        "Clone": "HI30",
        "Excitation Wavelength": "485 nm",
        "Emission Wavelength": "525",
        "Dilution": "1:100",
    },
)


def test_each_channel_of_a_cycif_slide_has_its_staining_and_its_optical_path():
    slide = htan({"Channel Metadata Filename": "channels/BEMS350173.csv"}, channel=table_of(*CHANNELS))
    assert slide.problems == ()
    stained = """
    121041 DCM Specimen Identifier = HTA9_1_9304
    111701 DCM Processing type = 127790008 SCT Staining
    C44170 NCIt Channel = Channel:0:0
    C25472 NCIt Cycle = 1
    246094008 SCT Component investigated = DNA
    424361007 SCT Using substance = DAPI
    703857004 SCT Staining Technique = 406858009 SCT Fluorescent staining

    121041 DCM Specimen Identifier = HTA9_1_9304
    111701 DCM Processing type = 127790008 SCT Staining
    C44170 NCIt Channel = Channel:0:1
    C25472 NCIt Cycle = 2
    246094008 SCT Component investigated = CD45
    C2480 NCIt Tracer = Alexa Fluor 488
    424361007 SCT Using substance = Anti-CD45 AB_394606
    703857004 SCT Staining Technique = 406858009 SCT Fluorescent staining
    C37925 NCIt Clone = HI30
    C4281604 UMLS Dilution = 1:100"""
    assert preparation(slide.specimens[0])[-2:] == steps(stained)
    narrow = {
        "ObjectiveLensPower": "20",
        "ObjectiveLensNumericalAperture": "0.75",
        "IlluminationTypeCodeSequence": Code("111743", "DCM", "Epifluorescence illumination"),
        "IlluminationColorCodeSequence": Code("134223000", "SCT", "Narrow"),
    }
    assert slide.optical_paths == (
        {
            "OpticalPathIdentifier": "Channel:0:0",
            "OpticalPathDescription": "DAPI",
            "IlluminationWaveLength": 395.0,
            "LightPathFilterPassThroughWavelength": 431,
            **narrow,
        },
        {
            "OpticalPathIdentifier": "Channel:0:1",
            "OpticalPathDescription": "CD45-2",
            "IlluminationWaveLength": 485.0,
            "LightPathFilterPassThroughWavelength": 525,
            **narrow,
        },
    )


def test_a_slide_of_which_no_channel_is_told_is_described_by_its_own_row():
    row = {"Imaging Assay Type": "H&E", "Channel Metadata Filename": "Not Applicable"}
    assert htan(row, channel=table_of(*CHANNELS)) == htan(row)
    assert len(htan(row).optical_paths) == 1


def test_an_he_slide_is_stained_with_both_and_seen_in_white_light():
    slide = htan(
        {
            "Filename": "HE/HTA7_972_1000.svs",
            "HTAN Parent Biospecimen ID": "HTA7_972_2",
            "HTAN Data File ID": "HTA7_972_1000",
            "Imaging Assay Type": "H&E",
            "NominalMagnification": "40X",
            "LensNA": "Not Applicable",
        },
        {"Acquisition Method Type": "Surgical Resection", "Site of Resection or Biopsy": "Sigmoid colon",
         "Tumor Tissue Type": "Primary"},
    )  # fmt: skip
    (specimen,) = slide.specimens
    expected = (
        COMMON_STEPS
        + """
    121041 DCM Specimen Identifier = {slide}
    111701 DCM Processing type = 127790008 SCT Staining
    424361007 SCT Using substance = 12710003 SCT hematoxylin stain
    424361007 SCT Using substance = 36879007 SCT water soluble eosin stain"""
    )
    assert slide.problems == ()
    assert preparation(specimen) == steps(
        expected.format(block="HTA7_972_2", slide="HTA7_972_1000", acquisition="65801008 SCT Resection")
    )
    assert slide.attributes["PatientID"] == "HTA7_972"
    assert slide.attributes["SeriesDescription"] == "H&E"
    assert slide.attributes["ClinicalTrialProtocolID"] == "HTAN-HMS"
    assert slide.collection["collection_id"] == "htan_hms"
    assert slide.collection["source_doi"] == "10.5281/zenodo.12666872"
    assert coded(specimen["PrimaryAnatomicStructureSequence"]) == "60184004 SCT Sigmoid colon"
    assert modifier(specimen) == "86049000 SCT Neoplasm, Primary"
    assert slide.optical_paths[0] == {
        "ObjectiveLensPower": "40",
        "IlluminationTypeCodeSequence": Code("111744", "DCM", "Brightfield illumination"),
        "IlluminationColorCodeSequence": Code("414298005", "SCT", "Full Spectrum"),
    }


@pytest.mark.parametrize(
    "acquisition, expected",
    [
        ("Biopsy", "86273004 SCT Biopsy"),
        ("Punch Biopsy", "68660007 SCT Punch biopsy"),
        ("Shave Biopsy", "72342005 SCT Shave biopsy"),
        ("Excision", "65801008 SCT Excision"),
        ("Surgical Resection", "65801008 SCT Resection"),
        ("Forceps biopsy", "Forceps biopsy"),
    ],
)
def test_the_way_of_acquisition_is_a_code_where_there_is_one_and_text_otherwise(acquisition, expected):
    (specimen,) = htan(biospecimen={"Acquisition Method Type": acquisition}).specimens
    assert f"17636008 SCT Specimen Collection = {expected}" in preparation(specimen)[0]


def test_an_untold_way_of_acquisition_is_no_step():
    (specimen,) = htan(biospecimen={"Acquisition Method Type": "Not specified"}).specimens
    assert "111701 DCM Processing type = 433465004 SCT Specimen Sampling" in preparation(specimen)[0]


@pytest.mark.parametrize(
    "tissue, expected",
    [
        ("Normal", "17621005 SCT Normal"),
        ("Primary", "86049000 SCT Neoplasm, Primary"),
        ("Metastatic", "14799000 SCT Neoplasm, Metastatic"),
        ("Recurrent", "25173007 SCT Recurrent tumor"),
        ("Premalignant", "C25624 NCIt Premalignant"),
        ("Atypia - hyperplasia", "76197007 SCT Hyperplasia"),
    ],
)
def test_the_tissue_type_modifies_the_anatomic_structure(tissue, expected):
    assert modifier(htan(biospecimen={"Tumor Tissue Type": tissue}).specimens[0]) == expected


@pytest.mark.parametrize(
    "data_file, parent, patient, protocol",
    [
        ("HTA1_203_3320101", "HTA1_203_332", "HTA1_203", "HTAN-HTAPP"),
        ("HTA6_EXT1_12", "HTA6_EXT1_1", "HTA6_EXT1", "HTAN-Duke"),
        ("HTA12_1_102", "HTA12_1_101", "HTA12_1", "HTAN-WUSTL"),
        ("HTA13_1_1", "HTA13_1_2", "HTA13_1", "HTAN-TNP-SARDANA"),
        ("HTA201_3_D12", "HTA201_3_B4", "HTA201_3", "HTAN-OHSU"),
        ("HTA209_0000_D1", "HTA209_0000_B1", "HTA209_0000", "HTAN-Yale"),
        ("HTA205_EXT12_D1", "HTA205_EXT12_B1", "HTA205_EXT12", "HTAN-CHLA"),
    ],
)
def test_identifiers_of_both_phases_name_patient_and_center(data_file, parent, patient, protocol):
    slide = htan({"HTAN Data File ID": data_file, "HTAN Parent Biospecimen ID": parent})
    assert slide.problems == ()
    assert slide.attributes["PatientID"] == patient
    assert slide.container_identifier == data_file
    assert slide.attributes["ClinicalTrialProtocolID"] == slide.attributes["ClinicalTrialSiteID"] == protocol


@pytest.mark.parametrize("identifier", ["HTA17_1_1", "HTA9_1", "HTA201_3_12", "HTA230_1_D1", "9304"])
def test_an_identifier_of_another_form_is_a_problem(identifier):
    problems = htan({"HTAN Data File ID": identifier}).problems
    assert ("missing", "slide") in {(problem.kind, problem.keyword) for problem in problems}


def test_the_first_of_several_parents_stands_for_all():
    slide = htan({"HTAN Parent Biospecimen ID": "HTA14_0_1, HTA14_0_2"}, {"HTAN Biospecimen ID": "HTA14_0_1"})
    assert slide.problems == ()
    assert slide.attributes["AccessionNumber"] == "HTA14_0_1"


def test_identifiers_too_long_for_the_study_are_left_out_of_it():
    parent = "HTA11_377_20000010115220280010000000000"
    slide = htan({"HTAN Parent Biospecimen ID": parent})
    assert not [problem for problem in slide.problems if problem.severity.name == "ERROR"]
    assert slide.attributes["AccessionNumber"] == ""
    assert slide.attributes["StudyID"] == "HTA11_377"


@pytest.mark.parametrize(
    "assay, stain_step",
    [
        ("t-CyCIF", "703857004 SCT Staining Technique = 406858009 SCT Fluorescent staining"),
        ("CODEX", "703857004 SCT Staining Technique = 406858009 SCT Fluorescent staining"),
        ("RareCyte Orion", "703857004 SCT Staining Technique = 406858009 SCT Fluorescent staining"),
        ("mIHC", "703857004 SCT Staining Technique = 117617002 SCT Immunohistochemistry"),
    ],
)
def test_an_assay_has_its_staining_technique(assay, stain_step):
    assert stain_step in preparation(htan({"Imaging Assay Type": assay}).specimens[0])[-1]


def test_imaging_mass_cytometry_has_no_stain_and_no_light():
    slide = htan({"Imaging Assay Type": "IMC"})
    assert "IlluminationTypeCodeSequence" not in slide.optical_paths[0]
    assert not any("Staining" in line for step in preparation(slide.specimens[0]) for line in step)
    assert slide.attributes["SeriesDescription"] == "IMC"


def test_a_parent_without_biospecimen_row_is_a_problem():
    slide = htan(biospecimen={"HTAN Biospecimen ID": "HTA9_1_1"})
    assert "no-row" in {problem.kind for problem in slide.problems}
