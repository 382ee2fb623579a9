"""Runs that are interrupted, killed, or meet another run or a changed slide at a chosen moment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from coverslip.converter import staging
from tests.factories import damage
from tests.factories.aperio import write_aperio_svs
from tests.faults.command_line import STAGING, digests, json_lines, run, series_folders, staged_files, start, wait_for

SLOW = ("--reencode", "--codec", "jpeg2000:lossless", "--workers", "1", "--memory", "3M")
"""Options that make a slide of less than a megapixel take half a second, a row of tiles at a time."""

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slow") / "slow.svs"
    write_aperio_svs(path, rows=800, columns=900, native_downsamples=())
    return path


@pytest.fixture(scope="module")
def undisturbed(slide: Path) -> dict[str, str]:
    output = slide.parent / "undisturbed"
    assert run("convert", slide, "-o", output, *SLOW).returncode == 0
    return digests(output)


def _bytes_staged(output: Path) -> int:
    return sum(path.stat().st_size for path in staged_files(output) if path.exists())


# What has happened when the signal comes.
MOMENTS: dict[str, Callable[[Path], object]] = {
    "at the first file": staged_files,
    "amid the base": lambda output: _bytes_staged(output) > 200_000,
    "amid the checks": lambda output: _bytes_staged(output) > 1_150_000,
    "before the name is given": lambda output: list((output / STAGING).glob("*/series/conversion.json")),
}


def _stopped(slide: Path, output: Path, moment: Callable[[Path], object]) -> subprocess.Popen[str]:
    """Start a conversion and halt it at a moment."""
    process = start("convert", slide, "-o", output, *SLOW)
    wait_for(lambda: moment(output), process)
    process.send_signal(signal.SIGSTOP)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_run_leaves_no_final_name_and_the_next_succeeds(
    tmp_path: Path, slide: Path, undisturbed: dict[str, str], moment: str, number: signal.Signals
) -> None:
    output = tmp_path / "out"
    process = start("convert", slide, "-o", output, *SLOW)
    wait_for(lambda: MOMENTS[moment](output), process)
    process.send_signal(number)
    _printed, said = process.communicate(timeout=120)
    assert "Traceback" not in said
    if process.returncode or digests(output):
        # The last moment is so short that the run may end well before the signal comes.
        assert digests(output) in ({}, undisturbed)
    if process.returncode:
        assert process.returncode == EXIT_CODES[number]
        if number != signal.SIGKILL:
            assert digests(output) or not output.exists()
    assert run("convert", slide, "-o", output, *SLOW).returncode == 0
    assert digests(output) == undisturbed
    assert len(series_folders(output)) == 1


def test_an_interruption_before_the_first_file_leaves_nothing(tmp_path: Path, slide: Path) -> None:
    process = start("convert", slide, "-o", tmp_path / "out", *SLOW)
    wait_for(lambda: b"coverslip" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode in (143, -signal.SIGTERM)  # the latter while Python itself starts
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("moment", ["amid the base", "before the name is given"])
def test_a_killed_overwrite_keeps_a_whole_series(
    tmp_path: Path, slide: Path, undisturbed: dict[str, str], moment: str
) -> None:
    output = tmp_path / "out"
    shutil.copytree(slide.parent / "undisturbed", output)
    process = start("convert", slide, "-o", output, "--overwrite", *SLOW)
    wait_for(lambda: MOMENTS[moment](output), process)
    process.kill()
    process.communicate()
    assert digests(output) == undisturbed
    assert run("convert", slide, "-o", output, *SLOW).returncode == 0
    assert len(series_folders(output)) == 1


def test_an_overwritten_series_is_whole_at_every_moment(tmp_path: Path) -> None:
    final, seen = tmp_path / "study" / "series", set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add((final / "number").exists())

    with staging.staged_folder(tmp_path) as staged:
        (staged / "number").touch()
        assert staging.publish_folder(staged, final, overwrite=False)
    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(200):
        with staging.staged_folder(tmp_path) as staged:
            (staged / "number").touch()
            assert staging.publish_folder(staged, final, overwrite=True)
    done.set()
    watcher.join()
    assert seen == {True}
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_an_overwrite_succeeds_where_the_system_cannot_swap_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())
    for number in "12":
        with staging.staged_folder(tmp_path) as staged:
            (staged / number).touch()
            assert staging.publish_folder(staged, tmp_path / "study" / "series", overwrite=True)
    assert [path.name for path in (tmp_path / "study" / "series").iterdir()] == ["2"]
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_runs_of_one_slide_into_one_folder_end_well_together(
    tmp_path: Path, slide: Path, undisturbed: dict[str, str]
) -> None:
    output = tmp_path / "out"
    processes = [start("convert", slide, "-o", output, "--json", *SLOW) for _ in range(3)]
    ends = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    assert [(said, code) for _printed, said, code in ends] == [("", 0)] * 3
    assert digests(output) == undisturbed
    assert len(series_folders(output)) == 1


def test_many_runs_come_and_go_without_taking_each_others_folders(tmp_path: Path) -> None:
    output, failures = tmp_path / "new" / "out", []

    def work(name: str) -> None:
        try:
            for number in range(40):
                staging.remove_abandoned_work(output)
                with staging.staged_folder(output) as staged:
                    (staged / "file").touch()
                    if number % 8 == 0:
                        assert staging.publish_folder(staged, output / name / str(number), overwrite=False)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(output.glob("?/*/file"))) == 20
    assert not (output / STAGING).exists()


def test_the_staging_of_a_live_run_is_not_cleaned_up_by_another(
    tmp_path: Path, slide: Path, aperio_slide: Path, undisturbed: dict[str, str]
) -> None:
    output = tmp_path / "out"
    process = _stopped(slide, output, MOMENTS["amid the base"])
    try:
        assert run("convert", aperio_slide, "-o", output).returncode == 0
        assert staged_files(output)
    finally:
        process.send_signal(signal.SIGCONT)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert digests(output).items() > undisturbed.items()
    assert len(series_folders(output)) == 2


def _disturb(
    slide: Path, tmp_path: Path, change: Callable[[Path, Path], object]
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Convert a copy of the slide and then another slide; halt the run amid the first, and change something."""
    copy, output = damage.copy_slide(slide, tmp_path / "changed.svs"), tmp_path / "out"
    write_aperio_svs(tmp_path / "other.svs", rows=100, columns=100, native_downsamples=())
    process = start("convert", copy, tmp_path / "other.svs", "-o", output, "--json", *SLOW)
    wait_for(lambda: MOMENTS["amid the base"](output), process)
    process.send_signal(signal.SIGSTOP)
    change(copy, output)
    process.send_signal(signal.SIGCONT)
    printed, said = process.communicate(timeout=120)
    return output, subprocess.CompletedProcess([], process.returncode, printed, said)


