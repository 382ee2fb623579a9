"""A series is taken back from everywhere, and does not come back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.stores.fakes.dicomweb import StrictDicomWeb
from tests.upload.conftest import UNPROVEN, Delivery, stored_names

from coverslip.errors import CatalogError
from coverslip.pipeline.ledger import Ledger, State
from coverslip.stores.local import LocalStore
from coverslip.stores.options import Naming, StoreOptions
from coverslip.stores.registry import open_store
from coverslip.upload.deliverables import describe_series, find_series
from coverslip.upload.handover import handover_rows, read_handover, write_handover
from coverslip.upload.retract import RetractOutcome, RetractRequest, retract_series


def retract(delivery: Delivery, series: str, **changes: Any) -> RetractOutcome:
    with Ledger(delivery.ledger_file) as ledger:
        request = RetractRequest(series, "label visible", **changes)
        return retract_series(request, delivery.destinations(ledger), ledger)


def tombstone_name(series: Path) -> str:
    return f"retracted/{series.name}.json"


def test_a_series_goes_from_all_stores_and_others_stay(
    delivery: Delivery, archive: LocalStore, uids_archive: LocalStore, converted: Path, corrected: Path
) -> None:
    delivery.stores.append(uids_archive)
    delivery.run(converted, corrected)
    count = len(list(converted.glob("*.dcm")))
    outcome = retract(delivery, converted.name)
    assert [removal.instances for removal in outcome.stores] == [count, count]
    assert outcome.tombstone.complete
    for store in (archive, uids_archive):
        names = stored_names(store) - {tombstone_name(converted)}
        assert len(names) == len(list(corrected.glob("*.dcm")))
        assert list(store.iter_instances("", converted.name)) == []
    again = retract(delivery, converted.name)
    assert [removal.instances for removal in again.stores] == [0, 0]
    assert [removal.objects for removal in again.stores] == [0, 0]
    assert again.tombstone == outcome.tombstone
    assert again.tombstone.instances == count


def test_a_series_is_found_that_was_uploaded_with_another_ledger(
    delivery: Delivery, archive: LocalStore, converted: Path
) -> None:
    delivery.run(converted)
    other = replace(delivery, ledger_file=delivery.ledger_file.with_name("other.sqlite"))
    assert retract(other, converted.name).stores[0].instances == len(list(converted.glob("*.dcm")))
    assert stored_names(archive) == {tombstone_name(converted)}


def test_the_tombstone_tells_no_patient_and_no_study_and_the_ledger_forgets(
    delivery: Delivery, archive: LocalStore, converted: Path
) -> None:
    delivery.run(converted)
    outcome = retract(delivery, converted.name)
    text = archive.read_bytes(tombstone_name(converted))
    assert text is not None
    assert json.loads(text) == {
        "series_instance_uid": converted.name,
        "reason": "label visible",
        "retracted_at": outcome.tombstone.retracted_at,
        "instances": len(list(converted.glob("*.dcm"))),
    }
    with Ledger(delivery.ledger_file) as ledger:
        assert list(ledger.iter_records()) == []
    instance = next(converted.glob("*.dcm")).stem.encode()
    assert instance not in delivery.ledger_file.read_bytes()


def test_previews_in_the_bucket_go_too(delivery: Delivery, archive: LocalStore, converted: Path) -> None:
    delivery.run(converted)
    kept = {"previews/1.2.3.png", f"previews/{converted.name}.7", f"previews/{converted.name}7/1.png"}
    for name in (f"previews/{converted.name}.png", f"previews/{converted.name}/1/2.png", *kept):
        archive.put_bytes(name, b"picture")
    assert retract(delivery, converted.name).stores[0].objects == 2
    assert stored_names(archive) == {*kept, tombstone_name(converted)}
    assert retract(delivery, converted.name).stores[0].objects == 0


def test_upload_refuses_what_was_retracted_here_or_from_another_machine(
    delivery: Delivery, archive: LocalStore, converted: Path
) -> None:
    retract(delivery, converted.name)
    (outcome,) = delivery.run(converted)
    assert outcome.state == "refused"
    assert outcome.failure is not None
    assert outcome.failure.message == "was retracted (label visible); --again uploads it nevertheless"
    other = replace(delivery, ledger_file=delivery.ledger_file.with_name("other.sqlite"))
    (outcome,) = other.run(converted)
    assert outcome.state == "refused"
    assert stored_names(archive) == {tombstone_name(converted)}
    assert other.run(converted, options=replace(UNPROVEN, again=True))[0].state == State.VERIFIED


def test_folders_lose_what_is_named_after_the_series_and_nothing_else(
    delivery: Delivery, series: Path, corrected: Path, tmp_path: Path
) -> None:
    delivery.run(series)
    previews = tmp_path / "previews"
    for name in (f"{series.name}.png", f"{series.name}.thumbnail.jpg", f"{series.name}/1.png", "deep/er/x.png"):
        (previews / name).parent.mkdir(parents=True, exist_ok=True)
        (previews / name).touch()
    instance = next(series.glob("*.dcm"))
    kept = {f"{series.name}.7", f"{series.name}7.png", corrected.name, "x.png"}
    for name in (instance.name, *kept):
        (previews / "deep" / "er" / name).touch()
    files = len(list(series.iterdir()))
    outcome = retract(delivery, series.name, folders=(previews, series.parent))
    assert outcome.files == 3 + 1 + files
    assert {path.name for path in previews.rglob("*") if path.is_file()} == kept
    assert not series.exists()
    assert retract(delivery, series.name, folders=(previews, series.parent)).files == 0


def test_hand_over_files_lose_its_lines_and_hashes_follow(
    delivery: Delivery, converted: Path, corrected: Path, tmp_path: Path
) -> None:
    delivery.run(converted, corrected)
    with Ledger(delivery.ledger_file) as ledger:
        series = [describe_series(each, Naming.UUIDS) for each in find_series([converted, corrected])[0]]
        rows = handover_rows(series, delivery.destinations(ledger)[0], "c1")
    kept = [row for row in rows if row.series_instance_uid == corrected.name]
    write_handover(rows, tmp_path / "handover")
    write_handover(kept, tmp_path / "expected")
    outcome = retract(delivery, converted.name, handovers=(tmp_path / "handover",))
    assert outcome.handover_rows == len(rows) - len(kept)
    assert read_handover(tmp_path / "handover") == kept
    for path in (tmp_path / "expected").iterdir():
        assert (tmp_path / "handover" / path.name).read_bytes() == path.read_bytes()


def test_a_store_that_removes_nothing_is_told_and_the_tombstone_is_not_complete(
    delivery: Delivery, archive: LocalStore, converted: Path
) -> None:
    with StrictDicomWeb() as server, open_store(f"dicomweb+{server.dicomweb_url}", StoreOptions()) as store:
        delivery.stores = [store, archive]
        delivery.run(converted)
        server.removes = False
        outcome = retract(delivery, converted.name)
        first, second = outcome.stores
        assert first.failure is not None
        assert "removes nothing" in first.failure.message
        assert second.failure is None
        assert stored_names(archive) == {tombstone_name(converted)}
        assert not outcome.tombstone.complete
        (refused,) = delivery.run(converted)
        assert refused.state == "refused"
        server.removes = True
        assert retract(delivery, converted.name).tombstone.complete
        assert server.instances == {}


def test_a_replaced_series_that_a_store_does_not_remove_is_told(
    delivery: Delivery, converted: Path, corrected: Path
) -> None:
    options = replace(UNPROVEN, replaces=converted.name)
    with StrictDicomWeb() as server, open_store(f"dicomweb+{server.dicomweb_url}", StoreOptions()) as store:
        delivery.stores = [store]
        delivery.run(converted)
        server.removes = False
        (outcome,) = delivery.run(corrected, options=options)
        assert outcome.state == State.FAILED
        assert outcome.destinations[0].failure is not None
        assert "the replaced series could not be removed" in outcome.destinations[0].failure.message
        server.removes = True
        assert delivery.run(corrected, options=options)[0].state == State.VERIFIED


def test_previews_are_found_though_another_ledger_delivered_the_series(
    delivery: Delivery, converted: Path, tmp_path: Path
) -> None:
    delivery.run(converted)
    stored = next(tmp_path.glob("archive/*/*.dcm"))
    (tmp_path / "previews" / stored.parent.name).mkdir(parents=True)
    for name in (f"{stored.stem}.png", f"{stored.parent.name}/1.png", f"{next(converted.glob('*.dcm')).stem}.png"):
        (tmp_path / "previews" / name).touch()
    other = replace(delivery, ledger_file=tmp_path / "other.sqlite")
    assert retract(other, converted.name, folders=(tmp_path / "previews",)).files == 3
    assert list((tmp_path / "previews").iterdir()) == []


def test_further_places_are_told_each_time(delivery: Delivery, converted: Path) -> None:
    told: list[tuple[str, str]] = []

    def failing(_series: str, _reason: str) -> None:
        raise CatalogError("no answer")

    with pytest.raises(CatalogError):
        retract(delivery, converted.name, forget=(failing,))
    with Ledger(delivery.ledger_file) as ledger:
        tombstone = ledger.tombstone(converted.name)
    assert tombstone is not None
    assert not tombstone.complete
    outcome = retract(delivery, converted.name, forget=(lambda *all_of_it: told.append(all_of_it),))
    assert told == [(converted.name, "label visible")]
    assert outcome.tombstone.complete
