"""Files under final names only when complete, however a run ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coverslip.converter.staging import STAGING_FOLDER, publish_folder, remove_abandoned_work, staged_folder
from coverslip.errors import StoreError

HOLD = """
import sys
from pathlib import Path
from coverslip.converter.staging import staged_folder
with staged_folder(Path(sys.argv[1])) as folder:
    (folder / "half.dcm").write_bytes(b"half")
    print("ready", flush=True)
    sys.stdin.read()
"""


def start_holder(output: Path) -> subprocess.Popen[str]:
    """Start a process that has begun a series and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def write_series(output: Path, final: Path, *, overwrite: bool = False, error: BaseException | None = None) -> bool:
    """Stage one file and publish it, or fail on the way; say whether it was published."""
    with staged_folder(output) as folder:
        (folder / "new.dcm").write_bytes(b"new")
        if error is not None:
            raise error
        return publish_folder(folder, final, overwrite=overwrite)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2] / "src"))


def test_nothing_is_left_when_all_goes_well(tmp_path: Path):
    final = tmp_path / "study" / "series"
    assert write_series(tmp_path, final)
    assert [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*"))] == [
        Path("study"),
        Path("study/series"),
        Path("study/series/new.dcm"),
    ]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_exception(tmp_path: Path, error: type[BaseException]):
    with pytest.raises(error):
        write_series(tmp_path, tmp_path / "study" / "series", error=error())
    assert list(tmp_path.iterdir()) == []


def test_work_of_a_killed_run_is_removed_by_the_next(tmp_path: Path):
    process = start_holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.rglob("half.dcm"))
    assert remove_abandoned_work(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_work_under_way_is_left_alone(tmp_path: Path):
    process = start_holder(tmp_path)
    try:
        assert remove_abandoned_work(tmp_path) == 0
        assert list(tmp_path.rglob("half.dcm"))
    finally:
        process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_run_killed_before_it_began_is_removed(tmp_path: Path):
    (tmp_path / STAGING_FOLDER / "tmpabc").mkdir(parents=True)
    remove_abandoned_work(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_staging_area_is_nothing_to_remove(tmp_path: Path):
    assert remove_abandoned_work(tmp_path / "absent") == 0
    assert not (tmp_path / "absent").exists()


def test_many_runs_at_once_neither_fail_nor_lose_work(tmp_path: Path):
    barrier = threading.Barrier(6)

    def run(number: int) -> None:
        barrier.wait()
        for turn in range(30):
            remove_abandoned_work(tmp_path)
            with staged_folder(tmp_path) as folder:
                (folder / "a").write_text(f"{number} {turn}")
                remove_abandoned_work(tmp_path)
                assert (folder / "a").read_text() == f"{number} {turn}"
                publish_folder(folder, tmp_path / "study" / f"{number}-{turn}", overwrite=False)

    with ThreadPoolExecutor(6) as executor:
        list(executor.map(run, range(6)))
    assert len(list((tmp_path / "study").iterdir())) == 180
    assert not (tmp_path / STAGING_FOLDER).exists()


def test_published_folder_is_never_replaced_unasked(tmp_path: Path):
    final = tmp_path / "study" / "series"
    final.mkdir(parents=True)
    (final / "old.dcm").write_bytes(b"old")
    assert not write_series(tmp_path, final)
    assert [path.name for path in final.iterdir()] == ["old.dcm"]


def test_published_folder_is_replaced_whole_when_asked(tmp_path: Path):
    final = tmp_path / "study" / "series"
    final.mkdir(parents=True)
    (final / "old.dcm").write_bytes(b"old")
    assert write_series(tmp_path, final, overwrite=True)
    assert [path.name for path in final.iterdir()] == ["new.dcm"]
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


@pytest.mark.parametrize("blocked", ["output", "study"])
def test_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path, blocked: str):
    output = tmp_path / "output"
    if blocked == "output":
        output.write_bytes(b"a file")
        with pytest.raises(StoreError, match="output folder cannot be written"), staged_folder(output):
            pass
        return
    output.mkdir()
    (output / "study").write_bytes(b"a file")
    with pytest.raises(StoreError, match="final folder"), staged_folder(output) as folder:
        publish_folder(folder, output / "study" / "series", overwrite=False)
    assert [path.name for path in output.iterdir()] == ["study"]


def test_the_old_series_survives_where_the_new_one_cannot_take_its_place(tmp_path: Path):
    final = tmp_path / "study" / "series"
    final.mkdir(parents=True)
    (final / "old.dcm").write_bytes(b"old")
    with staged_folder(tmp_path) as folder:
        folder.rmdir()
        with pytest.raises(StoreError, match="final folder"):
            publish_folder(folder, final, overwrite=True)
    assert [path.name for path in final.iterdir()] == ["old.dcm"]
