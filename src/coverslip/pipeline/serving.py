"""What a worker process of a run does: slides, and rows to be merged; and the processes of one machine."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coverslip.pipeline.budget import Budget
from coverslip.pipeline.catalog_parts import merge_parts
from coverslip.pipeline.fetch import is_remote
from coverslip.pipeline.manifest import Slide
from coverslip.pipeline.run_plan import RunPlan
from coverslip.pipeline.slide_job import Workshop, run_slide
from coverslip.pipeline.worker_pool import Pool, Serve, WorkerPool

__all__ = ["SWITCH_INTERVAL_S", "WORKERS_LOCK", "MergeJob", "local_pool", "serve_jobs"]

SWITCH_INTERVAL_S = 0.0005
"""Threads that need Python for some microseconds between decoding and encoding shall not wait 5 ms for it."""

WORKERS_LOCK = "workers.lock"


@dataclass(frozen=True, slots=True)
class MergeJob:
    """Rows of slides to be merged into the catalog."""

    parts: Path
    keys: tuple[str, ...]
    catalog: str


@contextmanager
def serve_jobs(plan: RunPlan) -> Iterator[Serve]:
    """Give what does the jobs of a run in a worker process."""
    # Read when numpy is loaded: its linear algebra, which nothing here uses, would start threads that spin for a while.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with _counted_worker(plan.work), Workshop(plan) as shop:

        def serve(job: Any, tell: Callable[[Any], None]) -> None:
            if isinstance(job, MergeJob):
                tell(merge_parts(job.parts, job.keys, job.catalog, plan.open_state))
            else:
                run_slide(job, shop, tell)

        yield serve


def local_pool(plan: RunPlan, budget: Budget, slides: Sequence[Slide], jobs: int) -> Pool:
    """Return processes on this machine, no more than there are jobs."""
    # A slide that is fetched or sent waits for the network, and leaves its core to another.
    waits = plan.delivers or any(map(is_remote, slides))
    room = replace(budget, threads=budget.threads + waits)
    return WorkerPool(serve_jobs, plan, max(1, min(room.threads, jobs)), room)


@contextmanager
def _counted_worker(work: Path) -> Iterator[None]:
    """Hold a lock as long as this process lives, so that a later run can wait for it."""
    lock = os.open(work / WORKERS_LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)
