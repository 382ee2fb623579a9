"""Output folders that cannot be written, are full, or are there already; slides that cannot be read."""

from __future__ import annotations

import resource
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories import damage
from tests.factories.aperio import write_aperio_svs
from tests.factories.generic import write_tiled_tiff
from tests.faults.command_line import ENVIRONMENT, STAGING, digests, json_lines, run, series_folders


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slide of 0.1 megapixels."""
    path = tmp_path_factory.mktemp("small") / "small.svs"
    write_aperio_svs(path, rows=200, columns=300, native_downsamples=())
    return path


@pytest.mark.parametrize("output", ["file/out", "file/a/b", "/proc/coverslip/out", "x" * 300, "dangling/out"])
def test_an_output_folder_that_cannot_be_made_is_told_for_each_slide(
    tmp_path: Path, small: Path, aperio_slide: Path, output: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "dangling").symlink_to("nowhere")
    done = run("convert", small, aperio_slide, "-o", output, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (6, "")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [str(small), str(aperio_slide)]
    assert all("written" in line for line in done.stderr.splitlines()), done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"file", "dangling"}


def test_a_file_in_the_place_of_the_output_folder_is_a_usage_error(tmp_path: Path, small: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run("convert", small, "-o", tmp_path / "file")
    assert done.returncode == 2
    assert "is a file" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("blocked", ["study", "staging"])
def test_a_file_in_the_way_inside_the_output_folder_is_an_error_and_stays(
    tmp_path: Path, small: Path, blocked: str
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    planned = json_lines(run("convert", small, "-o", output, "--dry-run", "--json"))[0]
    in_the_way = output / (STAGING if blocked == "staging" else planned["series"][0]["study_instance_uid"])
    in_the_way.write_text("in the way")
    done = run("convert", small, "-o", output)
    assert (done.returncode, len(done.stderr.splitlines())) == (6, 1)
    assert list(output.iterdir()) == [in_the_way]


def test_a_series_that_is_there_but_not_whole_is_an_error_unless_overwritten(tmp_path: Path, small: Path) -> None:
    output = tmp_path / "out"
    assert run("convert", small, "-o", output).returncode == 0
    whole = digests(output)
    next(output.glob("*/*/*.dcm")).write_bytes(b"")
    done = run("convert", small, "-o", output)
    assert done.returncode == 6
    assert "not whole" in done.stderr
    assert "--overwrite" in done.stderr
    assert run("convert", small, "-o", output, "--overwrite").returncode == 0
    assert digests(output) == whole
    assert len(series_folders(output)) == 1


def test_a_slide_given_twice_is_converted_once(tmp_path: Path, small: Path) -> None:
    done = run("convert", small, small, "-o", tmp_path / "out", "--json")
    assert (done.returncode, [line["status"] for line in json_lines(done)]) == (0, ["converted", "already there"])
    assert len(series_folders(tmp_path / "out")) == 1


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """File system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_an_error_and_what_fits_is_still_converted(
    tiny_disk: Path, small: Path, aperio_slide: Path
) -> None:
    done = run("convert", aperio_slide, small, "-o", tiny_disk, "--json")
    failed, converted = json_lines(done)
    assert (done.returncode, failed["error"]["class"], converted["status"]) == (6, "StoreError", "converted")
    assert "No space left" in done.stderr
    assert len(series_folders(tiny_disk)) == 1


def test_a_file_that_grows_too_large_is_an_error_and_what_fits_is_still_converted(
    tmp_path: Path, small: Path, aperio_slide: Path
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))

    done = run("convert", aperio_slide, small, "-o", tmp_path / "out", "--json", preexec_fn=limit)
    failed, converted = json_lines(done)
    assert (done.returncode, failed["error"]["class"], converted["status"]) == (6, "StoreError", "converted")
    assert "File too large" in done.stderr
    assert len(series_folders(tmp_path / "out")) == 1


