from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from coverslip.catalog.retract import retract_series
from coverslip.cli import cli
from coverslip.errors import CatalogError
from tests.factories.headers import slide_header, write_header

pytestmark = pytest.mark.usefixtures("narrow_schema")


def every_text(path: Path) -> str:
    """Return what a catalog holds, in words."""
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = connection.execute("SELECT schema_name || '.' || table_name FROM duckdb_tables()").fetchall()
        return "\n".join(f"{name} {connection.execute(f'FROM {name}').fetchall()}" for (name,) in tables)


@pytest.fixture
def catalog(tmp_path, index) -> Path:
    """Two series of one patient and one of a patient of its own, that one in two versions."""
    for series, patient in (("1.2.3", "P1"), ("1.2.4", "P1"), ("1.2.5", "SECRET-7")):
        ds = slide_header(series, PatientID=patient, PatientName=f"{patient}-name", ContainerIdentifier=f"C{series}")
        ds.StudyInstanceUID = f"1.9.{patient[-1]}"
        write_header(tmp_path / "in", ds)
    index(tmp_path / "in")
    ds = slide_header("1.2.5", PatientID="SECRET-7", PatientName="SECRET-again", ContainerIdentifier="SECRET-C")
    ds.StudyInstanceUID = "1.9.7"
    write_header(tmp_path / "in", ds)
    index(tmp_path / "in")
    return tmp_path / "catalog.duckdb"


def test_nothing_tells_of_a_retracted_series_but_its_tombstone(catalog, ask) -> None:
    assert "SECRET-again" in every_text(catalog)
    assert retract_series(catalog, "1.2.5", "label visible") == 2
    text = every_text(catalog)
    assert "SECRET" not in text
    assert "1.9.7" not in text
    assert b"SECRET" not in catalog.read_bytes()
    assert text.count("1.2.5") == 1
    assert ask("FROM tombstones") == [("1.2.5", "label visible", 3)]
    assert [path.name for path in catalog.parent.iterdir() if path.name.startswith((".cover", "catalog"))] == [
        catalog.name
    ]
    for version in (1, 2, 3):
        assert ask("SELECT SeriesInstanceUID FROM idc_index ORDER BY 1", as_of=version) == [("1.2.3",), ("1.2.4",)]
        assert ask("SELECT count(*) FROM sm_index", as_of=version) == [(2,)]


def test_what_is_above_a_retracted_series_gets_a_new_version(catalog, ask) -> None:
    columns = "patient_hash, patient_revised_idc_version, series_revised_idc_version"
    query = f"SELECT DISTINCT {columns} FROM auxiliary_metadata"
    ((before, *_),) = ask(f"{query} WHERE PatientID = 'P1'")
    retract_series(catalog, "1.2.4", "wrong patient")
    ((after, patient, series),) = ask(f"{query} WHERE PatientID = 'P1'")
    assert after != before
    assert (patient, series) == (3, 1)
    assert ask("SELECT final_version FROM history.patients WHERE PatientID = 'P1' ORDER BY 1") == [(0,), (2,)]


def test_a_retracted_series_is_not_indexed_again(tmp_path, catalog, index, ask) -> None:
    retract_series(catalog, "1.2.5", "label visible")
    report = index(tmp_path / "in")
    (failure,) = report.failures
    assert (failure.reason, report.exit_code) == ("series 1.2.5 was retracted", 7)
    assert "SECRET" not in every_text(catalog)


def test_retracting_again_and_what_was_never_there_leaves_a_tombstone(catalog, ask) -> None:
    retract_series(catalog, "1.2.5", "label visible")
    assert retract_series(catalog, "1.2.5", "said again") == 0
    assert retract_series(catalog, "1.2.77", "never indexed") == 0
    assert ask("SELECT SeriesInstanceUID, reason FROM tombstones ORDER BY 1") == [
        ("1.2.5", "said again"),
        ("1.2.77", "never indexed"),
    ]
    assert ask("SELECT max(version) FROM versions") == [(3,)]


def test_a_catalog_that_is_not_there_is_not_made(tmp_path) -> None:
    with pytest.raises(CatalogError, match="no such catalog"):
        retract_series(tmp_path / "none.duckdb", "1.2.5", "x")
    assert not (tmp_path / "none.duckdb").exists()


def test_columns_that_were_added_are_kept(tmp_path, catalog, index, ask) -> None:
    write_header(tmp_path / "in", slide_header("1.2.6", KVP="120"))
    index(tmp_path / "in")
    changes = ask("SELECT path FROM schema_changes ORDER BY ALL")
    retract_series(catalog, "1.2.5", "label visible")
    assert ask("SELECT KVP FROM dicom_metadata WHERE KVP IS NOT NULL") == [("120",)]
    assert ask("SELECT path FROM schema_changes ORDER BY ALL") == changes
    write_header(tmp_path / "in", slide_header("1.2.6", KVP="130", Exposure="1"))
    index(tmp_path / "in")
    assert ask("SELECT KVP, Exposure FROM dicom_metadata WHERE KVP IS NOT NULL") == [("130", "1")]


def test_the_command_retract_takes_a_series_out_of_catalogs(tmp_path, catalog, ask) -> None:
    arguments = ["retract", "1.2.5", "--from", str(tmp_path / "store"), "--reason", "label visible", "--yes"]
    arguments += ["--catalog", str(catalog), "--ledger", str(tmp_path / "ledger")]
    (tmp_path / "store").mkdir()
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert ask("SELECT SeriesInstanceUID, reason FROM tombstones") == [("1.2.5", "label visible")]
    assert "SECRET" not in every_text(catalog)
