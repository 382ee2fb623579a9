"""Whatever is indexed, the views in BigQuery show what those of DuckDB show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb

from coverslip.catalog.merge import NewVersion
from coverslip.catalog.views import view_queries
from tests.catalog.bigquery.conftest import PLACE, ask
from tests.factories.headers import slide_header, write_header

VIEWS = [name for name, _ in view_queries(())]


def plain(value: Any) -> Any:
    """Return a value without what BigQuery does not keep apart: lists that are empty or not there."""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value] or None
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def rows_of(rows: list[dict]) -> list[str]:
    return sorted(
        json.dumps({name.lower(): plain(value) for name, value in row.items()}, default=str, sort_keys=True)
        for row in rows
    )


def in_duckdb(catalog: Path, query: str, as_of: int | None = None) -> list[dict]:
    with duckdb.connect(str(catalog), read_only=True) as connection:
        if as_of is not None:
            connection.execute(f"SET VARIABLE as_of = {as_of}")
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def assert_same(catalog: Path) -> None:
    """Compare all that both have."""
    for view in VIEWS:
        assert_equal(view, ask(f"SELECT * FROM {view}"), in_duckdb(catalog, f"FROM {view}"))
    for table in ("versions", "tombstones", "schema_changes"):
        stored = [{k: v for k, v in row.items() if k != "row_key"} for row in ask(f"SELECT * FROM {table}")]
        assert_equal(table, stored, in_duckdb(catalog, f"FROM {table}"))
    for table in ("instances", "series", "studies", "patients", "collections", "sm_index", "collection_facts"):
        have = in_duckdb(catalog, f"FROM history.{table}")
        names = ", ".join(f"`{name}`" for name in have[0]) if have else "1 AS one"
        assert_equal(f"history.{table}", ask(f"SELECT {names} FROM history_{table}"), have)


def assert_equal(name: str, theirs: list[dict], ours: list[dict]) -> None:
    found, wanted = rows_of(theirs), rows_of(ours)
    strays = [row for row in found if row not in wanted], [row for row in wanted if row not in found]
    assert strays == ([], []), f"{name}: only in BigQuery {strays[0][:1]}, only in DuckDB {strays[1][:1]}"
    assert found == wanted, name


def test_every_view_and_version_is_that_of_duckdb_as_slides_come_change_and_go(tmp_path, server, index_both) -> None:
    catalog = tmp_path / "catalog.duckdb"
    for number in (1, 2):
        write_header(tmp_path / "in", slide_header("1.2.3", number))
    write_header(tmp_path / "in", slide_header("1.2.4", 1, PatientID="P2"))
    report = index_both(tmp_path / "in")
    assert report.outcome.place == PLACE
    assert (report.outcome.merge.new, report.outcome.merge.version) == (3, 1)

    # One instance more of a series, one changed, with columns that nobody had before.
    write_header(tmp_path / "in", slide_header("1.2.3", 3, KVP="120"))
    write_header(tmp_path / "in", slide_header("1.2.3", 2, StudyDescription="other"))
    write_header(tmp_path / "in", slide_header("1.2.4", 1, PatientID="P2", PatientName="Other^Name"))
    report = index_both(tmp_path / "in", version=NewVersion(label="second", date="2026-02-03"))
    assert (report.outcome.merge.new, report.outcome.merge.changed, report.outcome.merge.unchanged) == (1, 2, 1)
    assert report.outcome.merge.added_columns == ["KVP"]
    assert_same(catalog)

    # One that is gone, and another writer's slides in a folder of their own.
    (tmp_path / "in" / "1.2.3.1.dcm").unlink()
    assert index_both(tmp_path / "in", prune=True).outcome.merge.retired == 1
    write_header(tmp_path / "other", slide_header("1.2.5", 1))
    index_both(tmp_path / "other")
    assert_same(catalog)

    # The latest version amended.
    write_header(tmp_path / "other", slide_header("1.2.5", 1, StudyDescription="said again"))
    assert index_both(tmp_path / "other", version=NewVersion(4)).outcome.merge.changed == 1
    assert_same(catalog)
    assert ask("SELECT StudyDescription FROM dicom_metadata WHERE SOPInstanceUID = '1.2.5.1'") == [
        {"StudyDescription": "said again"}
    ]
