"""What a run will take, told before it is begun; and how it would go in many tasks."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.pipeline.conftest import ROOT, Collection, Done

from coverslip.cli import cli
from coverslip.errors import StoreError, UsageError
from coverslip.pipeline.budget import Budget, Estimator
from coverslip.pipeline.cost_model import (
    DEFAULT_RATES,
    StageRate,
    TaskShape,
    estimate_run,
    measure_rates,
    published_sizes,
    shard_seconds,
)
from coverslip.pipeline.ledger import Kind, Record, Stage, State, Task
from coverslip.pipeline.manifest import Slide
from coverslip.pipeline.simulation import Faults, simulate_run

GB = 10**9
STEPS = (Stage.FETCH, Stage.CONVERT, Stage.VALIDATE, Stage.UPLOAD, Stage.VERIFY, Stage.INDEX)
SHAPE = TaskShape(2, 8 * GB, 200 * GB)
NO_FAULTS = Faults(0.0, 0.0, 0.0, 0.0)


def estimator() -> Estimator:
    return Estimator(Budget(SHAPE.threads, SHAPE.memory_bytes, SHAPE.scratch_bytes), 64 << 20)


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["plan", *map(str, arguments)])


def test_published_sizes_have_the_published_quantiles() -> None:
    sizes = sorted(slide.size_bytes or 0 for slide in published_sizes(20_000))
    quantiles = statistics.quantiles(sizes, n=100)
    assert [quantiles[percent - 1] / 1e6 for percent in (50, 90, 99)] == pytest.approx([330, 1400, 6600], rel=0.005)


def test_time_is_that_of_bytes_and_constants_and_threads_help_where_they_do() -> None:
    rate = StageRate(1.0, 1e6, threaded=True)
    assert rate.seconds(3_000_000) == 4.0
    assert rate.seconds(3_000_000, 2) == pytest.approx(1 + 3 / 1.602, rel=1e-3)
    assert StageRate(1.0, 1e6).seconds(3_000_000, 2) == 4.0


def test_slide_that_takes_all_threads_waits_for_them() -> None:
    seconds = {"a": 10.0, "b": 4.0, "c": 4.0}
    assert shard_seconds(seconds, seconds, {"a": 1, "b": 1, "c": 1}, 2) == 10.0
    assert shard_seconds(seconds, seconds, {"a": 2, "b": 1, "c": 1}, 2) == 14.0
    assert shard_seconds(seconds, seconds, {"a": 1, "b": 1, "c": 1}, 1) == 18.0


def test_tasks_are_the_fewest_that_end_in_time() -> None:
    slides = published_sizes(2000)
    estimate = estimate_run(slides, STEPS, estimator(), SHAPE, deadline_s=2 * 3600)
    assert 1 < estimate.tasks < 100
    assert estimate.wall_s <= 2 * 3600
    fewer = estimate_run(slides, STEPS, estimator(), SHAPE, deadline_s=0, tasks=estimate.tasks - 1)
    assert fewer.wall_s > 2 * 3600
    assert estimate.sent_bytes == estimate.output_bytes > estimate.source_bytes == estimate.fetched_bytes


def test_slides_on_this_machine_are_not_fetched_and_series_that_stay_are_told() -> None:
    slides = [Slide("0" * 40, 1, "a.svs", "/a.svs", size_bytes=GB)]
    estimate = estimate_run(slides, (Stage.FETCH, Stage.CONVERT), estimator(), SHAPE, deadline_s=1)
    assert (estimate.fetched_bytes, estimate.sent_bytes, estimate.stage_s[Stage.FETCH]) == (0, 0, 0.0)
    assert estimate.kept_bytes == estimate.output_bytes


def test_rates_are_the_line_through_what_an_earlier_run_took() -> None:
    sizes: dict[str, int | None] = {str(number): 10**7 * number for number in range(1, 6)}

    def record(key: str, seconds: float, stage: Stage = Stage.CONVERT) -> Record:
        task = Task(Kind.SLIDE, key, stage)
        return Record(task, State.DONE, 1, None, None, seconds, None, None, None, False, None, None, "1")

    records = [record(key, 0.5 + (size or 0) / 2e7) for key, size in sizes.items()]
    measured = measure_rates(sizes, [*records, record("1", 9.0, Stage.UPLOAD)])
    assert measured.keys() == {Stage.CONVERT}  # one upload says nothing
    assert measured[Stage.CONVERT].fixed_s == pytest.approx(0.5)
    assert measured[Stage.CONVERT].bytes_per_s == pytest.approx(2e7)
    assert measured[Stage.CONVERT].threaded


def test_simulation_without_faults_is_the_estimate() -> None:
    slides = published_sizes(500)
    estimate = estimate_run(slides, STEPS, estimator(), SHAPE, deadline_s=1, tasks=7)
    run = simulate_run([(each.key, each.size_bytes) for each in slides], estimate, SHAPE, 7, NO_FAULTS)
    assert run.wall_s == pytest.approx(estimate.wall_s)
    assert (run.retries, run.lost_tasks, run.given_up, run.late_tasks) == (0, 0, 0, 0)


def test_simulation_of_twenty_thousand_slides_from_one_to_ten_thousand_tasks() -> None:
    slides = published_sizes(20_000)
    sizes = [(each.key, each.size_bytes) for each in slides]
    estimate = estimate_run(slides, STEPS, estimator(), SHAPE, deadline_s=1, tasks=1)
    runs = {count: simulate_run(sizes, estimate, SHAPE, count, Faults()) for count in (1, 10, 100, 1000, 10_000)}
    assert runs[100] == simulate_run(sizes, estimate, SHAPE, 100, Faults())  # the same seed gives the same
    assert runs[100] != simulate_run(sizes, estimate, SHAPE, 100, Faults(), seed=1)
    assert [run.tasks for run in runs.values()] == list(runs)
    assert runs[1].wall_s > 5 * runs[10].wall_s > 5 * runs[100].wall_s > runs[1000].wall_s
    assert runs[100].balance < 1.01  # shards end together, as long as no slide is more than a shard
    # With more tasks than that the largest slide says when all ends.
    assert runs[10_000].wall_s == pytest.approx(runs[1000].wall_s, rel=0.5)
    assert runs[10_000].wall_s > estimate.slide_s[slides[-1].key] * 0.8
    many = simulate_run(sizes, estimate, SHAPE, 100, Faults(attempt_fails=0.2))
    assert 0.2 < many.retries / 20_000 < 0.27
    assert many.given_up == pytest.approx(20_000 * 0.2**3, rel=0.3)
    assert many.task_hours > runs[100].task_hours
    assert simulate_run(sizes, estimate, SHAPE, 100, Faults(task_lost_per_hour=2.0)).lost_tasks > 100


def test_command_tells_what_a_folder_takes(mixed_slides: Path) -> None:
    arguments = ["--stages", "convert,validate,upload", "--to", "gs://bucket/x", "--workers", 2, "--tasks", "1,2"]
    told = json.loads(ask(mixed_slides, *arguments, "--json", "--simulate", "--price", 1).output)
    assert told["slides"] == 5
    assert told["fits"] is True
    assert list(told["stages"]) == ["fetch", "convert", "validate", "upload", "verify"]
    assert told["egress_bytes"] == told["output_bytes"] > told["source_bytes"] > 0
    assert [each["tasks"] for each in told["by_tasks"]] == [1, 2]
    assert [each["asked_for"] for each in told["simulations"]] == [1, 2]
    assert told["cost"] == pytest.approx(told["wall_s"] / 3600, abs=1e-3)
    assert "scratch" in ask(mixed_slides).output


def test_slide_that_does_not_fit_is_refused_by_plan_as_at_the_start_of_a_run(
    mixed_slides: Path, tmp_path: Path
) -> None:
    plan = ask(mixed_slides, "--scratch-limit", "10K", "--json")
    assert isinstance(plan.exception, StoreError)
    run = CliRunner().invoke(
        cli, ["run", str(mixed_slides), "--work", str(tmp_path), "--scratch-limit", "10K", "--stages", "convert"]
    )
    assert str(run.exception) == str(plan.exception)
    assert "of scratch (source, output and a tenth)" in str(plan.exception)
    assert json.loads(plan.output[: plan.output.rindex("}") + 1])["fits"] is False


def test_output_of_a_codec_without_compression_is_counted(mixed_slides: Path) -> None:
    usual = json.loads(ask(mixed_slides, "--json").output)
    raw = json.loads(ask(mixed_slides, "--json", "--codec", "none").output)
    assert raw["scratch_bytes"] == pytest.approx(10 * usual["scratch_bytes"], rel=0.001)


def test_rates_may_come_from_an_earlier_run(mixed_done: tuple[Collection, Done]) -> None:
    collection, _ = mixed_done
    slides = ["idc:10", "--stages", "convert", "--json"]
    known = json.loads(ask(*slides).output)
    measured = json.loads(ask(*slides, "--measured-by", collection.work).output)
    assert measured["stages"]["convert"] != known["stages"]["convert"]
    assert measured["source_bytes"] == known["source_bytes"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["idc:1"], "idc:1"),
        (["idc:10", "--tasks", "0"], "--tasks 0"),
        (["idc:10", "--tasks", "1,x"], "--tasks 1,x"),
        (["nowhere.csv"], "nowhere.csv"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], words: str) -> None:
    error = ask(*arguments).exception
    assert isinstance(error, UsageError)
    assert words in str(error)


def test_page_lists_the_rates_that_are_gone_by() -> None:
    text = (ROOT / "docs/pipeline.md").read_text().split("<!-- rates -->")[1].split("<!-- /rates -->")[0]
    rows = [line.strip("| ").split(" | ") for line in text.strip().splitlines()[2:]]
    assert {row[0]: (float(row[1]), float(row[2]), row[3]) for row in rows} == {
        str(stage): (rate.fixed_s, rate.bytes_per_s / 1e6, "yes" if rate.threaded else "no")
        for stage, rate in DEFAULT_RATES.items()
    }
