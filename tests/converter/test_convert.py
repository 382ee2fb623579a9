"""The whole job: the same bytes anywhere, no word of the slide's own, nothing half done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from tests.factories.aperio import FIELDS, write_aperio_svs

from coverslip.converter.convert import convert_slide, plan_conversion
from coverslip.converter.request import ConversionRequest, SeriesResult
from coverslip.converter.sources import open_slide
from coverslip.converter.staging import STAGING_FOLDER
from coverslip.errors import CorruptSourceError, MissingMetadataError, SourceError, StoreError
from coverslip.tiler.codecs import parse_codec
from coverslip.tiler.pyramid import PyramidOptions

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {
    "Filename": "Doe_Jane_biopsy",
    "User": "pathologist.smith",
    "ScanScope ID": "SS98765432",
    "Title": "TitleOfTheSlide",
    "Barcode": "BC0011223344",
    "Patient ID": "PAT-445566",
}


def files(folder: Path) -> dict[str, bytes]:
    """Return all instances under a folder by their paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}


def convert(slide: Path, output: Path, **options: object) -> SeriesResult:
    (series,) = convert_slide(ConversionRequest(slide, output, **options)).series
    return series


def uids(slide: Path, **options: object) -> dict[str, str]:
    """Return the UIDs that a conversion would write, without writing it."""
    request = ConversionRequest(slide, Path("absent"), **options)
    (series,) = plan_conversion(request).series
    return {
        "study": series.study_instance_uid,
        "series": series.series_instance_uid,
        "instance": series.instances[0].sop_instance_uid,
    }


# Reproducible.


def test_series_is_the_same_byte_for_byte_whatever_the_workers_memory_and_place(aperio_slide: Path, tmp_path: Path):
    include = ("label", "overview")
    convert(aperio_slide, tmp_path / "first", include=include, workers=1)
    first = files(tmp_path / "first")
    assert len(first) == 5
    moved = tmp_path / "elsewhere" / "another name.tiff"
    moved.parent.mkdir()
    shutil.copyfile(aperio_slide, moved)
    os.utime(moved, (1, 1))
    for number, (workers, memory_bytes) in enumerate([(2, 4 << 20), (5, 1 << 30), (1, None)]):
        output = tmp_path / str(number)
        convert(moved, output, include=include, workers=workers, memory_bytes=memory_bytes)
        assert files(output) == first


def test_series_is_the_same_byte_for_byte_in_any_environment(aperio_slide: Path, tmp_path: Path):
    surroundings = [
        {"TZ": "UTC", "LANG": "C", "LC_ALL": "C", "PYTHONHASHSEED": "0"},
        {"TZ": "Asia/Kathmandu", "LANG": "tr_TR.UTF-8", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "77"},
    ]
    made = []
    for number, surrounding in enumerate(surroundings):
        output, folder = tmp_path / f"out {number}", tmp_path / f"cwd {number}"
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-m", "coverslip", "convert", aperio_slide, "-o", output],
            env={**os.environ, **surrounding, "PYTHONPATH": str(ROOT / "src")},
            cwd=folder,
            umask=(0o022, 0o077)[number],
            check=True,
            capture_output=True,
        )
        made.append(files(output))
    assert made[0] == made[1]
    assert len(made[0]) == 3


BASE = {"attributes": {"PatientID": "P1", "ContainerIdentifier": "C1"}}


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"workers": 7}, set()),
        ({"memory_bytes": 4 << 20}, set()),
        ({"overwrite": True}, set()),
        ({"attributes": {"PatientID": "P2", "ContainerIdentifier": "C1"}}, {"study", "series", "instance"}),
        ({"attributes": {"PatientID": "P1", "ContainerIdentifier": "C2"}}, {"series", "instance"}),
        ({"attributes": {**BASE["attributes"], "PatientSex": "F"}}, {"series", "instance"}),
        ({"pyramid": PyramidOptions(codec=parse_codec("jpeg:81"))}, {"series", "instance"}),
        ({"pyramid": PyramidOptions(codec=parse_codec("jpeg:80:422"))}, {"series", "instance"}),
        ({"pyramid": PyramidOptions(levels=2)}, {"series", "instance"}),
        ({"pyramid": PyramidOptions(tile_size=128)}, {"series", "instance"}),
        ({"pyramid": PyramidOptions(fast=True)}, {"series", "instance"}),
        ({"pyramid": PyramidOptions(regenerate=True)}, {"series", "instance"}),
        ({"pyramid": PyramidOptions(reencode=True)}, {"series", "instance"}),
        ({"include": ("label",)}, {"series", "instance"}),
        ({"spacing_mm": (0.001, 0.001)}, {"series", "instance"}),
        ({"offset_table": "eot"}, {"series", "instance"}),
        ({"uid_root": "1.2.3"}, {"study", "series", "instance"}),
    ],
)
def test_uids_change_with_what_shapes_the_output_and_with_nothing_else(
    aperio_slide: Path, options: dict[str, object], changed: set[str]
):
    before, after = uids(aperio_slide, **BASE), uids(aperio_slide, **{**BASE, **options})
    assert {name for name in before if before[name] != after[name]} == changed


