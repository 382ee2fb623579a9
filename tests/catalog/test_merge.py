from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from pyarrow import parquet

from coverslip.catalog.duckdb_writer import merge_folder
from coverslip.catalog.index import IndexRequest, index_paths
from coverslip.catalog.merge import NewVersion
from coverslip.catalog.schema import arrow_schema, baseline_fields
from coverslip.errors import CatalogError, UsageError
from tests.factories.headers import slide_header, write_header

ROOT = Path(__file__).resolve().parents[2]

# Merges a folder of shards and is killed, or waits, at a step of it.
AT_A_STEP = """
import os, signal, sys
from pathlib import Path
from coverslip.catalog import merge
from coverslip.catalog.database import open_catalog
from coverslip.catalog.staging import list_shards

def on_step(step):
    if step != sys.argv[3]:
        return
    if sys.argv[4] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    print("there", flush=True)
    sys.stdin.read()

with open_catalog(Path(sys.argv[2])) as connection:
    merge.merge_shards(connection, list_shards(Path(sys.argv[1])), on_step=on_step)
"""


def shard(tmp_path: Path, name: str, *series: str, prune: bool = False, **attributes) -> None:
    """Write the shard of some series of two instances."""
    for each in series:
        for number in (1, 2):
            write_header(tmp_path / name, slide_header(each, number, **attributes))
    request = IndexRequest((str(tmp_path / name),), f"parquet:{tmp_path / 'shards'}", shard=name, prune=prune)
    assert index_paths(request).exit_code == 0


def merge(tmp_path: Path, **options):
    return merge_folder(tmp_path / "shards", tmp_path / "catalog.duckdb", NewVersion(), **options)


@pytest.fixture(autouse=True)
def _narrow(narrow_schema: None) -> None:
    """Few columns."""


def test_shards_are_merged_into_one_version(tmp_path, ask) -> None:
    shard(tmp_path, "a", "1.2.3")
    shard(tmp_path, "b", "1.2.4", KVP="120")
    outcome = merge(tmp_path)
    assert (outcome.merge.new, outcome.merge.version, outcome.failures) == (4, 1, ())
    assert outcome.merge.added_columns == [name for (name,) in ask("SELECT path FROM schema_changes ORDER BY rowid")]
    assert ask("SELECT SeriesInstanceUID, instanceCount FROM idc_index ORDER BY 1") == [("1.2.3", 2), ("1.2.4", 2)]
    assert ask("SELECT SOPInstanceUID, KVP FROM dicom_metadata ORDER BY 1") == [
        ("1.2.3.1", None),
        ("1.2.3.2", None),
        ("1.2.4.1", "120"),
        ("1.2.4.2", "120"),
    ]
    before = (tmp_path / "catalog.duckdb").read_bytes()
    assert merge(tmp_path).merge.unchanged == 4
    assert (tmp_path / "catalog.duckdb").read_bytes() == before


def test_shards_that_contradict_each_other_are_told_whatever_their_order(tmp_path, ask) -> None:
    shard(tmp_path, "b", "1.2.3", PatientID="P2")
    shard(tmp_path, "a", "1.2.3")
    outcome = merge(tmp_path)
    reason = "SOP Instance UID 1.2.3.1 with other content than {}; left out"
    assert outcome.failures[0].location == f"{tmp_path}/b/1.2.3.1.dcm"
    assert outcome.failures[0].reason == reason.format(f"{tmp_path}/a/1.2.3.1.dcm")
    assert ask("SELECT DISTINCT PatientID FROM dicom_metadata") == [("P1",)]


def test_a_shard_retires_what_is_gone_below_its_own_path(tmp_path, ask) -> None:
    shard(tmp_path, "a", "1.2.3")
    shard(tmp_path, "b", "1.2.4")
    merge(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder / ("1.2.3.1.dcm" if folder == "a" else "1.2.4.1.dcm")).unlink()
    request = IndexRequest((str(tmp_path / "a"),), f"parquet:{tmp_path / 'shards'}", shard="a", prune=True)
    index_paths(request)
    assert merge(tmp_path).merge.retired == 1
    assert ask("SELECT SOPInstanceUID FROM instances ORDER BY 1") == [("1.2.3.2",), ("1.2.4.1",), ("1.2.4.2",)]


def test_a_shard_appears_whole_and_replaces_the_one_of_the_same_paths(tmp_path) -> None:
    write_header(tmp_path / "in", slide_header())
    request = IndexRequest((str(tmp_path / "in"),), f"parquet:{tmp_path / 'shards'}")
    first = index_paths(request).outcome.place
    write_header(tmp_path / "in", slide_header("1.2.4"))
    assert index_paths(request).outcome.place == first
    assert [path.name for path in (tmp_path / "shards").iterdir()] == [Path(first).name]
    assert parquet.read_table(Path(first) / "dicom_metadata-00000.parquet").num_rows == 2


def test_a_part_of_a_shard_has_every_pinned_column(tmp_path, monkeypatch) -> None:
    shard(tmp_path, "a", "1.2.3")
    from coverslip.catalog.columns import baseline_fields as pinned

    schema = parquet.read_schema(tmp_path / "shards" / "a" / "dicom_metadata-00000.parquet")
    expected = arrow_schema(pinned())
    assert [schema.field(name).type for name in expected.names if name != "OtherElements"] == [
        expected.field(name).type for name in expected.names if name != "OtherElements"
    ]
    assert len(pinned()) < len(baseline_fields())


