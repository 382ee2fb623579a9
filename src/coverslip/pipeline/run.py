"""A run, read top to bottom: make the folder its own, know what was done, work, and tell what became of each slide."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coverslip.errors import StoreError
from coverslip.pipeline.budget import Budget, Estimator
from coverslip.pipeline.engine import Engine, Limits, RunOutcome, Stop
from coverslip.pipeline.journal import Journal, LedgerJournal
from coverslip.pipeline.ledger import Ledger, Stage, default_ledger
from coverslip.pipeline.manifest import Slide
from coverslip.pipeline.progress import Reporter
from coverslip.pipeline.run_file import RUN_FILE, RunFile
from coverslip.pipeline.run_plan import RunPlan
from coverslip.pipeline.segments import SegmentJournal
from coverslip.pipeline.serving import WORKERS_LOCK, local_pool
from coverslip.pipeline.shards import ShardPlace, assign_slides
from coverslip.pipeline.worker_pool import Pool
from coverslip.stores.base import ObjectStore
from coverslip.stores.whole_file import whole_file

__all__ = [
    "QUARANTINE_FILE",
    "RunSetup",
    "own_folder",
    "remove_stale",
    "run_dask",
    "run_local",
    "run_shard",
    "take_tombstones",
]

QUARANTINE_FILE = "quarantine.csv"
_LOCK = "lock"
_WAIT_FOR_WORKERS_S = 30.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class RunSetup:
    """What a run is given besides its slides.

    Parameters
    ----------
    plan : RunPlan
    name : str
        Of the run, in logs.
    estimator : Estimator
    limits : Limits
    reporter : Reporter
    stop : Stop
    """

    plan: RunPlan
    name: str
    estimator: Estimator
    limits: Limits
    reporter: Reporter
    stop: Stop


def run_local(setup: RunSetup, slides: Sequence[Slide]) -> RunOutcome:
    """Run over slides on this machine.

    Raises
    ------
    StoreError
        If the folder of the run cannot be written, another run has it, or a slide cannot fit on the disk.
    """
    setup.estimator.require_disk(slides)
    with _own_ledger(setup, slides) as ledger:
        outcome = _work(setup, slides, LedgerJournal(ledger))
    _write(setup.plan.work / QUARANTINE_FILE, _quarantine_text(outcome, names=True))
    return outcome


def run_dask(setup: RunSetup, slides: Sequence[Slide], scheduler: str, scratch_bytes: int | None) -> RunOutcome:
    """Run over slides on the workers of a cluster; what becomes of them is written down here, as by `run_local`.

    Parameters
    ----------
    scheduler : str
        Address, or path of the scheduler's file.
    scratch_bytes : int or None
        For the slides of one worker; by default what its disk has free.

    Raises
    ------
    StoreError
        If the scheduler does not answer, or a slide cannot fit on the disk of any worker.
    """
    from coverslip.pipeline.dask_pool import DaskPool

    with (
        _own_ledger(setup, slides) as ledger,
        DaskPool(scheduler, setup.plan, ledger, scratch_bytes) as pool,
    ):
        pool.wait_for_workers(setup.stop)
        setup.estimator.budget = pool.largest()
        if not setup.stop:
            setup.estimator.require_disk(slides)
        outcome = _work(setup, slides, LedgerJournal(ledger), lambda *_: pool)
    _write(setup.plan.work / QUARANTINE_FILE, _quarantine_text(outcome, names=True))
    return outcome


def run_shard(setup: RunSetup, slides: Sequence[Slide], place: ShardPlace, state: ObjectStore) -> RunOutcome:
    """Run over the slides that are this task's, and keep what is known of them in a bucket.

    Raises
    ------
    StoreError
        If the state cannot be read or written, or a slide cannot fit on the disk.
    """
    plan = setup.plan
    told = _agree(state, _run_file(setup, slides))
    own = set(assign_slides([(key, size) for key, _, size in told.slides], place.count)[place.index])
    mine = [slide for slide in slides if slide.key in own]
    setup.estimator.require_disk(mine)
    with own_folder(plan.work), Ledger(plan.ledger_file) as ledger:
        take_tombstones(ledger)
        remove_stale(plan, mine)
        outcome = _work(setup, mine, SegmentJournal(state, place.label))
    if outcome.failures:
        state.put_bytes(f"quarantine/{place.label}.csv", _quarantine_text(outcome, names=False))
    return outcome


@contextlib.contextmanager
def _own_ledger(setup: RunSetup, slides: Sequence[Slide]) -> Iterator[Ledger]:
    """Make the folder of a run its own, tell what it is about, and open its ledger."""
    plan = setup.plan
    with own_folder(plan.work), Ledger(plan.ledger_file) as ledger:
        take_tombstones(ledger)
        remove_stale(plan, slides)
        _write(plan.work / RUN_FILE, _run_file(setup, slides).as_bytes())
        yield ledger


def _work(
    setup: RunSetup,
    slides: Sequence[Slide],
    journal: Journal,
    make_pool: Callable[[RunPlan, Budget, Sequence[Slide], int], Pool] = local_pool,
) -> RunOutcome:
    engine = Engine(
        setup.plan, journal, setup.estimator, setup.limits, setup.reporter, stop=setup.stop, make_pool=make_pool
    )
    try:
        return engine.run(slides)
    finally:
        setup.reporter.close()


def _run_file(setup: RunSetup, slides: Sequence[Slide]) -> RunFile:
    places = [(task.stage, task.store) for task in setup.plan.tasks_of(slides[0])] if slides else []
    return RunFile.of(setup.name, places, slides)


def _agree(state: ObjectStore, told: RunFile) -> RunFile:
    """Return what all tasks of a run go by; who comes first writes it.

    Sizes may come from a listing, which another task might see differently: an assignment by different sizes would
    leave slides to nobody.
    """
    found = state.read_bytes(RUN_FILE)
    known = RunFile.read(found) if found is not None else None
    if known is not None and {key for key, _, _ in known.slides} == {key for key, _, _ in told.slides}:
        return known
    with contextlib.suppress(StoreError):  # another task was quicker
        state.put_bytes(RUN_FILE, told.as_bytes())
    return told


@contextlib.contextmanager
def own_folder(work: Path) -> Iterator[None]:
    """Make the folder of a run and keep others out of it.

    Raises
    ------
    StoreError
        If another run has it.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = os.open(work / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise StoreError(f"folder of the run {work} cannot be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{work}: another run is under way there") from None
        _wait_for_workers(work)
        yield
    finally:
        os.close(lock)


def _wait_for_workers(work: Path) -> None:
    """Wait for workers of a run that was killed: they notice, but may be in the middle of something."""
    workers = os.open(work / WORKERS_LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        deadline = time.monotonic() + _WAIT_FOR_WORKERS_S
        while True:
            try:
                fcntl.flock(workers, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(f"{work}: processes of an earlier run do not end") from None
                time.sleep(_POLL_S)
    finally:
        os.close(workers)


def take_tombstones(ledger: Ledger) -> None:
    """Know what was retracted by other means than this run."""
    path = default_ledger()
    if path == ledger.path or not path.is_file():
        return
    with Ledger(path) as other:
        for tombstone in other.iter_tombstones():
            ledger.bury(
                tombstone.series_instance_uid, tombstone.reason, tombstone.instances, complete=tombstone.complete
            )


def remove_stale(plan: RunPlan, slides: Sequence[Slide]) -> None:
    """Remove the scratch of slides that this run is not about, and what was fetched and not used up."""
    wanted = {slide.key for slide in slides}
    scratch = plan.work / "scratch"
    if not scratch.is_dir():
        return
    for folder in scratch.iterdir():
        shutil.rmtree(folder / "source" if folder.name in wanted else folder, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with whole_file(path, replacing=True) as file:
        file.write(data)


def _quarantine_text(outcome: RunOutcome, *, names: bool) -> bytes:
    """Return the slides that were given up, as a table that is a manifest itself if it has their names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(["file"] if names else []), "row", "slide", "stage", "error_class", "error_message"])
    for slide, stage, problem in sorted(outcome.failures.values(), key=lambda each: each[0].number):
        own = [slide.location] if names else []
        writer.writerow([*own, slide.number, slide.key, str(Stage(stage)), problem.error_class, problem.message])
    return text.getvalue().encode()
