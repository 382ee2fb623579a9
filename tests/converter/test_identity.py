"""docs/identity.md: what changes which UID, and the UUIDs of files and series."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from tests.factories.aperio import write_aperio_svs

from coverslip.converter.convert import convert_slide
from coverslip.converter.identity import NAMESPACE, instance_uuid, merkle_md5, series_uuid
from coverslip.converter.request import ConversionRequest, Replacement
from coverslip.metadata_maps.deid.policy import load_policy
from coverslip.tiler.codecs import parse_codec
from coverslip.tiler.pyramid import PyramidOptions

TABLE = Path(__file__).resolve().parents[2] / "docs" / "identity.md"
UIDS = ("study", "frame of reference", "specimen", "version")
WHOLE = {"PatientID": "P1", "StudyID": "E1", "AccessionNumber": "A1", "ContainerIdentifier": "C1"}


@dataclass(frozen=True)
class Change:
    """One row of the table: attributes before and after, and what else is changed."""

    before: dict[str, str] = field(default_factory=lambda: WHOLE)
    after: dict[str, str] = field(default_factory=lambda: WHOLE)
    other_bytes: bool = False
    moved: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)


def changed(keyword: str, before: dict[str, str] | None = None) -> Change:
    before = before if before is not None else WHOLE
    return Change(before, {**before, keyword: "other"})


NO_PATIENT = {"ContainerIdentifier": "C1"}
CHANGES = {
    "Patient ID": changed("PatientID"),
    "Study ID": changed("StudyID"),
    "Accession Number": changed("AccessionNumber"),
    "Container Identifier, with a Patient ID": changed("ContainerIdentifier"),
    "Container Identifier, without a Patient ID": changed("ContainerIdentifier", NO_PATIENT),
    "Specimen Identifier": changed("SpecimenIdentifier"),
    "any other attribute": changed("SeriesDescription"),
    "bytes of the source, with identifiers": Change(other_bytes=True),
    "bytes of the source, without identifiers": Change({}, {}, other_bytes=True),
    "option of the codec": Change(options={"pyramid": PyramidOptions(codec=parse_codec("jpeg:90"))}),
    "levels": Change(options={"pyramid": PyramidOptions(levels=1)}),
    "offset table": Change(options={"offset_table": "eot"}),
    "de-identification policy, or the key that it needs": Change(options={"policy": load_policy("remove-dates")}),
    "label masked in the overview": Change(options={"mask_label": True}),
    "UID root": Change(options={"uid_root": "1.2.3"}),
    "workers": Change(options={"workers": 1}),
    "memory": Change(options={"memory_bytes": 4 << 20}),
    "name or folder of the source": Change(moved=True),
    "time, time zone, locale": Change(environment={"TZ": "Asia/Tokyo", "LC_ALL": "C"}),
    "what it replaces, and why": Change(options={"replaces": Replacement("1.2", "another stain")}),
}


def rows_of_the_table() -> dict[str, set[str]]:
    """Return the UIDs that change, by what has changed."""
    text = TABLE.read_text(encoding="utf-8").partition("| changed |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    return {row[0]: {uid for uid, cell in zip(UIDS, row[1:], strict=True) if cell == "x"} for row in rows}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two slides of one tile."""
    folder = tmp_path_factory.mktemp("identity")
    paths = folder / "one.svs", folder / "two.svs"
    write_aperio_svs(paths[0], rows=128, columns=200, tile=128, native_downsamples=())
    write_aperio_svs(paths[1], rows=128, columns=201, tile=128, native_downsamples=())
    return paths


def uids_of(path: Path, output: Path, attributes: dict[str, str], **options: object) -> tuple[dict[str, object], bytes]:
    """Convert, and return the UIDs by the table's columns and the bytes of the base."""
    result = convert_slide(ConversionRequest(path, output, attributes=attributes, **options))
    file = result.series[0].folder / result.series[0].instances[0].file_name
    ds = pydicom.dcmread(file, stop_before_pixels=True)
    version = (
        ds.SeriesInstanceUID,
        ds.SOPInstanceUID,
        ds.AcquisitionUID,
        ds.PyramidUID,
        ds.DimensionOrganizationSequence[0].DimensionOrganizationUID,
    )
    specimen = ds.SpecimenDescriptionSequence[0].SpecimenUID
    return dict(zip(UIDS, (ds.StudyInstanceUID, ds.FrameOfReferenceUID, specimen, version), strict=True)), (
        file.read_bytes()
    )


def test_every_row_of_the_table_is_tested() -> None:
    assert rows_of_the_table().keys() == CHANGES.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_changes_the_uids_that_the_table_says(
    tmp_path: Path, slides: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    change = CHANGES[name]
    before, old = uids_of(slides[0], tmp_path / "before", change.before)
    path = slides[change.other_bytes]
    if change.moved:
        path = Path(shutil.copy(path, tmp_path / "moved.svs"))
    for variable, value in change.environment.items():
        monkeypatch.setenv(variable, value)
    after, new = uids_of(path, tmp_path / "after", change.after, **change.options)
    differ = {uid for uid in UIDS if before[uid] != after[uid]}
    assert differ == rows_of_the_table()[name]
    if "version" in differ:
        assert not set(before["version"]) & set(after["version"])
    else:
        assert old == new


def test_conversion_json_holds_the_uuids_of_the_files_that_are_there(tmp_path: Path, slides: tuple[Path, Path]) -> None:
    folder = convert_slide(ConversionRequest(slides[0], tmp_path)).series[0].folder
    result = json.loads((folder / "conversion.json").read_text())
    md5s = []
    for instance in result["instances"]:
        md5s.append(hashlib.md5((folder / instance["file_name"]).read_bytes()).hexdigest())
        name = pydicom.dcmread(folder / instance["file_name"]).SOPInstanceUID + md5s[-1]
        assert instance["instance_uuid"] == str(uuid.uuid5(NAMESPACE, name))
    assert result["series_md5"] == hashlib.md5("".join(sorted(md5s)).encode()).hexdigest()
    assert result["series_uuid"] == str(uuid.uuid5(NAMESPACE, result["series_instance_uid"] + result["series_md5"]))
    assert result["replaces"] is None


def test_conversion_json_says_what_a_corrected_slide_replaces_and_why(
    tmp_path: Path, slides: tuple[Path, Path]
) -> None:
    request = ConversionRequest(slides[0], tmp_path, replaces=Replacement("1.2.3", "the scan was out of focus"))
    result = json.loads((convert_slide(request).series[0].folder / "conversion.json").read_text())
    assert result["replaces"] == {"series_instance_uid": "1.2.3", "reason": "the scan was out of focus"}


def test_uuids_are_those_of_the_documented_namespace() -> None:
    assert uuid.uuid5(uuid.NAMESPACE_OID, "coverslip") == NAMESPACE
    assert re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", TABLE.read_text()) == [str(NAMESPACE)]
    # 5d41402abc4b2a76b9719d911017c592 is the MD5 of "hello"
    md5 = "5d41402abc4b2a76b9719d911017c592"
    assert instance_uuid("1.2.3", md5) == str(uuid.uuid5(NAMESPACE, f"1.2.3{md5}"))
    assert merkle_md5(["b", "a"]) == hashlib.md5(b"ab").hexdigest() == merkle_md5(["a", "b"])
    assert series_uuid("1.2", [md5]) != series_uuid("1.2", [md5, md5])
