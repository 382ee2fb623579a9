"""What a worker of Dask does with slides: the same chain as anywhere, in a folder of its own, and what it gives back.

A worker may be on a machine that shares nothing with that of the run. So what it writes down of series and instances
and the rows for the catalog are part of what it returns, and the run, which alone writes its ledger, takes them over.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from coverslip import __version__
from coverslip.errors import UsageError
from coverslip.pipeline.budget import available_memory, free_disk
from coverslip.pipeline.failures import Problem
from coverslip.pipeline.ledger import Kind, Record, Stage, Tombstone
from coverslip.pipeline.run_plan import RunPlan
from coverslip.pipeline.serving import SWITCH_INTERVAL_S
from coverslip.pipeline.slide_job import (
    SlideEnded,
    SlideEvent,
    SlideJob,
    StageEnded,
    StageStarted,
    Workshop,
    run_slide,
)

__all__ = [
    "MEMORY",
    "SCRATCH",
    "THREADS",
    "SlideBench",
    "SlideReturned",
    "WorkOrder",
    "event_as_values",
    "event_from_values",
    "work_on_slide",
]

MEMORY, SCRATCH, THREADS = "coverslip-memory", "coverslip-scratch", "coverslip-threads"
"""Resources of workers: bytes, bytes, and threads."""

_MEMORY_SHARE = 0.75
"""Of a worker's limit; above 80 % Dask gives it nothing to do, above 95 % it is ended."""

_EVENTS = {kind.__name__: kind for kind in (StageStarted, StageEnded)}


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """What all workers are told of a run; holds no secret.

    Parameters
    ----------
    name : str
        Of the plugin that a worker keeps it in, and of the topic that it tells events under.
    plan : RunPlan
        Its folder is that of the run, which a worker may not see.
    tombstones : tuple of Tombstone
        Series that may not be delivered.
    scratch_bytes : int or None
        For the slides of one worker; by default what its disk has free.
    version : str
        Of the coverslip that asks.
    """

    name: str
    plan: RunPlan
    tombstones: tuple[Tombstone, ...] = ()
    scratch_bytes: int | None = None
    version: str = __version__


@dataclass(frozen=True, slots=True)
class SlideReturned:
    """What a worker gives back of a slide.

    Parameters
    ----------
    attempt : str
        Names this attempt, also in the events that were told meanwhile.
    events : tuple of SlideEvent
        All of them, for those that got lost on their way.
    records : tuple of Record
        Of series and instances in stores.
    part : mapping
        Files of rows for the catalog, by name.
    """

    attempt: str
    events: tuple[SlideEvent, ...]
    records: tuple[Record, ...] = ()
    part: Mapping[str, bytes] | None = None


class _AbandonedError(BaseException):
    """The run is over for this worker; what it does is of no use any more."""