def test_standard_output_that_is_full_is_told(tmp_path: Path, small: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "coverslip", "convert", small, "-o", tmp_path / "out", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"


@pytest.fixture
def for_nobody(small: Path) -> Iterator[Path]:
    """Folder that everybody reaches, with a slide that everybody may read and one that its owner alone may."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for slide, mode in (("open.svs", 0o644), ("closed.svs", 0o000)):
            shutil.copyfile(small, folder / slide)
            (folder / slide).chmod(mode)
        (folder / "closed").mkdir()
        (folder / "closed").chmod(0o555)
        (folder / "writable").mkdir()
        (folder / "writable").chmod(0o777)
        yield folder


AS_NOBODY = """
import difflib, os  # click loads the former when it parses
from pathlib import Path
from coverslip.cli import main
from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest

convert_slide(ConversionRequest(Path("open.svs"), Path("before")))  # loads what the user may not read later
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
main()
"""


def _run_as_nobody(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user to whom permissions apply."""
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *arguments],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_an_unreadable_slide_is_an_error(for_nobody: Path) -> None:
    done = _run_as_nobody(for_nobody, "convert", "closed.svs", "open.svs", "-o", "writable/out")
    assert (done.returncode, done.stderr) == (3, "error: closed.svs: cannot be read: Permission denied\n")
    assert len(series_folders(for_nobody / "writable" / "out")) == 1


@pytest.mark.parametrize("output", ["closed", "closed/new/deep"])
def test_an_output_folder_without_permission_is_an_error(for_nobody: Path, output: str) -> None:
    done = _run_as_nobody(for_nobody, "convert", "open.svs", "-o", output)
    assert done.returncode == 6
    assert done.stderr == "error: open.svs: output folder cannot be written: Permission denied\n"
    assert list((for_nobody / "closed").iterdir()) == []


def test_a_frame_that_no_encoder_takes_is_an_encoding_error(tmp_path: Path, small: Path) -> None:
    # A missing tile beside stored ones that are wider than libjpeg writes (65,500): copied, but no blank one is made.
    wide = tmp_path / "wide.tif"
    write_tiled_tiff(wide, rows=32, columns=64, tile=(16, 64), downsamples=())
    damage.zero_length_tile(wide, tile=1)
    for tag in (256, 322):
        damage._set_element(wide, 0, tag, 0, 65520)
    data = wide.read_bytes()
    size = data.index(b"\xff\xc0") + 5
    wide.write_bytes(data[:size] + struct.pack(">HH", 16, 65520) + data[size + 4 :])
    done = run("convert", wide, small, "-o", tmp_path / "out", "--json", "--levels", "1")
    failed, converted = json_lines(done)
    assert (done.returncode, failed["error"]["class"], converted["status"]) == (4, "EncodingError", "converted")


def test_uncompressed_tiles_that_are_too_long_for_a_frame_are_cut_anew(tmp_path: Path) -> None:
    wide = tmp_path / "wide.tif"
    write_tiled_tiff(wide, rows=16, columns=66000, tile=(16, 66000), compression="none", downsamples=())
    done = run("convert", wide, "-o", tmp_path / "out", "--json", "--levels", "1", "--codec", "none")
    assert (done.returncode, done.stderr) == (0, "")
    instance = json_lines(done)[0]["series"][0]["instances"][0]
    assert (instance["reuses_frames"], instance["number_of_frames"]) == (False, 129)


def test_a_library_that_is_not_installed_is_named_with_its_install_command(tmp_path: Path, small: Path) -> None:
    (tmp_path / "slide.mrxs").write_bytes(b"\xff\xd8\xff\xe0 a picture")
    without = "import sys; sys.modules['openslide'] = None; from coverslip.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without, "convert", tmp_path / "slide.mrxs", small, "-o", tmp_path / "out", "--json"],
        capture_output=True, text=True, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    failed, converted = json_lines(done)
    assert (done.returncode, failed["error"]["class"], converted["status"]) == (
        3, "MissingDependencyError", "converted"
    )  # fmt: skip
    assert "pip install openslide-python" in failed["error"]["message"]