def test_a_folder_without_shards_or_with_a_broken_one_is_an_error_and_nothing_is_written(tmp_path) -> None:
    (tmp_path / "shards").mkdir()
    with pytest.raises(CatalogError, match="no shards"):
        merge(tmp_path)
    shard(tmp_path, "a", "1.2.3")
    (tmp_path / "shards" / "a" / "series-00000.parquet").unlink()
    with pytest.raises(CatalogError, match=r"series-00000\.parquet is missing"):
        merge(tmp_path)
    assert not (tmp_path / "catalog.duckdb").exists()
    with pytest.raises(UsageError, match="give it to the merge"):
        index_paths(IndexRequest((str(tmp_path / "a"),), f"parquet:{tmp_path / 'shards'}", NewVersion(3)))


def test_a_part_that_is_no_parquet_leaves_the_catalog_as_it_was(tmp_path, ask) -> None:
    shard(tmp_path, "a", "1.2.3")
    merge(tmp_path)
    shard(tmp_path, "b", "1.2.4")
    (tmp_path / "shards" / "b" / "dicom_metadata-00000.parquet").write_bytes(b"PAR1" * 10)
    with pytest.raises(CatalogError):
        merge(tmp_path)
    assert ask("SELECT SeriesInstanceUID FROM idc_index") == [("1.2.3",)]


@pytest.mark.parametrize("step", ["comparing", "writing", "deriving"])
def test_a_merge_that_is_killed_leaves_the_state_before(tmp_path, ask, step: str) -> None:
    shard(tmp_path, "a", "1.2.3")
    merge(tmp_path)
    shard(tmp_path, "b", "1.2.4", KVP="120")
    with at_a_step(tmp_path, step, "die") as killed:
        assert killed.wait(timeout=120) == -signal.SIGKILL
    assert ask("SELECT SeriesInstanceUID FROM idc_index") == [("1.2.3",)]
    assert ask("SELECT version FROM versions") == [(1,)]
    assert merge(tmp_path).merge.new == 2
    assert ask("SELECT SeriesInstanceUID, series_init_idc_version FROM idc_index ORDER BY 1") == [
        ("1.2.3", 1),
        ("1.2.4", 2),
    ]


def test_a_first_merge_that_is_killed_leaves_a_file_that_the_next_can_use(tmp_path, ask) -> None:
    shard(tmp_path, "a", "1.2.3")
    with at_a_step(tmp_path, "deriving", "die") as killed:
        assert killed.wait(timeout=120) == -signal.SIGKILL
    assert merge(tmp_path).merge.new == 2
    assert ask("SELECT SeriesInstanceUID FROM idc_index") == [("1.2.3",)]


def at_a_step(tmp_path: Path, step: str, what: str) -> subprocess.Popen[str]:
    places = [str(tmp_path / "shards"), str(tmp_path / "catalog.duckdb")]
    arguments = [sys.executable, "-c", AT_A_STEP, *places, step, what]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_writers_of_one_catalog_wait_for_each_other_or_say_so(tmp_path, ask) -> None:
    shard(tmp_path, "a", "1.2.3")
    with at_a_step(tmp_path, "writing", "wait") as other:
        assert other.stdout.readline() == "there\n"
        message = re.escape(f"{tmp_path}/catalog.duckdb: in use by another process for more than 0.2 s")
        with pytest.raises(CatalogError, match=message):
            merge(tmp_path, wait_s=0.2)
        write_header(tmp_path / "b", slide_header("1.2.4"))
        arguments = ["index", str(tmp_path / "b"), "--to", str(tmp_path / "catalog.duckdb"), "--wait", "60"]
        waiting = subprocess.Popen([sys.executable, "-m", "coverslip", *arguments], stdout=subprocess.PIPE, text=True)
        with waiting:
            other.stdin.close()
            assert other.wait(timeout=120) == 0
            assert waiting.wait(timeout=120) == 0
    assert ask("SELECT SeriesInstanceUID, series_init_idc_version FROM idc_index ORDER BY 1") == [
        ("1.2.3", 1),
        ("1.2.4", 2),
    ]


def test_readers_see_the_state_before_while_a_catalog_is_not_open(tmp_path) -> None:
    shard(tmp_path, "a", "1.2.3")
    merge(tmp_path)
    with duckdb.connect(str(tmp_path / "catalog.duckdb"), read_only=True) as reader:
        with pytest.raises(CatalogError, match="in use by another process"):
            at_other_process(tmp_path)
        assert reader.execute("SELECT count(*) FROM idc_index").fetchall() == [(1,)]


def at_other_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from coverslip.catalog.duckdb_writer import merge_folder; "
        "from coverslip.catalog.merge import NewVersion; from coverslip.errors import CatalogError\n"
        "try: merge_folder(Path(sys.argv[1]), Path(sys.argv[2]), NewVersion(), wait_s=0.1)\n"
        "except CatalogError as error: sys.exit(str(error))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "shards"), str(tmp_path / "catalog.duckdb")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode:
        raise CatalogError(ended.stderr.strip())
