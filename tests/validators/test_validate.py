"""`coverslip validate` as a whole, and the view of a series it rests on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from coverslip.cli import cli
from coverslip.errors import CorruptSourceError, StoreError, UsageError
from coverslip.validators.instance import InstanceView
from coverslip.validators.series import open_series
from coverslip.validators.validate import ValidationOptions, validate_paths
from tests.factories.instances import FRAMES, PLAIN, write


@pytest.mark.parametrize("table", ["bot", "eot", "none"])
def test_frames_are_read_by_their_offsets(tmp_path: Path, table: str):
    write(tmp_path / "a.dcm", FRAMES, table=table)
    instance = InstanceView(tmp_path / "a.dcm")
    assert [instance.read_frame(index).rstrip(b"\0") for index in range(4)] == FRAMES
    assert instance.read_frame(3, 5) == b"12345"
    assert instance.items.end == instance.size


def test_native_frames_are_read_by_their_size(tmp_path: Path):
    write(tmp_path / "a.dcm", [bytes([n]) * 48 for n in (1, 2)], PLAIN)
    assert InstanceView(tmp_path / "a.dcm").read_frame(1) == bytes([2]) * 48


def test_frame_past_the_end_is_corrupt(tmp_path: Path):
    path = write(tmp_path / "a.dcm", FRAMES).path
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(CorruptSourceError):
        InstanceView(path).read_frame(3)


def test_folders_are_searched_for_dicom_files(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "no-suffix", FRAMES)
    (tmp_path / "deep" / "notes.txt").write_text("nothing")
    (series,), unreadable = open_series([tmp_path, tmp_path / "deep" / "no-suffix"])
    assert [instance.name for instance in series.instances] == ["no-suffix"]
    assert unreadable == []


def test_file_that_is_no_dicom_file_is_a_finding(tmp_path: Path):
    (tmp_path / "a.dcm").write_text("nothing")
    (report,) = validate_paths([tmp_path], ValidationOptions())
    assert [finding.rule for finding in report.findings] == ["part10.unreadable"]


def test_nothing_to_validate_is_an_error(tmp_path: Path):
    with pytest.raises(StoreError):
        open_series([tmp_path])
    with pytest.raises(StoreError):
        open_series([tmp_path / "absent"])


def test_profile_must_be_known():
    with pytest.raises(UsageError):
        ValidationOptions("lossless")


def test_command_ends_with_5_on_an_error_and_tells_it_as_json(tmp_path: Path):
    (tmp_path / "a.dcm").write_text("nothing")
    result = CliRunner().invoke(cli, ["validate", str(tmp_path), "--json"])
    assert result.exit_code == 5
    told = json.loads(result.stdout)
    assert told["passed"] is False
    assert told["counts"] == {"part10.unreadable": 1}
