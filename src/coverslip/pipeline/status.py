"""How far a run has come, from what is written down: a ledger on this machine, or the segments of shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from coverslip.errors import UsageError
from coverslip.pipeline.ledger import Kind, Ledger, Record, Stage, State
from coverslip.pipeline.run_file import RUN_FILE, RunFile
from coverslip.pipeline.segments import merge_records, read_records
from coverslip.stores.base import ObjectStore

__all__ = ["RunStatus", "SlideStatus", "StageStatus", "read_folder", "read_state", "summarize_run"]

_MOST_SLOWEST = 10
_RECENT = 200
"""Slides that the rate is taken from."""


@dataclass(frozen=True, slots=True)
class StageStatus:
    """What one stage has done and taken.

    Parameters
    ----------
    stage : Stage
    done, failed, under_way : int
        Slides.
    seconds : float
        Of all slides together.
    size_bytes : int
    cost : float
        Seconds at the price of an hour.
    """

    stage: Stage
    done: int
    failed: int
    under_way: int
    seconds: float
    size_bytes: int
    cost: float


@dataclass(frozen=True, slots=True)
class SlideStatus:
    """One slide, by key and row."""

    key: str
    row: int
    stage: Stage
    seconds: float = 0.0
    attempt: int = 0
    error_class: str = ""
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How far a run has come.

    Parameters
    ----------
    run : str
    slides, done, failed, under_way : int
        `under_way` also counts what a run that was killed has left.
    bytes_wanted, bytes_done : int
        Of slides.
    stages : tuple of StageStatus
    slowest : tuple of SlideStatus
    failures : tuple of SlideStatus
        All that were given up.
    classes : mapping
        How many slides failed with each class of error.
    slides_per_hour : float or None
        By the slides that were done last.
    left_s : float or None
        At that rate.
    """

    run: str
    slides: int
    done: int
    failed: int
    under_way: int
    bytes_wanted: int
    bytes_done: int
    stages: tuple[StageStatus, ...]
    slowest: tuple[SlideStatus, ...]
    failures: tuple[SlideStatus, ...]
    classes: Mapping[str, int] = field(default_factory=dict)
    slides_per_hour: float | None = None
    left_s: float | None = None

    @property
    def pending(self) -> int:
        """Slides that were not begun."""
        return self.slides - self.done - self.failed - self.under_way

    @property
    def cost(self) -> float:
        """Of all stages."""
        return sum(stage.cost for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        """Return the status as plain values."""
        return {
            "run": self.run,
            "slides": self.slides,
            "done": self.done,
            "failed": self.failed,
            "under_way": self.under_way,
            "pending": self.pending,
            "bytes_wanted": self.bytes_wanted,
            "bytes_done": self.bytes_done,
            "slides_per_hour": self.slides_per_hour,
            "left_s": self.left_s,
            "cost": round(self.cost, 4),
            "stages": [
                {
                    "stage": str(each.stage),
                    "done": each.done,
                    "failed": each.failed,
                    "under_way": each.under_way,
                    "seconds": round(each.seconds, 3),
                    "size_bytes": each.size_bytes,
                    "cost": round(each.cost, 4),
                }
                for each in self.stages
            ],
            "slowest": [_slide_as_json(each) for each in self.slowest],
            "failures_by_class": dict(self.classes),
            "failures": [_slide_as_json(each) for each in self.failures],
        }


def _slide_as_json(slide: SlideStatus) -> dict[str, Any]:
    told = {
        "slide": slide.key,
        "row": slide.row,
        "stage": str(slide.stage),
        "seconds": round(slide.seconds, 3),
        "attempt": slide.attempt,
    }
    if slide.error_class:
        told |= {"error_class": slide.error_class, "error_message": slide.error_message}
    return told


def read_folder(work: Path) -> tuple[RunFile, list[Record]]:
    """Return what is known of a run by its folder on this machine.

    Raises
    ------
    UsageError
        If there is no run.
    """
    try:
        told = RunFile.read((work / RUN_FILE).read_bytes())
    except OSError:
        raise UsageError(f"{work}: no folder of a run, expected {RUN_FILE} in it") from None
    with Ledger(work / "ledger.sqlite") as ledger:
        return told, ledger.records_of_kind(Kind.SLIDE)


def read_state(state: ObjectStore) -> tuple[RunFile, list[Record]]:
    """Return what is known of a run by what its shards have written into a bucket or folder.

    Raises
    ------
    UsageError
        If there is no run.
    """
    found = state.read_bytes(RUN_FILE)
    if found is None:
        raise UsageError(f"{state.url}: no state of a run, expected {RUN_FILE} there")
    told = RunFile.read(found)
    if not told.slides:  # as of `coverslip worker`: they are not known before they arrive
        names = [stored.location.rpartition("/")[2] for stored in state.iter_objects("slides/")]
        keys = sorted(name.removesuffix(".json") for name in names)
        told = replace(told, slides=tuple((key, row, None) for row, key in enumerate(keys, start=1)))
    return told, merge_records(read_records(state))


def summarize_run(told: RunFile, records: Iterable[Record], price_per_hour: float = 0.0) -> RunStatus:
    """Return how far a run has come.

    Parameters
    ----------
    told : RunFile
    records : iterable of Record
    price_per_hour : float
        Of what works on one slide.
    """
    rows = {key: row for key, row, _ in told.slides}
    by_slide: dict[str, dict[Stage, Record]] = {}
    wanted = dict(told.steps)
    for record in records:
        if record.task.subject in rows and wanted.get(record.task.stage) == record.task.store:
            by_slide.setdefault(record.task.subject, {})[record.task.stage] = record
    states = {key: _state_of(own, wanted) for key, own in by_slide.items()}
    counted = Counter(states.values())
    ends = sorted(
        # Rows are merged into the catalog for many slides at once, which says nothing of when each was ready.
        max(record.finished_at or "" for stage, record in by_slide[key].items() if stage is not Stage.INDEX)
        for key, state in states.items()
        if state is State.DONE
    )
    per_hour = _rate(ends)
    left = len(rows) - counted[State.DONE] - counted[State.FAILED]
    sizes = {key: size or 0 for key, _, size in told.slides}
    failures = tuple(
        _slide(key, rows[key], next(each for each in own.values() if each.state is State.FAILED))
        for key, own in sorted(by_slide.items(), key=lambda each: rows[each[0]])
        if states[key] is State.FAILED
    )
    return RunStatus(
        run=told.run,
        slides=len(rows),
        done=counted[State.DONE],
        failed=counted[State.FAILED],
        under_way=counted[State.STARTED],
        bytes_wanted=sum(sizes.values()),
        bytes_done=sum(sizes[key] for key, state in states.items() if state is State.DONE),
        stages=tuple(_stage(stage, by_slide.values(), price_per_hour) for stage in wanted),
        slowest=_slowest(by_slide, rows),
        failures=failures,
        classes=dict(Counter(each.error_class for each in failures).most_common()),
        slides_per_hour=per_hour,
        left_s=left / per_hour * 3600 if per_hour else None,
    )


def _state_of(own: Mapping[Stage, Record], wanted: Iterable[Stage]) -> State:
    states = {record.state for record in own.values()}
    if State.FAILED in states:
        return State.FAILED
    if all(stage in own and own[stage].state is State.DONE for stage in wanted):
        return State.DONE
    return State.STARTED if State.STARTED in states else State.PENDING


def _stage(stage: Stage, slides: Iterable[Mapping[Stage, Record]], price_per_hour: float) -> StageStatus:
    own = [records[stage] for records in slides if stage in records]
    counted = Counter(record.state for record in own)
    seconds = sum(record.duration_s or 0.0 for record in own)
    size_bytes = sum(record.size_bytes or 0 for record in own)
    cost = seconds / 3600 * price_per_hour
    return StageStatus(
        stage, counted[State.DONE], counted[State.FAILED], counted[State.STARTED], seconds, size_bytes, cost
    )


def _slowest(by_slide: Mapping[str, Mapping[Stage, Record]], rows: Mapping[str, int]) -> tuple[SlideStatus, ...]:
    found = []
    for key, own in by_slide.items():
        timed = [record for record in own.values() if record.duration_s]
        if timed:
            longest = max(timed, key=lambda each: each.duration_s or 0.0)
            seconds = sum(record.duration_s or 0.0 for record in timed)
            found.append(SlideStatus(key, rows[key], longest.task.stage, seconds, longest.attempt))
    found.sort(key=lambda each: (-each.seconds, each.row))
    return tuple(found[:_MOST_SLOWEST])


def _slide(key: str, row: int, record: Record) -> SlideStatus:
    return SlideStatus(
        key,
        row,
        record.task.stage,
        record.duration_s or 0.0,
        record.attempt,
        record.error_class or "",
        record.error_message or "",
    )


def _rate(ends: Sequence[str]) -> float | None:
    """Return slides per hour, by when the last ones ended."""
    recent = [datetime.fromisoformat(end) for end in ends[-_RECENT:] if end]
    if len(recent) < 2 or recent[0] == recent[-1]:
        return None
    return (len(recent) - 1) / (recent[-1] - recent[0]).total_seconds() * 3600
