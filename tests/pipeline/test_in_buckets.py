"""Slides, series and the state of a run, all of them in a bucket of Google's."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pipeline.conftest import coverslip, write_slide
from tests.stores.fakes.gcs import StrictGcs

from coverslip.stores.base import ObjectStore
from coverslip.stores.options import Anonymous, StoreOptions
from coverslip.stores.registry import open_store


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