def test_another_slide_of_the_same_patient_shares_only_the_study(aperio_slide: Path, tmp_path: Path):
    other = tmp_path / "other.svs"
    other.write_bytes(aperio_slide.read_bytes() + b"\0")
    before, after = uids(aperio_slide, **BASE), uids(other, **BASE)
    assert {name for name in before if before[name] == after[name]} == {"study"}
    assert uids(aperio_slide)["study"] != uids(other)["study"]


def test_slide_read_twice_shares_study_specimen_and_frame_of_reference_but_not_the_acquisition(
    aperio_slide: Path, tmp_path: Path
):
    headers = []
    for number, levels in enumerate((1, 2)):
        series = convert(aperio_slide, tmp_path / str(number), pyramid=PyramidOptions(levels=levels))
        headers.append(dcmread(series.folder / series.instances[0].file_name, stop_before_pixels=True))
    one, other = headers
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert one[keyword].value == other[keyword].value
    assert one.SpecimenDescriptionSequence[0].SpecimenUID == other.SpecimenDescriptionSequence[0].SpecimenUID
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID", "AcquisitionUID", "PyramidUID"):
        assert one[keyword].value != other[keyword].value


# Nothing that identifies.


def test_no_identifying_text_of_the_slide_reaches_any_output(tmp_path: Path):
    slide = tmp_path / "Doe_Jane_file.svs"
    write_aperio_svs(slide, rows=300, columns=300, tile=128, fields={**FIELDS, **SECRETS})
    with open_slide(slide) as source:
        identifying = {text for name, text in source.metadata.identifying.items() if name != "ImageDescription"}
    assert set(SECRETS.values()) <= identifying
    series = convert(slide, tmp_path / "out", include=("label", "overview"))
    for path in series.folder.iterdir():
        content = path.read_bytes()
        for secret in [*SECRETS.values(), "Doe_Jane", str(tmp_path)]:
            assert secret.encode() not in content, (path.name, secret)


# What is written down.


def test_result_file_tells_what_the_folder_holds(aperio_slide: Path, tmp_path: Path):
    series = convert(aperio_slide, tmp_path, include=("label", "thumbnail"))
    result = json.loads((series.folder / "conversion.json").read_text())
    assert {path.name for path in series.folder.iterdir()} == {
        "conversion.json",
        *(one["file_name"] for one in result["instances"]),
    }
    for one in result["instances"]:
        assert (series.folder / one["file_name"]).stat().st_size == one["size_bytes"]
    assert result["source"]["bytes"] == aperio_slide.stat().st_size
    assert "source.thumbnail-too-large" in [finding["rule"] for finding in result["findings"]]
    rules = [finding["rule"] + finding["place"] for finding in result["findings"]]
    assert len(rules) == len(set(rules))


def test_dry_run_tells_the_same_plan_and_writes_nothing(aperio_slide: Path, tmp_path: Path):
    request = ConversionRequest(aperio_slide, tmp_path / "out")
    (planned,) = plan_conversion(request).series
    assert not (tmp_path / "out").exists()
    (made,) = convert_slide(request).series
    unknown = {"size_bytes": None, "frame_bytes": None, "offset_table": None, "md5": None}
    assert planned.instances == tuple(replace(one, **unknown) for one in made.instances)


