"""The map of CCDI-MCI: a row per specimen of a slide, joined with the table of samples."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.metadata_maps.collections.golden import (
    coded,
    map_slide,
    modifier,
    preparation,
    shipped_map,
    steps,
    table_of,
)

from coverslip.metadata_maps.check import check_table
from coverslip.metadata_maps.codes import Code
from coverslip.metadata_maps.tables import read_table


def file_row(sample: str, number: int, fixation: str = "Formalin fixed paraffin embedded (FFPE)"):
    return {
        "sample.sample_id": sample,
        "pathology_file_id": f"0DX8QA_100000.svs_{number}",
        "file_name": "0DX8QA_100000.svs",
        "magnification": "40X",
        "fixation_embedding_method": fixation,
        "staining_method": "H&E",
    }


def sample_row(sample: str, site: str = "C72.9 : Central nervous system", status: str = "Tumor"):
    return {
        "participant.participant_id": "PBXXYZ",
        "sample_id": sample,
        "anatomic_site": site,
        "sample_tumor_status": status,
        "sample_description": "Medulloblastoma",
    }


def ccdi(*rows, samples, **tables):
    return map_slide("ccdi", "0DX8QA_100000.svs", *rows, sample=table_of(*samples), **tables)


def test_a_slide_of_two_samples_has_two_specimens():
    slide = ccdi(
        file_row("0DXA01", 1), file_row("0DXA02", 2),
        samples=[sample_row("0DXA01"), sample_row("0DXA02", "C42.0 : Blood")],
    )  # fmt: skip
    first, second = slide.specimens
    assert slide.problems == ()
    assert slide.attributes["SeriesDescription"] == "FFPE HE T"
    assert (first["SpecimenIdentifier"], second["SpecimenIdentifier"]) == ("0DXA01", "0DXA02")
    assert modifier(first) == "108369006 SCT Tumor"
    assert coded(first["PrimaryAnatomicStructureSequence"]) == "21483005 SCT Central nervous system"
    assert coded(second["PrimaryAnatomicStructureSequence"]) == "87612001 SCT Blood"
    for number, specimen in enumerate(slide.specimens, 1):
        assert specimen["SpecimenLocalizationContentItemSequence"] == (
            {
                "ValueType": "TEXT",
                "ConceptNameCodeSequence": Code("111718", "DCM", "Location of Specimen"),
                "TextValue": f"Listed as 0DX8QA_100000.svs_{number}",
            },
        )


def test_a_slide_has_the_published_attributes():
    slide = ccdi(file_row("0DXA01", 1), samples=[sample_row("0DXA01")])
    assert slide.problems == ()
    assert slide.attributes == {
        "PatientID": "PBXXYZ",
        "PatientName": "PBXXYZ^",
        "PatientSex": "",
        "StudyID": "PBXXYZ",
        "AccessionNumber": "PBXXYZ",
        "StudyDescription": "Histopathology",
        "SeriesDescription": "FFPE HE T",
        "SeriesNumber": "1",
        "ContainerIdentifier": "0DX8QA_100000",
        "ClinicalTrialSponsorName": "National Cancer Institute (NCI) Childhood Cancer Data Initiative",
        "ClinicalTrialProtocolID": "phs002790",
        "IssuerOfClinicalTrialProtocolID": "dbGaP",
        "ClinicalTrialProtocolName": "CCDI Molecular Characterization Initiative",
        "ClinicalTrialSiteID": "",
        "ClinicalTrialSiteName": "",
        "ClinicalTrialSubjectID": "PBXXYZ",
        "ClinicalTrialCoordinatingCenterName": "Nationwide Children's Hospital",
        "OtherClinicalTrialProtocolIDsSequence": (
            {"ClinicalTrialProtocolID": "doi:10.5281/zenodo.11099086", "IssuerOfClinicalTrialProtocolID": "DOI"},
        ),
        '(0013,"CTP",10)': "phs002790",
    }
    assert slide.collection["collection_id"] == "ccdi_mci"
    assert slide.optical_paths[0]["ObjectiveLensPower"] == "40"


def test_a_normal_sample_says_so():
    slide = ccdi(file_row("0DXA01", 1), samples=[sample_row("0DXA01", status="Normal")])
    assert slide.attributes["SeriesDescription"] == "FFPE HE N"
    assert modifier(slide.specimens[0]) == "17621005 SCT Normal"


def test_a_frozen_sample_lies_in_a_freezing_medium():
    (specimen,) = ccdi(file_row("0DXA01", 1, "OCT"), samples=[sample_row("0DXA01")]).specimens
    assert preparation(specimen) == steps("""
        121041 DCM Specimen Identifier = 0DXA01
        111701 DCM Processing type = 9265001 SCT Specimen processing
        430863003 SCT Embedding medium = 433469005 SCT Tissue freezing medium

        121041 DCM Specimen Identifier = 0DXA01
        111701 DCM Processing type = 127790008 SCT Staining
        424361007 SCT Using substance = 12710003 SCT hematoxylin stain
        424361007 SCT Using substance = 36879007 SCT water soluble eosin stain
    """)
    assert specimen["SpecimenShortDescription"] == "OCT HE T"
    assert specimen["SpecimenDetailedDescription"] == "Medulloblastoma"


@pytest.mark.parametrize(
    "site, expected",
    [
        ("C72.9 : Central nervous system", "21483005 SCT Central nervous system"),
        ("C42.0 : Blood", "87612001 SCT Blood"),
        ("C71.6 : Cerebellum, NOS", "113305005 SCT Cerebellum"),
        ("C34.3 : Lower lobe, lung", "90572001 SCT Lower lobe of lung"),
        ("Invalid value", "10003008 SCT Unspecified"),
    ],
)
def test_the_topography_code_gives_the_anatomic_structure(site, expected):
    slide = ccdi(file_row("0DXA01", 1), samples=[sample_row("0DXA01", site)])
    assert slide.problems == ()
    assert coded(slide.specimens[0]["PrimaryAnatomicStructureSequence"]) == expected


@pytest.mark.parametrize("site", ["C99.9 : Nowhere", "left of it"])
def test_a_site_that_the_map_does_not_know_is_a_problem(site):
    problems = ccdi(file_row("0DXA01", 1), samples=[sample_row("0DXA01", site)]).problems
    assert [(problem.kind, problem.keyword) for problem in problems] == [
        ("unmapped", "PrimaryAnatomicStructureSequence")
    ]


def test_the_table_of_participants_tells_the_sex():
    participants = table_of({"participant_id": "PBXXYZ", "sex_at_birth": "Male"})
    slide = ccdi(file_row("0DXA01", 1), samples=[sample_row("0DXA01")], participant=participants)
    assert slide.attributes["PatientSex"] == "M"


@pytest.mark.serial
def test_the_whole_tables_map_but_for_two_samples_that_are_not_listed(shared: Path):
    manifests = shared / "manifests"
    files = read_table(manifests / "ccdi-mci-pathology-file.csv")
    start = time.perf_counter()
    report = check_table(shipped_map("ccdi"), files, {"sample": read_table(manifests / "ccdi-mci-sample.csv")})
    assert time.perf_counter() - start < 10
    assert (report.rows, report.slides) == (3250, 1794)
    numbers = {problem.row for problem in report.problems}
    assert {problem.kind for problem in report.problems} <= {"no-row", "missing"}
    assert {row["sample.sample_id"] for row in files.rows if row.number in numbers} == {"0D9QKZ", "0D9QL0"}
