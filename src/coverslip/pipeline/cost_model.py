"""What a run over slides will take: seconds by stage, memory, disk, bytes sent, and how many tasks end it in time.

A stage of a slide takes a constant and a time for each byte of its source; threads help converting and validating. The
constants stand in docs/pipeline.md with how they were measured, or are taken from what an earlier run has written down.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coverslip.pipeline.budget import Estimator
from coverslip.pipeline.fetch import is_remote
from coverslip.pipeline.ledger import Record, Stage, State
from coverslip.pipeline.manifest import Checksums, Slide, slide_key
from coverslip.pipeline.shards import assign_slides

__all__ = [
    "DEFAULT_RATES",
    "Estimate",
    "StageRate",
    "TaskShape",
    "estimate_run",
    "measure_rates",
    "published_sizes",
    "shard_seconds",
]

_SPEEDUP_EXPONENT = 0.68
"""Two threads convert 1.6 times as fast as one."""

_UNKNOWN_BYTES = 350 << 20
_LEAST_MEASURED = 3
_MOST_TASKS = 10_000
"""Of a job of Cloud Run."""

_PUBLISHED_MB = ((0.5, 330.0), (0.9, 1400.0), (0.99, 6600.0))
"""Quantiles of the series that the Imaging Data Commons has published."""

_LARGEST_MB = 60_000.0


@dataclass(frozen=True, slots=True)
class StageRate:
    """What one stage takes.

    Parameters
    ----------
    fixed_s : float
        For each slide.
    bytes_per_s : float
        Of the source, by one thread.
    threaded : bool
        Whether more threads help.
    """

    fixed_s: float
    bytes_per_s: float
    threaded: bool = False

    def seconds(self, size_bytes: int, threads: int = 1) -> float:
        """Return what the stage takes of a slide."""
        faster = threads**_SPEEDUP_EXPONENT if self.threaded else 1.0
        return self.fixed_s + size_bytes / self.bytes_per_s / faster


DEFAULT_RATES: Mapping[Stage, StageRate] = {
    Stage.FETCH: StageRate(0.2, 60e6),
    Stage.CONVERT: StageRate(0.1, 23e6, threaded=True),
    Stage.VALIDATE: StageRate(0.25, 125e6, threaded=True),
    Stage.UPLOAD: StageRate(0.3, 60e6),
    Stage.VERIFY: StageRate(0.1, 300e6),
    Stage.INDEX: StageRate(0.1, 10e9),
}
"""See docs/pipeline.md. Fetching and sending are those of a bucket in the same region, and are assumed."""


@dataclass(frozen=True, slots=True)
class TaskShape:
    """What one task, or this machine, has.

    Parameters
    ----------
    threads, memory_bytes, scratch_bytes : int
    start_s : float
        Until it begins its first slide.
    """

    threads: int
    memory_bytes: int
    scratch_bytes: int
    start_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take.

    Parameters
    ----------
    slides, unknown_sizes : int
    source_bytes, output_bytes : int
    fetched_bytes, sent_bytes : int
        Over the network: in, and out to all stores.
    stage_s : mapping
        Seconds of all slides together, by stage.
    slide_s : mapping
        Seconds of each slide from end to end, by key.
    need_threads : mapping
        Threads that each slide is given, by key.
    memory_bytes, scratch_bytes : int
        Of the slide that needs most.
    kept_bytes : int
        Series that stay in the folder of the run.
    tasks : int
        The fewest that end in time, or the most that help.
    wall_s : float
        With so many.
    """

    slides: int
    unknown_sizes: int
    source_bytes: int
    output_bytes: int
    fetched_bytes: int
    sent_bytes: int
    stage_s: Mapping[Stage, float]
    slide_s: Mapping[str, float]
    need_threads: Mapping[str, int]
    memory_bytes: int
    scratch_bytes: int
    kept_bytes: int
    tasks: int
    wall_s: float

    def as_json(self) -> dict[str, Any]:
        """Return the estimate as plain values."""
        return {
            "slides": self.slides,
            "unknown_sizes": self.unknown_sizes,
            "source_bytes": self.source_bytes,
            "output_bytes": self.output_bytes,
            "fetched_bytes": self.fetched_bytes,
            "egress_bytes": self.sent_bytes,
            "stages": {str(stage): round(seconds, 1) for stage, seconds in self.stage_s.items()},
            "slide_seconds": round(sum(self.slide_s.values()), 1),
            "longest_slide_s": round(max(self.slide_s.values(), default=0.0), 1),
            "memory_bytes": self.memory_bytes,
            "scratch_bytes": self.scratch_bytes,
            "kept_bytes": self.kept_bytes,
            "tasks": self.tasks,
            "wall_s": round(self.wall_s, 1),
        }


