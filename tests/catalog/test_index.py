from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import duckdb
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from coverslip.catalog.conversion_record import read_facts
from coverslip.catalog.database import open_catalog
from coverslip.catalog.merge import NewVersion
from coverslip.catalog.reading import Digest
from coverslip.errors import CatalogError, StoreError, UsageError
from coverslip.uuids import instance_uuid, merkle_md5, series_uuid
from tests.factories.headers import slide_header, write_header

pytestmark = pytest.mark.usefixtures("narrow_schema")


def two_levels(folder: Path, series: str = "1.2.3", **attributes) -> list[Path]:
    return [write_header(folder, slide_header(series, number, **attributes)) for number in (1, 2)]


def dump(path: Path) -> dict[str, list[str]]:
    """Return every row of every stored table, and what the views are made of."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = connection.execute("SELECT schema_name || '.' || table_name FROM duckdb_tables()").fetchall()
        rows = {name: [repr(row) for row in connection.execute(f"FROM {name}").fetchall()] for (name,) in names}
        rows["views"] = [
            repr(row) for row in connection.execute("SELECT sql FROM duckdb_views() ORDER BY 1").fetchall()
        ]
        return rows


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_indexing_again_changes_no_byte(tmp_path, index, ask, tcga_series) -> None:
    two_levels(tmp_path / "in")
    first = index(tmp_path / "in", tcga_series)
    assert (first.outcome.merge.new, first.outcome.merge.version) == (2 + len(list(tcga_series.glob("*.dcm"))), 1)
    before = (tmp_path / "catalog.duckdb").read_bytes()
    again = index(tmp_path / "in", tcga_series)
    assert (again.outcome.merge.new, again.outcome.merge.changed, again.outcome.merge.version) == (0, 0, 1)
    assert again.outcome.merge.unchanged == first.outcome.merge.new
    assert (tmp_path / "catalog.duckdb").read_bytes() == before


def test_the_order_of_paths_and_the_number_of_workers_change_no_row(tmp_path, index, monkeypatch) -> None:
    for series in range(30):
        two_levels(tmp_path / "in" / str(series % 3), f"1.2.{series}")
    folders = [tmp_path / "in" / str(number) for number in range(3)]
    index(*folders, to=str(tmp_path / "one.duckdb"))
    monkeypatch.setattr("coverslip.catalog.index._FEW", 1)
    monkeypatch.setattr("coverslip.catalog.index._PART", 7)
    index(*reversed(folders), to=str(tmp_path / "other.duckdb"), workers=2)
    one, other = dump(tmp_path / "one.duckdb"), dump(tmp_path / "other.duckdb")
    assert {name: sorted(rows) for name, rows in one.items()} == {name: sorted(rows) for name, rows in other.items()}


def test_uuids_and_hashes_are_merkle_trees_of_the_files(tmp_path, index, ask) -> None:
    paths = two_levels(tmp_path / "in")
    index(tmp_path / "in")
    digests = [md5(path) for path in paths]
    rows = ask("SELECT SOPInstanceUID, instance_uuid, instance_hash, instance_size FROM auxiliary_metadata ORDER BY 1")
    assert rows == [
        (f"1.2.3.{number}", instance_uuid(f"1.2.3.{number}", digest), digest, path.stat().st_size)
        for number, digest, path in zip((1, 2), digests, paths, strict=True)
    ]
    series, study = merkle_md5(digests), merkle_md5([merkle_md5(digests)])
    patient = merkle_md5([study])
    found = ask(
        "SELECT DISTINCT series_uuid, series_hash, study_hash, patient_hash, collection_hash, series_instances, "
        "study_instances FROM auxiliary_metadata"
    )
    assert found == [(series_uuid("1.2.3", digests), series, study, patient, merkle_md5([patient]), 2, 2)]


def test_digests_of_a_conversion_are_taken_as_stated_until_a_file_is_newer(tmp_path, index, ask, tcga_series) -> None:
    folder = tmp_path / "series"
    shutil.copytree(tcga_series, folder)
    record = json.loads((folder / "conversion.json").read_text())
    for instance in record["instances"]:
        instance["md5"] = hashlib.md5(instance["md5"].encode(), usedforsecurity=False).hexdigest()  # tell-tale
    (folder / "conversion.json").write_text(json.dumps(record))
    index(folder)
    stated = {(each["sop_instance_uid"], each["md5"]) for each in record["instances"]}
    assert set(ask("SELECT SOPInstanceUID, instance_hash FROM auxiliary_metadata")) == stated
    touched = folder / record["instances"][0]["file_name"]
    newer = (folder / "conversion.json").stat().st_mtime_ns + 1
    os.utime(touched, ns=(newer, newer))
    index(folder)
    query = "SELECT instance_hash FROM auxiliary_metadata WHERE SOPInstanceUID = ?"
    assert ask(query, [record["instances"][0]["sop_instance_uid"]]) == [(md5(touched),)]


def test_uuids_are_those_of_the_conversion(index, ask, tcga_series) -> None:
    index(tcga_series)
    record = json.loads((tcga_series / "conversion.json").read_text())
    assert ask("SELECT crdc_series_uuid FROM idc_index") == [(record["series_uuid"],)]
    stated = sorted((each["sop_instance_uid"], each["instance_uuid"]) for each in record["instances"])
    assert ask("SELECT SOPInstanceUID, crdc_instance_uuid FROM dicom_all ORDER BY 1") == stated


def test_a_changed_instance_gets_a_version_and_the_one_before_can_be_asked_for(tmp_path, index, ask) -> None:
    two_levels(tmp_path / "in", ContainerIdentifier="old")
    two_levels(tmp_path / "in", "1.2.8")
    index(tmp_path / "in", version=NewVersion(label="first", date="2026-01-31"))
    old = ask("SELECT crdc_series_uuid FROM idc_index WHERE SeriesInstanceUID = '1.2.3'")
    write_header(tmp_path / "in", slide_header("1.2.3", 2, ContainerIdentifier="new"))
    report = index(tmp_path / "in", version=NewVersion(date="2026-03-01"))
    merge = report.outcome.merge
    assert (merge.new, merge.changed, merge.unchanged, merge.version) == (0, 1, 3, 2)
    containers = "SELECT DISTINCT ContainerIdentifier FROM dicom_metadata WHERE SeriesInstanceUID = '1.2.3' ORDER BY 1"
    assert ask(containers) == [("new",), ("old",)]
    assert ask(containers, as_of=1) == [("old",)]
    versions = (
        "SELECT instance_init_idc_version, instance_revised_idc_version, series_init_idc_version, "
        "series_revised_idc_version, study_revised_idc_version, collection_revised_idc_version "
        "FROM auxiliary_metadata ORDER BY SOPInstanceUID"
    )
    assert ask(versions) == [(1, 1, 1, 2, 2, 2), (1, 2, 1, 2, 2, 2), (1, 1, 1, 1, 2, 2), (1, 1, 1, 1, 2, 2)]
    assert ask(versions, as_of=1) == [(1, 1, 1, 1, 1, 1)] * 4
    assert ask("SELECT crdc_series_uuid FROM idc_index WHERE SeriesInstanceUID = '1.2.3'", as_of=1) == old
    assert ask("SELECT crdc_series_uuid FROM idc_index WHERE SeriesInstanceUID = '1.2.3'") != old
    assert ask("SELECT count(*) FROM idc_index") == ask("SELECT count(*) FROM idc_index", as_of=1) == [(2,)]
    assert ask("SELECT count(*) FROM sm_instance_index") == ask("FROM (SELECT count(*) FROM dicom_all)") == [(4,)]
    names = ask("SELECT version, label, CAST(version_date AS VARCHAR) FROM versions ORDER BY 1")
    assert names == [(1, "first", "2026-01-31"), (2, None, "2026-03-01")]
    assert ask("SELECT DISTINCT CAST(collection_timestamp AS VARCHAR) FROM dicom_all") == [("2026-03-01 00:00:00",)]


def test_going_back_to_old_bytes_gives_the_old_uuid_in_a_new_version(tmp_path, index, ask) -> None:
    path, _ = two_levels(tmp_path / "in")
    bytes_before = path.read_bytes()
    index(tmp_path / "in")
    uuids = ask("SELECT crdc_series_uuid, series_init_idc_version FROM idc_index")
    write_header(tmp_path / "in", slide_header(PatientID="P2"))
    index(tmp_path / "in")
    path.write_bytes(bytes_before)
    index(tmp_path / "in")
    assert ask("SELECT crdc_series_uuid, series_init_idc_version FROM idc_index") == uuids
    assert ask("SELECT series_revised_idc_version FROM idc_index") == [(3,)]
    assert ask("SELECT version, count(*) FROM versions GROUP BY 1 ORDER BY 1") == [(1, 1), (2, 1), (3, 1)]


def test_the_latest_version_may_be_amended_and_no_earlier_one(tmp_path, index, ask) -> None:
    write_header(tmp_path / "in", slide_header())
    index(tmp_path / "in", version=NewVersion(24))
    write_header(tmp_path / "in", slide_header(PatientID="P2"))
    write_header(tmp_path / "in", slide_header("1.2.4"))
    index(tmp_path / "in", version=NewVersion(24, "amended"))
    assert ask("SELECT version, label FROM versions") == [(24, "amended")]
    assert ask("SELECT PatientID, series_init_idc_version, series_revised_idc_version FROM idc_index ORDER BY ALL") == [
        ("P1", 24, 24),
        ("P2", 24, 24),
    ]
    for table in ("instances", "dicom_metadata", "sm_index", "idc_index", "series"):
        assert ask(f"SELECT count(*) FROM history.{table}") == [(2,)], table
    assert ask("SELECT PatientID FROM history.patients ORDER BY 1") == [("P1",), ("P2",)]
    with pytest.raises(UsageError, match="version 23: the latest version is 24"):
        index(tmp_path / "in", version=NewVersion(23))


def test_what_is_gone_is_retired_only_when_asked_and_only_below_the_path(tmp_path, index, ask) -> None:
    first = two_levels(tmp_path / "in" / "a")
    two_levels(tmp_path / "in" / "b", "1.2.4")
    other = two_levels(tmp_path / "in-other", "1.2.5")
    index(tmp_path / "in", tmp_path / "in-other")
    for path in (*first, *other):
        path.unlink()
    assert index(tmp_path / "in").outcome.merge.retired == 0
    assert index(tmp_path / "in", prune=True).outcome.merge.retired == 2
    assert ask("SELECT SeriesInstanceUID FROM idc_index ORDER BY 1") == [("1.2.4",), ("1.2.5",)]
    assert ask("SELECT SeriesInstanceUID FROM sm_index ORDER BY 1") == [("1.2.4",), ("1.2.5",)]
    assert ask("SELECT count(*) FROM dicom_all") == [(4,)]
    assert ask("SELECT SeriesInstanceUID FROM sm_index ORDER BY 1", as_of=1) == [("1.2.3",), ("1.2.4",), ("1.2.5",)]
    assert ask("SELECT final_version FROM history.series WHERE SeriesInstanceUID = '1.2.3'") == [(1,)]
    two_levels(tmp_path / "in" / "a")
    assert index(tmp_path / "in", prune=True).outcome.merge.new == 2
    history = (
        "SELECT series_init_idc_version, series_revised_idc_version FROM idc_index WHERE SeriesInstanceUID = '1.2.3'"
    )
    assert ask(history) == [(1, 3)]


def test_a_file_that_cannot_be_read_any_more_is_not_taken_for_gone(tmp_path, index) -> None:
    path, _ = two_levels(tmp_path / "in")
    index(tmp_path / "in")
    path.write_bytes(path.read_bytes()[:300])
    report = index(tmp_path / "in", prune=True)
    assert (report.outcome.merge.retired, report.exit_code) == (0, 3)


def test_a_series_that_moved_to_another_patient_leaves_nothing_of_the_old_one(tmp_path, index, ask) -> None:
    two_levels(tmp_path / "in", PatientID="old")
    index(tmp_path / "in")
    two_levels(tmp_path / "in", PatientID="new")
    index(tmp_path / "in")
    assert ask("SELECT PatientID FROM patients") == [("new",)]
    assert ask("SELECT PatientID FROM patients", as_of=1) == [("old",)]


def test_a_file_that_moved_keeps_its_version_and_has_the_new_place(tmp_path, index, ask) -> None:
    two_levels(tmp_path / "in")
    index(tmp_path / "in")
    (tmp_path / "in").rename(tmp_path / "moved")
    report = index(tmp_path / "moved")
    assert (report.outcome.merge.unchanged, report.outcome.merge.version) == (2, 1)
    assert ask("SELECT location FROM instances ORDER BY 1") == [
        (str(tmp_path / "moved" / f"1.2.3.{number}.dcm"),) for number in (1, 2)
    ]


def test_each_file_that_cannot_be_indexed_is_told_and_the_others_are(tmp_path, index, ask) -> None:
    folder = tmp_path / "in"
    good = write_header(folder, slide_header())
    (folder / "text.dcm").write_text("x" * 500)
    (folder / "empty.dcm").touch()
    (folder / "short.dcm").write_bytes(good.read_bytes()[:400])
    os.mkfifo(folder / "pipe")
    no_series = slide_header("1.2.7")
    del no_series.SeriesInstanceUID
    write_header(folder, no_series, name="no series.dcm")
    write_header(folder, slide_header("1.2.6", StudyDate="20240102"), name="misfit.dcm")
    data = (folder / "misfit.dcm").read_bytes()
    (folder / "misfit.dcm").write_bytes(data.replace(b"20240102", b"2024SECR"))
    report = index(folder)
    told = {Path(failure.location).name: (failure.reason, failure.exit_code) for failure in report.failures}
    assert told.pop("short.dcm")[1] == 3
    assert told == {
        "empty.dcm": ("no DICOM file: there is no DICM at byte 128", 3),
        "pipe": ("cannot be read: not a file", 3),
        "text.dcm": ("no DICOM file: there is no DICM at byte 128", 3),
        "no series.dcm": ("no instance: SeriesInstanceUID is missing", 3),
        "misfit.dcm": ("StudyDate does not fit DATE: no date; left out", 7),
    }
    assert report.exit_code == 7
    assert ask("SELECT SOPInstanceUID, StudyDate IS NULL FROM dicom_metadata ORDER BY 1") == [
        ("1.2.3.1", False),
        ("1.2.6.1", True),
    ]
    drops = ask("SELECT SOPInstanceUID, path, reason FROM export_drops")
    assert drops == [("1.2.6.1", "StudyDate", "does not fit DATE: no date")]


def test_a_folder_that_is_not_there_is_an_error_before_anything_is_written(tmp_path, index) -> None:
    with pytest.raises(StoreError, match="no such file or folder"):
        index(tmp_path / "nowhere")
    assert not (tmp_path / "catalog.duckdb").exists()


def test_two_files_of_one_uid_are_one_instance_if_equal_and_told_if_not(tmp_path, index, ask) -> None:
    write_header(tmp_path / "a", slide_header())
    write_header(tmp_path / "b", slide_header())
    write_header(tmp_path / "c", slide_header(PatientID="P2"))
    report = index(tmp_path / "c", tmp_path / "b", tmp_path / "a")
    (failure,) = report.failures
    assert failure.location == str(tmp_path / "c" / "1.2.3.1.dcm")
    assert failure.reason == f"SOP Instance UID 1.2.3.1 with other content than {tmp_path}/a/1.2.3.1.dcm; left out"
    assert report.exit_code == 7
    assert (report.outcome.merge.new, report.outcome.merge.duplicates) == (1, 1)
    assert ask("SELECT PatientID FROM dicom_metadata") == [("P1",)]


def test_a_file_of_a_known_uid_does_not_replace_one_that_is_still_there(tmp_path, index, ask) -> None:
    write_header(tmp_path / "a", slide_header())
    write_header(tmp_path / "b", slide_header(PatientID="P2"))
    index(tmp_path / "a")
    report = index(tmp_path / "b")
    (failure,) = report.failures
    assert failure.reason == f"SOP Instance UID 1.2.3.1 with other content than {tmp_path}/a/1.2.3.1.dcm; left out"
    assert ask("SELECT PatientID FROM dicom_metadata") == [("P1",)]
    (tmp_path / "a" / "1.2.3.1.dcm").unlink()
    assert index(tmp_path / "b").outcome.merge.changed == 1


def test_columns_are_only_added_and_the_addition_is_told(tmp_path, index, ask) -> None:
    write_header(tmp_path / "in", slide_header())
    index(tmp_path / "in")
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.private_block(0x0011, "ACME", create=True).add_new(2, "LO", "x")
    ds = slide_header("1.2.4", OpticalPathSequence=Sequence([path]), KVP="120")
    ds.private_block(0x0009, "ACME", create=True).add_new(4, "SQ", Sequence([Dataset()]))
    write_header(tmp_path / "in", ds)
    report = index(tmp_path / "in")
    added = ["KVP", "OpticalPathSequence.OtherElements"]
    added += [f"OpticalPathSequence.OtherElements.{name}" for name in ("Data", "Tag")]
    assert sorted(report.outcome.merge.added_columns) == sorted(added)  # an empty private sequence has no fields
    changes = ask("SELECT path FROM schema_changes WHERE version = 2 ORDER BY 1")
    assert changes == [(each,) for each in sorted(added)]
    assert ask("SELECT KVP, len(OpticalPathSequence[1].OtherElements) FROM dicom_all ORDER BY SOPInstanceUID") == [
        (None, None),
        ("120", 2),
    ]
    assert index(tmp_path / "in").outcome.merge.added_columns == []
    with open_catalog(tmp_path / "catalog.duckdb", read_only=True) as connection:
        names = [row[0] for row in connection.execute("DESCRIBE dicom_metadata").fetchall()]
    assert names[-1] == "KVP"


def test_facts_come_from_the_record_and_else_from_the_user(tmp_path, index, ask, tcga_series) -> None:
    two_levels(tmp_path / "in")
    facts = {"collection_id": "mine", "name": "Mine", "cancer_types": ["A", "B"], "license_short_name": "CC0"}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    assert index(tcga_series).warnings == []
    warnings = index(tmp_path / "in", facts=read_facts(tmp_path / "facts.json")).warnings
    assert warnings == ["collection mine: not told, so NULL: tumor_locations, species, source_doi"]
    rows = ask(
        "SELECT collection_id, collection_name, cancer_types, tumor_locations, species, sources[1].license."
        "license_short_name, sources[1].source_doi FROM original_collections_metadata ORDER BY 1"
    )
    luad = "Lung Adenocarcinoma", "Chest", "Human", "CC BY 3.0", "10.5281/zenodo.12689915"
    assert rows == [("mine", "Mine", "A, B", None, None, "CC0", None), ("tcga_luad", "TCGA-LUAD", *luad)]
    assert (
        ask("SELECT collection_cancerType, license_short_name, Source_DOI FROM dicom_all WHERE PatientID = 'P1'")
        == [("A, B", "CC0", None)] * 2
    )


def test_facts_may_be_corrected_without_a_version(tmp_path, index, ask) -> None:
    two_levels(tmp_path / "in")
    index(tmp_path / "in", facts={"collection_id": "mine", "license_short_name": "CC0"})
    report = index(tmp_path / "in", facts={"collection_id": "mine", "license_short_name": "CC BY 4.0", "name": "Mine"})
    assert report.outcome.merge.version == 1
    assert ask("SELECT license_short_name FROM idc_index") == [("CC BY 4.0",)]
    assert ask("SELECT collection_name FROM auxiliary_metadata") == [("Mine",)] * 2


def test_facts_of_an_analysis_result_make_a_row_of_its_table(tmp_path, index, ask) -> None:
    two_levels(tmp_path / "in")
    facts = {"collection_id": "mine", "analysis_result_id": "result", "analysis_result_title": "A result"}
    index(tmp_path / "in", facts=facts)
    query = "SELECT analysis_result_id, analysis_result_title, subjects, collections, modalities FROM {}"
    assert ask(query.format("analysis_results_metadata")) == [("result", "A result", 1, "mine", "SM")]
    assert ask("SELECT analysis_result_id FROM idc_index") == [("result",)]


def test_collections_of_which_nothing_is_told_are_null_with_a_warning(tmp_path, index, ask) -> None:
    two_levels(tmp_path / "in")
    ds = slide_header("1.2.4")
    del ds.ClinicalTrialProtocolID
    ds.private_block(0x0013, "CTP", create=True).add_new(0x10, "LO", "NLM-Tee")
    write_header(tmp_path / "in", ds)
    ds = slide_header("1.2.5")
    del ds.ClinicalTrialProtocolID
    write_header(tmp_path / "in", ds)
    assert index(tmp_path / "in").warnings == [
        "collection nlm_tee: nothing is told of it; its facts are NULL",
        "collection trial_one: nothing is told of it; its facts are NULL",
        "instances of no collection: neither their records nor headers name one",
    ]
    assert ask("SELECT DISTINCT collection_id, license_url FROM dicom_all ORDER BY 1 NULLS LAST") == [
        ("nlm_tee", None),
        ("trial_one", None),
        (None, None),
    ]


def test_how_a_slide_was_converted_and_validated_is_kept(tmp_path, index, ask, tcga_series) -> None:
    folder = tmp_path / "series"
    shutil.copytree(tcga_series, folder)
    path = folder / "conversion.json"
    record = json.loads(path.read_text())
    index(folder)
    query = "SELECT coverslip_version, source_sha256, len(instances), validation_passed FROM conversions"
    source = record["coverslip_version"], record["source"]["sha256"], len(record["instances"])
    assert ask(query) == [(*source, (record.get("validation") or {}).get("passed"))]
    counts = {"metadata.no-origin": 1}
    record["validation"] = {"mode": "strict", "profile": "idc", "passed": True, "counts": counts}
    record["replaces"] = {"series_instance_uid": "1.2", "reason": "wrong patient"}
    path.write_text(json.dumps(record))
    assert index(folder).outcome.merge.version == 1
    told = "validation_mode, validation_profile, validation_passed, validation_counts, replaces_SeriesInstanceUID"
    assert ask(f"SELECT {told} FROM conversions") == [
        ("strict", "idc", True, [{"name": "metadata.no-origin", "count": 1}], "1.2")
    ]


def test_a_record_that_cannot_be_read_is_told_and_its_series_indexed(tmp_path, index, ask) -> None:
    two_levels(tmp_path / "in")
    (tmp_path / "in" / "conversion.json").write_text("[]")
    report = index(tmp_path / "in")
    assert [Path(failure.location).name for failure in report.failures] == ["conversion.json"]
    assert (report.exit_code, ask("SELECT count(*) FROM instances")) == (7, [(2,)])


def test_without_digests_the_header_tells_whether_an_instance_changed(tmp_path, index, ask) -> None:
    write_header(tmp_path / "in", slide_header())
    index(tmp_path / "in", digest=Digest.KNOWN)
    assert ask("SELECT instance_uuid, instance_hash, series_uuid, series_hash FROM auxiliary_metadata") == [(None,) * 4]
    assert index(tmp_path / "in", digest=Digest.KNOWN).outcome.merge.unchanged == 1
    write_header(tmp_path / "in", slide_header(PatientID="P2"))
    assert index(tmp_path / "in", digest=Digest.KNOWN).outcome.merge.changed == 1
    report = index(tmp_path / "in")
    assert (report.outcome.merge.unchanged, report.outcome.merge.version) == (1, 2)
    assert ask("SELECT instance_hash IS NULL, series_uuid IS NULL FROM auxiliary_metadata") == [(False, False)]


def test_what_is_no_catalog_is_not_written_to(tmp_path, index) -> None:
    write_header(tmp_path / "in", slide_header())
    (tmp_path / "text.duckdb").write_text("not a database at all, and rather long for one " * 10)
    with pytest.raises(CatalogError, match=r"text\.duckdb"):
        index(tmp_path / "in", to=str(tmp_path / "text.duckdb"))
    with duckdb.connect(str(tmp_path / "other.duckdb")) as connection:
        connection.execute("CREATE TABLE mine (a INTEGER)")
    with pytest.raises(CatalogError, match="no catalog of coverslip"):
        index(tmp_path / "in", to=str(tmp_path / "other.duckdb"))
    with pytest.raises(CatalogError, match="no such folder"):
        index(tmp_path / "in", to=str(tmp_path / "no" / "catalog.duckdb"))
    with pytest.raises(UsageError, match=r"expected a file such as catalog\.duckdb"):
        index(tmp_path / "in", to="oracle:here")
