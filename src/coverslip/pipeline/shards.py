"""Which slides a task of many works on: told by its environment, the same on every machine, and even by size."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coverslip.errors import UsageError

__all__ = ["ShardPlace", "assign_slides", "parse_shard", "shard_of_environment"]

_SLIDE_COST_BYTES = 16 << 20
"""What a slide costs besides its bytes: opening it, headers, requests."""

_UNKNOWN_BYTES = 350 << 20

_SYSTEMS = (
    ("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT", "CLOUD_RUN_TASK_ATTEMPT", ""),
    ("BATCH_TASK_INDEX", "BATCH_TASK_COUNT", "BATCH_TASK_RETRY_ATTEMPT", ""),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_RESTART_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE", "AWS_BATCH_JOB_ATTEMPT", ""),
)
"""Variables of index, count, attempt and first index: Cloud Run jobs, Google Batch, SLURM, AWS Batch."""


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """One of several tasks that share the work.

    Parameters
    ----------
    index, count : int
        0-based.
    attempt : int
        How often the system has started this task before.
    """

    index: int
    count: int
    attempt: int = 0

    @property
    def label(self) -> str:
        """Name in logs and ledgers."""
        return f"{self.index:05d}-of-{self.count:05d}"


def parse_shard(text: str) -> ShardPlace:
    """Return the place that ``I/N`` names, counted from 0.

    Raises
    ------
    UsageError
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"--shard {text}: wanted I/N with I from 0 to N-1")
    return ShardPlace(int(match[1]), int(match[2]))


def shard_of_environment(environment: Mapping[str, str]) -> ShardPlace:
    """Return the place that the system that started this process gives it.

    Raises
    ------
    UsageError
        If no system is known that tells it, or what it tells makes no sense.
    """
    for index_name, count_name, attempt_name, first_name in _SYSTEMS:
        if index_name in environment and count_name in environment:
            try:
                first = int(environment.get(first_name, "0")) if first_name else 0
                place = ShardPlace(
                    int(environment[index_name]) - first,
                    int(environment[count_name]),
                    int(environment.get(attempt_name, "0")),
                )
            except ValueError:
                raise UsageError(f"{index_name} and {count_name}: wanted numbers") from None
            if not 0 <= place.index < place.count:
                raise UsageError(f"{index_name}={environment[index_name]}: wanted less than {place.count}")
            return place
    raise UsageError(
        f"--engine shard: wanted --shard I/N, or {' or '.join(f'{system[0]} with {system[1]}' for system in _SYSTEMS)}"
    )


def assign_slides(sizes: Sequence[tuple[str, int | None]], count: int) -> list[list[str]]:
    """Return the keys of the slides of each shard: the largest first, each to the shard that has the least.

    The result depends on nothing but keys and sizes, not on their order. No shard has more than 4/3 of what the best
    assignment would give the fullest one (Graham, 1969).

    Parameters
    ----------
    sizes : sequence of (key, bytes)
        None for a size that is not known.
    count : int
    """
    shards: list[list[str]] = [[] for _ in range(count)]
    heap = [(0, index) for index in range(count)]
    weights = [
        ((_UNKNOWN_BYTES if size is None else size) + _SLIDE_COST_BYTES, key) for key, size in dict(sizes).items()
    ]
    for weight, key in sorted(weights, key=lambda each: (-each[0], each[1])):
        load, index = heapq.heappop(heap)
        shards[index].append(key)
        heapq.heappush(heap, (load + weight, index))
    return shards
