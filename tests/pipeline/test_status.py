"""What is told of a run: counts, times, costs and failures, for people and programs; and how one is laid out."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from click.testing import CliRunner, Result
from tests.pipeline.conftest import ENVIRONMENT, Collection, Done, coverslip

from coverslip.cli import cli
from coverslip.errors import UsageError


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_status_accounts_for_every_slide_and_stage(mixed_done: tuple[Collection, Done]) -> None:
    told = json.loads(ask("status", mixed_done[0].work, "--json", "--price", 3600).output)
    counts = {name: told[name] for name in ("slides", "done", "failed", "under_way", "pending")}
    assert counts == {"slides": 5, "done": 3, "failed": 2, "under_way": 0, "pending": 0}
    assert told["failures_by_class"] == {"CorruptSourceError": 1, "UnsupportedSourceError": 1}
    stages = {each["stage"]: each for each in told["stages"]}
    assert list(stages) == ["fetch", "convert", "upload", "verify", "index"]
    assert (stages["convert"]["done"], stages["convert"]["failed"]) == (3, 2)
    assert stages["upload"]["size_bytes"] == stages["convert"]["size_bytes"] > 0
    assert abs(stages["convert"]["cost"] - stages["convert"]["seconds"]) < 0.01
    assert [each["seconds"] for each in told["slowest"]] == sorted(
        (s["seconds"] for s in told["slowest"]), reverse=True
    )


def test_status_for_people_names_rows_and_reasons(mixed_done: tuple[Collection, Done], tmp_path: Path) -> None:
    page = tmp_path / "status.html"
    result = ask("status", mixed_done[0].work, "--html", page)
    assert "3 of 5 slides done, 2 failed" in " ".join(result.output.split())
    assert "CorruptSourceError: 1" in result.output
    text = page.read_text()
    HTMLParser().feed(text)
    assert "CorruptSourceError" in text
    assert "cut-off" not in text + result.output


def test_watching_ends_when_the_run_is_over(mixed_done: tuple[Collection, Done]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "coverslip", "status", str(mixed_done[0].work), "--watch"]
    with subprocess.Popen(command, stdout=theirs, env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "120"}) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal, on Linux
            while data := os.read(ours, 1 << 16):
                shown += data
        os.close(ours)
    assert process.returncode == 0
    assert b"3 of 5 slides done, 2 failed" in shown


def test_place_without_a_run_is_told(tmp_path: Path) -> None:
    assert isinstance(ask("status", tmp_path).exception, UsageError)
    assert isinstance(ask("collect", tmp_path, "--catalog", tmp_path / "c.duckdb").exception, UsageError)


def test_what_init_lays_out_runs_at_once(mixed_slides: Path, tmp_path: Path) -> None:
    place = tmp_path / "collection"
    assert ask("init", mixed_slides, "-o", place).exit_code == 0
    assert sorted(path.name for path in place.iterdir()) == ["manifest.csv", "map.toml", "run.toml"]
    checked = ask("map", "check", place / "manifest.csv", "--map", place / "map.toml")
    assert "5 errors" in checked.output  # patients are the curator's to fill in
    manifest = place / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(".svs,,", ".svs,P1,"))
    run_file = place / "run.toml"
    lines = [
        line.removeprefix("# ") if line.startswith("# map =") else line for line in run_file.read_text().splitlines()
    ]
    run_file.write_text("\n".join(lines))
    done = coverslip("run", run_file, "--stages", "convert", "--json")  # goes before what the file says
    assert (done.code, done.told["done"]) == (3, 3), done.err
    assert len(list((place / "work" / "series").glob("*/*"))) == 3
    assert isinstance(ask("init", mixed_slides, "-o", place).exception, UsageError)


def test_run_file_with_what_is_no_option_is_refused(tmp_path: Path) -> None:
    run_file = tmp_path / "run.toml"
    for text, words in [
        ('manifest = "m.csv"\ncolour = "red"', "'colour' is no option"),
        ('work = "w"', "wanted manifest"),
        ('manifest = "m.csv"\nattempts = "many"', "attempts"),
        ("manifest =", "run file"),
    ]:
        run_file.write_text(text)
        error = ask("run", run_file).exception
        assert isinstance(error, UsageError)
        assert words in str(error)


def test_folder_without_slides_is_told(tmp_path: Path) -> None:
    assert isinstance(ask("init", tmp_path).exception, UsageError)
    assert isinstance(ask("run", tmp_path, "--work", tmp_path / "work").exception, UsageError)
