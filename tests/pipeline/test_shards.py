"""Shares of the work: even, the same everywhere, and nothing lost whatever tasks do."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tests.pipeline.conftest import Collection, coverslip, digests_below, start

from coverslip.errors import UsageError
from coverslip.pipeline.ledger import State
from coverslip.pipeline.segments import merge_records, read_records
from coverslip.pipeline.shards import ShardPlace, assign_slides, parse_shard, shard_of_environment
from coverslip.stores.local import LocalStore

MIB = 1 << 20


def sizes_of(count: int) -> list[tuple[str, int | None]]:
    """Return sizes as those of published series: half below 330 MB, a hundredth above 6.6 GB."""
    draw = random.Random(7)
    return [
        (f"{number:06}", min(20_000 * MIB, int(330 * MIB * draw.lognormvariate(0, 1.2)))) for number in range(count)
    ]


def test_every_slide_is_in_one_shard() -> None:
    shards = assign_slides(sizes_of(1000), 17)
    assert sorted(key for shard in shards for key in shard) == [key for key, _ in sizes_of(1000)]


def test_shards_have_the_same_slides_whatever_the_order_of_the_listing() -> None:
    sizes = sizes_of(200)
    shuffled = random.Random(1).sample(sizes, len(sizes))
    assert assign_slides(sizes, 8) == assign_slides(shuffled, 8)


def test_shards_of_a_large_collection_have_nearly_the_same_bytes() -> None:
    sizes = sizes_of(20_000)
    by_key = dict(sizes)
    loads = [sum(by_key[key] or 0 for key in shard) for shard in assign_slides(sizes, 500)]
    assert max(loads) / (sum(loads) / len(loads)) < 1.02


def test_slides_of_unknown_size_are_shared_out_too() -> None:
    shards = assign_slides([(str(number), None) for number in range(6)], 3)
    assert [len(shard) for shard in shards] == [2, 2, 2]


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        (
            {"CLOUD_RUN_TASK_INDEX": "3", "CLOUD_RUN_TASK_COUNT": "8", "CLOUD_RUN_TASK_ATTEMPT": "1"},
            ShardPlace(3, 8, 1),
        ),
        ({"BATCH_TASK_INDEX": "0", "BATCH_TASK_COUNT": "2"}, ShardPlace(0, 2)),
        (
            {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "5", "SLURM_ARRAY_TASK_MIN": "1"},
            ShardPlace(4, 5),
        ),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}, ShardPlace(1, 2)),
    ],
)
def test_place_is_told_by_the_environment(environment: dict[str, str], place: ShardPlace) -> None:
    assert shard_of_environment(environment) == place


@pytest.mark.parametrize(
    "environment",
    [{}, {"BATCH_TASK_INDEX": "2", "BATCH_TASK_COUNT": "2"}, {"BATCH_TASK_INDEX": "x", "BATCH_TASK_COUNT": "2"}],
)
def test_environment_that_tells_no_place_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        shard_of_environment(environment)


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1", "a/b"])
def test_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_shard(text)


def arguments_of(collection: Collection, work: str, *more: object) -> list[object]:
    place = collection.place
    return ["run", collection.slides, "--work", place / work, "--to", collection.store, "--catalog", "catalog",
            "--engine", "shard", "--state", place / "state", "--validate", "off", "--set", "PatientID=P1",
            "--workers", 1, *more]  # fmt: skip


def test_eight_shards_in_any_order_two_of_them_twice_make_what_one_run_makes(
    undisturbed: Collection, tmp_path: Path
) -> None:
    """One is stopped and started again, and at the end another number of shards finds nothing to do."""
    collection = Collection(undisturbed.slides, tmp_path / "shards")
    collection.place.mkdir()
    order = [5, 2, 7, 0, 2, 3, 6, 1, 5, 4]
    running = []
    for number, index in enumerate(order):
        variables = {"CLOUD_RUN_TASK_INDEX": str(index), "CLOUD_RUN_TASK_COUNT": "8"}
        if index == 7:
            stopped = start(*arguments_of(collection, "stopped"), "--log-format", "json", **variables)
            assert stopped.stderr is not None
            next(line for line in stopped.stderr if "slide begun" in line)
            stopped.terminate()
            stopped.communicate(timeout=120)
            assert stopped.returncode in (0, 128 + signal.SIGTERM)
        running.append(start(*arguments_of(collection, f"work-{number}"), **variables))
        if len(running) == 2:
            finish(running)
    finish(running)
    assert collection.stored() == undisturbed.stored()
    told = coverslip("status", collection.place / "state", "--json").told
    assert (told["slides"], told["done"], told["failed"]) == (24, 24, 0)
    assert coverslip("collect", collection.place / "state", "--catalog", collection.catalog).code == 0
    assert collection.indexed() == undisturbed.indexed()
    again = coverslip(*arguments_of(collection, "again", "--shard", "1/3", "--json"))
    assert (again.code, again.told["done"], again.told["done_before"]) == (0, 8, 8)


def finish(running: list) -> None:
    while running:
        out, err = running[0].communicate(timeout=120)
        assert running.pop(0).returncode == 0, out + err


def test_segments_name_no_slide_and_merge_to_one_record_a_stage(undisturbed: Collection, tmp_path: Path) -> None:
    """A slide that fails in one task and is done in another is done."""
    collection = Collection(undisturbed.slides, tmp_path / "segments")
    collection.place.mkdir()
    state = LocalStore(collection.place / "state")
    blocked = coverslip(*arguments_of(collection, "first", "--shard", "0/12", "--mpp", "0.0001", "--json"))
    assert blocked.code == 2  # nothing was begun
    assert coverslip(*arguments_of(collection, "first", "--shard", "0/12")).code == 0
    records = list(read_records(state))
    merged = merge_records([*records, *records])
    assert {record.state for record in merged} == {State.DONE}
    assert len(merged) == 2 * 5
    started = next(each for each in records if each.task == merged[0].task and each.state is State.STARTED)
    failed = replace(started, state=State.FAILED, started_at="9999", finished_at="9999")
    assert merge_records([merged[0], failed]) == merge_records([failed, merged[0]]) == [merged[0]]
    written = b"".join(path.read_bytes() for path in (collection.place / "state").rglob("*") if path.is_file())
    written += "".join(map(str, digests_below(collection.place / "state"))).encode()
    assert b"slide-0" not in written
