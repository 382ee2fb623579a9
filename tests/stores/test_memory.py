"""Memory does not grow with the size of an instance; `make soak` shows it with 2 GB."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.stores import SERVICES, measure_put
from tests.factories.part10 import write_sparse_part10


@pytest.mark.parametrize("name", ["folder", "strict GCS", "strict STOW-RS"])
def test_memory_is_the_same_for_an_instance_ten_times_as_large(tmp_path: Path, name: str) -> None:
    with SERVICES[name](tmp_path) as service:
        small = measure_put(service, write_sparse_part10(tmp_path / "small", 12_000_000, number=1))
        large = measure_put(service, write_sparse_part10(tmp_path / "large", 120_000_000, number=2))
    assert large.size_mb > 9 * small.size_mb
    assert large.peak_mb - small.peak_mb < 20
    assert large.peak_mb < 120
