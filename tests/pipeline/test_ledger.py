"""The ledger holds what happened, whatever happens to the process that writes it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from coverslip.errors import StoreError
from coverslip.pipeline.ledger import Kind, Ledger, Stage, State, Task, default_ledger

UPLOAD = Task(Kind.INSTANCE, "1.2.3", Stage.UPLOAD, "gs://archive", "1.2")
VERIFY = Task(Kind.INSTANCE, "1.2.3", Stage.VERIFY, "gs://archive", "1.2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


def test_a_task_is_started_finished_and_started_again(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.record(UPLOAD) is None
        assert ledger.start(UPLOAD, digest="d1", size_bytes=7, ours=True) == 1
        started = ledger.record(UPLOAD)
        assert started is not None
        assert (started.state, started.attempt, started.finished_at) == (State.STARTED, 1, None)
        ledger.finish(UPLOAD, State.FAILED, error=("StoreError", "no answer"))
        assert ledger.start(UPLOAD, digest="d1", size_bytes=7) == 2
        ledger.finish(UPLOAD, State.UPLOADED, location="gs://archive/a.dcm")
    with Ledger(path) as ledger:
        record = ledger.record(UPLOAD)
    assert record is not None
    assert (record.state, record.attempt, record.digest, record.size_bytes) == (State.UPLOADED, 2, "d1", 7)
    assert (record.location, record.error_class, record.error_message) == ("gs://archive/a.dcm", None, None)
    assert record.duration_s is not None
    assert record.started_at is not None
    assert record.started_at.endswith("+00:00")


def test_the_proof_is_forgotten_when_an_instance_is_sent_again(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.start(VERIFY, digest="d1")
        ledger.finish(VERIFY, State.VERIFIED)
        ledger.start(UPLOAD, digest="d2")
        assert ledger.record(VERIFY) is None


def test_stores_are_independent(path: Path) -> None:
    other = Task(Kind.INSTANCE, "1.2.3", Stage.UPLOAD, "gs://bucket", "1.2")
    with Ledger(path) as ledger:
        ledger.start(UPLOAD)
        ledger.finish(UPLOAD, State.UPLOADED)
        assert ledger.record(other) is None
        assert [record.task for record in ledger.records_of("1.2", Stage.UPLOAD, "gs://archive")] == [UPLOAD]


def test_a_forgotten_series_leaves_others_and_its_tombstone(path: Path) -> None:
    other = Task(Kind.INSTANCE, "9.9", Stage.UPLOAD, "gs://archive", "9")
    with Ledger(path) as ledger:
        for task in (UPLOAD, other, Task(Kind.SERIES, "1.2", Stage.VALIDATE)):
            ledger.start(task)
        ledger.bury("1.2", "label visible", 4, complete=False)
        assert ledger.forget_series("1.2") == 2
        assert [record.task for record in ledger.iter_records()] == [other]
        tombstone = ledger.bury("1.2", "another reason", 0, complete=True)
    assert (tombstone.reason, tombstone.instances, tombstone.complete) == ("label visible", 4, True)


def test_a_ledger_of_a_newer_version_is_refused(path: Path) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="schema 99, this version of coverslip knows 1"):
        Ledger(path)


def test_other_files_are_refused_and_left_as_they_are(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is no ledger"):
        Ledger(path)
    assert path.read_bytes() == before
    path.write_bytes(b"something else" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        Ledger(path)


def test_a_ledger_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        Ledger(tmp_path / "file" / "ledger.sqlite")
    with pytest.raises(StoreError, match="cannot be used"):
        Ledger(tmp_path)


def test_the_default_ledger_lies_in_the_users_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_ledger() == Path("/state/coverslip/ledger.sqlite")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/someone")
    assert default_ledger() == Path("/someone/.local/state/coverslip/ledger.sqlite")


def test_threads_share_a_ledger(path: Path) -> None:
    with Ledger(path) as ledger:

        def work(name: str) -> None:
            for number in range(20):
                task = Task(Kind.INSTANCE, f"{name}.{number}", Stage.UPLOAD, "s", name)
                ledger.start(task)
                ledger.finish(task, State.UPLOADED)

        threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        states = [record.state for record in ledger.iter_records()]
    assert states == [State.UPLOADED] * 80


WRITER = """
import sys
from pathlib import Path
from coverslip.pipeline.ledger import Kind, Ledger, Stage, State, Task
with Ledger(Path(sys.argv[1])) as ledger:
    for number in range(10**6 if sys.argv[3] == "forever" else 30):
        task = Task(Kind.INSTANCE, f"{sys.argv[2]}.{number}", Stage.UPLOAD, "s", sys.argv[2])
        ledger.start(task)
        ledger.finish(task, State.UPLOADED)
        print(number, flush=True)
"""


def start_writer(path: Path, name: str, until: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, until]
    environment = {**os.environ, "PYTHONPATH": "src"}
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True)


def test_processes_share_a_ledger_from_its_first_moment(path: Path) -> None:
    writers = [start_writer(path, str(number), "end") for number in range(3)]
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    with Ledger(path) as ledger:
        assert len(list(ledger.iter_records())) == 90


def test_what_was_written_before_a_kill_is_there_after_it(path: Path) -> None:
    writer = start_writer(path, "1", "forever")
    assert writer.stdout is not None
    for line in writer.stdout:
        if line.strip() == "25":
            break
    writer.send_signal(signal.SIGKILL)
    told = [int(line) for line in writer.communicate(timeout=120)[0].split()]
    last = max([25, *told])
    with Ledger(path) as ledger:
        done = {int(record.task.subject[2:]) for record in ledger.iter_records() if record.state is State.UPLOADED}
        assert set(range(last + 1)) <= done
        assert ledger.start(UPLOAD) == 1
