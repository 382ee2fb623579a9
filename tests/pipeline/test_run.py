"""Runs from end to end: what is killed, what fails, what is tried again, and what is left alone."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from tests.pipeline.conftest import Collection, Done, coverslip, digests_below, start, write_slide

from coverslip.cli import cli
from coverslip.errors import UsageError
from coverslip.pipeline.ledger import Kind, Ledger, Stage

KILLS = (1, 3, 8, 20)
"""Changes of the ledger before which runs are killed, one after the other; benchmarks.soak tries many more."""

WORKERS = 3
"""Processes on two cores, where one waits for the network."""


def assert_same(collection: Collection, undisturbed: Collection) -> None:
    assert collection.stored() == undisturbed.stored()
    assert collection.indexed() == undisturbed.indexed()
    assert collection.states() == undisturbed.states()
    assert not list(collection.work.glob("scratch/*"))
    assert not list(collection.work.glob("catalog-parts/*"))


def test_undisturbed_run_does_every_stage_of_every_slide(undisturbed: Collection) -> None:
    states = undisturbed.states()
    assert len(states) == 24 * 5
    assert {state for state, _ in states.values()} == {"done"}
    assert {stage for _, stage in states} == {"fetch", "convert", "upload", "verify", "index"}
    assert len(undisturbed.indexed()) == len(undisturbed.stored())


def test_second_run_repeats_nothing(undisturbed: Collection) -> None:
    before = (undisturbed.work / "ledger.sqlite").read_bytes(), undisturbed.stored()
    done = undisturbed.run("--json")
    assert done.code == 0
    assert (done.told["done"], done.told["done_before"]) == (24, 24)
    assert before == ((undisturbed.work / "ledger.sqlite").read_bytes(), undisturbed.stored())


def test_run_killed_again_and_again_ends_as_if_nothing_had_been(undisturbed: Collection, tmp_path: Path) -> None:
    collection = Collection(undisturbed.slides, tmp_path / "killed")
    for step in KILLS:
        done = collection.run("--workers", 2, module=f"tests.pipeline.killed {step}")
        assert done.code == -signal.SIGKILL, done.err
    before = collection.states()
    assert "started" in {state for state, _ in before.values()}
    done = collection.run("--json")
    assert (done.code, done.told["done"]) == (0, 24), done.err
    assert_same(collection, undisturbed)
    # What was done before a kill was not done again: no more was begun twice than workers had under way.
    with Ledger(collection.work / "ledger.sqlite") as ledger:
        records = [each for each in ledger.records_of_kind(Kind.SLIDE) if each.task.stage is Stage.CONVERT]
    assert sum(record.attempt - 1 for record in records) <= len(KILLS) * WORKERS


def test_worker_that_is_killed_costs_one_attempt_and_no_slide(undisturbed: Collection, tmp_path: Path) -> None:
    collection = Collection(undisturbed.slides, tmp_path / "lost")
    collection.place.mkdir()
    with start(*collection.arguments("--log-format", "json")) as run:
        assert run.stderr is not None
        lines = []
        for line in run.stderr:
            lines.append(json.loads(line))
            if lines[-1]["message"] == "slide done" and lines[-1]["done"] == 3:
                workers = [
                    each for each in psutil.Process(run.pid).children() if "spawn_main" in " ".join(each.cmdline())
                ]
                workers[0].kill()
    lost = [line for line in lines if line.get("error_class") == "WorkerLost"]
    assert len(lost) <= 1  # none if it was killed between two slides
    assert not any(line["final"] for line in lost)
    assert run.returncode == 0
    assert_same(collection, undisturbed)


def test_sigterm_ends_in_order_and_the_next_run_goes_on(undisturbed: Collection, tmp_path: Path) -> None:
    collection = Collection(undisturbed.slides, tmp_path / "stopped")
    collection.place.mkdir()
    with start(*collection.arguments("--log-format", "json")) as run:
        assert run.stderr is not None
        next(line for line in run.stderr if "slide begun" in line)
        run.terminate()  # once: asked again it ends at once, in less order
        asked = time.monotonic()
        told = [json.loads(line)["message"] for line in run.stderr]
    assert time.monotonic() - asked < 20
    assert run.returncode == 128 + signal.SIGTERM
    match = re.fullmatch(r"(\d+) of 24 slides done, 0 failed, (\d+) left", told[-1])
    assert match is not None, told
    assert int(match[2]) > 12
    states = {state for state, _ in collection.states().values()}
    assert "started" not in states
    assert not list(collection.work.glob("scratch/*/series/.coverslip-partial"))
    done = collection.run("--json")
    assert done.code == 0
    assert_same(collection, undisturbed)


def test_bad_slides_stop_no_other_and_are_listed_with_their_reasons(mixed_done: tuple[Collection, Done]) -> None:
    mixed, done = mixed_done
    assert done.code == 3
    assert done.out.startswith("3 of 5 slides done, 2 failed, 0 left")
    with (mixed.work / "quarantine.csv").open() as file:
        listed = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert listed["cut-off.svs"]["error_class"] == "CorruptSourceError"
    assert listed["none.svs"]["error_class"] == "UnsupportedSourceError"
    assert {row["stage"] for row in listed.values()} == {"convert"}
    assert len(mixed.stored()) == len(mixed.indexed()) > 3
    assert not list((mixed.work / "scratch").iterdir())


def test_ledger_and_logs_name_no_slide(mixed_done: tuple[Collection, Done]) -> None:
    mixed, done = mixed_done
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert {line["severity"] for line in lines} >= {"INFO", "ERROR"}
    assert all(line["message"] and line["logging.googleapis.com/trace"] for line in lines)
    written = done.err + (mixed.work / "run.json").read_text()
    written += (mixed.work / "ledger.sqlite").read_bytes().decode("latin-1")
    assert not any(name in written for name in ("good-", "cut-off", "none.svs"))


def test_slides_that_were_given_up_are_tried_again_only_when_asked(mixed_done: tuple[Collection, Done]) -> None:
    mixed, _ = mixed_done
    told = mixed.run("--json").told
    assert (told["done_before"], told["failed"]) == (3, 2)
    again = mixed.run("--retry", "failed:CorruptSourceError", "--log-format", "json")
    begun = [line for line in map(json.loads, again.err.splitlines()) if line["message"] == "slide begun"]
    assert len(begun) == 1
    assert again.code == 3


def test_slide_with_other_options_is_made_anew(mixed: Collection) -> None:
    arguments = ["run", mixed.slides, "--work", mixed.work, "--stages", "convert", "--workers", 1, "--json"]
    assert coverslip(*arguments).told["done"] == 3
    told = coverslip(*arguments, "--set", "StudyID=E1").told
    assert (told["done"], told["done_before"]) == (3, 0)


def test_no_more_slides_are_begun_after_so_many_failures(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    for number in range(8):
        (slides / f"{number}.svs").write_bytes(b"no slide at all" * (number + 1))
    done = Collection(slides, tmp_path / "run").run("--max-failures", 2, "--workers", 1, "--json")
    assert done.code == 3
    assert 2 <= done.told["failed"] <= 4  # those under way end
    assert done.told["left"] == 8 - done.told["failed"]


def test_series_stay_where_nothing_is_delivered_and_are_made_again_when_gone(mixed: Collection) -> None:
    arguments = ["run", mixed.slides, "--work", mixed.work, "--stages", "convert", "--json"]
    assert coverslip(*arguments).told["done"] == 3
    series = mixed.work / "series"
    before = digests_below(series, ("conversion.json",))
    assert len({name.split("/")[1] for name in before}) == 3
    for file in next(iter(series.glob("*/*"))).iterdir():
        file.unlink()
    assert coverslip(*arguments).told["done_before"] == 2
    assert digests_below(series, ("conversion.json",)) == before


def test_stages_may_be_run_one_after_the_other(mixed: Collection) -> None:
    first = ["run", mixed.slides, "--work", mixed.work, "--set", "PatientID=P1"]
    assert coverslip(*first, "--stages", "convert").code == 3
    assert coverslip(*first, "--stages", "upload", "--keep", "--to", mixed.store, "--json").told["done"] == 3
    assert len(mixed.stored()) > 3


def test_two_runs_do_not_share_a_folder(mixed: Collection) -> None:
    import fcntl

    mixed.work.mkdir(parents=True)
    with (mixed.work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = mixed.run()
    assert done.code == 6
    assert "another run is under way" in done.err


def test_slide_that_does_not_fit_on_the_disk_is_refused_at_the_start(mixed: Collection) -> None:
    done = mixed.run("--scratch-limit", "10K")
    assert done.code == 6
    assert "of scratch" in done.err
    assert not mixed.stored()


def test_memory_and_disk_stay_within_their_budgets(tmp_path: Path) -> None:
    """Two slides are expected to need more memory than there is, so they go one after the other."""
    slides, run_place = tmp_path / "slides", tmp_path / "run"
    slides.mkdir()
    run_place.mkdir()
    for seed in range(4):
        write_slide(slides / f"{seed}.svs", seed, rows=1500, columns=1500)
    collection = Collection(slides, run_place)
    scratch_limit = 3 * max(each.stat().st_size for each in slides.iterdir())
    limits = ("--memory-limit", "400M", "--scratch-limit", scratch_limit, "--workers", 4)
    peak_bytes = most_busy = peak_scratch = 0
    with start(*collection.arguments(*limits)) as process:
        while process.poll() is None:
            try:
                children = psutil.Process(process.pid).children()
                peak_bytes = max(peak_bytes, sum(each.memory_info().rss for each in children))
            except psutil.NoSuchProcess:
                continue
            scratch = collection.work / "scratch"
            sizes = [_size_of(each) for each in scratch.glob("*")] if scratch.is_dir() else []
            most_busy = max(most_busy, len(sizes))
            peak_scratch = max(peak_scratch, sum(sizes))
            time.sleep(0.01)
    assert process.returncode == 0
    assert most_busy == 1
    assert 0 < peak_scratch < scratch_limit
    assert peak_bytes < 400 << 20


def test_rows_are_merged_while_slides_go_on(undisturbed: Collection, tmp_path: Path) -> None:
    """Workers that are never idle do not keep rows from the catalog until the last slide has ended."""
    collection = Collection(undisturbed.slides, tmp_path / "merging")
    done = collection.run("--workers", 1, "--log-format", "json", module="tests.pipeline.merging 6")
    assert done.code == 0, done.err
    messages = [json.loads(line)["message"] for line in done.err.splitlines()]
    last_begun = len(messages) - 1 - messages[::-1].index("slide begun")
    assert messages[:last_begun].count("slide done") >= 6
    assert_same(collection, undisturbed)


def _size_of(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stages", "upload"], "wanted with --to"),
        (["--stages", "shred"], "shred"),
        (["--retry", "all"], "--retry all"),
        (["--engine", "shard"], "--state"),
        (["--engine", "shard", "--state", "state"], "CLOUD_RUN_TASK_INDEX"),
        (["--shard", "1/2"], "--engine shard"),
        (["--map", "tcga"], "--metadata"),
        (["--mpp", "9999"], "--mpp"),
    ],
)
def test_wrong_options_are_refused(mixed: Collection, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, ["run", str(mixed.slides), "--work", str(mixed.work), *arguments])
    assert isinstance(result.exception, UsageError)
    assert words in str(result.exception)
    assert not mixed.work.exists()
