"""A drafted map loads as it is, and guesses what tables commonly hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from coverslip.metadata_maps.check import check_table
from coverslip.metadata_maps.draft import draft_map
from coverslip.metadata_maps.evaluate import apply_map, slide_facts
from coverslip.metadata_maps.language import MetadataMap, load_map
from coverslip.metadata_maps.tables import Table, read_table


def draft(folder: Path, content: str) -> tuple[str, MetadataMap, Table]:
    (folder / "My slides.csv").write_text(content)
    table = read_table(folder / "My slides.csv")
    text = draft_map(table)
    (folder / "draft.toml").write_text(text)
    return text, load_map(folder / "draft.toml"), table


def test_well_known_columns_become_attributes(tmp_path: Path) -> None:
    text, found, table = draft(
        tmp_path,
        "File Name,Case ID,Gender,Visit Date,Age,Primary Site,Fixative,Stain,Magnification,Project,Odd\n"
        'a.svs,P1,Male,13/02/2020,42,Lung,Formalin,H&E,40X,TRIAL-1,"x ""quoted"" \\ y"\n'
        "b.svs,P2,Divers,01/02/2020,43,Left ear,None,Giemsa,20x,TRIAL-1,\n",
    )
    assert found.name == "my_slides"
    assert '"Left ear" = ""  # to be mapped' in text
    assert '"Divers" = ""  # to be mapped' in text
    assert "#   Odd: 1 values" in text
    slide = apply_map(found, slide_facts("a.svs"), table.rows[:1], {})
    assert [each.keyword for each in slide.problems] == ["ClinicalTrialSponsorName"]
    wanted = {
        "PatientID": "P1",
        "PatientSex": "M",
        "StudyDate": "20200213",
        "PatientAge": "042Y",
        "ClinicalTrialProtocolID": "TRIAL-1",
        "ContainerIdentifier": "a",
    }
    assert wanted.items() <= slide.attributes.items()
    assert slide.optical_paths[0]["ObjectiveLensPower"] == "40"
    assert slide.specimens[0]["PrimaryAnatomicStructureSequence"].meaning == "Lung"


def test_a_date_that_can_be_read_in_two_ways_is_called_ambiguous(tmp_path: Path) -> None:
    text, _, _ = draft(tmp_path, "file,study date\na.svs,01/02/2020\n")
    assert "the form of the dates is ambiguous" in text


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("file,x", 'slide = "{stem}"'),
        ("barcode,x", 'key = { column = "barcode", equals = "{stem}" }'),
        ("x,y", "# No column seems to name the slide"),
    ],
)
def test_a_draft_says_how_slides_find_their_rows(tmp_path: Path, header: str, line: str) -> None:
    assert line in draft(tmp_path, f"{header}\n1,2\n")[0]


def test_slides_with_several_rows_have_specimens_of_their_own(tmp_path: Path) -> None:
    _, found, table = draft(tmp_path, "file,patient,sample id\na.svs,P,S1\na.svs,P,S2\n")
    assert check_table(found, table).problems == ()


def test_drafts_of_real_tables_load(shared: Path, tmp_path: Path) -> None:
    for path in sorted((shared / "manifests").glob("c*.csv")):
        (tmp_path / "draft.toml").write_text(draft_map(read_table(path)))
        load_map(tmp_path / "draft.toml")
