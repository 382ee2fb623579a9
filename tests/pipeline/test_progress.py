"""What a run shows while it goes on."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from tests.pipeline.conftest import ENVIRONMENT

from coverslip.pipeline import progress
from coverslip.pipeline.engine import RunOutcome
from coverslip.pipeline.failures import Problem
from coverslip.pipeline.journal import Standing
from coverslip.pipeline.ledger import Stage
from coverslip.pipeline.manifest import Slide
from coverslip.pipeline.progress import JsonReporter, PlainReporter, make_reporter

SLIDES = [Slide(f"{number:040}", number, f"name-{number}.svs", "", size_bytes=1000) for number in range(1, 4)]
PROBLEM = Problem("StoreError", "no connection", retryable=True, exit_code=6)


def test_terminal_shows_what_is_under_way_and_what_failed(mixed_slides: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = ["run", mixed_slides, "--work", tmp_path / "work", "--stages", "convert", "--workers", "1"]
    command = [sys.executable, "-m", "coverslip", *map(str, arguments)]
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env={**ENVIRONMENT, "TERM": "xterm"}):
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 1 << 16):
                shown += data
        except OSError:  # the end of a terminal, on Linux
            pass
        finally:
            os.close(ours)
    text = shown.decode()
    assert "of 5 slides done" in text
    assert "cut-off.svs: convert failed: CorruptSourceError" in text
    assert "good-" in text


def test_lines_elsewhere_tell_counts_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PLAIN_EVERY_S", 0.0)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    file = io.StringIO()
    reporter = make_reporter("auto", "run", {}, lambda slide: slide.name, file)
    assert isinstance(reporter, PlainReporter)
    reporter.begin(RunOutcome(slides=3), [Standing(slide) for slide in SLIDES])
    reporter.started(SLIDES[0], 1)
    reporter.started(SLIDES[1], 1)
    reporter.failed(SLIDES[0], Stage.UPLOAD, PROBLEM, final=False)
    reporter.waits(SLIDES[1])
    reporter.tick()
    reporter.done(SLIDES[1], 1.0)
    reporter.tick()
    assert file.getvalue().splitlines()[:2] == [
        "name-1.svs: upload failed: StoreError: no connection (will be tried again)",
        "0 of 3 slides done, 0 under way, 1 wait for the catalog",
    ]
    assert file.getvalue().splitlines()[2].startswith("1 of 3 slides done, 0 under way")
    assert reporter.tally.bytes_done == 1000


@pytest.mark.parametrize("name", ["K_SERVICE", "CLOUD_RUN_JOB", "BATCH_JOB_UID", "KUBERNETES_SERVICE_HOST"])
def test_lines_are_json_by_themselves_in_containers_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("K_SERVICE", "CLOUD_RUN_JOB", "BATCH_JOB_UID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(each, raising=False)
    assert isinstance(make_reporter("auto", "run", {}, str, io.StringIO()), PlainReporter)
    monkeypatch.setenv(name, "x")
    assert isinstance(make_reporter("auto", "run", {}, str, io.StringIO()), JsonReporter)
    assert isinstance(make_reporter("plain", "run", {}, str, io.StringIO()), PlainReporter)


def test_json_lines_of_a_slide_have_one_trace_and_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "project")
    file = io.StringIO()
    reporter = make_reporter("json", "execution-1", {"shard": "00001-of-00008"}, lambda slide: slide.name, file)
    assert isinstance(reporter, JsonReporter)
    reporter.begin(RunOutcome(slides=3), [Standing(slide) for slide in SLIDES])
    reporter.started(SLIDES[0], 2)
    reporter.failed(SLIDES[0], Stage.UPLOAD, PROBLEM, final=False)
    reporter.failed(SLIDES[0], Stage.UPLOAD, PROBLEM, final=True)
    reporter.end(RunOutcome(slides=3, exit_code=6))
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["severity"] for line in lines] == ["INFO", "INFO", "WARNING", "ERROR", "ERROR"]
    assert len({line["logging.googleapis.com/trace"] for line in lines}) == 1
    assert lines[0]["logging.googleapis.com/trace"].startswith("projects/project/traces/")
    assert {line["logging.googleapis.com/spanId"] for line in lines[1:4]} == {SLIDES[0].key[:16]}
    assert lines[1]["attempt"] == 2
    assert all(line["logging.googleapis.com/labels"]["shard"] == "00001-of-00008" for line in lines)
    assert "name-" not in file.getvalue()