class SlideBench(WorkerPlugin):  # type: ignore[misc]
    """Kept by each worker as long as the run goes on: what it needs to work on slides, for each of its threads.

    Parameters
    ----------
    order : WorkOrder
    """

    def __init__(self, order: WorkOrder) -> None:
        self.order = order
        self.name = order.name

    async def setup(self, worker: Worker) -> None:
        """Tell the scheduler what slides may take here."""
        # Read when numpy is loaded, which comes later: its linear algebra would start threads that spin.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._abandoned = threading.Event()
        self._own = threading.local()
        self._folder = Path(worker.local_directory) / self.name
        self._single = worker.state.nthreads == 1
        if self.order.version != __version__:
            # Without resources no slide would ever come here and tell.
            raise RuntimeError(f"coverslip {__version__}, the run has {self.order.version}")
        disk = free_disk(self._folder)
        limit = worker.memory_manager.memory_limit
        await worker.set_resources(
            **{
                MEMORY: int(limit * _MEMORY_SHARE) if limit else available_memory(),
                SCRATCH: min(disk, self.order.scratch_bytes or disk),
                THREADS: worker.state.nthreads,
            }
        )

    def teardown(self, worker: Worker) -> None:
        """Have what is under way end at its next stage."""
        self._abandoned.set()

    def work(self, job: SlideJob, tell: Callable[[dict[str, Any]], None]) -> SlideReturned:
        """Take a slide through all stages, in a folder that no other thread has."""
        attempt = secrets.token_hex(8)
        events: list[SlideEvent] = []

        def note(event: SlideEvent) -> None:
            if self._abandoned.is_set():
                raise _AbandonedError
            events.append(event)
            if not isinstance(event, SlideEnded):
                told = event_as_values(event)
                tell({"slide": job.slide.key, "attempt": attempt, "number": len(events) - 1, "event": told})

        problem = self._why_not()
        if problem is not None:
            return SlideReturned(attempt, (SlideEnded(job.slide.key, Stage.FETCH, "", problem),))
        shop = self._workshop()
        try:
            run_slide(job, shop, note)
        except _AbandonedError:
            self._close()
            return SlideReturned(attempt, ())
        if not self._single and isinstance(events[-1], SlideEnded):
            events[-1] = replace(events[-1], peak_bytes=0)  # of all threads together, which says nothing of one slide
        return SlideReturned(attempt, tuple(events), _take_records(shop), _take_part(shop.plan, job.slide.key))

    def _why_not(self) -> Problem | None:
        """Return why this worker cannot do the work, if it cannot."""
        plan = self.order.plan
        if self.order.version != __version__:
            message = f"the worker has coverslip {__version__}, the run {self.order.version}: wanted the same"
        elif (plan.keep or not plan.delivers) and not plan.work.is_dir():
            message = "series stay in the folder of the run, which the worker does not see: wanted a folder for both"
        else:
            return None
        return Problem(UsageError.__name__, message, exit_code=UsageError.exit_code)

    def _workshop(self) -> Workshop:
        shop: Workshop | None = getattr(self._own, "shop", None)
        if shop is None:
            plan = self.order.plan
            series = plan.kept_folder if plan.work.is_dir() else None
            work = self._folder / f"{threading.get_ident():x}"
            shop = self._own.shop = Workshop(replace(plan, work=work, series=series))
            for each in self.order.tombstones:
                shop.ledger.bury(each.series_instance_uid, each.reason, each.instances, complete=each.complete)
        return shop

    def _close(self) -> None:
        shop = self._own.shop
        with suppress(OSError):
            shop.__exit__(None, None, None)
        shutil.rmtree(shop.plan.work, ignore_errors=True)
        del self._own.shop


def work_on_slide(name: str, job: SlideJob) -> SlideReturned:
    """Work on a slide; the task that Dask gives to a worker."""
    worker = get_worker()
    bench: SlideBench = worker.plugins[name]
    return bench.work(job, lambda event: worker.log_event(name, event))


def _take_records(shop: Workshop) -> tuple[Record, ...]:
    """Return what was written down of a slide's series and instances; the next slide begins with nothing."""
    records = tuple(record for record in shop.ledger.iter_records() if record.task.kind is not Kind.SLIDE)
    for uid in {record.task.subject for record in records if record.task.kind is Kind.SERIES}:
        shop.ledger.forget_series(uid)
    return records


def _take_part(plan: RunPlan, key: str) -> dict[str, bytes] | None:
    folder = plan.parts_folder / key
    if not folder.is_dir():
        return None
    part = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder, ignore_errors=True)
    return part


def event_as_values(event: SlideEvent) -> dict[str, Any]:
    """Return an event as values that messages of Dask may hold."""
    return {"kind": type(event).__name__} | {name: _plain(value) for name, value in asdict(event).items()}


def event_from_values(values: Mapping[str, Any]) -> SlideEvent:
    """Return the event that a message tells."""
    fields = {name: value for name, value in values.items() if name != "kind"}
    event: SlideEvent = _EVENTS[values["kind"]](**fields | {"stage": Stage(fields["stage"])})
    return event


def _plain(value: object) -> object:
    return str(value) if isinstance(value, str) else value
