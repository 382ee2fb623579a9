"""The benchmark of searches runs, on a small catalog, and every search of it finds something."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.search_scale import VALUES, generate, measure

from coverslip.catalog.search_filters import FIELDS


def test_every_filter_and_facet_is_timed_on_a_generated_catalog(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "catalog.duckdb"
    generate(path, series=3000, slides=400)
    times = dict(measure(path))
    assert {f"filter {name}" for name in FIELDS} | {f"facet {name}" for name in FIELDS if FIELDS[name].facet} < set(
        times
    )
    assert list(VALUES) == list(FIELDS)
    lines = capsys.readouterr().err.splitlines()
    nothing = {
        "filter size",
        "filter megabytes",
        "filter container",
        "with CT",
        "with CT and PT, and their series",
    }  # rarer than so few
    found_nothing = {line.split(" s   ")[1][:36].strip() for line in lines if "  0 slides" in line}
    assert found_nothing <= nothing | {"all of stain, anatomy, embedding"}
