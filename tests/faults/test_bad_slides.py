"""Slides that cannot be converted, among ones that can, in one command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest

from tests.factories import damage
from tests.factories.aperio import write_aperio_svs
from tests.factories.generic import write_tiled_tiff
from tests.faults.command_line import json_lines, run_process, series_folders

SECRET = "DOE^JANE"


def _copy(change: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    def make(path: Path, slide: Path) -> None:
        change(damage.copy_slide(slide, path))

    return make


def _mpp(value: bytes) -> Callable[[Path, Path], None]:
    return _copy(lambda path: damage.garbage_mpp(path, value))


def _new(write: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def make(path: Path, _slide: Path) -> None:
        write(path)

    return make


def _picture(path: Path, _slide: Path) -> None:
    cv2.imwrite(str(path), np.zeros((40, 60, 3), np.uint8))


def _bad_ome(path: Path, slide: Path) -> None:
    data = slide.read_bytes()
    start, end = data.index(b"Aperio"), data.index(b"\0", data.index(b"Aperio"))
    xml = f'<OME><Image><Pixels Type="{SECRET}" SizeC="3" SizeZ="{SECRET}"/></Image></OME>'.encode()
    path.write_bytes(data[:start] + xml.ljust(end - start) + data[end:])


def _undefined_entity(path: Path, slide: Path) -> None:
    _bad_ome(path, slide)
    path.write_bytes(path.read_bytes().replace(f'"{SECRET}"'.encode(), b'"&DOE_JA;"', 1))


UNSUPPORTED, CORRUPT, MISSING, OTHER = (
    "UnsupportedSourceError", "CorruptSourceError", "MissingMetadataError", "SourceError"
)  # fmt: skip

# Name, how it is made, the error's class, and words of the message: what was found, what is wanted.
CASES: tuple[tuple[str, Callable[[Path, Path], None], str, tuple[str, ...]], ...] = (
    ("empty.svs", _new(damage.write_empty), UNSUPPORTED, ("empty", "expected a slide")),
    ("text.svs", _new(damage.write_text), UNSUPPORTED, ("text file", "not a slide")),
    ("header.svs", _copy(lambda path: damage.truncate(path, 6)), CORRUPT, ("truncated", "TIFF header")),
    ("header16.svs", _copy(lambda path: damage.truncate(path, 16)), CORRUPT, ("truncated", "ends at byte 16")),
    ("half.svs", _copy(damage.truncate_half), CORRUPT, ("truncated", "ends at byte")),
    ("tail.svs", _copy(damage.cut_tail), CORRUPT, ("truncated", "ends at byte")),
    ("loop.svs", _copy(damage.ifd_loop), CORRUPT, ("byte offset", "circle")),
    ("past.svs", _copy(lambda path: damage.tile_past_the_end(path, tile=5)), CORRUPT, ("level 0, frame 5", "ends at")),
    ("corrupt.svs", _copy(lambda path: damage.corrupt_tile(path, tile=7)), CORRUPT, ("level 0, frame 7", "JPEG")),
    ("no-mpp.svs", _new(lambda path: write_aperio_svs(path, mpp=None)), MISSING, ("no MPP", "--mpp")),
    ("garbage-mpp.svs", _mpp(SECRET.encode()[:6]), MISSING, ("not a number", "--mpp")),
    ("zero-mpp.svs", _mpp(b"0"), MISSING, ("MPP 0", "--mpp")),
    ("absurd-mpp.svs", _mpp(b"4e99"), MISSING, ("MPP 4e+99", "--mpp")),
    ("nan-mpp.svs", _mpp(b"nan"), MISSING, ("not a number", "--mpp")),
    ("no-unit.tif", _new(lambda path: write_tiled_tiff(path, resolution=None)), MISSING, ("no pixel spacing", "--mpp")),
    ("float.tif", _new(lambda path: write_tiled_tiff(path, rows=64, columns=64, tile=64, dtype=np.float32,
     compression="none", downsamples=())), UNSUPPORTED, ("32-bit floating point", "8-bit RGB is")),
    ("picture.png", _picture, UNSUPPORTED, ("PNG picture", "not a slide")),
    ("picture.jpg", _picture, UNSUPPORTED, ("JPEG picture", "not a slide")),
    ("type.ome.tif", _bad_ome, UNSUPPORTED, ("OME-TIFF", "8-bit RGB plane")),
    ("entity.ome.tif", _undefined_entity, UNSUPPORTED, ("OME-XML does not parse", "undefined entity")),
    ("folder.svs", lambda path, _slide: path.mkdir(), OTHER, ("is a directory", "expected a slide file")),
    ("missing.svs", lambda path, _slide: None, OTHER, ("No such file",)),
    ("circle.svs", lambda path, _slide: path.symlink_to(path), OTHER, ("symbolic links",)),
    ("fifo.svs", lambda path, _slide: os.mkfifo(path), OTHER, ("no regular file", "expected a slide file")),
    ("device.svs", lambda path, _slide: path.symlink_to("/dev/zero"), OTHER, ("no regular file",)),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, aperio_slide: Path) -> Path:
    """All bad slides, and good ones named so that they are converted first, amid and last."""
    folder = tmp_path_factory.mktemp("bad")
    for name, make, _error, _words in CASES:
        make(folder / name, aperio_slide)
    for name, seed in (("1.svs", 1), ("2.svs", 2), ("3.svs", 3)):
        write_aperio_svs(folder / name, rows=150, columns=160, tile=128, native_downsamples=(), seed=seed,
                         fields={"User": SECRET, "Filename": SECRET})  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    names = [name for name, *_ in CASES]
    middle = len(names) // 2
    order = ["1.svs", *names[:middle], "2.svs", *names[middle:], "3.svs"]
    return run_process("convert", *order, "-o", "out", "--json", cwd=folder)


@pytest.fixture(scope="module")
def reported(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {line["slide"]: line for line in json_lines(done)}


def test_the_exit_code_is_that_of_the_worst(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 3


def test_every_slide_has_one_line_of_json_and_every_failure_one_line_of_error(
    done: subprocess.CompletedProcess[str], reported: dict[str, dict[str, Any]]
) -> None:
    assert set(reported) == {"1.svs", "2.svs", "3.svs", *(name for name, *_ in CASES)}
    errors = [line.split(": ", 2)[:2] for line in done.stderr.splitlines()]
    assert errors == [["error", name] for name, *_ in CASES]


@pytest.mark.parametrize("name, words, error", [(name, words, error) for name, _make, error, words in CASES])
def test_the_error_says_what_was_found_and_what_is_wanted(
    done: subprocess.CompletedProcess[str],
    reported: dict[str, dict[str, Any]],
    name: str,
    words: tuple[str, ...],
    error: str,
) -> None:
    line = next(line for line in done.stderr.splitlines() if line.startswith(f"error: {name}: "))
    assert reported[name]["status"] == "failed"
    assert reported[name]["error"] == {
        "class": error, "exit_code": 3, "message": line.removeprefix(f"error: {name}: ")
    }  # fmt: skip
    assert all(word in line for word in words), line


def test_the_other_slides_are_converted_and_nothing_else_is_left(
    folder: Path, reported: dict[str, dict[str, Any]]
) -> None:
    good = [reported[name] for name in ("1.svs", "2.svs", "3.svs")]
    assert [line["status"] for line in good] == ["converted"] * 3
    assert {folder / line["series"][0]["folder"] for line in good} == series_folders(folder / "out")


def test_nothing_printed_holds_text_from_inside_a_file(done: subprocess.CompletedProcess[str]) -> None:
    for part in (SECRET, SECRET[:6], "DOE_JA"):
        assert part not in done.stdout + done.stderr


def test_a_command_that_converts_nothing_makes_no_output_folder(folder: Path) -> None:
    done = run_process("convert", "corrupt.svs", "text.svs", "-o", "new/deep", cwd=folder)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 2)
    assert not (folder / "new").exists()


@pytest.mark.parametrize("name", ["empty.svs", "tail.svs", "fifo.svs", "missing.svs"])
def test_info_tells_the_same_in_one_line(folder: Path, reported: dict[str, dict[str, Any]], name: str) -> None:
    done = run_process("info", name, "--json", cwd=folder)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"error: {name}: {reported[name]['error']['message']}\n"


def test_mpp_from_the_command_line_makes_a_slide_without_it_convertible(folder: Path) -> None:
    done = run_process("convert", "no-mpp.svs", "garbage-mpp.svs", "-o", "given", "--mpp", "0.5", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(series_folders(folder / "given")) == 2


def test_a_zero_length_tile_is_a_blank_frame_that_shifts_no_other(tmp_path: Path, aperio_slide: Path) -> None:
    holed = damage.copy_slide(aperio_slide, tmp_path / "holed.svs")
    damage.zero_length_tile(holed, tile=5)
    done = run_process("convert", aperio_slide, holed, "-o", tmp_path / "out", "--json", "--levels", "1")
    assert (done.returncode, done.stderr) == (0, "")
    whole, blank = (line["series"][0] for line in json_lines(done))
    assert [series["instances"][0]["missing_tiles"] for series in (whole, blank)] == [0, 1]
    assert any(finding["rule"] == "source.missing-tile" for finding in blank["findings"])
    pixels = [
        pydicom.dcmread(Path(series["folder"]) / series["instances"][0]["file_name"]).pixel_array
        for series in (whole, blank)
    ]
    assert (pixels[1][5] == 255).all()
    kept = [index for index in range(12) if index != 5]
    assert (pixels[0][kept] == pixels[1][kept]).all()


def test_every_bad_shared_slide_ends_in_one_line(tmp_path: Path, shared: Path) -> None:
    slides = sorted((shared / "slides" / "bad").iterdir())
    done = run_process("convert", *slides, "-o", tmp_path / "out", "--json")
    lines = json_lines(done)
    assert done.returncode == 3
    assert [line["slide"] for line in lines] == [str(slide) for slide in slides]
    assert {line["status"] for line in lines} == {"failed"}
    assert len(done.stderr.splitlines()) == len(slides)
    assert not (tmp_path / "out").exists()
