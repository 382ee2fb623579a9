"""One slide through all stages, with what becomes of it written to the state that all workers share."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip.errors import CoverslipError, StoreError
from coverslip.pipeline.budget import Estimator
from coverslip.pipeline.engine import Engine, Limits, RunOutcome, Stop
from coverslip.pipeline.failures import Problem
from coverslip.pipeline.manifest import Slide
from coverslip.pipeline.progress import Reporter
from coverslip.pipeline.run_plan import RunPlan, recipe_of, request_for
from coverslip.pipeline.segments import SegmentJournal
from coverslip.stores.base import ObjectStore
from coverslip.worker.traces import Trace

if TYPE_CHECKING:
    from coverslip.converter.request import ConversionRequest

__all__ = ["RecipeBook", "SlideWork"]

_LIMITS = Limits(attempts=1, retry="", grace_s=6.0)
"""A message that comes again is another attempt."""


class SlideWork:
    """Works on slides one after another.

    Parameters
    ----------
    plan : RunPlan
    state : ObjectStore
    estimator : Estimator
    reporter_for : callable
        Returns what tells how a slide goes on, for the trace of its message.
    """

    def __init__(
        self, plan: RunPlan, state: ObjectStore, estimator: Estimator, reporter_for: Callable[[Trace], Reporter]
    ) -> None:
        self._plan = plan
        self._state = state
        self._estimator = estimator
        self._reporter_for = reporter_for

    def __call__(self, slide: Slide, stop: Stop, trace: Trace) -> RunOutcome:
        """Return what became of a slide; of one that was stopped nothing is left but what stores and state have."""
        try:
            self._estimator.require_disk([slide])
        except StoreError as error:
            problem = Problem(type(error).__name__, str(error), exit_code=error.exit_code)
            return RunOutcome(1, failures={slide.key: (slide, self._plan.steps[0], problem)})
        reporter = self._reporter_for(trace)
        journal = SegmentJournal(self._state, f"slide-{slide.key}", own_only=True)
        try:
            return Engine(self._plan, journal, self._estimator, _LIMITS, reporter, stop=stop).run([slide])
        finally:
            reporter.close()
            shutil.rmtree(self._plan.scratch_of(slide), ignore_errors=True)


class RecipeBook:
    """Tells recipes of slides; tables and maps are read once."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._make_request: Callable[[Path], ConversionRequest] | None = None

    def __call__(self, slide: Slide) -> str:
        """Return what changes with everything that shapes the output of a slide."""
        if self._make_request is None:
            self._make_request = self._plan.make_requests()
        places = repr([(task.stage, task.store) for task in self._plan.tasks_of(slide)])
        try:
            recipe = recipe_of(slide, request_for(slide, self._make_request))
        except CoverslipError as error:  # as when tables do not know the slide: told when it is worked on
            recipe = f"{type(error).__name__} {slide.checksums}"
        return hashlib.sha256(f"{recipe}\n{places}".encode()).hexdigest()[:32]
