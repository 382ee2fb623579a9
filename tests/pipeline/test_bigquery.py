"""Runs whose catalog is in BigQuery, with all columns that are pinned."""

from __future__ import annotations

from pathlib import Path

from tests.catalog.bigquery.fake.rest import StrictBigQuery
from tests.pipeline.conftest import Collection, coverslip, write_slide

PLACE = "bigquery://slide-project.slides"


def test_a_run_indexes_into_bigquery_and_the_next_one_repeats_nothing(tmp_path: Path) -> None:
    collection = Collection(tmp_path / "slides", tmp_path / "place")
    collection.slides.mkdir()
    write_slide(collection.slides / "slide-1.svs", 1)
    arguments = ["run", collection.slides, "--work", collection.work, "--to", collection.store, "--catalog", PLACE,
                 "--validate", "off", "--set", "PatientID=P1", "--json"]  # fmt: skip
    with StrictBigQuery() as server:
        done = coverslip(*arguments, BIGQUERY_EMULATOR_HOST=server.url, timeout=250)
        assert (done.code, done.told["done"]) == (0, 1), done.err
        held = server.db.execute('SELECT SOPInstanceUID, location FROM "slide-project.slides".instances').fetchall()
        assert len(held) == len(list(collection.store.rglob("*.dcm"))) > 0
        assert all(str(collection.store) in location for _, location in held)
        queries = len(server.queries)
        again = coverslip(*arguments, BIGQUERY_EMULATOR_HOST=server.url, timeout=250)
        assert (again.code, again.told["done_before"]) == (0, 1)
        assert len(server.queries) == queries