def test_missing_scale_is_asked_for_and_taken(tmp_path: Path):
    slide = tmp_path / "a.svs"
    write_aperio_svs(slide, rows=64, columns=64, tile=64, mpp=None, native_downsamples=())
    with pytest.raises(MissingMetadataError, match="--mpp"):
        convert(slide, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    series = convert(slide, tmp_path / "out", spacing_mm=(0.0005, 0.0004))
    assert series.instances[0].pixel_spacing_mm == (0.0005, 0.0004)


# Whole or absent.


def test_second_run_leaves_a_whole_series_alone_and_refuses_a_broken_one(aperio_slide: Path, tmp_path: Path):
    series = convert(aperio_slide, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in series.folder.iterdir()}
    assert convert(aperio_slide, tmp_path).already_there
    assert {path: path.stat().st_mtime_ns for path in series.folder.iterdir()} == times
    (series.folder / series.instances[1].file_name).unlink()
    with pytest.raises(StoreError, match="--overwrite"):
        convert(aperio_slide, tmp_path)
    assert not convert(aperio_slide, tmp_path, overwrite=True).already_there
    assert len(files(tmp_path)) == 3


def test_killed_run_leaves_no_final_name_and_the_next_cleans_up(tmp_path: Path):
    slide = tmp_path / "a.svs"
    write_aperio_svs(slide, rows=2000, columns=2000, label=False, macro=False, thumbnail=False)
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "coverslip", "convert", slide, "-o", output, "--codec", "jpeg2000:lossless"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(output.rglob("*.dcm")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in output.iterdir()] == [STAGING_FOLDER]
    convert(slide, output)
    assert not (output / STAGING_FOLDER).exists()
    assert len(files(output)) == 4


def test_slide_that_changes_meanwhile_is_refused(tmp_path: Path):
    slide = tmp_path / "a.svs"
    write_aperio_svs(slide, rows=300, columns=300, tile=128)

    def touch(_done: int, _total: int) -> None:
        os.utime(slide, (1, 1))

    with pytest.raises(SourceError, match="changed while it was being converted"):
        convert_slide(ConversionRequest(slide, tmp_path / "out"), touch)
    assert not (tmp_path / "out").exists()


def test_uncompressed_output_holds_the_pixels_themselves(tmp_path: Path):
    slide = tmp_path / "a.svs"
    write_aperio_svs(slide, rows=100, columns=100, tile=64)
    series = convert(slide, tmp_path / "out", pyramid=PyramidOptions(codec=parse_codec("none")))
    for one in series.instances:
        ds = dcmread(series.folder / one.file_name)
        assert len(ds.PixelData) == one.frame_bytes == one.number_of_frames * 64 * 64 * 3


def test_overview_of_an_aperio_slide_starts_at_the_far_corner_of_the_glass(aperio_slide: Path, tmp_path: Path):
    series = convert(aperio_slide, tmp_path, include=("overview",))
    origins = {}
    for instance in series.instances:
        item = dcmread(series.folder / instance.file_name).TotalPixelMatrixOriginSequence[0]
        place = float(item.XOffsetInSlideCoordinateSystem), float(item.YOffsetInSlideCoordinateSystem)
        origins.setdefault(instance.image_flavor, set()).add(place)
    overview = series.instances[-1]
    length_mm = 25.4 * overview.total_pixel_matrix_columns / overview.total_pixel_matrix_rows
    assert origins == {
        "VOLUME": {(float(FIELDS["Top"]), round(length_mm - float(FIELDS["Left"]), 6))},
        "OVERVIEW": {(25.4, round(length_mm, 6))},
    }


def test_associated_image_that_cannot_be_read_ends_the_work_and_leaves_nothing(aperio_slide: Path, tmp_path: Path):
    slide = tmp_path / "slide.svs"
    with open_slide(aperio_slide) as source:
        page = next(page for page in source.structure.pages if "label" in page.description)
        offset = int(page.segments()[0][0])
    damaged = bytearray(aperio_slide.read_bytes())
    damaged[offset : offset + 16] = bytes(16)
    slide.write_bytes(damaged)
    request = ConversionRequest(slide, tmp_path / "out", include=("label",))
    with pytest.raises(CorruptSourceError, match="label image"):
        convert_slide(request)
    assert not request.output.exists()
    assert not (tmp_path / "out").exists()
