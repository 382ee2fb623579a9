"""`coverslip map` as a user meets it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.test_cli import run

MAP = """
[attributes]
PatientID = { column = "patient", required = true }
PatientSex = { column = "sex", values = { m = "M" } }
ContainerIdentifier = "{stem}"
[[attributes.OtherPatientIDsSequence]]
PatientID = "{other}"
[specimen]
SpecimenTypeCodeSequence = "slide"
steps = ["he"]
[steps.he]
content = [{ concept = "processing-type", value = "staining" }]
[optical_path]
ObjectiveLensPower = "40"
[collection]
species = ["Human"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.toml").write_text(MAP)
    (tmp_path / "good.csv").write_text("file,patient,sex,other,note\na.svs,P1,m,O1,x\n")
    (tmp_path / "bad.csv").write_text("file,patient,sex,other\n" + "".join(f"{n}.svs,,divers,\n" for n in range(8)))
    return tmp_path


@pytest.mark.parametrize("command", [(), ("check",), ("show",), ("new",)])
def test_help_fits_80_columns(command: tuple[str, ...]) -> None:
    done = run("map", *command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_check_without_errors_exits_with_0(folder: Path) -> None:
    done = run("map", "check", "good.csv", "--map", "m.toml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 row, 1 slide: 0 errors, 0 warnings\ncolumns the map does not use: note\n"


def test_a_check_shows_the_same_problem_of_several_rows_once_and_exits_with_5(folder: Path) -> None:
    done = run("map", "check", "bad.csv", "--map", "m.toml", cwd=folder)
    assert (done.returncode, done.stderr) == (5, "")
    assert done.stdout.count("missing") == done.stdout.count("unmapped") == 1
    assert "8 rows, 8 slides: 16 errors, 0 warnings" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_check_as_json_and_csv_has_every_row(folder: Path) -> None:
    done = run("map", "check", "bad.csv", "--map", "m.toml", "--json", cwd=folder)
    report = json.loads(done.stdout)
    assert (done.returncode, report["errors"], report["rows"]) == (5, 16, 8)
    assert report["problems"][0] == {
        "severity": "error",
        "kind": "missing",
        "row": 2,
        "column": "patient",
        "keyword": "PatientID",
        "message": "is empty; the map wants it from column patient",
    }
    done = run("map", "check", "bad.csv", "--map", "m.toml", "--csv", cwd=folder)
    lines = list(csv.DictReader(done.stdout.splitlines()))
    assert (len(lines), lines[1]["kind"], lines[1]["row"]) == (16, "unmapped", "2")


def test_a_check_with_slides_tells_those_without_row(folder: Path) -> None:
    (folder / "slides").mkdir()
    (folder / "slides" / "b.svs").touch()
    done = run("map", "check", "good.csv", "--map", "m.toml", "--slides", "slides", "--csv", cwd=folder)
    assert done.returncode == 5
    assert [line.split(",")[:3] for line in done.stdout.splitlines()[1:]] == [
        ["warning", "no-slide", "2"],
        ["error", "no-row", ""],
    ]


def test_show_prints_a_tree_with_origins(folder: Path) -> None:
    done = run("map", "show", "a.svs", "--metadata", "good.csv", "--map", "m.toml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "PatientSex: M  <- column sex, value table (m.toml: attributes.PatientSex)",
        "    SpecimenTypeCodeSequence: Slide (1179252003, SCT)  <- code",
        "          Specimen Identifier (121041, DCM) = a\n",
        "          Processing type (111701, DCM) = Staining (127790008, SCT)  <- code",
        "  species: Human",
    ):
        assert line in done.stdout


def test_show_as_json_has_attributes_origins_and_problems(folder: Path) -> None:
    shown = json.loads(
        run("map", "show", "a.svs", "--metadata", "good.csv", "--map", "m.toml", "--json", cwd=folder).stdout
    )
    assert shown["container_identifier"] == "a"
    assert shown["attributes"]["OtherPatientIDsSequence"] == [{"PatientID": "O1"}]
    assert shown["specimens"][0]["SpecimenTypeCodeSequence"] == [
        {"CodeValue": "1179252003", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Slide"}
    ]
    assert shown["optical_paths"] == [{"ObjectiveLensPower": "40"}]
    assert shown["problems"] == []


def test_show_of_a_slide_with_errors_prints_them_and_exits_with_5(folder: Path) -> None:
    done = run("map", "show", "1.svs", "--metadata", "bad.csv", "--map", "m.toml", cwd=folder)
    assert done.returncode == 5
    assert "error: unmapped: row 3, sex, PatientSex: the map's value table lacks 'divers'\n" in done.stderr


def test_new_drafts_a_map_that_loads_and_overwrites_nothing(folder: Path) -> None:
    assert run("map", "new", "good.csv", "-o", "new.toml", cwd=folder).returncode == 0
    assert run("map", "check", "good.csv", "--map", "new.toml", cwd=folder).returncode == 0
    assert run("map", "new", "good.csv", cwd=folder).stdout == (folder / "new.toml").read_text()
    done = run("map", "new", "good.csv", "-o", "new.toml", cwd=folder)
    assert (done.returncode, done.stderr) == (2, "error: -o 'new.toml': is already there\n")
    assert run("map", "new", "good.csv", "-o", "no/new.toml", cwd=folder).returncode == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "good.csv"), "Missing option '--map'"),
        (("check", "good.csv", "--map", "nothing"), "map 'nothing': is not shipped; there are "),
        (("check", "no.csv", "--map", "m.toml"), "table 'no.csv': cannot be read"),
        (("check", "good.csv", "--map", "m.toml", "--json", "--csv"), "--json and --csv: wanted one of them"),
        (("check", "good.csv", "--map", "m.toml", "--table", "x"), "--table x: wanted NAME=FILE"),
        (("check", "good.csv", "--map", "m.toml", "--table", "x=good.csv", "--table", "x=good.csv"), "is given twice"),
        (("check", "good.csv", "--map", "m.toml", "--table", "x=good.csv"), "the map knows no table of that name"),
        (("show", "z.svs", "--metadata", "good.csv", "--map", "m.toml"), "'z.svs' has no row in 'good.csv' by the"),
    ],
)
def test_a_usage_error_exits_with_2(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run("map", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
