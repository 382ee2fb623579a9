"""What is handed over with verified series."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest
from tests.upload.conftest import UNPROVEN, Delivery

from coverslip.errors import MissingMetadataError, StoreError, UsageError
from coverslip.pipeline.ledger import Ledger
from coverslip.stores.options import Naming
from coverslip.upload.deliverables import describe_series, find_series
from coverslip.upload.handover import FILES, HandoverRow, handover_rows, read_handover, write_handover


def rows_of(delivery: Delivery, *folders: Path, collection: str = "") -> list[HandoverRow]:
    with Ledger(delivery.ledger_file) as ledger:
        series = [describe_series(each, Naming.UUIDS) for each in find_series(folders)[0]]
        return handover_rows(series, delivery.destinations(ledger)[0], collection, "*", "/open")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def test_manifests_say_what_is_verified(delivery: Delivery, converted: Path, corrected: Path, tmp_path: Path) -> None:
    delivery.run(converted, corrected)
    write_handover(rows_of(delivery, corrected, converted, collection="c1"), tmp_path / "handover")
    stated = json.loads((converted / "conversion.json").read_text())
    ingestion = table(tmp_path / "handover" / "ingestion_manifest.tsv")
    assert list(ingestion[0]) == [
        *("collection_id", "patientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
        *("ingestion_url", "md5_hash"),
    ]
    ours = [row for row in ingestion if row["SeriesInstanceUID"] == converted.name]
    prefix = f"{delivery.stores[0].url}/{stated['series_uuid']}/"
    assert {(row["SOPInstanceUID"], row["ingestion_url"], row["md5_hash"]) for row in ours} == {
        (each["sop_instance_uid"], f"{prefix}{each['instance_uuid']}.dcm", each["md5"]) for each in stated["instances"]
    }
    assert {(row["collection_id"], row["patientID"]) for row in ours} == {("c1", "P1")}
    indexd = table(tmp_path / "handover" / "indexd_manifest.tsv")
    assert list(indexd[0]) == ["GUID", "md5", "size", "acl", "authz", "url"]
    assert {(f"dg.4DFC/{each['instance_uuid']}", str(each["size_bytes"])) for each in stated["instances"]} <= {
        (row["GUID"], row["size"]) for row in indexd
    }
    assert {(row["acl"], row["authz"]) for row in indexd} == {("*", "/open")}
    assert [row["url"] for row in indexd] == [row["ingestion_url"] for row in ingestion]


def test_hashes_are_of_the_sorted_hashes_of_what_they_are_made_of(tmp_path: Path) -> None:
    rows = [
        HandoverRow("c", patient, study, series, f"{series}.{n}", f"gs://b/{series}/{n}", f"m{n}", 1, "", "")
        for patient, study, series in [("P1", "1", "1.1"), ("P1", "1", "1.2"), ("P1", "2", "2.1"), ("P2", "3", "3.1")]
        for n in (2, 1)
    ]
    write_handover(rows, tmp_path / "handover")
    series = md5("m1m2")
    one_series, two_series = md5(series), md5(series + series)
    found = [(row["level"], row["parts"], row["md5"]) for row in table(tmp_path / "handover" / "hashes.tsv")]
    assert found == [
        ("series", "2", series),
        ("series", "2", series),
        ("study", "2", two_series),
        ("series", "2", series),
        ("study", "1", one_series),
        ("patient", "2", md5("".join(sorted([two_series, one_series])))),
        ("series", "2", series),
        ("study", "1", one_series),
        ("patient", "1", md5(one_series)),
    ]
    assert (tmp_path / "handover" / "s5cmd_manifest.txt").read_text().splitlines() == [
        f"cp s3://b/{each}/* ." for each in ("1.1", "1.2", "2.1", "3.1")
    ]


def test_the_order_of_paths_changes_no_byte(
    delivery: Delivery, converted: Path, corrected: Path, tmp_path: Path
) -> None:
    delivery.run(converted, corrected)
    for name, folders in (("one", (converted, corrected)), ("two", (corrected, converted))):
        write_handover(rows_of(delivery, *folders, collection="c1"), tmp_path / name)
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_collection_comes_from_the_conversion(delivery: Delivery, series: Path) -> None:
    file = series / "conversion.json"
    conversion = json.loads(file.read_text())
    file.write_text(json.dumps({**conversion, "collection": {"collection_id": "told"}}))
    delivery.run(series)
    assert {row.collection_id for row in rows_of(delivery, series)} == {"told"}
    with pytest.raises(UsageError, match="belongs to told"):
        rows_of(delivery, series, collection="other")


def test_a_collection_or_patient_is_never_guessed(delivery: Delivery, converted: Path, slide: Path) -> None:
    from tests.upload.conftest import convert

    delivery.run(converted)
    with pytest.raises(MissingMetadataError, match=r"without collection_id in conversion\.json"):
        rows_of(delivery, converted)
    nobody = convert(slide, delivery.ledger_file.parent / "nobody")
    delivery.run(nobody)
    with pytest.raises(MissingMetadataError, match="without Patient ID"):
        rows_of(delivery, nobody, collection="c1")


def test_nothing_is_handed_over_that_is_not_verified(delivery: Delivery, converted: Path, corrected: Path) -> None:
    delivery.run(converted)
    with pytest.raises(StoreError, match=f"{corrected.name} is not verified"):
        rows_of(delivery, converted, corrected, collection="c1")


def test_hand_over_files_are_replaced_as_one_and_read_back(
    delivery: Delivery, converted: Path, corrected: Path, tmp_path: Path
) -> None:
    delivery.run(converted, corrected)
    rows = rows_of(delivery, converted, corrected, collection="c1")
    write_handover(rows, tmp_path / "handover")
    assert read_handover(tmp_path / "handover") == rows
    write_handover(rows[:1], tmp_path / "handover")
    assert read_handover(tmp_path / "handover") == rows[:1]
    assert {path.name for path in tmp_path.iterdir()} == {"handover", "archive", *_ledger_files(tmp_path)}


def _ledger_files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("ledger.sqlite*")}


def test_a_folder_that_holds_anything_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="holds other things"):
        write_handover([], tmp_path / "folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="no hand-over files"):
        read_handover(tmp_path / "folder")


def test_names_of_objects_by_uids_do_too(delivery: Delivery, uids_archive, converted: Path) -> None:
    from dataclasses import replace

    delivery.stores = [uids_archive]
    delivery.run(converted, options=replace(UNPROVEN, naming=Naming.UIDS))
    with Ledger(delivery.ledger_file) as ledger:
        series = [describe_series(each, Naming.UIDS) for each in find_series([converted])[0]]
        rows = handover_rows(series, delivery.destinations(ledger)[0], "c1")
    assert all(row.url.endswith(f"/{row.series_instance_uid}/{row.sop_instance_uid}.dcm") for row in rows)
