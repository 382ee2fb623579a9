"""Processes that are lost, and budgets that slides must fit into."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from coverslip.errors import StoreError
from coverslip.pipeline.budget import Budget, Estimator
from coverslip.pipeline.manifest import Slide
from coverslip.pipeline.worker_pool import Lost, WorkerPool

MIB = 1 << 20
GIB = 1 << 30
ROOM = Budget(1, GIB, GIB)


@contextmanager
def echo(_context: object) -> Iterator[Callable[[Any, Callable[[Any], None]], None]]:
    """Tell a job back, and end by the signal that it names."""

    def serve(job: Any, tell: Callable[[Any], None]) -> None:
        tell(f"begun {job}")
        if isinstance(job, int):
            os.kill(os.getpid(), job)
            time.sleep(60)
        tell("done")

    yield serve


def told_by(pool: WorkerPool, until: Callable[[Any], bool]) -> list[Any]:
    """Return what is told, up to the first message that is looked for."""
    found = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for worker, message in pool.wait():
            found.append(message)
            if until(message):
                worker.job = None
                return found
    pytest.fail(f"only {found}")


def test_worker_that_is_killed_is_told_and_replaced() -> None:
    pool = WorkerPool(echo, None, 1, ROOM)
    try:
        first = pool.idle()
        assert first is not None
        first.submit(int(signal.SIGKILL))
        found = told_by(pool, lambda message: isinstance(message, Lost))
        assert found[0] == f"begun {int(signal.SIGKILL)}"
        assert "SIGKILL; the memory may not suffice" in str(found[-1])
        second = pool.idle()
        assert second is not None
        assert second is not first
        second.submit("slide")
        assert told_by(pool, lambda message: message == "done") == ["begun slide", "done"]
        assert pool.resident_bytes() > MIB
    finally:
        pool.stop(10)


def test_pool_that_is_stopped_leaves_no_process() -> None:
    pool = WorkerPool(echo, None, 1, ROOM)
    worker = pool.idle()
    assert worker is not None
    worker.submit("slide")
    told_by(pool, lambda message: message == "done")
    pid = worker.process.pid
    pool.stop(10)
    assert not psutil.pid_exists(pid)


def test_worker_may_be_retired_by_whoever_is_told() -> None:
    pool = WorkerPool(echo, None, 1, ROOM)
    try:
        worker = pool.idle()
        assert worker is not None
        worker.submit("slide")
        for _ in range(200):
            for told, message in pool.wait():
                if message == "done":
                    told.job = None
                    pool.retire(told)
            if not pool.workers:
                break
        assert not pool.workers
        assert worker.process.exitcode == 0
    finally:
        pool.stop(10)


def slide_of(size_bytes: int | None, location: str = "/data/slide.svs") -> Slide:
    return Slide("0" * 40, 3, "slide.svs", location, size_bytes=size_bytes)


def test_large_slides_are_given_more_threads_and_memory() -> None:
    estimator = Estimator(Budget(16, 8 * GIB, 100 * GIB), 64 * MIB)
    small, large = estimator.need_of(slide_of(10 * MIB)), estimator.need_of(slide_of(4 * GIB))
    assert small.threads == 1
    assert 2 <= large.threads <= 16
    assert large.memory_bytes > small.memory_bytes


def test_scratch_is_source_and_output_and_a_tenth() -> None:
    estimator = Estimator(Budget(2, GIB, GIB), 64 * MIB, output_ratio=1.0)
    assert estimator.need_of(slide_of(100 * MIB)).scratch_bytes == 110 * MIB
    assert estimator.need_of(slide_of(100 * MIB, "gs://bucket/slide.svs")).scratch_bytes == 220 * MIB


def test_slide_that_cannot_fit_is_named_by_its_row() -> None:
    estimator = Estimator(Budget(2, GIB, GIB), 64 * MIB)
    estimator.require_disk([slide_of(100 * MIB)])
    with pytest.raises(StoreError, match="slide 3 of the manifest needs"):
        estimator.require_disk([slide_of(100 * MIB), slide_of(2 * GIB)])


def test_estimates_grow_with_what_was_seen() -> None:
    estimator = Estimator(Budget(2, GIB, GIB), 64 * MIB)
    before = estimator.need_of(slide_of(100 * MIB))
    estimator.learn(before, before.memory_bytes // 2)
    assert estimator.need_of(slide_of(100 * MIB)) == before
    estimator.learn(before, 2 * before.memory_bytes)
    assert estimator.need_of(slide_of(100 * MIB)).memory_bytes == pytest.approx(2 * before.memory_bytes, rel=0.01)


def test_memory_of_a_slide_of_unknown_size_is_that_of_a_usual_one(tmp_path: Path) -> None:
    estimator = Estimator(Budget(2, GIB, GIB), 64 * MIB)
    assert estimator.need_of(slide_of(None)) == estimator.need_of(slide_of(350 * MIB))
