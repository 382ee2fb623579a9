"""A table is checked whole, and slides and rows against each other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from coverslip.errors import UsageError
from coverslip.metadata_maps.check import CheckReport, check_table, find_slides
from coverslip.metadata_maps.language import load_map
from coverslip.metadata_maps.tables import read_table

MAP = """
    [attributes]
    PatientID = { column = "patient", required = true }
    PatientSex = { column = "sex", values = { m = "M", f = "F" } }
    StudyID = "{patient}"
    StudyDate = "{study date}"
    EthnicGroup = "{race}"
    ContainerIdentifier = "{container}"
    SeriesDescription = ["{absent}", "{stem}"]
"""
HEADER = "file,patient,sex,race,study date,container,note\n"


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., CheckReport]:
    """Check lines under the header, and files of a folder if any are named."""

    def checked(*lines: str, slides: list[str] | None = None) -> CheckReport:
        (tmp_path / "m.toml").write_text(MAP)
        (tmp_path / "t.csv").write_text(HEADER + "\n".join(lines))
        folder = tmp_path / "slides"
        for name in slides or []:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        found = find_slides(folder) if slides is not None else None
        return check_table(load_map(tmp_path / "m.toml"), read_table(tmp_path / "t.csv"), {}, found)

    return checked


def problems(report: CheckReport) -> list[tuple[str, int | None, str]]:
    return [(each.kind, each.row, each.keyword) for each in report.problems]


def test_a_table_without_fault_has_no_problems(check: Callable[..., CheckReport]) -> None:
    report = check("a.svs,P1,m,x,20200101,A,", "b.svs,P1,M,x,20200101,B,")
    assert (report.rows, report.slides, report.problems, report.errors) == (2, 2, (), 0)
    assert report.absent_columns == ("absent",)
    assert report.unused_columns == ("note",)


def test_each_kind_of_problem_is_told_with_its_row(check: Callable[..., CheckReport]) -> None:
    report = check(
        "a.svs,P1,m,x,20200101,A,",
        "b.svs,,m,x,20200101,B,",
        "c.svs,P1,divers,x,20200101,C,",
        "d.svs,P1,m,a race of many letters,20200101,D,",
        "e.svs,P1,m,x,01.02.2020,E,",
        "f.svs,P1,m,x,20200101,A,",
        "g.svs,P1,f,x,20200102,G,",
    )
    assert problems(report) == [
        ("missing", 3, "PatientID"),
        ("unmapped", 4, "PatientSex"),
        ("inconsistent", 4, "PatientSex"),
        ("too-long", 5, "EthnicGroup"),
        ("inconsistent", 5, "EthnicGroup"),
        ("invalid", 6, "StudyDate"),
        ("inconsistent", 6, "StudyDate"),
        ("duplicate", 7, "ContainerIdentifier"),
        ("inconsistent", 8, "PatientSex"),
        ("inconsistent", 8, "StudyDate"),
    ]
    assert report.errors == 10


def test_what_differs_is_told_with_the_column_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text("""
        [variables]
        patient = { column = "case" }
        container = "{block}-{stem}"
        block = { column = "block id" }
        [attributes]
        PatientID = "{patient}"
        PatientSex = { column = "sex", when = { kind = "human" } }
        StudyDescription = "{block} of {patient}"
        ContainerIdentifier = "{container}"
    """)
    (tmp_path / "t.csv").write_text("file,case,block id,sex,kind\na/a.svs,P1,B1,M,human\nb/a.svs,P1,B1,F,human\n")
    report = check_table(load_map(tmp_path / "m.toml"), read_table(tmp_path / "t.csv"))
    assert [(each.kind, each.keyword, each.column) for each in report.problems] == [
        ("duplicate", "ContainerIdentifier", "block id"),
        ("inconsistent", "PatientSex", "sex, kind"),
    ]


def test_messages_of_inconsistencies_name_rows_and_no_values(check: Callable[..., CheckReport]) -> None:
    report = check("a.svs,P1,m,x,20200101,A,", "b.svs,P1,f,x,20200101,B,")
    assert [each.message for each in report.problems] == ["differs from row 2 of the same patient"]


def test_slides_and_rows_are_held_against_each_other(check: Callable[..., CheckReport]) -> None:
    report = check(
        "a.svs,P1,m,x,20200101,A,",
        "b.svs,P1,m,x,20200101,B,",
        "x/c.svs,P1,m,x,20200101,C,",
        "y/c.svs,P1,m,x,20200101,D,",
        slides=["a.svs", "copy/a.svs", "other.ndpi", "z/c.svs", ".hidden/b.svs", "b.svs.part", "notes.txt"],
    )
    assert [(each.kind, each.row, str(each.severity)) for each in report.problems] == [
        ("ambiguous", 2, "ERROR"),
        ("no-slide", 3, "WARNING"),
        ("no-slide", 4, "WARNING"),
        ("no-slide", 5, "WARNING"),
        ("no-row", None, "ERROR"),
        ("ambiguous", None, "ERROR"),
    ]
    assert report.slides == 4


def test_slides_are_files_of_known_endings_and_folders_of_dicom_files(tmp_path: Path) -> None:
    for name in ("a.SVS", "s/1.dcm", "s/2.dcm", "b.ome.tiff", "c.txt", ".d.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_slides(tmp_path) == [tmp_path / "a.SVS", tmp_path / "b.ome.tiff", tmp_path / "s"]
    with pytest.raises(UsageError, match=r"--slides 'c\.txt': is no folder"):
        find_slides(tmp_path / "c.txt")


@pytest.mark.serial
def test_the_whole_table_of_cmb_is_checked_within_two_seconds(shared: Path) -> None:
    start = time.perf_counter()
    report = check_table(load_map("cmb"), read_table(shared / "manifests" / "cmb-path-slides.csv"))
    assert time.perf_counter() - start < 2
    assert (report.rows, report.slides) == (1534, 1534)
    # One patient is in two collections; nothing else is wrong.
    assert Counter(each.kind for each in report.problems) == {"inconsistent": report.errors}
    assert {each.row for each in report.problems} <= set(range(785, 800))


def test_specimens_of_ccdi_are_joined_from_two_tables(shared: Path) -> None:
    folder = shared / "manifests"
    second = {"sample": read_table(folder / "ccdi-mci-sample.csv")}
    report = check_table(load_map("ccdi"), read_table(folder / "ccdi-mci-pathology-file.csv"), second)
    assert (report.rows, report.slides) == (3250, 1794)
    assert {(each.kind, each.row) for each in report.problems} >= {("no-row", 51), ("no-row", 52)}
