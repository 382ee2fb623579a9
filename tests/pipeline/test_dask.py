"""A cluster's workers do what one machine does, and losing one loses no slide."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.pipeline.conftest import ENVIRONMENT, Collection, start
from tests.pipeline.test_run import assert_same

from coverslip.cli import cli
from coverslip.errors import StoreError, UsageError
from coverslip.pipeline.ledger import Kind, Ledger, Stage

IMPATIENT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"}


def dask(*arguments: object, cwd: Path) -> subprocess.Popen[bytes]:
    """Start a part of a cluster."""
    with (cwd / f"{arguments[0]}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + str(arguments[0]), *map(str, arguments[1:])],
            cwd=cwd,
            env=ENVIRONMENT,
            stdout=log,
            stderr=log,
        )


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[Path, list[subprocess.Popen[bytes]]]]:
    """Start a scheduler and workers, each a process, and give the scheduler's file and all of them."""
    folder.mkdir()
    file = folder / "scheduler.json"
    parts = [dask("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file,
                  cwd=folder)]  # fmt: skip
    try:
        parts += [start_worker(folder, f"w{number}") for number in range(workers)]
        yield file, parts
    finally:
        for part in reversed(parts):
            part.kill()
            part.wait()


def start_worker(folder: Path, name: str) -> subprocess.Popen[bytes]:
    place = folder / name
    place.mkdir()
    options = ["--nthreads", 1, "--no-nanny", "--no-dashboard", "--memory-limit", "2GiB", "--local-directory", place]
    return dask("worker", "--scheduler-file", folder / "scheduler.json", *options, "--name", name, cwd=place)


def slides_under_way(folder: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the slides that each worker is in the middle of, by what lies in its folder."""
    return {name: [path.name for path in (folder / name).rglob("scratch/*")] for name in names}


def test_worker_killed_in_mid_slide_loses_nothing(undisturbed: Collection, tmp_path: Path) -> None:
    collection = Collection(undisturbed.slides, tmp_path / "cluster-run")
    collection.place.mkdir()
    killed_slides: list[str] = []
    with cluster(tmp_path / "cluster", 3) as (file, (_, *workers)):
        arguments = collection.arguments("--engine", "dask", "--scheduler", file, "--log-format", "json")
        with start(*arguments) as run:
            assert run.stderr is not None
            for line in run.stderr:
                if json.loads(line)["message"] == "convert begun" and not killed_slides:
                    # Each worker holds still while it is looked at, so that the one to be killed is in mid-slide.
                    for number, worker in enumerate(workers):
                        os.kill(worker.pid, signal.SIGSTOP)
                        killed_slides = slides_under_way(tmp_path / "cluster", [f"w{number}"])[f"w{number}"]
                        os.kill(worker.pid, signal.SIGKILL if killed_slides else signal.SIGCONT)
                        if killed_slides:
                            break
        assert run.returncode == 0
        assert len(killed_slides) == 1
        again = collection.run("--engine", "dask", "--scheduler", file, "--json")
        assert (again.told["done"], again.told["done_before"]) == (24, 24)
    assert_same(collection, undisturbed)
    with Ledger(collection.work / "ledger.sqlite") as ledger, Ledger(undisturbed.work / "ledger.sqlite") as other:
        records = {each.task: each for each in ledger.iter_records()}
        assert {kind_and_subject(each) for each in records} == {kind_and_subject(r.task) for r in other.iter_records()}
    fetches = [each for each in records.values() if each.task.stage is Stage.FETCH]
    assert {each.task.subject for each in fetches if each.attempt > 1} <= set(killed_slides)


def kind_and_subject(task) -> tuple[str, str, str]:
    return task.kind, task.subject if task.kind is not Kind.SERIES else "", task.stage


def test_workers_that_come_late_or_anew_take_up_what_waits(mixed: Collection, tmp_path: Path) -> None:
    """The run waits for the first worker; when the only one is lost, for the next."""
    with cluster(tmp_path / "cluster", 0) as (file, _):
        mixed.place.mkdir()
        arguments = mixed.arguments("--engine", "dask", "--scheduler", file, "--log-format", "json")
        with start(*arguments) as run:
            first = start_worker(tmp_path / "cluster", "first")
            assert run.stderr is not None
            next(line for line in run.stderr if "slide begun" in line)
            first.kill()
            first.wait()
            second = start_worker(tmp_path / "cluster", "second")
            run.communicate(timeout=90)
            second.kill()
            second.wait()
    assert run.returncode == 3
    assert len(mixed.indexed()) == len(mixed.stored()) > 3
    states = [state for (_, stage), (state, _) in mixed.states().items() if stage == "convert"]
    assert sorted(states) == ["done", "done", "done", "failed", "failed"]


def test_sigterm_ends_a_run_on_a_cluster_in_order(undisturbed: Collection, tmp_path: Path) -> None:
    collection = Collection(undisturbed.slides, tmp_path / "stopped")
    collection.place.mkdir()
    with cluster(tmp_path / "cluster", 1) as (file, _):
        arguments = collection.arguments("--engine", "dask", "--scheduler", file, "--log-format", "json")
        with start(*arguments) as run:
            assert run.stderr is not None
            next(line for line in run.stderr if "convert begun" in line)
            run.terminate()
            run.communicate(timeout=60)
        assert run.returncode == 128 + signal.SIGTERM
        assert "started" not in {state for state, _ in collection.states().values()}
        done = collection.run("--json")  # what was begun by one engine is ended by another
    assert done.code == 0, done.err
    assert_same(collection, undisturbed)


def test_scheduler_that_is_lost_ends_the_run_and_what_was_done_stays(mixed: Collection, tmp_path: Path) -> None:
    mixed.place.mkdir()
    with (
        cluster(tmp_path / "cluster", 1) as (file, (scheduler, *_)),
        start(*mixed.arguments("--engine", "dask", "--scheduler", file, "--log-format", "json"), **IMPATIENT) as run,
    ):
        assert run.stderr is not None
        next(line for line in run.stderr if "convert begun" in line)
        scheduler.kill()
        _, err = run.communicate(timeout=60)
    assert run.returncode == StoreError.exit_code
    assert "is gone" in err
    assert "Traceback" not in err
    assert "started" not in {state for state, _ in mixed.states().values()}


def test_scheduler_that_is_not_there_is_told(mixed: Collection) -> None:
    done = mixed.run("--engine", "dask", "--scheduler", "tcp://127.0.0.1:9", **IMPATIENT)
    assert done.code == StoreError.exit_code
    assert "does not answer" in done.err


@pytest.mark.parametrize("arguments", [["--engine", "dask"], ["--scheduler", "tcp://127.0.0.1:8786"]])
def test_engine_and_scheduler_go_together(mixed: Collection, arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, ["run", str(mixed.slides), "--work", str(mixed.work), *arguments])
    assert isinstance(result.exception, UsageError)
