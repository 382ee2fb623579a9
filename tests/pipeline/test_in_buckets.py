"""Slides, series and the state of a run, all of them in buckets."""

from __future__ import annotations

import hashlib
import logging
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pipeline.conftest import coverslip, write_slide
from tests.stores.fakes.gcs import StrictGcs

from coverslip.errors import SourceError
from coverslip.metadata_maps.check import is_slide_name
from coverslip.pipeline.fetch import Fetcher
from coverslip.pipeline.manifest import Checksums, Slide, list_bucket
from coverslip.stores.base import ObjectStore
from coverslip.stores.options import Anonymous, StoreOptions
from coverslip.stores.registry import open_store


@pytest.fixture
def s3_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A bucket of S3, as moto serves it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    with urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT"), timeout=10):
        pass
    with open_store("s3://bucket", StoreOptions()) as store:
        assert isinstance(store, ObjectStore)
        yield store
    server.stop()


def test_slides_of_s3_come_with_their_folders_and_as_the_manifest_states(
    s3_bucket: ObjectStore, tmp_path: Path
) -> None:
    files = {"x/m.mrxs": b"index", "x/m/Slidedat.ini": b"[x]", "x/m/Data0000.dat": b"1" * 5000, "x/n.svs": b"2" * 70}
    for name, data in files.items():
        s3_bucket.put_bytes(name, data)
    listed = list_bucket("s3://bucket/x", s3_bucket.iter_objects("x/"), is_slide_name)
    assert [(slide.name, slide.size_bytes) for slide in listed] == [("m.mrxs", 5008), ("n.svs", 70)]
    fetcher = Fetcher(StoreOptions())
    try:
        path = fetcher.fetch(listed[0], tmp_path / "source")
        here = {each.relative_to(path.parent).as_posix(): each for each in path.parent.rglob("*") if each.is_file()}
        assert {f"x/{name}": each.read_bytes() for name, each in here.items()} == {
            name: data for name, data in files.items() if name.startswith("x/m")
        }
        good = Slide("0" * 40, 1, "n", "s3://bucket/x/n.svs", checksums=Checksums(hashlib.md5(b"2" * 70).hexdigest()))
        assert fetcher.fetch(good, tmp_path / "other").read_bytes() == b"2" * 70
        ranges = fetcher.open_ranges(good)
        assert (ranges.size, ranges.read(60, 10)) == (70, b"2" * 10)
        bad = Slide("0" * 40, 1, "n", "s3://bucket/x/n.svs", checksums=Checksums(sha256="00"))
        for attempt in (lambda: fetcher.fetch(bad, tmp_path / "bad"), lambda: fetcher.open_ranges(bad)):
            with pytest.raises(SourceError, match="the manifest says 00"):
                attempt()
    finally:
        fetcher.close()


def test_bucket_is_run_from_and_to_and_tells_how_far_it_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StrictGcs() as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        with open_store("gs://bucket/slides", StoreOptions(credentials=Anonymous())) as slides:
            assert isinstance(slides, ObjectStore)
            for seed in range(2):
                data = write_slide(tmp_path / "slide.svs", seed).read_bytes()
                slides.put_bytes(f"case {seed}/slide.svs", data)
        run = ["run", "gs://bucket/slides", "--to", "gs://bucket/dicom", "--state", "gs://bucket/run", "--engine",
               "shard", "--shard", "0/1", "--catalog", "catalog", "--work", tmp_path / "work", "--validate", "off",
               "--json", "--credentials", "none", "--source-credentials", "none"]  # fmt: skip
        done = coverslip(*run, STORAGE_EMULATOR_HOST=gcs.url)
        assert (done.code, done.told["done"]) == (0, 2), done.err
        assert not list((tmp_path / "work" / "scratch").iterdir())
        again = coverslip(*run, STORAGE_EMULATOR_HOST=gcs.url)
        assert again.told["done_before"] == 2
        status = coverslip(
            "status", "gs://bucket/run", "--credentials", "none", "--json", STORAGE_EMULATOR_HOST=gcs.url
        )
        assert (status.told["done"], status.told["stages"][0]["stage"]) == (2, "fetch")
        catalog = tmp_path / "catalog.duckdb"
        collected = coverslip(
            "collect", "gs://bucket/run", "--catalog", catalog, "--credentials", "none", STORAGE_EMULATOR_HOST=gcs.url
        )
        assert collected.code == 0, collected.err
    import duckdb

    with duckdb.connect(str(catalog), read_only=True) as connection:
        urls = [url for (url,) in connection.execute("SELECT gcs_url FROM auxiliary_metadata").fetchall()]
    assert len(urls) >= 4
    assert all(url.startswith("gs://bucket/dicom/") for url in urls)
