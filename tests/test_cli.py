"""The command line as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coverslip import __version__
from tests.factories.aperio import FIELDS, write_aperio_svs
from tests.in_process import run_in_process


def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line 80 columns wide, as a process where its environment is another one."""
    if not environment:
        done = run_in_process(arguments, cwd, COLUMNS="80")
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "coverslip", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        check=False,
    )


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("info", "--help"), ("convert", "--help")])
def test_help_exits_with_0_and_fits_80_columns(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: coverslip")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_version_is_that_of_the_package() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"coverslip, version {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Usage: coverslip"),
        (("--bad",), "No such option"),
        (("nothing",), "No such command"),
        (("info",), "Missing argument"),
        (("convert", "a.svs"), "Missing option '-o'"),
        (("convert", "-o", "out"), "Missing argument"),
        (("convert", "a.svs", "-o", "out", "--levels", "0"), "--levels 0: wanted dyadic, native or a number above 0"),
        (("convert", "a.svs", "-o", "out", "--codec", "gif"), "'gif' is unknown, expected jpeg"),
        (("convert", "a.svs", "-o", "out", "--include", "map"), "--include map: wanted label, overview or thumbnail"),
        (("convert", "a.svs", "-o", "out", "--mpp", "nan"), "--mpp nan: wanted micrometres per pixel"),
        (("convert", "a.svs", "-o", "out", "--mpp", "0,25"), "--mpp 0,25: wanted micrometres per pixel"),
        (("convert", "a.svs", "-o", "out", "--mpp", "1,25"), "is the comma a decimal point?"),
        (("convert", "a.svs", "-o", "out", "--set", "PatientID"), "--set PatientID: wanted KEYWORD=VALUE"),
        (("convert", "a.svs", "-o", "out", "--set", "Rows=3"), "--set Rows: this attribute follows from the slide"),
        (
            ("convert", "a.svs", "-o", "out", "--set", "ContainerIdentifier="),
            "--set ContainerIdentifier: needs a value",
        ),
        (("convert", "a.svs", "-o", "out", "--memory", "lots"), "--memory lots: wanted a size"),
        (("convert", "a.svs", "-o", "out", "--uid-root", "1.02"), "none with a leading zero"),
    ],
)
def test_a_usage_error_exits_with_2_and_says_what_is_wanted(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["with space.svs", "new\nline.svs", "emoji 🔬.svs", "-dash.svs", "tab\t.svs"])
def test_odd_names_are_converted_and_printed_on_one_line(tmp_path: Path, aperio_slide: Path, name: str) -> None:
    shutil.copy(aperio_slide, tmp_path / name)
    done = run("convert", "-o", "out", "--", name, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    shown = name.replace("\n", "\\n").replace("\t", "\\t")
    assert done.stdout.splitlines()[0] == f"{shown}: converted"


def test_a_name_that_is_not_text_is_escaped(tmp_path: Path) -> None:
    done = run("info", os.fsdecode(b"caf\xe9.svs"), cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr == "error: caf\\udce9.svs: cannot be read: No such file or directory\n"


def test_a_terminal_that_cannot_show_a_name_gets_escapes(tmp_path: Path, aperio_slide: Path) -> None:
    shutil.copy(aperio_slide, tmp_path / "🔬.svs")
    done = run("convert", "🔬.svs", "-o", "out", "--dry-run", cwd=tmp_path, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\\U0001f52c.svs: planned\n")


def test_json_gives_one_object_per_slide_and_line_with_the_name_as_it_was_given(
    tmp_path: Path, aperio_slide: Path
) -> None:
    shutil.copy(aperio_slide, tmp_path / "new\nline.svs")
    done = run("convert", "new\nline.svs", "absent.svs", "-o", "out", "--json", cwd=tmp_path)
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["slide"], first["status"]) == ("new\nline.svs", "converted")
    assert second["error"] == {
        "class": "SourceError",
        "message": "cannot be read: No such file or directory",
        "exit_code": 3,
    }
    assert done.stderr == "error: absent.svs: cannot be read: No such file or directory\n"
    assert done.returncode == 3


def test_a_second_run_says_that_the_series_is_already_there(tmp_path: Path, aperio_slide: Path) -> None:
    runs = [run("convert", aperio_slide, "-o", "out", "--json", cwd=tmp_path) for _ in range(2)]
    assert [json.loads(done.stdout)["status"] for done in runs] == ["converted", "already there"]


def test_each_fact_is_one_finding(tmp_path: Path) -> None:
    write_aperio_svs(tmp_path / "a.svs", compression="j2k-33003", missing_tiles=[(0, 0, 1)])

    def rules(*options: str) -> list[str]:
        series = json.loads(run("convert", tmp_path / "a.svs", "-o", tmp_path, "--json", *options).stdout)["series"][0]
        return [finding["rule"] for finding in series["findings"]]

    assert rules() == ["source.missing-tile", "color.no-profile", "frames.ycbcr-jpeg2000"]
    assert rules("--reencode") == ["source.missing-tile", "color.no-profile"]


def test_a_dry_run_writes_nothing(tmp_path: Path, aperio_slide: Path) -> None:
    done = run("convert", aperio_slide, "-o", "out", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert f"{aperio_slide}: planned" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_info_tells_levels_spacing_and_what_becomes_of_them(aperio_slide: Path) -> None:
    done = run("info", aperio_slide)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80
    for words in (
        "0.2527 µm, from Aperio MPP",
        "40x",
        "900 x 700",
        "JPEG, RGB",
        "level 1, passed through bit for bit",
        "mean of 2x2 pixels of the next larger level",
        "with --include label",
    ):
        assert words in done.stdout


def test_info_as_json_plans_a_slide_without_spacing_and_names_the_option(tmp_path: Path) -> None:
    write_aperio_svs(tmp_path / "a.svs", mpp=None)
    region = json.loads(run("info", tmp_path / "a.svs", "--json").stdout)["regions"][0]
    assert (region["spacing"], region["spacing_supplied_by"]) == (None, "--mpp")
    assert [level["spacing"] for level in region["levels"]] == [None, None]
    planned = region["conversion"]["levels"]
    assert [level["total_pixel_matrix_columns"] for level in planned] == [900, 450, 225]
    assert [level["stored_level_index"] for level in planned] == [0, None, 1]
    text = run("info", tmp_path / "a.svs").stdout
    assert "unknown: supply it with --mpp" in text
    assert "0.25 µm" not in text


def test_info_says_why_a_level_is_not_used(tmp_path: Path) -> None:
    write_aperio_svs(tmp_path / "a.svs", native_downsamples=(3,))
    assert "level 1 is not used: its downsampling of 3 is not a power of two" in run("info", tmp_path / "a.svs").stdout


def test_info_says_why_stored_frames_are_not_reused(tmp_path: Path) -> None:
    write_aperio_svs(tmp_path / "a.svs", tile=255)
    levels = json.loads(run("info", tmp_path / "a.svs", "--json").stdout)["regions"][0]["conversion"]["levels"]
    assert levels[0]["reencoded_because"] == "tiles of odd size cannot be halved one by one"


def test_info_shows_no_text_that_may_identify(tmp_path: Path) -> None:
    fields = {**FIELDS, "User": "jane-doe", "Filename": "case-4711", "Barcode": "B-0815", "ScanScope ID": "SS99887"}
    write_aperio_svs(tmp_path / "a.svs", fields=fields)
    for option in ((), ("--json",)):
        shown = run("info", tmp_path / "a.svs", *option).stdout
        for secret in ("jane-doe", "case-4711", "B-0815", "SS99887", fields["Date"], fields["Time"], "2021"):
            assert secret not in shown


def test_info_of_what_is_no_slide_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "note.svs").write_text("no slide")
    done = run("info", tmp_path / "note.svs")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1


def test_info_describes_every_shared_slide_that_opens(shared: Path) -> None:
    for folder in ("real", "synthetic"):
        for path in sorted((shared / "slides" / folder).glob("*.*")):
            if path.is_dir() or path.suffix == ".csv":
                continue
            plain, as_json = run("info", path), run("info", path, "--json")
            assert plain.returncode == as_json.returncode
            assert plain.returncode in (0, 3)
            if plain.returncode == 0:
                assert json.loads(as_json.stdout)["regions"][0]["conversion"]["levels"]
                assert max(map(len, plain.stdout.splitlines()[1:])) <= 80
            else:
                assert plain.stderr.startswith(f"error: {path}: ")
                assert plain.stderr.count("\n") == 1
