"""A data set of the strict fake, and the same shards in DuckDB to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from coverslip.catalog.bigquery import client, writer
from coverslip.catalog.bigquery.client import Parameter, open_dataset
from coverslip.catalog.bigquery.place import parse_place
from coverslip.catalog.index import IndexReport, IndexRequest, index_paths
from tests.catalog.bigquery.fake.rest import StrictBigQuery

PLACE = "bigquery://slide-project.slides"


def ask(query: str, parameters: Sequence[Parameter] = ()) -> list[dict[str, Any]]:
    """Ask the data set of this test, as any client of BigQuery."""
    with open_dataset(parse_place(PLACE)) as dataset:
        return dataset.run(query, parameters)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, narrow_schema: None) -> Iterator[StrictBigQuery]:
    monkeypatch.setattr(client, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(writer, "FIRST_WAIT_S", 0.01)
    with StrictBigQuery() as fake:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", fake.url)
        yield fake
        for message in fake.refused:
            print("refused:", message[:500])


@pytest.fixture
def index_both(tmp_path: Path, server: StrictBigQuery) -> Callable[..., IndexReport]:
    """Index paths into BigQuery and into DuckDB, and return what came of it in BigQuery."""

    def run(*paths: Path, **options: Any) -> IndexReport:
        texts = tuple(str(path) for path in paths)
        index_paths(IndexRequest(texts, str(tmp_path / "catalog.duckdb"), **options))
        return index_paths(IndexRequest(texts, PLACE, **options))

    return run
