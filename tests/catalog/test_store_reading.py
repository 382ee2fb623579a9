"""Headers from stores: buckets by ranges of bytes, services by their metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from coverslip.catalog.store_reading import is_store_url
from coverslip.cli import cli
from coverslip.stores.base import InstanceUids, LocalInstance
from coverslip.stores.options import RetryPolicy, StoreOptions
from coverslip.stores.registry import open_store
from coverslip.uuids import instance_uuid
from tests.factories.headers import slide_header, write_header
from tests.stores.fakes.dicomweb import StrictDicomWeb
from tests.stores.fakes.gcs import StrictGcs

pytestmark = pytest.mark.usefixtures("narrow_schema")

QUICK = StoreOptions(retry=RetryPolicy(attempts=2, first_wait_s=0.001, longest_wait_s=0.002, seed=1))
COLUMNS = "SOPInstanceUID, instance_uuid, instance_size, instance_hash, collection_id, license_short_name"


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictGcs]:
    with StrictGcs() as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield gcs


@pytest.fixture
def service() -> Iterator[StrictDicomWeb]:
    with StrictDicomWeb() as service:
        yield service


def local(path: Path, uids: InstanceUids, name: str) -> LocalInstance:
    data = path.read_bytes()
    return LocalInstance(path, uids, "", "", len(data), hashlib.md5(data, usedforsecurity=False).hexdigest(), name)


def put_series(store, series: Path) -> None:
    """Put a converted series as an upload names its objects, and its record beside them."""
    record = json.loads((series / "conversion.json").read_text())
    for each in record["instances"]:
        uids = InstanceUids(record["study_instance_uid"], record["series_instance_uid"], each["sop_instance_uid"])
        name = f"{record['series_uuid']}/{each['instance_uuid']}.dcm"
        path = series / each["file_name"]
        store.put(LocalInstance(path, uids, "", each["transfer_syntax_uid"], each["size_bytes"], each["md5"], name))
    if hasattr(store, "put_bytes"):
        store.put_bytes(f"{record['series_uuid']}/conversion.json", (series / "conversion.json").read_bytes())
        store.put_bytes("manifest.json", b"{}")


def test_a_bucket_gives_the_rows_of_the_files_and_where_they_lie(gcs, index, ask, tcga_series, tmp_path) -> None:
    index(tcga_series, to=str(tmp_path / "local.duckdb"))
    with open_store("gs://bucket/slides", QUICK) as store:
        put_series(store, tcga_series)
        report = index(stores=(store,))
        again = index(stores=(store,))
    assert report.failures == ()
    assert again.outcome.merge.unchanged == report.outcome.merge.new > 3
    query = f"SELECT {COLUMNS} FROM auxiliary_metadata ORDER BY 1"
    assert ask(query) == ask(query, file="local.duckdb")
    headers = "SELECT * FROM dicom_metadata ORDER BY SOPInstanceUID"
    assert ask(headers) == ask(headers, file="local.duckdb")
    ((gcs_url, bucket, aws_url, series_url, uuid, series_uuid),) = ask(
        "SELECT gcs_url, gcs_bucket, aws_url, series_gcs_url, instance_uuid, series_uuid FROM auxiliary_metadata "
        "ORDER BY SOPInstanceUID LIMIT 1"
    )
    assert (gcs_url, bucket, aws_url) == (f"gs://bucket/slides/{series_uuid}/{uuid}.dcm", "bucket", None)
    assert series_url == f"gs://bucket/slides/{series_uuid}/"
    assert ask("SELECT validation_mode, len(instances) > 3 FROM conversions") == [("fast", True)]


def test_only_the_header_of_an_object_is_asked_for_in_growing_ranges(gcs, index, ask, tmp_path) -> None:
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.ICCProfile = bytes(300_000)
    frames = [Dataset() for _ in range(2)]
    ds = slide_header(OpticalPathSequence=Sequence([path]), PerFrameFunctionalGroupsSequence=Sequence(frames))
    file = write_header(tmp_path, ds)
    data = file.read_bytes()
    end = data.rindex(b"\xe0\x7f\x10\x00")
    pixels = bytes(5_000_000)
    whole = data[: end + 12] + b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0" + len(pixels).to_bytes(4, "little")
    file.write_bytes(whole + pixels + b"\xfe\xff\xdd\xe0\0\0\0\0")
    uids = InstanceUids("1.2.9", "1.2.3", "1.2.3.1")
    with open_store("gs://bucket", QUICK) as store:
        store.put(local(file, uids, "a/b.dcm"))
        asked: list[tuple[int, int]] = []
        whole_range = store.read_range

        def read_range(stored, offset_bytes: int, length_bytes: int) -> bytes:
            asked.append((offset_bytes, length_bytes))
            return whole_range(stored, offset_bytes, length_bytes)

        store.read_range = read_range
        assert index(stores=(store,)).failures == ()
    assert ask("SELECT len(OpticalPathSequence) FROM dicom_metadata") == [(1,)]
    assert asked[0] == (0, 32 * 1024)
    assert len(asked) < 6
    assert sum(length for _, length in asked) < 800_000


def test_a_service_gives_the_rows_of_the_files_by_its_metadata(service, index, ask, tcga_series, tmp_path) -> None:
    index(tcga_series, to=str(tmp_path / "local.duckdb"))
    with open_store(f"dicomweb+{service.dicomweb_url}", QUICK) as store:
        put_series(store, tcga_series)
        report = index(stores=(store,))
    assert report.failures == ()
    assert report.outcome.merge.new > 3
    for table in ("sm_index", "sm_channel_index", "sm_specimen_index"):
        query = f"SELECT * FROM {table} ORDER BY ALL"
        assert ask(query) == ask(query, file="local.duckdb"), table
    columns = "SOPInstanceUID, PatientName, ImageType, StudyDate, TotalPixelMatrixColumns, OtherElements"
    query = f"SELECT {columns} FROM dicom_metadata ORDER BY 1"
    assert ask(query) == ask(query, file="local.duckdb")
    assert ask("SELECT DISTINCT instance_size, instance_hash, series_uuid FROM auxiliary_metadata") == [(None,) * 3]


def test_a_service_and_the_files_that_were_sent_there_are_the_same_instances(service, index, ask, tcga_series) -> None:
    index(tcga_series)
    with open_store(f"dicomweb+{service.dicomweb_url}", QUICK) as store:
        put_series(store, tcga_series)
        report = index(stores=(store,))
    assert (report.outcome.merge.new, report.outcome.merge.changed, report.outcome.merge.version) == (0, 0, 1)
    assert ask("SELECT count(*) FROM instances WHERE instance_hash IS NULL") == [(0,)]


def test_an_object_that_cannot_be_read_is_told_and_the_others_are_indexed(gcs, index, ask, tcga_series) -> None:
    with open_store("gs://bucket/slides", QUICK) as store:
        put_series(store, tcga_series)
        store.put_bytes("broken.dcm", b"x" * 300)
        report = index(stores=(store,))
        (failure,) = report.failures
        assert failure.location == "gs://bucket/slides/broken.dcm"
        assert (failure.reason, failure.exit_code) == ("no DICOM file: there is no DICM at byte 128", 3)
        known = report.outcome.merge.new
        for stored in list(store.iter_objects()):
            if stored.location.endswith("broken.dcm"):
                store.remove(stored)
        pruned = index(stores=(store,), prune=True)
    assert (pruned.outcome.merge.unchanged, pruned.outcome.merge.retired) == (known, 0)


def test_what_is_gone_from_a_bucket_is_retired_when_asked(gcs, index, ask, tcga_series) -> None:
    with open_store("gs://bucket/slides", QUICK) as store:
        put_series(store, tcga_series)
        index(stores=(store,))
        gone = next(stored for stored in store.iter_objects() if stored.location.endswith(".dcm"))
        store.remove(gone)
        assert index(stores=(store,), prune=True).outcome.merge.retired == 1
    assert ask("SELECT count(*) FROM instances WHERE location = ?", [gone.location]) == [(0,)]


def test_uuids_come_from_names_where_no_digest_is_known(gcs, index, ask, tmp_path) -> None:
    file = write_header(tmp_path, slide_header())
    uuids = instance_uuid("a", ""), instance_uuid("b", "")
    with open_store("gs://bucket", QUICK) as store:
        store.put(local(file, InstanceUids("1", "2", "3"), f"{uuids[0]}/{uuids[1]}.dcm"))
        listed = store.iter_objects

        def without_digest(prefix: str = ""):
            return (replace(stored, md5=None) for stored in listed(prefix))

        store.iter_objects = without_digest
        index(stores=(store,))
    assert ask("SELECT series_uuid, instance_uuid, instance_hash FROM auxiliary_metadata") == [(*uuids, None)]


def test_the_command_reads_urls_and_folders_together(gcs, ask, tcga_series, tmp_path) -> None:
    with open_store("gs://bucket/slides", QUICK) as store:
        put_series(store, tcga_series)
    write_header(tmp_path / "in", slide_header())
    arguments = ["index", (tmp_path / "in").as_uri(), "gs://bucket/slides", "--to", str(tmp_path / "catalog.duckdb")]
    result = CliRunner().invoke(cli, [*arguments, "--credentials", "none", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["new"] == 1 + len(list(tcga_series.glob("*.dcm")))
    assert ask("SELECT count(*) FROM idc_index") == [(2,)]


def test_a_store_that_does_not_answer_is_an_error_of_the_store(gcs, tmp_path) -> None:
    arguments = ["index", "gs://no-such-bucket", "--to", str(tmp_path / "catalog.duckdb"), "--credentials", "none"]
    result = CliRunner().invoke(cli, arguments)
    assert getattr(result.exception, "exit_code", None) == 6
    assert not (tmp_path / "catalog.duckdb").exists()


def test_paths_are_told_from_urls() -> None:
    assert [is_store_url(each) for each in ("gs://b", "s3://b/c", "dicomweb+https://h/p", "healthcare://a/b/c/d")] == [
        True
    ] * 4
    assert not any(is_store_url(each) for each in ("out", "./gs:/x", "file:///", "C:\\slides", "a:b"))
