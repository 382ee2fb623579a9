from __future__ import annotations

from click.testing import CliRunner

from coverslip.catalog.bigquery.place import parse_place
from coverslip.catalog.bigquery.retract import retract_from_bigquery
from coverslip.catalog.index import IndexRequest, index_paths
from coverslip.catalog.retract import retract_series
from coverslip.cli import cli
from tests.catalog.bigquery.conftest import PLACE, ask
from tests.catalog.bigquery.test_writer import assert_same
from tests.factories.headers import slide_header, write_header


def every_text(server) -> str:
    """Return all that the data set holds, views left out, in words."""
    return "\n".join(
        str(server.db.execute(f'FROM "{project}.{dataset}"."{name}"').fetchall())
        for (project, dataset, name), table in server.tables.items()
        if not table.is_view
    )


def test_nothing_tells_of_a_retracted_series_but_its_tombstone(tmp_path, server, index_both) -> None:
    for series, patient in (("1.2.3", "P1"), ("1.2.4", "P1"), ("1.2.5", "SECRET-7")):
        ds = slide_header(series, PatientID=patient, PatientName=f"{patient}-name", ContainerIdentifier=f"C{series}")
        ds.StudyInstanceUID = f"1.9.{patient[-1]}"
        write_header(tmp_path / "in", ds)
    index_both(tmp_path / "in")
    ds = slide_header("1.2.5", PatientID="SECRET-7", PatientName="SECRET-again", ContainerIdentifier="SECRET-C")
    ds.StudyInstanceUID = "1.9.7"
    write_header(tmp_path / "in", ds)
    index_both(tmp_path / "in")
    assert "SECRET-again" in every_text(server)
    catalog = tmp_path / "catalog.duckdb"
    for uid in ("1.2.5", "1.2.4"):
        assert retract_series(catalog, uid, "label visible") == retract_from_bigquery(
            parse_place(PLACE), uid, "label visible"
        )
    text = every_text(server)
    assert "SECRET" not in text
    assert "1.9.7" not in text
    assert text.count("'1.2.5'") == 1
    assert_same(catalog)
    report = index_paths(IndexRequest((str(tmp_path / "in"),), PLACE))
    assert {failure.reason for failure in report.failures} == {
        "series 1.2.5 was retracted",
        "series 1.2.4 was retracted",
    }
    assert "SECRET" not in every_text(server)

    # The command, for a series that was never there.
    (tmp_path / "store").mkdir()
    arguments = ["retract", "1.2.77", "--from", str(tmp_path / "store"), "--reason", "never", "--yes"]
    result = CliRunner().invoke(cli, [*arguments, "--catalog", PLACE, "--ledger", str(tmp_path / "ledger")])
    assert result.exit_code == 0, result.output
    assert {row["SeriesInstanceUID"] for row in ask("SELECT SeriesInstanceUID FROM tombstones")} == {
        "1.2.4", "1.2.5", "1.2.77",
    }  # fmt: skip
