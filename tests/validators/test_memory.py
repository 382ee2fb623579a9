"""Tens of thousands of frames, gigabytes, and many series take no more memory than a small one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import UID, ExplicitVRLittleEndian

from tests.validators.broken import level_files

COMPRESSED_SIDE, NATIVE_SIDE = 200, 146
"""Tiles in each direction: 40,000 frames; and as many as fit into the 4 GiB of an uncompressed element."""
MOST_MB = 190

CHILD = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"peak_mb": peak, "told": json.loads(done.stdout), "errors": done.stderr}))
"""


def measured(*arguments: str | Path) -> dict[str, object]:
    """Validate in a process of its own, and return what it told and its peak memory in MB."""
    command = [sys.executable, "-m", "coverslip", "validate", *map(str, arguments), "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, "-I", "-S", "-c", CHILD, *command]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def enlarge(ds: Dataset, side: int) -> None:
    """Make the header that of one level of side x side tiles."""
    spacing = [float(each) for each in ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing]
    ds.NumberOfFrames = side * side
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = side * ds.Rows, side * ds.Columns
    ds.ImagedVolumeHeight = spacing[0] * ds.TotalPixelMatrixRows
    ds.ImagedVolumeWidth = spacing[1] * ds.TotalPixelMatrixColumns


def test_forty_thousand_compressed_frames_take_no_more_memory(good: Path, tmp_path: Path) -> None:
    ds = dcmread(level_files(good)[0])
    frame = next(generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames)))
    enlarge(ds, COMPRESSED_SIDE)
    ds.LossyImageCompressionRatio = round(ds.Rows * ds.Columns * 3 / len(frame), 3)
    del ds.PixelData
    ds.save_as(tmp_path / "compressed.dcm")
    item = b"\xfe\xff\x00\xe0" + len(frame).to_bytes(4, "little") + frame
    with (tmp_path / "compressed.dcm").open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0" + bytes(4))
        file.writelines([item] * COMPRESSED_SIDE**2)
        file.write(b"\xfe\xff\xdd\xe0" + bytes(4))
    run = measured(tmp_path)
    assert (run["told"]["passed"], run["errors"]) == (True, "")
    assert run["told"]["series"][0]["checked"]["frames"] == COMPRESSED_SIDE**2
    assert run["peak_mb"] < MOST_MB


def test_gigabytes_of_uncompressed_frames_are_not_read(good: Path, tmp_path: Path) -> None:
    ds = dcmread(level_files(good)[0], stop_before_pixels=True)
    enlarge(ds, NATIVE_SIDE)
    ds.file_meta.TransferSyntaxUID, ds.PhotometricInterpretation = ExplicitVRLittleEndian, "RGB"
    path = tmp_path / "native.dcm"
    ds.save_as(path)
    length = ds.Rows * ds.Columns * 3 * NATIVE_SIDE**2
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OB\0\0" + length.to_bytes(4, "little"))
        file.truncate(file.tell() + length)  # a hole, which takes no room
    run = measured(tmp_path)
    (series,) = run["told"]["series"]
    assert path.stat().st_size > 4_000_000_000
    assert series["checked"]["bytes_read"] < 100_000_000
    assert run["peak_mb"] < MOST_MB
    assert not {"validator.failed", "frames.native-length", "frames.truncated"} & set(series["counts"])


def test_memory_does_not_grow_with_the_number_of_series(good: Path, tmp_path: Path) -> None:
    base = dcmread(level_files(good)[-1])
    peaks = []
    for number in (5, 60):
        folder = tmp_path / str(number)
        folder.mkdir()
        for index in range(number):
            base.SeriesInstanceUID, base.StudyInstanceUID = UID(f"2.25.1{index}"), UID(f"2.25.2{index}")
            base.SOPInstanceUID = base.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.3{index}")
            base.save_as(folder / f"{index}.dcm")
        run = measured(folder, "--html", tmp_path / "page.html")
        assert len(run["told"]["series"]) == number
        peaks.append(run["peak_mb"])
    assert peaks[1] < peaks[0] + 15
