"""Where a run writes down what became of each slide at each stage, and finds it again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coverslip.pipeline.ledger import Kind, Ledger, Record, Stage, State
from coverslip.pipeline.manifest import Slide
from coverslip.pipeline.run_plan import RunPlan

__all__ = ["ALL_STEPS", "Journal", "LedgerJournal", "Standing", "read_standings"]


ALL_STEPS = (Stage.FETCH, Stage.CONVERT, Stage.VALIDATE, Stage.UPLOAD, Stage.VERIFY, Stage.INDEX)
"""What is written down of slides, in the order in which it is done."""


class Journal(Protocol):
    """Keeps the records of slides; a call has them written when it returns, unless it says otherwise."""

    def load(self, keys: Collection[str]) -> Iterable[Record]:
        """Return what is known of slides."""
        ...

    def put(self, records: Sequence[Record], *, checkpoint: bool) -> None:
        """Write records in place of what is known of their tasks.

        Parameters
        ----------
        checkpoint : bool
            Whether they must be kept when the call returns; else that may wait for the next checkpoint.
        """
        ...


class LedgerJournal:
    """Keeps records in a ledger on this machine."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def load(self, keys: Collection[str]) -> Iterable[Record]:
        """Return what is known of slides."""
        return [record for record in self._ledger.records_of_kind(Kind.SLIDE) if record.task.subject in keys]

    def put(self, records: Sequence[Record], *, checkpoint: bool) -> None:
        """Write records; all of them or none."""
        if records:
            self._ledger.put_records(records)


@dataclass(slots=True)
class Standing:
    """How far a slide has come.

    Parameters
    ----------
    slide : Slide
    records : dict
        By stage and place; also those of stages that this run does not have.
    """

    slide: Slide
    records: dict[tuple[Stage, str], Record] = field(default_factory=dict)

    def record(self, plan: RunPlan, step: Stage) -> Record | None:
        """Return what is known of a stage."""
        task = plan.task(self.slide, step)
        return self.records.get((task.stage, task.store))

    def note(self, record: Record) -> Record:
        """Take a record in place of the one there is."""
        self.records[record.task.stage, record.task.store] = record
        return record

    def done_steps(self, plan: RunPlan, recipe: str) -> frozenset[Stage]:
        """Return the stages that were done by a recipe."""
        steps = ((step, self.record(plan, step)) for step in ALL_STEPS)
        return frozenset(
            step
            for step, record in steps
            if record is not None and record.state is State.DONE and record.task.parent == recipe
        )

    def failed(self) -> Record | None:
        """Return the record of the stage that was given up, if one was."""
        return next((record for record in self.records.values() if record.state is State.FAILED), None)

    def interrupted(self) -> int:
        """Return how often a stage was started that has not ended."""
        return max((record.attempt for record in self.records.values() if record.state is State.STARTED), default=0)


def read_standings(plan: RunPlan, slides: Iterable[Slide], journal: Journal) -> dict[str, Standing]:
    """Return how far each slide has come, by key."""
    standings = {slide.key: Standing(slide) for slide in slides}
    for record in journal.load(standings.keys()):
        standing = standings[record.task.subject]
        if record.task.store == plan.task(standing.slide, record.task.stage).store:
            standing.note(record)
    return standings
