"""What is to be delivered, found in files and folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

from coverslip.errors import StoreError
from coverslip.stores.options import Naming
from coverslip.upload.deliverables import Deliverable, describe_series, digest_file, find_series


def describe(*paths: Path, naming: Naming = Naming.UUIDS) -> Deliverable:
    found, unreadable = find_series(paths)
    assert unreadable == []
    (series,) = found
    return describe_series(series, naming)


def test_a_converted_series_is_named_as_its_conversion_says(converted: Path) -> None:
    stated = json.loads((converted / "conversion.json").read_text())
    series = describe(converted)
    assert series.series_uuid == stated["series_uuid"]
    assert {(each.md5, each.object_name) for each in series.instances} == {
        (each["md5"], f"{stated['series_uuid']}/{each['instance_uuid']}.dcm") for each in stated["instances"]
    }
    assert series.stated_md5
    assert series.patient_id == "P1"


def test_a_foreign_series_gets_the_names_that_its_bytes_would_have_had(converted: Path, foreign: Path) -> None:
    theirs = describe(foreign)
    ours = describe(converted)
    assert [each.object_name for each in theirs.instances] == [each.object_name for each in ours.instances]
    assert [each.md5 for each in theirs.instances] == [digest_file(each.path) for each in theirs.instances]
    assert not theirs.stated_md5


def test_objects_may_be_named_by_uids(converted: Path) -> None:
    for instance in describe(converted, naming=Naming.UIDS).instances:
        header = dcmread(instance.path, stop_before_pixels=True)
        study, series = header.StudyInstanceUID, header.SeriesInstanceUID
        assert instance.object_name == f"{study}/{series}/{header.SOPInstanceUID}.dcm"
        assert instance.transfer_syntax_uid == header.file_meta.TransferSyntaxUID
        assert instance.sop_class_uid == header.SOPClassUID


def test_one_file_of_a_series_keeps_the_name_that_the_whole_series_gives_it(converted: Path) -> None:
    whole = describe(converted)
    one = describe(whole.instances[0].path)
    assert one.instances == whole.instances[:1]
    assert set(one.siblings.values()) == {each.object_name for each in whole.instances[1:]}


def test_hidden_folders_and_repeated_paths_are_passed_by(series: Path) -> None:
    shutil.copytree(series, series.parent / ".coverslip-partial" / "x")
    assert describe(series.parent, series, next(series.glob("*.dcm"))).instances == describe(series).instances


def test_files_without_an_ending_are_found_by_their_content(foreign: Path) -> None:
    for path in foreign.glob("*.dcm"):
        path.rename(path.with_suffix(""))
    (foreign / "notes.txt").write_text("no DICOM")
    assert len(describe(foreign).instances) > 2


def test_files_that_are_no_dicom_are_told_and_do_not_stop_the_others(series: Path) -> None:
    (series.parent / "bad.dcm").write_text("no DICOM")
    found, unreadable = find_series([series.parent])
    assert len(found) == 1
    assert unreadable == [(series.parent / "bad.dcm", "is no DICOM file")]


def test_a_uid_that_would_lead_out_of_a_bucket_is_not_taken(foreign: Path) -> None:
    path = next(foreign.glob("*.dcm"))
    uid = str(dcmread(path, stop_before_pixels=True).SeriesInstanceUID).encode()
    path.write_bytes(path.read_bytes().replace(uid, b"../" + uid[3:]))
    _found, unreadable = find_series([path])
    assert unreadable == [(path, "has no valid SeriesInstanceUID")]


def test_a_path_that_is_not_there_and_a_folder_without_dicom_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing is not there"):
        find_series([tmp_path / "nothing"])
    with pytest.raises(StoreError, match="no DICOM files found"):
        find_series([tmp_path])


def test_a_series_that_is_not_as_its_conversion_says_is_refused(series: Path) -> None:
    first, second, *_ = sorted(series.glob("*.dcm"))
    with first.open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(StoreError, match=rf"instance {first.stem} has \d+ bytes, conversion.json says \d+"):
        describe(series)
    first.unlink()
    with pytest.raises(StoreError, match=f"instance {first.stem} is listed in conversion.json and not there"):
        describe(series)
    (series / "conversion.json").write_text("{")
    with pytest.raises(StoreError, match=r"conversion\.json cannot be read"):
        describe(series)
    (series / "conversion.json").unlink()
    shutil.copy(second, series / "copy.dcm")
    with pytest.raises(StoreError, match=f"two files hold instance {second.stem}"):
        describe(series)


def test_a_file_that_the_conversion_does_not_list_is_refused(series: Path) -> None:
    other = dcmread(next(series.glob("*.dcm")))
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    other.save_as(series / "other.dcm")
    with pytest.raises(StoreError, match=r"1 files are not listed in conversion.json: 2\.25\.1"):
        describe(series)


@pytest.mark.parametrize("keyword, words", [("StudyInstanceUID", "studies"), ("PatientID", "patients")])
def test_files_of_two_studies_or_patients_are_not_one_series(foreign: Path, keyword: str, words: str) -> None:
    path = next(foreign.glob("*.dcm"))
    header = dcmread(path)
    setattr(header, keyword, "2.25.99")
    header.save_as(path)
    with pytest.raises(StoreError, match=f"name different {words}"):
        describe(foreign)
