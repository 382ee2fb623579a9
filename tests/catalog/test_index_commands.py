from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coverslip.cli import cli
from tests.factories.headers import slide_header, write_header

pytestmark = pytest.mark.usefixtures("narrow_schema")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["index", *(str(each) for each in arguments)])


def exit_code(result: Result) -> int:
    return getattr(result.exception, "exit_code", result.exit_code)


def test_the_outcome_is_told_in_words_and_as_json(tmp_path, ask) -> None:
    write_header(tmp_path / "in", slide_header())
    catalog = tmp_path / "catalog.duckdb"
    result = invoke(tmp_path / "in", "--to", catalog, "--version-date", "2026-01-31", "--version-label", "one")
    assert result.exit_code == 0, result.output
    assert f"{catalog}: version 1: 1 new, 0 changed, 0 unchanged, 0 retired\n" in result.stdout
    assert result.stderr == "warning: collection trial_one: nothing is told of it; its facts are NULL\n"
    told = json.loads(invoke(tmp_path / "in", "--to", catalog, "--json").stdout)
    warning = "collection trial_one: nothing is told of it; its facts are NULL"
    counts = {"new": 0, "changed": 0, "unchanged": 1, "retired": 0, "duplicates": 0}
    place = {"place": str(catalog), "read": 1, "version": 1, "added_columns": []}
    assert told == {**place, **counts, "warnings": [warning], "failures": []}
    assert ask("SELECT label, CAST(version_date AS VARCHAR) FROM versions") == [("one", "2026-01-31")]


def test_failures_are_told_by_file_and_the_exit_code_is_that_of_the_worst(tmp_path) -> None:
    write_header(tmp_path / "in", slide_header())
    (tmp_path / "in" / "readme.txt").write_text("not one")
    result = invoke(tmp_path / "in", "--to", tmp_path / "catalog.duckdb")
    assert exit_code(result) == 3
    assert f"{tmp_path}/in/readme.txt: no DICOM file: there is no DICM at byte 128\n" in result.stderr
    assert "1 new" in result.stdout


def test_shards_are_written_and_merged(tmp_path, ask) -> None:
    for name, series in (("a", "1.2.3"), ("b", "1.2.4")):
        write_header(tmp_path / name, slide_header(series))
        result = invoke(tmp_path / name, "--to", f"parquet:{tmp_path / 'shards'}", "--shard", name)
        assert result.stdout == f"{tmp_path}/shards/{name}: 1 instances\n"
    result = invoke("--merge", f"parquet:{tmp_path / 'shards'}", "--to", tmp_path / "catalog.duckdb")
    assert result.exit_code == 0, result.output
    assert ask("SELECT count(*) FROM idc_index") == [(2,)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected PATH, or --merge"),
        (("x", "--merge", "parquet:y"), "expected PATH, or --merge"),
        (("--merge", "y"), "expected parquet:DIR"),
        (("--merge", "parquet:y", "--to", "ndjson:z"), "merged into a file of DuckDB"),
        (("x", "--version-date", "31.1.2026"), "expected a date such as 2026-01-31"),
        (("x", "--facts", "none.json"), "no JSON object of facts"),
    ],
)
def test_wrong_options_are_told(tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert exit_code(result) == 2
    assert message in str(result.exception)


def test_a_fact_that_there_is_not_is_told(tmp_path) -> None:
    write_header(tmp_path / "in", slide_header())
    (tmp_path / "facts.json").write_text(json.dumps({"collection_id": "a", "licence": "b"}))
    result = invoke(tmp_path / "in", "--to", tmp_path / "c.duckdb", "--facts", tmp_path / "facts.json")
    assert "licence: no such fact" in str(result.exception)


def test_the_program_ends_with_the_code_and_one_line_per_failure(tmp_path) -> None:
    write_header(tmp_path / "in", slide_header())
    arguments = [
        sys.executable,
        "-m",
        "coverslip",
        "index",
        str(tmp_path / "in"),
        "--to",
        str(tmp_path / "no" / "c.duckdb"),
    ]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False, env=os.environ)
    assert ended.returncode == 7
    assert ended.stderr == f"error: {tmp_path}/no: no such folder\n"