def estimate_run(
    slides: Sequence[Slide],
    steps: Sequence[Stage],
    estimator: Estimator,
    shape: TaskShape,
    *,
    deadline_s: float,
    stores: int = 1,
    keep: bool = False,
    rates: Mapping[Stage, StageRate] = DEFAULT_RATES,
    tasks: int | None = None,
) -> Estimate:
    """Return what a run will take.

    Parameters
    ----------
    steps : sequence of Stage
        All that are made.
    estimator : Estimator
        Of what slides need of one task.
    deadline_s : float
        For the number of tasks.
    stores : int
        That series are delivered to.
    keep : bool
        Whether series stay though they are delivered.
    tasks : int, optional
        Their number, where that is given.
    """
    needs = {slide.key: estimator.need_of(slide) for slide in slides}
    sizes = {slide.key: _UNKNOWN_BYTES if slide.size_bytes is None else slide.size_bytes for slide in slides}
    stage_s = dict.fromkeys(steps, 0.0)
    slide_s: dict[str, float] = {}
    for slide in slides:
        own = {step: _seconds(slide, step, rates, sizes[slide.key], needs[slide.key].threads) for step in steps}
        for step, seconds in own.items():
            stage_s[step] += seconds
        slide_s[slide.key] = sum(own.values())
    source = sum(sizes.values())
    output = int(source * estimator.output_ratio)
    delivers = Stage.UPLOAD in steps
    threads = {key: need.threads for key, need in needs.items()}
    count, wall_s = _tasks_for(deadline_s, sizes, slide_s, threads, shape, tasks)
    return Estimate(
        slides=len(slides),
        unknown_sizes=sum(slide.size_bytes is None for slide in slides),
        source_bytes=source,
        output_bytes=output,
        fetched_bytes=sum(sizes[slide.key] for slide in slides if is_remote(slide)),
        sent_bytes=output * stores if delivers else 0,
        stage_s=stage_s,
        slide_s=slide_s,
        need_threads=threads,
        memory_bytes=max((need.memory_bytes for need in needs.values()), default=0),
        scratch_bytes=max((need.scratch_bytes for need in needs.values()), default=0),
        kept_bytes=output if keep or not delivers else 0,
        tasks=count,
        wall_s=wall_s,
    )


def _seconds(slide: Slide, step: Stage, rates: Mapping[Stage, StageRate], size_bytes: int, threads: int) -> float:
    if step is Stage.FETCH and not is_remote(slide):
        return 0.0  # is read where it is
    return rates[step].seconds(size_bytes, threads)


def _tasks_for(
    deadline_s: float,
    sizes: Mapping[str, int],
    slide_s: Mapping[str, float],
    threads: Mapping[str, int],
    shape: TaskShape,
    tasks: int | None,
) -> tuple[int, float]:
    """Return the fewest tasks that end in time, and when they do; more than one for each slide are of no use."""

    def wall_s(count: int) -> float:
        shards = assign_slides(list(sizes.items()), count)
        return shape.start_s + max(shard_seconds(shard, slide_s, threads, shape.threads) for shard in shards)

    if tasks is not None:
        return tasks, wall_s(tasks)
    most = max(1, min(_MOST_TASKS, len(sizes)))
    # Between the count that would do if all went evenly and the most: halve what is left.
    low = max(1, min(most, math.floor(sum(slide_s.values()) / max(1.0, deadline_s) / shape.threads)))
    if wall_s(low) <= deadline_s or wall_s(most) > deadline_s:
        low = low if wall_s(low) <= deadline_s else most
        return low, wall_s(low)
    high = most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wall_s(middle) <= deadline_s else (middle, high)
    return high, wall_s(high)


def shard_seconds(
    keys: Iterable[str], slide_s: Mapping[str, float], threads: Mapping[str, int], most_threads: int
) -> float:
    """Return how long one task works on its slides: the largest first, several at once as far as threads reach."""
    ends = [0.0] * most_threads
    for key in sorted(keys, key=lambda each: -slide_s[each]):
        ends.sort()
        wanted = min(threads[key], most_threads)
        start = ends[wanted - 1]
        ends[:wanted] = [start + slide_s[key]] * wanted
    return max(ends)


def measure_rates(
    sizes: Mapping[str, int | None], records: Iterable[Record], threads: int = 1
) -> dict[Stage, StageRate]:
    """Return the rates of the stages that an earlier run has taken often enough; see `StageRate`.

    A line is laid through seconds over bytes; where slides are of one size, all is put down to their bytes.

    Parameters
    ----------
    sizes : mapping
        Bytes of each slide by key.
    threads : int
        That each slide had.
    """
    points: dict[Stage, list[tuple[int, float]]] = {}
    for record in records:
        size = sizes.get(record.task.subject)
        if record.state is State.DONE and record.duration_s and size:
            points.setdefault(record.task.stage, []).append((size, record.duration_s))
    measured: dict[Stage, StageRate] = {}
    for stage, own in points.items():
        known = DEFAULT_RATES.get(stage)
        if known is None or len(own) < _LEAST_MEASURED:
            continue
        fixed, per_byte = _line_through(own)
        if known.threaded:
            per_byte *= threads**_SPEEDUP_EXPONENT
        measured[stage] = StageRate(fixed, 1 / max(per_byte, 1e-12), known.threaded)
    return measured


def _line_through(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return constant and slope, neither below zero."""
    sizes, seconds = [float(size) for size, _ in points], [each for _, each in points]
    if max(sizes) < 2 * min(sizes):
        return 0.0, sum(seconds) / sum(sizes)
    slope, constant = statistics.linear_regression(sizes, seconds)
    if slope <= 0:
        return statistics.fmean(seconds), 0.0
    if constant <= 0:
        return 0.0, sum(seconds) / sum(sizes)
    return constant, slope


def published_sizes(count: int) -> list[Slide]:
    """Return slides in a bucket whose sizes are distributed as those of published series; at each call the same."""
    normal = statistics.NormalDist()
    knots = [(normal.inv_cdf(share), math.log(size)) for share, size in _PUBLISHED_MB]
    slides = []
    for index in range(count):
        z = normal.inv_cdf((index + 0.5) / count)
        first = 0 if z < knots[1][0] else 1
        (z0, log0), (z1, log1) = knots[first : first + 2]
        size = min(_LARGEST_MB, math.exp(log0 + (z - z0) * (log1 - log0) / (z1 - z0)))
        name = f"{index:06}"
        slides.append(
            Slide(slide_key(name, Checksums()), index + 1, name, f"gs://bucket/{name}", size_bytes=int(size * 1e6))
        )
    return slides
