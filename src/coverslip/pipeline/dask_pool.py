"""Workers of Dask as places for slides: whatever stands behind a scheduler's address, on whatever machines.

Each slide is a task that asks for memory, scratch and threads, which workers have as resources (`dask_bench`). Dask
chooses the worker, and gives the slide to another when one is lost; what is tried again for other reasons is the
engine's to say. Rows are merged into the catalog by a process on this machine.
"""

from __future__ import annotations

import logging
import queue
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from distributed import Client, Future, KilledWorker

from coverslip.errors import StoreError
from coverslip.pipeline.budget import Budget, Need
from coverslip.pipeline.dask_bench import (
    MEMORY,
    SCRATCH,
    THREADS,
    SlideBench,
    SlideReturned,
    WorkOrder,
    event_from_values,
    work_on_slide,
)
from coverslip.pipeline.engine import EXCLUSIVE, Stop
from coverslip.pipeline.failures import Problem
from coverslip.pipeline.ledger import Ledger
from coverslip.pipeline.run_plan import RunPlan
from coverslip.pipeline.serving import serve_jobs
from coverslip.pipeline.slide_job import SlideEnded, SlideJob
from coverslip.pipeline.worker_pool import Lost, Place, Worker, WorkerPool

__all__ = ["DaskPool"]

_POLL_S = 0.25
_LOOK_AFTER_S = 2.0
_AHEAD = 2
"""Tasks for each thread of the cluster: no worker waits for the next one, and a cluster sees cause to grow."""

_LEAST_AHEAD = 8
_ENDLESS = 1 << 62


class DaskPlace:
    """One task on its way, or one merge by a process here."""

    def __init__(self, pool: DaskPool) -> None:
        self._pool = pool
        self.job: Any = None
        self.need: Need | None = None
        self.future: Future | None = None
        self.merger: Worker | None = None
        self.attempt = ""
        self.seen = 0
        self.gone: set[str] = set()

    def submit(self, job: object, need: Need | None = None) -> None:
        """Give a slide to the cluster, or anything else to a process here."""
        self.job, self.need = job, need
        self._pool.send(self)


