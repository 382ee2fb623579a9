"""The commands search, facets, attach and cohort as a curator types them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest

from coverslip.catalog.search_filters import FIELDS
from coverslip.cohort_commands import cohort_group
from coverslip.search_commands import FILTERS, attach, facets, search
from tests.faults.command_line import ROOT, run

FFPE = "TCGA-05-4244-01Z-00-DX1"


def test_the_options_of_commands_are_the_fields_of_searches() -> None:
    assert list(FILTERS) == list(FIELDS)


def test_a_search_prints_a_table_and_what_it_found(collection: Path) -> None:
    done = run("search", "--anatomy", "lung", "--embedding", "FFPE", cwd=collection)
    assert (done.returncode, done.stderr) == (0, "")
    header, row, summary = done.stdout.splitlines()
    assert header.split()[:4] == ["collection", "patient", "container", "description"]
    assert FFPE in row
    assert summary == "1 slide of 1 patient in 1 collection, 0.1 MB"


def test_a_search_gives_json_and_csv_with_all_that_is_known(collection: Path) -> None:
    done = run("search", "--with-radiology", "CT", "--json", cwd=collection)
    told = json.loads(done.stdout)
    assert (told["total"], told["unknown"]) == (2, 0)
    assert [each["radiology"] for each in told["slides"]] == [{"CT": 2, "PT": 1}] * 2
    assert len(told["radiology_series"]) == 3
    assert "IDC's index is not attached" in done.stderr
    rows = list(csv.DictReader(io.StringIO(run("search", "--target", "CD3", "--csv", cwd=collection).stdout)))
    assert rows[0]["targets"] == "CD3; CD45; DNA; Ki-67"
    assert rows[0]["embedding_codes"] == "SCT:311731000"


def test_a_search_counts_and_says_how_many_published_slides_are_unknown(
    collection: Path, shared: Path, sm_index: Path
) -> None:
    index = shared / "idc" / "idc_index_slice.parquet"
    done = run("search", "--stain", "eosin", "--count", "--with-idc", index, cwd=collection)
    assert done.stdout == "7\n"
    assert done.stderr == (
        "unknown: 800 published slides may match: of some of them IDC's index does not tell stain; "
        "--unknown include adds them\n"
    )
    arguments = ("search", "--stain", "eosin", "--count", "--with-idc", index, "--sm-index", sm_index)
    assert run(*arguments, cwd=collection).stdout == f"{7 + 723}\n"


def test_a_limit_cuts_the_table_and_not_the_counts(collection: Path) -> None:
    lines = run("search", "--limit", "2", cwd=collection).stdout.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "9 slides of 6 patients in 5 collections, 2.0 MB; 2 shown, see --limit"


def test_slides_without_a_patient_are_told_apart_from_patients(tmp_path: Path, shared: Path) -> None:
    assert run("index", shared / "slides" / "dicom", cwd=tmp_path).returncode == 0
    summary = run("search", cwd=tmp_path).stdout.splitlines()[-1]
    assert summary == "4 slides of 1 patient, 2.3 MB, 3 without a patient"
    told = json.loads(run("search", "--patient", "none", "--json", "--count", cwd=tmp_path).stdout)
    assert [told[name] for name in ("total", "patients", "collections", "without_patient")] == [3, 0, 0, 3]
    assert run("search", "--patient", "none", cwd=tmp_path).stdout.splitlines()[-1].startswith("3 slides, 2.3 MB, 3 ")
    saved = run("cohort", "save", "odd", "--patient", "none", cwd=tmp_path)
    assert saved.stdout == "catalog.cohorts/odd.json: 3 slides, 2.3 MB, version 1\n"


def test_sql_comes_from_the_command_line_or_a_file(collection: Path, tmp_path: Path) -> None:
    query = "SELECT Modality, COUNT(*) AS n FROM `p.d.idc_index` GROUP BY Modality ORDER BY n DESC, Modality"
    done = run("search", "--sql", query, "--limit", "2", cwd=collection)
    assert done.stdout == "Modality  n\nSM        9\nCT        3\n2 rows, and more: see --limit\n"
    (tmp_path / "query.sql").write_text(query)
    done = run("search", "--sql", f"@{tmp_path / 'query.sql'}", "--csv", cwd=collection)
    assert done.stdout.splitlines() == ["Modality,n", "SM,9", "CT,3", "MR,1", "PT,1"]
    told = json.loads(run("search", "--sql", query, "--json", cwd=collection).stdout)
    assert told["dialect"] == "bigquery"
    assert told["rows"][0] == {"Modality": "SM", "n": 9}


def test_facets_count_values(collection: Path) -> None:
    done = run("facets", "anatomy", "--collection", "tcga_luad,x", "--collection", "tcga_luad", cwd=collection)
    assert done.stdout == "3 slides\n\nanatomy\n        3  Lung  SCT:39607008\n"
    told = json.loads(run("facets", "--json", cwd=collection).stdout)
    assert [each["name"] for each in told["facets"]] == [name for name, field in FIELDS.items() if field.facet]
    rows = list(csv.DictReader(io.StringIO(run("facets", "target", "--csv", cwd=collection).stdout)))
    assert rows[0] == {"facet": "target", "value": "CD3", "code": "", "slides": "1"}


def test_a_cohort_is_saved_listed_shown_and_made_a_manifest_of(
    catalog_file: Path, shared: Path, tmp_path: Path
) -> None:
    index = shared / "idc" / "idc_index_slice.parquet"
    attached = run("attach", index, cwd=tmp_path)
    assert attached.stdout == "catalog.duckdb: IDC's index attached: 4513 series, 800 of them slides\n"
    saved = run("cohort", "save", "ffpe-ct", "--embedding", "FFPE", "--with-radiology", "CT", cwd=tmp_path)
    assert saved.stdout.startswith("catalog.cohorts/ffpe-ct.json: 2 slides and ")
    assert run("cohort", "list", cwd=tmp_path).stdout.startswith("ffpe-ct: 2 slides and ")
    shown = run("cohort", "show", "ffpe-ct", cwd=tmp_path).stdout
    assert "10.5281/zenodo.13993769" in shown
    assert shown.endswith("since it was saved: nothing has changed\n")
    manifest = run("cohort", "manifest", "ffpe-ct", "-o", "fetch.s5cmd", cwd=tmp_path)
    assert (manifest.returncode, manifest.stdout) == (0, "")
    assert "series left out" in manifest.stderr
    assert "\ncp s3://idc-open-data/" in (tmp_path / "fetch.s5cmd").read_text()
    urls = run("cohort", "manifest", "ffpe-ct", "--format", "urls", "--slim", "https://a.example/slim", cwd=tmp_path)
    assert urls.stdout.startswith("https://a.example/slim/studies/")
    again = run("cohort", "save", "ffpe-ct", cwd=tmp_path)
    assert again.returncode == 2
    assert run("attach", "--detach", cwd=tmp_path).stdout == "catalog.duckdb: IDC's index detached\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("search", "--catalog", "none.duckdb"), 7, "error: none.duckdb: no such catalog"),
        (("facets", "--catalog", "none.duckdb"), 7, "error: none.duckdb: no such catalog"),
        (("attach", "--catalog", "none.duckdb"), 7, "error: none.duckdb: no such catalog"),
        (("cohort", "save", "x", "--catalog", "none.duckdb"), 7, "error: none.duckdb: no such catalog"),
        (("search", "--catalog", "other.txt"), 7, "error: other.txt: "),
        (("search", "--spacing", "wide"), 2, "error: --spacing 'wide': expected a number or a range"),
        (("search", "--validation", "good"), 2, "error: --validation 'good': expected one of passed, failed, none"),
        (("search", "--as-of", "0"), 2, "error: --as-of 0: the catalog has no version so early"),
        (("search", "--json", "--csv"), 2, "error: --json and --csv: expected one of them"),
        (("search", "lung", "--sql", "SELECT 1"), 2, "error: --sql: expected without words and filters"),
        (("search", "--sql", "@none.sql"), 2, "error: --sql @none.sql: cannot be read"),
        (("search", "--sql", "DROP TABLE versions"), 2, "error: --sql: expected one query"),
        (("search", "--with-idc", "none.parquet"), 2, "error: none.parquet: no such file"),
        (("search", "--sm-index", "x.parquet"), 2, "error: --sm-index: expected --with-idc beside it"),
        (("search", "--with-radiology", "C-T"), 2, "error: --with-radiology C-T: expected modalities such as"),
        (("facets", "colour"), 2, "error: facet colour: there is none; there are collection, "),
        (("cohort", "show", "none"), 2, "error: cohort none: not in catalog.cohorts; there are: none"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_with_its_exit_code(
    collection: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    shutil.copy(collection / "catalog.duckdb", tmp_path / "catalog.duckdb")
    (tmp_path / "other.txt").write_text("no catalog")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_every_option_is_explained_and_no_other() -> None:
    text = (ROOT / "docs" / "search.md").read_text()
    commands = [search, facets, attach, *cohort_group.commands.values()]
    options = {option for command in commands for one in command.params for option in one.opts if option[:2] == "--"}
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))
    assert options - named == set()
    assert named - options == set()


def test_the_size_of_a_slide_is_that_of_its_base_beside_a_larger_overview(aperio_slide: Path, tmp_path: Path) -> None:
    run("convert", aperio_slide, "-o", "out", "--include", "overview", "--validate", "off", cwd=tmp_path)
    run("index", "out", "--to", "catalog.duckdb", cwd=tmp_path)
    widest = run(
        "search", "--sql", "SELECT max_TotalPixelMatrixColumns AS widest FROM sm_index", "--json", cwd=tmp_path
    )
    assert '"widest": 1280' in widest.stdout, "as IDC's own query has it"
    (slide,) = json.loads(run("search", "--json", cwd=tmp_path).stdout)["slides"]
    assert (slide["matrix_columns"], slide["matrix_rows"]) == (900, 700)
