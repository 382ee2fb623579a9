"""Writers that are killed, that come second, that are refused or cost too much."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from coverslip.catalog.bigquery.client import open_dataset
from coverslip.catalog.bigquery.place import parse_place
from coverslip.catalog.index import IndexRequest, index_paths
from coverslip.cli import cli
from coverslip.errors import CatalogError
from tests.catalog.bigquery.conftest import PLACE, ask
from tests.factories.headers import slide_header, write_header
from tests.stores.fakes.http_server import Fault

ROOT = Path(__file__).resolve().parents[3]

KILLED = """
import os, signal, sys
from coverslip.catalog import columns, database
from coverslip.catalog.bigquery.client import Dataset
from coverslip.catalog.index import IndexRequest, index_paths

fields = tuple(field for field in columns.baseline_fields() if field.name in sys.argv[3].split())
columns.baseline_fields = database.baseline_fields = lambda: fields
run = Dataset.run

def die_at_the_merge(self, sql, parameters=()):
    if sql.startswith("BEGIN TRANSACTION"):
        os.kill(os.getpid(), signal.SIGKILL)
    return run(self, sql, parameters)

Dataset.run = die_at_the_merge
index_paths(IndexRequest((sys.argv[1],), sys.argv[2]))
"""


def index(path: Path, to: str = PLACE, **options):
    return index_paths(IndexRequest((str(path),), to, **options))


@pytest.fixture
def indexed(tmp_path, server):
    """The fake with one slide in its catalog."""
    write_header(tmp_path / "in", slide_header("1.2.3", 1))
    index(tmp_path / "in")
    return server


def stagings(server) -> list[str]:
    return [name for _, _, name in server.tables if name.startswith("staging_")]


def test_indexing_again_writes_nothing_and_every_query_has_a_limit_and_no_table_is_left(tmp_path, indexed) -> None:
    assert stagings(indexed) == []
    before = len(indexed.queries), len(indexed.loads), indexed.count("PATCH")
    report = index(tmp_path / "in")
    assert (report.outcome.merge.unchanged, report.outcome.merge.version) == (1, 1)
    assert (len(indexed.loads), indexed.count("PATCH")) == before[1:]
    again = [each["query"]["query"] for each in indexed.queries[before[0] :]]
    assert [text for text in again if not text.startswith("SELECT ")] == []
    assert {each["query"].get("maximumBytesBilled") for each in indexed.queries} == {str(100 * 10**9)}
    assert all(each["query"]["useLegacySql"] is False for each in indexed.queries)


def test_tables_are_partitioned_and_clustered_and_reading_is_confined_to_partitions(tmp_path, indexed) -> None:
    made = indexed.tables["slide-project", "slides", "history_instances"].resource
    assert made["rangePartitioning"]["field"] == "series_bucket"
    assert made["clustering"]["fields"] == ["SeriesInstanceUID", "SOPInstanceUID"]
    write_header(tmp_path / "more", slide_header("1.2.4", 1))
    start = len(indexed.queries)
    index(tmp_path / "more")
    texts = [each["query"]["query"] for each in indexed.queries[start:]]
    merge = next(text for text in texts if text.startswith("BEGIN"))
    headers = next(line for line in merge.split(";\n") if "history_dicom_metadata` AS target" in line)
    assert "series_bucket` IN (" in headers
    # Headers are only added to: an UPDATE or DELETE would bill every column of their partitions.
    assert "UPDATE" not in headers
    assert "DELETE" not in headers


def test_a_merge_that_is_killed_leaves_the_state_before_and_the_next_one_ends_it(tmp_path, indexed) -> None:
    from tests.catalog.conftest import NARROW

    write_header(tmp_path / "in", slide_header("1.2.4", 1, KVP="120"))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "BIGQUERY_EMULATOR_HOST": indexed.url}
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "in"), PLACE, " ".join(NARROW)]
    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert stagings(indexed)  # they expire
    assert all(
        "expirationTime" in indexed.tables["slide-project", "slides", name].resource for name in stagings(indexed)
    )
    assert ask("SELECT SeriesInstanceUID FROM idc_index") == [{"SeriesInstanceUID": "1.2.3"}]
    assert ask("SELECT version FROM versions") == [{"version": 1}]
    assert index(tmp_path / "in").outcome.merge.new == 1
    assert ask("SELECT SeriesInstanceUID, KVP FROM dicom_metadata ORDER BY 1") == [
        {"SeriesInstanceUID": "1.2.3", "KVP": None},
        {"SeriesInstanceUID": "1.2.4", "KVP": "120"},
    ]
    assert [row["path"] for row in ask("SELECT path FROM schema_changes WHERE version = 2")] == ["KVP"]


def test_of_two_writers_the_second_computes_anew_from_what_the_first_has_written(tmp_path, indexed) -> None:
    write_header(tmp_path / "a", slide_header("1.2.4", 1))
    write_header(tmp_path / "b", slide_header("1.2.4", 2))

    def other_writer() -> None:
        indexed.before_script = lambda: None
        state = '"slide-project.slides"."catalog_state"'
        indexed.db.execute(f"UPDATE {state} SET generation = generation + 1")

    indexed.before_script = other_writer
    report = index(tmp_path / "a")
    assert report.outcome.merge.version == 2
    assert [each for each in indexed.refused if "another writer was first" in each]
    assert ask("SELECT generation FROM catalog_state") == [{"generation": 3}]
    index(tmp_path / "b")
    assert ask("SELECT SeriesInstanceUID, instanceCount, series_init_idc_version FROM idc_index ORDER BY 1") == [
        {"SeriesInstanceUID": "1.2.3", "instanceCount": 1, "series_init_idc_version": 1},
        {"SeriesInstanceUID": "1.2.4", "instanceCount": 2, "series_init_idc_version": 2},
    ]

    def always_other() -> None:
        indexed.db.execute('UPDATE "slide-project.slides"."catalog_state" SET generation = generation + 1')

    indexed.before_script = always_other
    write_header(tmp_path / "c", slide_header("1.2.5", 1))
    with pytest.raises(CatalogError, match="another writer has changed the catalog meanwhile"):
        index(tmp_path / "c", wait_s=0.0)


def test_answers_that_fail_or_get_lost_are_asked_for_again(tmp_path, indexed) -> None:
    error = json.dumps(
        {"error": {"code": 503, "errors": [{"reason": "backendError"}], "message": "try again"}}
    ).encode()
    jobs = "/bigquery/v2/projects/slide-project/jobs"
    indexed.faults += [
        Fault("POST", jobs, times=2, status=503, body=error, headers={"Content-Type": "application/json"}),
        Fault("POST", jobs, skip=3, times=1, drop_response=True),
        Fault("GET", "/bigquery/v2/projects/slide-project/queries", skip=1, times=1, drop_request=True),
    ]
    write_header(tmp_path / "in", slide_header("1.2.4", 1))
    assert index(tmp_path / "in").outcome.merge.new == 1
    assert len(ask("SELECT SeriesInstanceUID FROM idc_index")) == 2
    assert [fault.times for fault in indexed.faults] == [0, 0, 0]


def test_a_query_that_would_bill_more_than_is_allowed_is_not_run(tmp_path, indexed) -> None:
    write_header(tmp_path / "in", slide_header("1.2.4", 1))
    with pytest.raises(CatalogError, match="would bill more than 10 bytes, nothing was done: see --max-bytes-billed"):
        index(tmp_path / "in", f"{PLACE}?max_bytes_billed=10")
    assert len(ask("SELECT SeriesInstanceUID FROM idc_index")) == 1


def test_a_dry_run_tells_bytes_and_writes_nothing(tmp_path, indexed) -> None:
    write_header(tmp_path / "in", slide_header("1.2.4", 1))
    loads, changes = len(indexed.loads), indexed.count("POST", "/upload")
    result = CliRunner().invoke(cli, ["index", str(tmp_path / "in"), "--to", PLACE, "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)["bytes_processed"]
    assert told["history_instances"] > 0
    assert (len(indexed.loads), indexed.count("POST", "/upload")) == (loads, changes)
    assert len(ask("SELECT SeriesInstanceUID FROM idc_index")) == 1
    plain = CliRunner().invoke(cli, ["index", str(tmp_path / "in"), "--to", PLACE, "--dry-run"])
    assert f"{PLACE}: nothing was written; reading would process {sum(told.values()):,} bytes" in plain.stdout


def test_shards_of_several_machines_are_merged_in_one_transaction(tmp_path, server) -> None:
    for name in ("a", "b"):
        write_header(tmp_path / name, slide_header(f"1.2.{ord(name)}", 1))
        index(tmp_path / name, f"parquet:{tmp_path / 'shards'}", shard=name)
    arguments = ["index", "--merge", f"parquet:{tmp_path / 'shards'}", "--to", PLACE]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert f"{PLACE}: version 1: 2 new" in result.stdout
    assert ask("SELECT COUNT(*) AS series FROM idc_index") == [{"series": 2}]
    assert sum(each["query"]["query"].startswith("BEGIN") for each in server.queries) == 1


def test_what_is_not_permitted_or_not_there_is_told_without_values(tmp_path, server) -> None:
    body = json.dumps(
        {"error": {"code": 403, "errors": [{"reason": "accessDenied", "message": "SECRET"}], "message": "SECRET"}}
    ).encode()
    server.faults.append(
        Fault("GET", "/", times=1, status=403, body=body, headers={"Content-Type": "application/json"})
    )
    write_header(tmp_path / "in", slide_header("1.2.4", 1))
    with pytest.raises(CatalogError) as raised:
        index(tmp_path / "in")
    assert (
        str(raised.value) == f"{PLACE}: not permitted (accessDenied); docs/bigquery.md tells the roles that are needed"
    )
    with open_dataset(parse_place(PLACE)) as dataset, pytest.raises(CatalogError, match="not there, or no catalog"):
        dataset.run("SELECT 1 AS one FROM nothing_here")