def _replace(path: Path, _output: Path) -> None:
    other = path.with_name("new")
    shutil.copyfile(path, other)
    other.rename(path)


def _write_into(path: Path, _output: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\0" * 100)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda path, _output: path.unlink(), "can no longer be read: No such file"),
        (lambda path, _output: damage.truncate_half(path), "changed while it was being converted"),
        (_replace, "changed while it was being converted"),
        (_write_into, "changed while it was being converted"),
    ],
    ids=["removed", "cut", "replaced", "written to"],
)
def test_a_slide_that_changes_amid_its_conversion_is_an_error(
    tmp_path: Path, slide: Path, change: Callable[[Path, Path], object], words: str
) -> None:
    output, done = _disturb(slide, tmp_path, change)
    first, second = json_lines(done)
    assert (done.returncode, first["error"]["exit_code"], second["status"]) == (3, 3, "converted")
    assert words in first["error"]["message"]
    assert len(done.stderr.splitlines()) == 1
    assert len(series_folders(output)) == 1


def _damage_staged(_slide: Path, output: Path) -> None:
    """Overwrite the head of an item that is written already."""
    base = max(staged_files(output), key=lambda path: path.stat().st_size)
    data = base.read_bytes()
    item = b"\xfe\xff\x00\xe0"
    table = data.index(item, data.index(b"\xe0\x7f\x10\x00OB"))
    frame = data.index(item, table + 4)
    with base.open("r+b") as file:
        file.seek(frame)
        file.write(b"\0" * 8)


def test_output_that_is_damaged_amid_the_conversion_is_found_by_the_self_check(tmp_path: Path, slide: Path) -> None:
    output, done = _disturb(slide, tmp_path, _damage_staged)
    first, second = json_lines(done)
    assert (done.returncode, first["error"]["class"], second["status"]) == (5, "ValidationFailedError", "converted")
    assert "self-check" in first["error"]["message"]
    assert len(series_folders(output)) == 1


def test_a_removal_that_was_killed_is_taken_up_by_the_next_run(tmp_path: Path) -> None:
    with staging.staged_folder(tmp_path) as staged:
        work = staged.parent
        (staged / "file").touch()
        kept = tmp_path / STAGING / "killed"
        shutil.copytree(work, kept)
    assert kept.exists()
    assert staging.remove_abandoned_work(tmp_path) == 1
    assert os.listdir(tmp_path) == []  # noqa: PTH208
