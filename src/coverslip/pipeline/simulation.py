"""How a run would go in many tasks: how even shards are, what machines that are slow and attempts that fail cost.

The shards are those of `assign_slides`, and slides are tried again as the engine does it; what happens to machines and
attempts is drawn from a seed, so that a simulation gives the same each time.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coverslip.pipeline.cost_model import Estimate, TaskShape
from coverslip.pipeline.shards import assign_slides

__all__ = ["Faults", "Simulation", "simulate_run"]

_STRAGGLES = 1.25
"""Times the median of all tasks, after which one is called late."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong.

    Parameters
    ----------
    attempt_fails : float
        Share of the attempts at a slide that fail and may be made again.
    task_lost_per_hour : float
        How often a task is ended in an hour, and started again: what was under way is lost.
    speed_spread : float
        Of machines: standard deviation of the logarithm of their speed.
    slow_share, slow_speed : float
        Machines that are much slower than others, and how fast they are.
    attempts : int
        Of a slide, before it is given up.
    """

    attempt_fails: float = 0.01
    task_lost_per_hour: float = 0.02
    speed_spread: float = 0.08
    slow_share: float = 0.01
    slow_speed: float = 0.6
    attempts: int = 3


@dataclass(frozen=True, slots=True)
class Simulation:
    """How a run went.

    Parameters
    ----------
    tasks : int
        Those that had slides.
    wall_s : float
        Until the last task ended.
    median_task_s, longest_slide_s : float
    balance : float
        Seconds of work of the fullest shard over those of the average, before anything happens to it.
    late_tasks : int
        That took longer than 1.25 times the median.
    busy_share : float
        Of the time of all tasks until the last ended.
    task_hours : float
        Until each ended, as it is paid for.
    retries, lost_tasks, given_up : int
        Attempts that were made again, tasks that were started again, slides that failed in the end.
    """

    tasks: int
    wall_s: float
    median_task_s: float
    longest_slide_s: float
    balance: float
    late_tasks: int
    busy_share: float
    task_hours: float
    retries: int
    lost_tasks: int
    given_up: int

    def as_json(self) -> dict[str, Any]:
        """Return the simulation as plain values."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(slots=True)
class _Tally:
    retries: int = 0
    lost_tasks: int = 0
    given_up: int = 0


def simulate_run(
    sizes: Sequence[tuple[str, int | None]],
    estimate: Estimate,
    shape: TaskShape,
    tasks: int,
    faults: Faults,
    seed: int = 0,
) -> Simulation:
    """Return how a run in so many tasks goes.

    Parameters
    ----------
    sizes : sequence of (key, bytes)
    estimate : Estimate
        What each slide takes.
    """
    shards = [shard for shard in assign_slides(sizes, tasks) if shard]
    loads = [sum(estimate.slide_s[key] for key in shard) for shard in shards]
    tally = _Tally()
    ends = [
        _task_seconds(shard, estimate, shape, faults, random.Random(f"{seed}/{tasks}/{index}"), tally)  # noqa: S311
        for index, shard in enumerate(shards)
    ]
    median = statistics.median(ends)
    return Simulation(
        tasks=len(shards),
        wall_s=max(ends),
        median_task_s=median,
        longest_slide_s=max(estimate.slide_s.values()),
        balance=max(loads) / statistics.fmean(loads),
        late_tasks=sum(end > _STRAGGLES * median for end in ends),
        busy_share=sum(ends) / (len(ends) * max(ends)),
        task_hours=sum(ends) / 3600,
        retries=tally.retries,
        lost_tasks=tally.lost_tasks,
        given_up=tally.given_up,
    )


def _task_seconds(
    shard: Sequence[str], estimate: Estimate, shape: TaskShape, faults: Faults, draw: random.Random, tally: _Tally
) -> float:
    """Return when one task ends: its slides from the largest to the smallest, then once more those that failed."""
    slide_s: Mapping[str, float] = estimate.slide_s
    speed = draw.lognormvariate(0.0, faults.speed_spread)
    if draw.random() < faults.slow_share:
        speed *= faults.slow_speed
    lanes = [shape.start_s] * shape.threads
    waiting = [(key, 1) for key in sorted(shard, key=lambda each: -slide_s[each])]
    mean_life_s = 3600 / faults.task_lost_per_hour if faults.task_lost_per_hour else float("inf")
    lost_at = draw.expovariate(1 / mean_life_s) if mean_life_s < float("inf") else float("inf")
    position = 0
    while position < len(waiting):
        key, attempt = waiting[position]
        position += 1
        lanes.sort()
        wanted = min(estimate.need_threads[key], shape.threads)
        start = lanes[wanted - 1]
        fails = draw.random() < faults.attempt_fails
        took = slide_s[key] / speed * (draw.random() if fails else 1.0)
        while start + took > lost_at:  # the task is started again, and what it was at is begun anew
            tally.lost_tasks += 1
            start = lost_at + shape.start_s
            lanes = [max(lane, start) for lane in lanes]
            lost_at = start + draw.expovariate(1 / mean_life_s)
        lanes[:wanted] = [start + took] * wanted
        if fails and attempt < faults.attempts:
            tally.retries += 1
            waiting.append((key, attempt + 1))
        elif fails:
            tally.given_up += 1
    return max(lanes)
