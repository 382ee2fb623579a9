"""Odd names of slides and output folders, and options that are wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.factories.aperio import write_aperio_svs
from tests.faults.command_line import json_lines, run, series_folders

NAMES = (
    b"with space.svs",
    b"two\nlines.svs",
    "tissue 🔬.svs".encode(),
    b"-dash.svs",
    b"--json",
    b"not utf-8 \xff\xfe.svs",
    b"tab\tand\x1b[31mred.svs",
    b"no suffix",
    b"[bold]markup.svs",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One slide under many names, and an empty file of each name in ``empty``."""
    folder = tmp_path_factory.mktemp("names")
    write_aperio_svs(folder / "plain.svs", rows=100, columns=120, native_downsamples=())
    (folder / "empty").mkdir()
    for name in NAMES:
        shutil.copyfile(folder / "plain.svs", folder / os.fsdecode(name))
        (folder / "empty" / os.fsdecode(name)).touch()
    return folder


def test_odd_names_are_converted_and_told_on_one_line(folder: Path) -> None:
    done = run("convert", "-o", "out", "--", *NAMES, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    headings = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert len(headings) == len(NAMES)
    assert headings[0].endswith(": converted")
    assert all(line.endswith(": already there") for line in headings[1:])
    assert len(series_folders(folder / "out")) == 1


def test_odd_names_are_whole_in_json(folder: Path) -> None:
    done = run("convert", "-o", "out in json", "--json", "--", *NAMES, cwd=folder)
    assert done.returncode == 0
    assert [os.fsencode(line["slide"]) for line in json_lines(done)] == list(NAMES)


def test_odd_names_that_fail_are_told_on_one_line_each(folder: Path) -> None:
    done = run("convert", "-o", "../none", "--json", "--", *NAMES, cwd=folder / "empty")
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == len(NAMES)
    assert "\x1b" not in done.stderr
    assert [line["error"]["class"] for line in json_lines(done)] == ["UnsupportedSourceError"] * len(NAMES)
    assert not (folder / "none").exists()


@pytest.mark.parametrize("output", [b"a b/\xff\n\xf0\x9f\x94\xac", b"-o"])
def test_an_output_folder_may_have_an_odd_name(folder: Path, output: bytes) -> None:
    done = run("convert", "plain.svs", b"--output=" + output, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(series_folders(folder / os.fsdecode(output))) == 1


@pytest.mark.parametrize(
    "options, words",
    [
        (("--set", "PatientIdd=1"), "PatientIdd"),
        (("--set", "PatientID"), "KEYWORD=VALUE"),
        (("--set", "StudyDate=yesterday"), "StudyDate"),
        (("--set", "ContainerIdentifier=" + "x" * 65), "ContainerIdentifier"),
        (("--set", "Rows=5"), "Rows"),
        (("--mpp", "nan"), "0.001 to 1000"),
        (("--mpp", "-1"), "0.001 to 1000"),
        (("--levels", "0"), "dyadic, native"),
        (("--tile-size", "17"), "even number"),
        (("--codec", "gif"), "gif"),
        (("--codec", "jpeg:101"), "jpeg:101"),
        (("--include", "labels"), "label, overview or thumbnail"),
        (("--uid-root", "1.2.x"), "1.2.x"),
        (("--memory", "lots"), "64M"),
        (("--offset-table", "tot"), "bot"),
        (("--workers", "0"), "1<=x<=256"),
        (("--no-such-option",), "--no-such-option"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_a_usage_error_that_leaves_nothing(
    folder: Path, options: tuple[str, ...], words: str
) -> None:
    done = run("convert", "plain.svs", "-o", "wrong", *options, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr.splitlines()[-1]
    assert not (folder / "wrong").exists()