class DaskPool:
    """A cluster behind a scheduler's address.

    Parameters
    ----------
    address : str
        Of the scheduler, or the path of its file.
    plan : RunPlan
    ledger : Ledger
        Of the run; takes what workers tell of series and instances.
    scratch_bytes : int or None
        For the slides of one worker; by default what its disk has free.

    Raises
    ------
    StoreError
        If the scheduler does not answer, or its workers cannot do the work.
    """

    spreads = True

    def __init__(self, address: str, plan: RunPlan, ledger: Ledger, scratch_bytes: int | None = None) -> None:
        for name in ("distributed", "distributed.client"):  # what matters is told by exceptions
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._address, self._plan, self._ledger = address, plan, ledger
        self._name = f"coverslip-{secrets.token_hex(6)}"
        self._inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._places: list[DaskPlace] = []
        self._merger = WorkerPool(serve_jobs, plan, 1, Budget(1, _ENDLESS, _ENDLESS))
        self._workers: dict[str, Mapping[str, float]] = {}
        self._number = 0
        self._stranded: set[str] = set()
        self._looked_after = 0.0
        try:
            place = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
            self._client = Client(**place, set_as_default=False, name="coverslip")
        except (OSError, TimeoutError, ValueError) as error:
            raise StoreError(f"scheduler {address} does not answer: {type(error).__name__}") from None
        self._client.subscribe_topic(self._name, lambda event: self._inbox.put(("told", event[1])))
        order = WorkOrder(self._name, plan, tuple(ledger.iter_tombstones()), scratch_bytes)
        try:
            self._client.register_plugin(SlideBench(order), name=self._name)
        except Exception as error:  # whatever a worker's installation lacks
            self._client.close()
            raise StoreError(
                f"workers of {address} cannot work on slides: {type(error).__name__}; wanted coverslip {order.version} "
                "with its extras in each worker's environment"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def wait_for_workers(self, stop: Stop) -> None:
        """Wait until one worker is there; a task that waits lets a cluster that adapts itself start some."""
        knock = self._client.submit(int, key=f"{self._name}-knock", pure=False)
        while not self._workers and not stop:
            self._look_after()
            if not self._workers:
                time.sleep(_POLL_S)
        del knock

    def largest(self) -> Budget:
        """Return the most of each that one worker has."""
        return Budget(*(max((int(each[name]) for each in self._workers.values()), default=0)
                        for name in (THREADS, MEMORY, SCRATCH)))  # fmt: skip

    def room(self) -> Budget:
        """Return how much is given to the scheduler at once: more than workers have, which Dask keeps to."""
        threads = sum(int(each[THREADS]) for each in self._workers.values())
        return Budget(max(_LEAST_AHEAD, _AHEAD * threads), _ENDLESS, _ENDLESS)

    @property
    def workers(self) -> Sequence[Place]:
        """All tasks on their way."""
        return self._places

    @property
    def busy(self) -> Sequence[Place]:
        """The same."""
        return [place for place in self._places if place.job is not None]

    def idle(self) -> Place | None:
        """Return a place for one more task."""
        self._places = [place for place in self._places if place.job is not None]
        self._places.append(DaskPlace(self))
        return self._places[-1]

    def resident_bytes(self) -> int:
        """Return the memory of the process that merges; that of workers is Dask's to watch."""
        return 0

    def send(self, place: DaskPlace) -> None:
        """Give what a place is to do to whoever does it."""
        if not isinstance(place.job, SlideJob):
            place.merger = self._merger.idle()
            assert place.merger is not None
            place.merger.submit(place.job)
            return
        assert place.need is not None
        most = self.largest()
        need = place.need
        if need.threads >= EXCLUSIVE:
            need = Need(most.threads, most.memory_bytes, need.scratch_bytes)
        # What no worker has all of is asked of the largest whole.
        wanted = {
            THREADS: min(need.threads, most.threads),
            MEMORY: min(need.memory_bytes, most.memory_bytes),
            SCRATCH: min(need.scratch_bytes, most.scratch_bytes),
        }
        self._number += 1
        job = replace(place.job, threads=int(wanted[THREADS]))
        place.future = self._client.submit(
            work_on_slide,
            self._name,
            job,
            key=f"{self._name}-{self._number}",
            resources=wanted,
            priority=-self._number,
            pure=False,
        )
        place.future.add_done_callback(lambda future: self._inbox.put(("ended", (place, future))))

    def wait(self, timeout_s: float = _POLL_S) -> Iterator[tuple[Place, Any]]:
        """Yield what workers tell of slides, and what becomes of them.

        Raises
        ------
        StoreError
            If the scheduler is gone.
        """
        messages = []
        try:
            messages.append(self._inbox.get(timeout=timeout_s) if timeout_s else self._inbox.get_nowait())
            while True:
                messages.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        for kind, content in messages:
            yield from self._told(content) if kind == "told" else self._ended(*content)
        for merger, message in self._merger.wait(0):
            place = next(each for each in self._places if each.merger is merger)
            if isinstance(message, Lost):
                self._places.remove(place)  # what it was merging is told by its job
            yield place, message
        if time.monotonic() - self._looked_after > _LOOK_AFTER_S:
            self._look_after()

    def retire(self, worker: Place) -> None:
        """End the process that has merged."""
        assert isinstance(worker, DaskPlace)
        assert worker.merger is not None
        self._merger.retire(worker.merger)

    def stop(self, grace_s: float) -> None:
        """Take back what has not been done; workers end what they are at with its stage."""
        futures = [place.future for place in self._places if place.future is not None and place.job is not None]
        try:
            if futures:
                self._client.cancel(futures, force=True)
            self._client.unregister_worker_plugin(self._name)
        except Exception:  # noqa: BLE001, S110 - a cluster that is gone has stopped too
            pass
        self._places.clear()
        self._merger.stop(grace_s)

    def _told(self, message: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
        """Yield an event, unless it is known, or of an attempt that another worker has taken up."""
        place = next((each for each in self._places if _slide_of(each) == message["slide"]), None)
        if place is None or message["attempt"] in place.gone:
            return
        self._follow(place, message["attempt"])
        if message["number"] >= place.seen:
            place.seen = message["number"] + 1
            yield place, event_from_values(message["event"])

    def _follow(self, place: DaskPlace, attempt: str) -> None:
        if attempt != place.attempt:
            place.gone.add(place.attempt)
            place.attempt, place.seen = attempt, 0

    def _ended(self, place: DaskPlace, future: Future) -> Iterator[tuple[Place, Any]]:
        if place.job is None or place.future is None or place.future.key != future.key:
            return  # was taken back
        key = place.job.slide.key
        place.future = None
        if future.status == "finished":
            returned: SlideReturned = future.result()
            self._follow(place, returned.attempt)
            self._take_over(key, returned)
            yield from ((place, event) for event in returned.events[place.seen :])
            if not returned.events:
                yield self._lost(place, "its worker was taken from the run")
            return
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            yield self._lost(place, "workers were lost with it, one after the other; their memory may not suffice")
        elif error is None:
            yield self._lost(place, "the scheduler has dropped it")
        else:
            yield place, SlideEnded(key, self._plan.steps[0], "", Problem.of(error, {}))

    def _lost(self, place: DaskPlace, reason: str) -> tuple[Place, Lost]:
        self._places.remove(place)
        return place, Lost(0, reason)

    def _take_over(self, key: str, returned: SlideReturned) -> None:
        """Write down here what was written down there, and put rows for the catalog where they are merged from."""
        if returned.records:
            self._ledger.put_records(returned.records)
        if returned.part is None:
            return
        final = self._plan.parts_folder / key
        work = final.with_name(f".{key}")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        for name, data in returned.part.items():
            (work / Path(name).name).write_bytes(data)
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)

    def _look_after(self) -> None:
        """See which workers there are, and send again what waits for those that were lost."""
        self._looked_after = time.monotonic()
        try:
            told = self._client.scheduler_info()["workers"] if self._client.status == "running" else None
        except (OSError, KeyError):  # KeyError: what a client gives that has just lost its connection
            told = None
        if told is None:  # and with it all tasks that it had
            raise StoreError(f"scheduler {self._address} is gone; what was done is written down")
        workers = {
            address: each["resources"] for address, each in told.items() if THREADS in (each.get("resources") or {})
        }
        joined = workers.keys() - self._workers.keys()
        self._workers = workers or self._workers  # sizes are remembered while there are none
        if joined or self._stranded:
            self._send_stranded()

    def _send_stranded(self) -> None:
        """Send again what no worker has, seen twice: one that joined got its resources later than the scheduler looked.

        What is not held at the first look may just have ended.
        """
        held = {key for keys in self._client.processing().values() for key in keys}
        waiting = [place for place in self._places if place.future is not None and place.future.status == "pending"]
        free = {place.future.key: place for place in waiting if place.future and place.future.key not in held}
        for key in self._stranded & free.keys():
            place = free.pop(key)
            future, place.future = place.future, None
            self._client.cancel([future], force=True)
            self.send(place)
        self._stranded = set(free)


def _slide_of(place: DaskPlace) -> str | None:
    return place.job.slide.key if isinstance(place.job, SlideJob) else None
