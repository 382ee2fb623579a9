from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time
from pathlib import Path

import duckdb
import pytest

from coverslip.catalog.ndjson_writer import as_json_lines
from coverslip.catalog.schema import arrow_schema, fields_from_bigquery
from coverslip.errors import UsageError
from tests.factories.headers import slide_header, write_header


def test_rows_are_written_as_bigquery_takes_them() -> None:
    row = {
        "a": None,
        "b": [],
        "c": [{"d": None, "e": "x"}],
        "day": date(2024, 1, 2),
        "clock": time(3, 4, 5, 250000),
        "moment": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        "numbers": [1.5, math.nan, math.inf, -math.inf],
        "zero": 0,
        "no": False,
    }
    (line,) = as_json_lines([row])
    assert json.loads(line) == {
        "c": [{"e": "x"}],
        "day": "2024-01-02",
        "clock": "03:04:05.250000",
        "moment": "2024-01-02 03:04:05.000000+00:00",
        "numbers": [1.5, "NaN", "Infinity", "-Infinity"],
        "zero": 0,
        "no": False,
    }


def test_ndjson_with_its_schema_holds_the_rows_of_parquet(tmp_path: Path, index) -> None:
    for number in (1, 2):
        write_header(tmp_path / "in", slide_header(number=number, KVP="120"))
    index(tmp_path / "in", to=f"ndjson:{tmp_path / 'tables'}")
    index(tmp_path / "in", to=f"parquet:{tmp_path / 'shards'}", shard="a")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        f"{table}.{ending}"
        for table in ("dicom_metadata", "instances", "series")
        for ending in ("ndjson", "schema.json")
    ]
    fields = fields_from_bigquery(json.loads((tmp_path / "tables" / "dicom_metadata.schema.json").read_text()))
    assert {"KVP", "OtherElements"} < {field.name for field in fields}
    arrow_schema(fields)
    columns = "SOPInstanceUID, PatientName.Alphabetic.FamilyName, StudyDate, StudyTime, ImageType, Rows, KVP"
    columns += ", SharedFunctionalGroupsSequence[1].PixelMeasuresSequence[1].PixelSpacing[1]"
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT {columns} FROM read_json($1, format = 'newline_delimited') ORDER BY 1",
            [str(tmp_path / "tables" / "dicom_metadata.ndjson")],
        ).fetchall()
        expected = connection.execute(
            f"SELECT {columns} FROM read_parquet($1) ORDER BY 1",
            [str(tmp_path / "shards" / "a" / "dicom_metadata-00000.parquet")],
        ).fetchall()
    assert [[str(value) for value in row] for row in rows] == [[str(value) for value in row] for row in expected]


def test_a_version_is_of_no_use_to_ndjson(tmp_path: Path, index) -> None:
    write_header(tmp_path / "in", slide_header())
    with pytest.raises(UsageError, match="without versions or shards"):
        index(tmp_path / "in", to=f"ndjson:{tmp_path / 'tables'}", shard="a")
