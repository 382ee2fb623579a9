from __future__ import annotations

import duckdb
import pytest

from coverslip.catalog.bigquery.client import open_dataset
from coverslip.catalog.bigquery.place import parse_place
from tests.catalog.bigquery.conftest import PLACE
from tests.factories.headers import slide_header, write_header


def ask(query: str) -> list[dict]:
    with open_dataset(parse_place(PLACE)) as dataset:
        return dataset.run(query)


def test_first(tmp_path, server, index_both):
    write_header(tmp_path / "in", slide_header("1.2.3", 1))
    write_header(tmp_path / "in", slide_header("1.2.3", 2))
    report = index_both(tmp_path / "in")
    print(report)
    print(ask("SELECT * FROM slides.idc_index"))
    report = index_both(tmp_path / "in")
    print(report)
    assert 0
