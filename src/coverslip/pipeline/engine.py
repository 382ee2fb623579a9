"""The engine of one machine: slides go to worker processes within the budget, and what becomes of them is noted."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip import __version__
from coverslip.errors import CoverslipError, StoreError
from coverslip.pipeline.budget import Budget, Estimator, Need
from coverslip.pipeline.catalog_parts import MergeEnded, part_is_whole
from coverslip.pipeline.failures import Problem, WorkerLost
from coverslip.pipeline.journal import Journal, Standing, read_standings
from coverslip.pipeline.ledger import Record, Stage, State, Task
from coverslip.pipeline.manifest import Slide
from coverslip.pipeline.run_plan import RunPlan, recipe_of, request_for
from coverslip.pipeline.serving import MergeJob, local_pool
from coverslip.pipeline.slide_job import SlideEnded, SlideEvent, SlideJob, StageEnded, StageStarted
from coverslip.pipeline.worker_pool import Lost, Place, Pool

if TYPE_CHECKING:
    from coverslip.converter.request import ConversionRequest
    from coverslip.pipeline.progress import Reporter

__all__ = ["EXCLUSIVE", "Engine", "Limits", "RunOutcome", "Stop"]

EXCLUSIVE = 1 << 16
"""Threads of a slide beside which no other is begun."""

_MERGE_AT = 256
"""Slides whose rows are merged at once."""

_MERGE_BYTES = 400 << 20
"""What merging is expected to take; it is not begun beside slides that leave less."""

_MERGE_AFTER_S = 120.0
"""Slides that are ready do not wait longer for others."""

_SUSPECT_AFTER = 3
"""Attempts that were cut off after which a slide goes last and alone, so that it can harm no others."""

_OVERTAKEN_MOST = 32
"""Smaller slides that may go before one that does not fit beside them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run gives up.

    Parameters
    ----------
    attempts : int
        Of a slide in one run, as long as another may help.
    max_failures : int or None
        Slides that may fail before no more are begun.
    retry : str or None
        Error class of slides to try again that earlier runs have given up; empty for any; None for none.
    grace_s : float
        How long workers may clean up when the run is stopped.
    """

    attempts: int = 3
    max_failures: int | None = None
    retry: str | None = None
    grace_s: float = 7.0


class Stop:
    """Set from a signal handler: the run ends as soon as what is half done is put away."""

    def __init__(self) -> None:
        self.exit_code = 0

    def __bool__(self) -> bool:
        return self.exit_code != 0


@dataclass(slots=True)
class RunOutcome:
    """What became of a run.

    Parameters
    ----------
    slides, done, done_before : int
        In all; done now or before; done before.
    failures : dict
        By key: number of the slide, stage and problem of all that were given up, now or before.
    left : int
        Slides that were not begun or not ended.
    exit_code : int
        0 only if every slide is done.
    """

    slides: int = 0
    done: int = 0
    done_before: int = 0
    failures: dict[str, tuple[Slide, Stage, Problem]] = field(default_factory=dict)
    left: int = 0
    exit_code: int = 0


class Engine:
    """One run over slides, which are worked on by this machine or by others.

    Parameters
    ----------
    plan : RunPlan
    journal : Journal
    estimator : Estimator
    limits : Limits
    reporter : Reporter
    stop : Stop
    make_pool : callable
        Called with plan, budget, slides and the number of those that are to be done: gives what works on them.
    """

    def __init__(
        self,
        plan: RunPlan,
        journal: Journal,
        estimator: Estimator,
        limits: Limits,
        reporter: Reporter,
        *,
        stop: Stop | None = None,
        make_pool: Callable[[RunPlan, Budget, Sequence[Slide], int], Pool] = local_pool,
    ) -> None:
        self._plan = plan
        self._make_pool = make_pool
        self._journal = journal
        self._estimator = estimator
        self._limits = limits
        self._reporter = reporter
        self._stop = Stop() if stop is None else stop  # one that is not set is false
        self._standings: dict[str, Standing] = {}
        self._pending: deque[str] = deque()
        self._alone: deque[str] = deque()
        self._running: dict[str, tuple[Place, Need]] = {}
        self._unmerged: set[str] = set()
        self._attempts: dict[str, int] = {}
        self._kept_bytes = 0
        self._merged_at = time.monotonic()
        self._overtaken = 0
        self._new_failures = 0
        self._records: list[Record] = []
        self._outcome = RunOutcome()

    def run(self, slides: Sequence[Slide]) -> RunOutcome:
        """Work on all slides that are not done, and return what became of them."""
        self._outcome.slides = len(slides)
        self._standings = read_standings(self._plan, slides, self._journal)
        self._sort_slides()
        jobs = len(self._pending) + len(self._alone)
        self._pool = self._make_pool(self._plan, self._estimator.budget, slides, jobs)
        self._reporter.begin(self._outcome, self._standings.values())
        try:
            self._loop()
            for worker, message in self._pool.wait(0):  # what ended while the run was being stopped
                self._take(worker, message)
        finally:
            self._pool.stop(self._limits.grace_s)
            self._put_back()
            self._write(checkpoint=True)
        return self._conclude()

    def _loop(self) -> None:
        while not self._stop:
            if not self._too_many_failures:
                self._dispatch()
            if not self._pool.busy and not (self._unmerged and self._merge()):
                break
            for worker, message in self._pool.wait():
                self._take(worker, message)
            self._write(checkpoint=False)
            self._reporter.tick()

    @property
    def _too_many_failures(self) -> bool:
        most = self._limits.max_failures
        return most is not None and self._new_failures >= most

    def _sort_slides(self) -> None:
        """Tell what is done, what was given up, and what is to be done: large slides first, for an even end."""
        make_request: Callable[[Path], ConversionRequest] | None = None
        pending: list[Standing] = []
        for standing in self._standings.values():
            recipe = ""
            if standing.records:
                make_request = make_request or self._plan.make_requests()
                recipe = _recipe(standing.slide, make_request)
            if self._sort_known(standing, recipe):
                pending.append(standing)
        pending.sort(key=lambda each: (-(each.slide.size_bytes or 0), each.slide.number))
        for standing in pending:
            suspect = standing.interrupted() >= _SUSPECT_AFTER
            (self._alone if suspect else self._pending).append(standing.slide.key)

    def _sort_known(self, standing: Standing, recipe: str) -> bool:
        """Whether a slide is to be worked on, by what earlier runs have written down."""
        key = standing.slide.key
        failed = standing.failed()
        if failed is not None and failed.task.parent == recipe and not self._asked_again(failed):
            problem = Problem(failed.error_class or "", failed.error_message or "", exit_code=_exit_code(failed))
            self._outcome.failures[key] = standing.slide, failed.task.stage, problem
            return False
        done = standing.done_steps(self._plan, recipe) if recipe else frozenset()
        if set(self._plan.steps) <= done and self._still_here(standing):
            self._outcome.done += 1
            self._outcome.done_before += 1
            return False
        if done >= set(self._plan.steps) - {Stage.INDEX} and part_is_whole(self._plan.parts_folder, key):
            self._unmerged.add(key)
            return False
        return True

    def _asked_again(self, failed: Record) -> bool:
        return self._limits.retry is not None and self._limits.retry in ("", failed.error_class)

    def _still_here(self, standing: Standing) -> bool:
        """Whether series that are to stay on this machine are there."""
        record = standing.record(self._plan, Stage.CONVERT)
        if record is None or (self._plan.delivers and not self._plan.keep):
            return True
        output = self._plan.output_of(standing.slide)
        return all((output / name / "conversion.json").is_file() for name in (record.location or "").split())

    def _dispatch(self) -> None:
        """Give work to idle workers as far as the budget reaches."""
        spreads = self._pool.spreads
        if not spreads and any(need.threads >= EXCLUSIVE for _, need in self._running.values()):
            return
        if self._merge_is_due() and not (self._memory_fits_merge() and self._merge()):
            return  # room for it comes as slides end; else it would wait for the last of them
        while key := self._next_fitting():
            worker = self._pool.idle()
            if worker is None:
                self._pending.appendleft(key)
                return
            self._start(worker, key, self._estimator.need_of(self._standings[key].slide))
        if not self._pending and self._alone and (spreads or not self._running):
            worker = self._pool.idle()
            if worker is not None:
                key = self._alone.popleft()
                need = self._estimator.need_of(self._standings[key].slide)
                self._start(worker, key, replace(need, threads=EXCLUSIVE))

    def _merge_is_due(self) -> bool:
        if not self._unmerged or self._is_merging:
            return False
        late = time.monotonic() - self._merged_at > _MERGE_AFTER_S
        return late or self._plan.open_state is not None or len(self._unmerged) >= _MERGE_AT

    def _memory_fits_merge(self) -> bool:
        if self._plan.open_state is not None or not self._running:
            return True
        return self._memory_taken() + _MERGE_BYTES <= self._pool.room().memory_bytes

    def _memory_taken(self) -> int:
        """Return what slides under way are expected to take, or more if their processes have more."""
        return max(sum(need.memory_bytes for _, need in self._running.values()), self._pool.resident_bytes())

    def _next_fitting(self) -> str | None:
        """Take the first slide that fits beside those that are worked on."""
        budget = self._pool.room()
        threads = sum(need.threads for _, need in self._running.values())
        memory = self._memory_taken() + (_MERGE_BYTES if self._is_merging else 0)
        scratch = sum(need.scratch_bytes for _, need in self._running.values()) + self._kept_bytes
        for index, key in enumerate(self._pending):
            if self._running and index and self._overtaken >= _OVERTAKEN_MOST:
                return None
            need = self._estimator.need_of(self._standings[key].slide)
            fits_disk = scratch + need.scratch_bytes <= budget.scratch_bytes
            if not self._running and not fits_disk:
                del self._pending[index]
                self._give_up_for_disk(key, need)
                return self._next_fitting()
            # One slide alone is begun whatever it needs of cores and memory: it cannot be made to need less.
            if not self._running or (
                fits_disk
                and threads + need.threads <= budget.threads
                and memory + need.memory_bytes <= budget.memory_bytes
            ):
                self._overtaken = self._overtaken + 1 if index else 0
                del self._pending[index]
                return key
            if index > _OVERTAKEN_MOST:
                return None
        return None

    def _give_up_for_disk(self, key: str, need: Need) -> None:
        left = self._pool.room().scratch_bytes - self._kept_bytes
        message = f"needs {need.scratch_bytes / 1e6:,.1f} MB of scratch, {max(0, left) / 1e6:,.1f} MB are left"
        problem = Problem(StoreError.__name__, message, exit_code=StoreError.exit_code)
        self._fail(self._standings[key], self._plan.steps[0], "", problem)

    def _start(self, worker: Place, key: str, need: Need) -> None:
        standing = self._standings[key]
        converted = standing.record(self._plan, Stage.CONVERT)
        recipe = converted.task.parent if converted is not None else ""
        threads = min(need.threads, self._estimator.budget.threads)
        location = converted.location or "" if converted is not None and converted.state is State.DONE else ""
        done = standing.done_steps(self._plan, recipe)
        job = SlideJob(standing.slide, threads, tuple(location.split()), recipe, done, need.in_place)
        self._attempts[key] = self._attempts.get(key, 0) + 1
        self._running[key] = worker, need
        worker.submit(job, need)
        self._reporter.started(standing.slide, self._attempts[key])

    @property
    def _is_merging(self) -> bool:
        return any(isinstance(worker.job, MergeJob) for worker in self._pool.workers)

    def _merge(self) -> bool:
        """Have the rows of slides merged into the catalog, by a worker that is idle."""
        if self._is_merging:
            return True
        worker = self._pool.idle()
        if worker is None:
            return False
        self._merged_at = time.monotonic()
        worker.submit(MergeJob(self._plan.parts_folder, tuple(sorted(self._unmerged)), self._plan.catalog))
        return True

    def _take(self, worker: Place, message: SlideEvent | MergeEnded | Lost) -> None:
        match message:
            case StageStarted():
                self._stage_started(message)
            case StageEnded():
                self._stage_ended(message)
            case SlideEnded():
                worker.job = None
                self._slide_ended(message)
            case MergeEnded():
                keys = worker.job.keys
                worker.job = None
                if self._plan.open_state is None:
                    self._pool.retire(worker)  # a database keeps the memory that it has had
                self._merge_ended(keys, message)
            case Lost():
                self._worker_lost(worker, message)

    def _stage_started(self, event: StageStarted) -> None:
        standing = self._standings[event.key]
        before = standing.record(self._plan, event.stage)
        task = self._plan.task(standing.slide, event.stage, event.recipe)
        attempt = before.attempt + 1 if before is not None else 1
        self._records.append(standing.note(_started_record(task, attempt)))
        self._reporter.stage(standing.slide, event.stage)
        if self._attempts.get(event.key, 0) and event.stage is self._plan.steps[0]:
            self._write(checkpoint=True)

    def _stage_ended(self, event: StageEnded) -> None:
        standing = self._standings[event.key]
        started = standing.record(self._plan, event.stage)
        assert started is not None
        self._records.append(
            standing.note(
                replace(
                    started,
                    task=self._plan.task(standing.slide, event.stage, event.recipe),
                    state=State.DONE,
                    finished_at=_now(),
                    duration_s=event.seconds,
                    size_bytes=event.size_bytes,
                    digest=event.digest or None,
                    location=event.location or None,
                )
            )
        )
        self._reporter.stage_done(standing.slide, event.stage, event.seconds, event.size_bytes)
        if event.stage is Stage.CONVERT and not (self._plan.delivers and not self._plan.keep):
            self._kept_bytes += event.size_bytes or 0

    def _slide_ended(self, event: SlideEnded) -> None:
        standing = self._standings[event.key]
        _, need = self._running.pop(event.key)
        self._estimator.learn(need, event.peak_bytes)
        if event.problem is not None:
            self._problem(standing, event.stage, event.recipe, event.problem, event.seconds)
        elif Stage.INDEX in self._plan.stages:
            self._unmerged.add(event.key)
            self._write(checkpoint=True)
            self._reporter.waits(standing.slide)
        else:
            self._done(standing, event.seconds)

    def _done(self, standing: Standing, seconds: float) -> None:
        self._outcome.done += 1
        self._write(checkpoint=True)
        self._reporter.done(standing.slide, seconds)

    def _merge_ended(self, keys: Sequence[str], event: MergeEnded) -> None:
        for key in keys:
            self._unmerged.discard(key)
            standing = self._standings[key]
            record = standing.record(self._plan, Stage.INDEX)
            recipe = record.task.parent if record is not None else ""
            problem = event.problem or (event.refused or {}).get(key)
            if problem is not None:
                self._problem(standing, Stage.INDEX, recipe, problem, 0.0)
                continue
            if record is None:
                self._stage_started(StageStarted(key, Stage.INDEX, recipe))
            self._stage_ended(StageEnded(key, Stage.INDEX, recipe, round(event.seconds / len(keys), 4)))
            self._done(standing, 0.0)

    def _worker_lost(self, worker: Place, lost: Lost) -> None:
        job = worker.job
        problem = Problem(WorkerLost, str(lost), retryable=True)
        if isinstance(job, MergeJob):
            self._merge_ended(job.keys, MergeEnded(problem=problem))
        elif job is not None:
            key = job.slide.key
            self._running.pop(key, None)
            standing = self._standings[key]
            under_way = [record for record in standing.records.values() if record.state is State.STARTED]
            stage = under_way[-1].task.stage if under_way else self._plan.steps[0]
            recipe = under_way[-1].task.parent if under_way else ""
            self._problem(standing, stage, recipe, problem, 0.0, alone=True)

    def _problem(
        self, standing: Standing, stage: Stage, recipe: str, problem: Problem, seconds: float, *, alone: bool = False
    ) -> None:
        """Try a slide again, last, if that may help; else give it up."""
        key = standing.slide.key
        again = problem.retryable and self._attempts.get(key, 0) < self._limits.attempts
        if not again:
            self._fail(standing, stage, recipe, problem, seconds)
            return
        self._note_problem(standing, stage, recipe, problem, State.PENDING, seconds)
        (self._alone if alone else self._pending).append(key)
        self._reporter.failed(standing.slide, stage, problem, final=False)

    def _fail(self, standing: Standing, stage: Stage, recipe: str, problem: Problem, seconds: float = 0.0) -> None:
        self._note_problem(standing, stage, recipe, problem, State.FAILED, seconds)
        self._write(checkpoint=True)
        shutil.rmtree(self._plan.scratch_of(standing.slide), ignore_errors=True)
        self._outcome.failures[standing.slide.key] = standing.slide, stage, problem
        self._new_failures += 1
        self._reporter.failed(standing.slide, stage, problem, final=True)

    def _note_problem(
        self, standing: Standing, stage: Stage, recipe: str, problem: Problem, state: State, seconds: float
    ) -> None:
        before = standing.record(self._plan, stage)
        if before is None or before.state is not State.STARTED:
            self._stage_started(StageStarted(standing.slide.key, stage, recipe))
            before = standing.record(self._plan, stage)
        assert before is not None
        failed = replace(
            before,
            task=self._plan.task(standing.slide, stage, recipe),
            state=state,
            finished_at=_now(),
            duration_s=seconds or None,
            error_class=problem.error_class,
            error_message=problem.message,
        )
        self._records.append(standing.note(failed))
        # What an earlier recipe had failed at is told by this failure now.
        for record in list(standing.records.values()):
            if record is not failed and record.state in (State.FAILED, State.STARTED):
                self._records.append(standing.note(replace(record, state=State.PENDING)))

    def _put_back(self) -> None:
        """Write down that what was stopped is to be done, as if this attempt had not been."""
        # A slide whose rows wait to be merged has begun to be indexed, and runs no more.
        for key in (*self._running, *self._unmerged):
            standing = self._standings[key]
            for record in list(standing.records.values()):
                if record.state is State.STARTED:
                    back = replace(record, state=State.PENDING, attempt=max(0, record.attempt - 1))
                    self._records.append(standing.note(back))

    def _write(self, *, checkpoint: bool) -> None:
        records, self._records = self._records, []
        if records or checkpoint:
            self._journal.put(records, checkpoint=checkpoint)

    def _conclude(self) -> RunOutcome:
        outcome = self._outcome
        outcome.left = outcome.slides - outcome.done - len(outcome.failures)
        if self._stop:
            outcome.exit_code = self._stop.exit_code
        elif outcome.failures:
            outcome.exit_code = max(problem.exit_code for _, _, problem in outcome.failures.values())
        elif outcome.left:
            outcome.exit_code = 1
        self._reporter.end(outcome)
        return outcome


def _recipe(slide: Slide, make_request: Callable[[Path], ConversionRequest]) -> str:
    """Return the recipe of a slide; empty if tables do not say what is needed, which is told when it is its turn."""
    try:
        return recipe_of(slide, request_for(slide, make_request))
    except CoverslipError:
        return ""


def _started_record(task: Task, attempt: int) -> Record:
    return Record(task, State.STARTED, attempt, _now(), None, None, None, None, None, False, None, None, __version__)


def _exit_code(record: Record) -> int:
    """Return the exit code of the error class of a record."""
    from coverslip import errors

    kind = getattr(errors, record.error_class or "", errors.CoverslipError)
    return int(kind.exit_code)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
