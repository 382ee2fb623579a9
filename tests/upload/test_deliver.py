"""Series in a folder: sent once, proven, taken up again, replaced."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from tests.upload.conftest import UNPROVEN, Delivery, stored_names

from coverslip.errors import UsageError
from coverslip.pipeline.ledger import Kind, Ledger, Stage, State, Task
from coverslip.stores.local import LocalStore
from coverslip.stores.options import Naming
from coverslip.upload.deliver import DeliveryOptions, Meter, deliver
from coverslip.upload.deliverables import describe_series, find_series

VERIFY_ONLY = replace(UNPROVEN, send=False)


def names(folder: Path, naming: Naming = Naming.UUIDS) -> set[str]:
    """Return how the instances of a folder are to be named."""
    return {
        instance.object_name
        for found in find_series([folder])[0]
        for instance in describe_series(found, naming).instances
    }


def largest(store: LocalStore) -> Path:
    return max(store._folder.rglob("*.dcm"), key=lambda path: path.stat().st_size)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_series_is_sent_and_verified_and_sent_no_second_time(
    delivery: Delivery, archive: LocalStore, converted: Path
) -> None:
    (first,) = delivery.run(converted)
    assert first.state == State.VERIFIED
    assert first.bytes_sent == first.size_bytes == sum(path.stat().st_size for path in converted.glob("*.dcm"))
    assert stored_names(archive) == names(converted)
    for instance in first.destinations[0].instances:
        assert {"size", "md5"} <= set(instance.compared)
        assert any(compared.startswith("frames 1") for compared in instance.compared)
    inodes = {path: path.stat().st_ino for path in archive._folder.rglob("*.dcm")}
    (second,) = delivery.run(converted)
    assert (second.state, second.bytes_sent, second.proof) == (State.VERIFIED, 0, "verified before")
    assert {path: path.stat().st_ino for path in archive._folder.rglob("*.dcm")} == inodes


def test_two_stores_are_served_and_stand_for_themselves(
    delivery: Delivery, archive: LocalStore, uids_archive: LocalStore, converted: Path
) -> None:
    delivery.run(converted)
    delivery.stores.append(uids_archive)
    (outcome,) = delivery.run(converted, options=UNPROVEN)
    first, second = outcome.destinations
    assert (first.state, second.state) == (State.VERIFIED, State.VERIFIED)
    assert sum(instance.bytes_sent for instance in first.instances) == 0
    assert sum(instance.bytes_sent for instance in second.instances) == outcome.size_bytes


def test_what_has_vanished_from_the_store_is_sent_again(
    delivery: Delivery, archive: LocalStore, converted: Path
) -> None:
    delivery.run(converted)
    lost = largest(archive)
    size = lost.stat().st_size
    lost.unlink()
    (checked,) = delivery.run(converted, options=VERIFY_ONLY)
    assert checked.state == State.FAILED
    assert checked.destinations[0].counts()["failed"] == 1
    (again,) = delivery.run(converted)
    assert (again.state, again.bytes_sent) == (State.VERIFIED, size)


def test_what_has_vanished_since_it_was_verified_is_sent_again(
    delivery: Delivery, archive: LocalStore, converted: Path
) -> None:
    delivery.run(converted)
    largest(archive).unlink()
    (again,) = delivery.run(converted)
    assert again.state == State.VERIFIED
    assert stored_names(archive) == names(converted)


def test_damage_in_the_store_is_found_and_what_we_had_sent_is_sent_again(
    delivery: Delivery, archive: LocalStore, converted: Path
) -> None:
    delivery.run(converted)
    damage(largest(archive))
    (checked,) = delivery.run(converted, options=VERIFY_ONLY)
    assert checked.destinations[0].state == State.FAILED
    (failed,) = [each for each in checked.destinations[0].instances if each.state is State.FAILED]
    assert failed.failure is not None
    assert "differs in the store: md5: " in failed.failure.message
    (again,) = delivery.run(converted)
    assert again.state == State.VERIFIED
    assert again.bytes_sent > 0


def test_other_bytes_that_were_there_before_are_left_alone_and_the_instance_is_rejected(
    delivery: Delivery, uids_archive: LocalStore, converted: Path, tmp_path: Path
) -> None:
    delivery.stores = [uids_archive]
    options = replace(UNPROVEN, naming=Naming.UIDS)
    name = sorted(names(converted, Naming.UIDS))[0]
    theirs = uids_archive._folder / name
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"something else")
    for _ in range(2):
        (outcome,) = delivery.run(converted, options=options)
        assert outcome.state == State.REJECTED
        assert outcome.destinations[0].counts()["rejected"] == 1
        assert theirs.read_bytes() == b"something else"
    (rejected,) = [each for each in outcome.destinations[0].instances if each.state is State.REJECTED]
    assert rejected.failure is not None
    assert rejected.failure.error_class == "ConflictError"


def test_the_same_bytes_that_were_there_before_are_verified_and_not_sent(
    delivery: Delivery, archive: LocalStore, converted: Path
) -> None:
    delivery.run(converted)
    other = replace(delivery, ledger_file=delivery.ledger_file.with_name("other.sqlite"))
    (outcome,) = other.run(converted)
    assert outcome.state == State.VERIFIED
    assert stored_names(archive) == names(converted)


def test_a_stranger_among_the_instances_of_a_series_is_told(
    delivery: Delivery, archive: LocalStore, converted: Path
) -> None:
    delivery.run(converted)
    shutil.copy(largest(archive), largest(archive).with_name("stranger.dcm"))
    (outcome,) = delivery.run(converted)
    assert outcome.state == State.FAILED
    (stranger,) = outcome.destinations[0].strangers
    assert stranger.endswith("/stranger.dcm")


def test_files_sent_one_by_one_are_no_strangers_to_each_other(
    delivery: Delivery, archive: LocalStore, converted: Path, foreign: Path, uids_archive: LocalStore
) -> None:
    delivery.stores = [uids_archive]
    options = replace(UNPROVEN, naming=Naming.UIDS)
    for path in sorted(foreign.glob("*.dcm")):
        (outcome,) = delivery.run(path, options=options)
        assert outcome.state == State.VERIFIED
    assert stored_names(uids_archive) == names(converted, Naming.UIDS)


def test_a_file_changed_after_its_conversion_is_not_sent(
    delivery: Delivery, archive: LocalStore, series: Path, corrected: Path
) -> None:
    damage(next(series.glob("*.dcm")))
    first, second = delivery.run(series, corrected)
    assert (first.state, second.state) == ("refused", State.VERIFIED)
    assert first.failure is not None
    assert first.failure.error_class == "ValidationFailedError"
    assert "was changed after its conversion" in first.failure.message
    assert stored_names(archive) == names(corrected)


def test_a_file_that_changes_while_it_is_sent_is_no_success(delivery: Delivery, series: Path) -> None:
    with Ledger(delivery.ledger_file) as ledger:
        found, _ = find_series([series])
        path = found[0].files[0].path
        os.utime(path)  # another time of change than when its bytes were digested
        (outcome,) = deliver(found, delivery.destinations(ledger), ledger, UNPROVEN)
    (failed,) = [each for each in outcome.destinations[0].instances if each.state is State.FAILED]
    assert failed.failure is not None
    assert failed.path == path
    assert "changed meanwhile" in failed.failure.message
    assert delivery.run(series)[0].state == State.VERIFIED


def test_without_verification_instances_end_as_uploaded_and_a_later_run_verifies_them(
    delivery: Delivery, converted: Path
) -> None:
    (sent,) = delivery.run(converted, options=replace(UNPROVEN, verify=False))
    assert sent.state == State.UPLOADED
    (verified,) = delivery.run(converted, options=VERIFY_ONLY)
    assert (verified.state, verified.bytes_sent) == (State.VERIFIED, 0)
    assert delivery.run(converted)[0].proof == "verified before"


def test_a_series_with_errors_is_refused_unless_told_and_validated_once(
    delivery: Delivery, converted: Path, foreign: Path
) -> None:
    for path in foreign.glob("*.dcm"):
        broken = dcmread(path)
        broken.PatientSex = "Q"
        broken.SeriesInstanceUID = "2.25.4711"
        broken.save_as(path)
    options = DeliveryOptions()
    bad, good = delivery.run(foreign, converted, options=options)
    assert (bad.state, good.state, good.proof) == ("refused", State.VERIFIED, "validated")
    assert bad.failure is not None
    assert bad.failure.message.startswith("validation failed: iod.")
    with Ledger(delivery.ledger_file) as ledger:
        first = ledger.record(Task(Kind.SERIES, good.series_instance_uid, Stage.VALIDATE))
    delivery.stores[0] = LocalStore(delivery.ledger_file.parent / "elsewhere")
    (elsewhere,) = delivery.run(converted, options=options)
    assert elsewhere.proof == "validated before"
    with Ledger(delivery.ledger_file) as ledger:
        assert ledger.record(first.task) == first
    assert delivery.run(foreign)[0].state == State.VERIFIED


@pytest.mark.parametrize(
    "recorded, state, proof",
    [
        ({"mode": "fast", "worst": "WARNING"}, State.VERIFIED, "validated by its conversion"),
        ({"mode": "thorough", "worst": None}, State.VERIFIED, "validated by its conversion"),
        ({"mode": "fast", "worst": "ERROR"}, "refused", ""),
        ({"mode": "headers", "worst": None}, State.VERIFIED, "validated"),
        (None, State.VERIFIED, "validated"),
    ],
)
def test_the_validation_that_a_conversion_records_counts(
    delivery: Delivery, series: Path, recorded: dict[str, object] | None, state: str, proof: str
) -> None:
    file = series / "conversion.json"
    conversion = json.loads(file.read_text())
    file.write_text(json.dumps({**conversion, "validation": recorded}))
    (outcome,) = delivery.run(series, options=DeliveryOptions())
    assert (outcome.state, outcome.proof) == (state, proof)


def test_a_replaced_series_goes_when_the_new_one_is_verified_and_does_not_come_back(
    delivery: Delivery, archive: LocalStore, converted: Path, corrected: Path
) -> None:
    delivery.run(converted)
    options = replace(UNPROVEN, replaces=converted.name)
    (outcome,) = delivery.run(corrected, options=options)
    assert (outcome.state, outcome.destinations[0].retired) == (State.VERIFIED, len(names(converted)))
    assert stored_names(archive) == names(corrected)
    (again,) = delivery.run(corrected, options=options)
    assert (again.state, again.destinations[0].retired) == (State.VERIFIED, 0)
    old, new = delivery.run(converted, corrected)
    assert (old.state, new.state) == ("refused", State.VERIFIED)
    assert old.destinations[0].failure is not None
    assert f"was replaced here by {corrected.name}" in old.destinations[0].failure.message
    assert stored_names(archive) == names(corrected)
    assert delivery.run(converted, options=replace(UNPROVEN, again=True))[0].state == State.VERIFIED


def test_a_series_is_kept_while_the_one_that_replaces_it_is_not_verified(
    delivery: Delivery, archive: LocalStore, converted: Path, corrected: Path
) -> None:
    delivery.run(converted)
    name = sorted(names(corrected))[0]
    path = archive._folder / name
    path.parent.mkdir()
    path.write_bytes(b"something else")
    (outcome,) = delivery.run(corrected, options=replace(UNPROVEN, replaces=converted.name))
    assert (outcome.state, outcome.destinations[0].retired) == (State.REJECTED, None)
    assert names(converted) <= stored_names(archive)
    path.unlink()
    (outcome,) = delivery.run(corrected, options=replace(UNPROVEN, replaces=converted.name))
    assert outcome.state == State.VERIFIED
    assert stored_names(archive) == names(corrected)


def test_a_replaced_series_is_found_without_a_record_of_its_upload(
    delivery: Delivery, archive: LocalStore, converted: Path, corrected: Path
) -> None:
    delivery.run(converted)
    other = replace(delivery, ledger_file=delivery.ledger_file.with_name("other.sqlite"))
    other.run(corrected, options=replace(UNPROVEN, replaces=converted.name))
    assert stored_names(archive) == names(corrected)


def test_what_cannot_be_a_replacement_is_refused(delivery: Delivery, converted: Path, series: Path) -> None:
    with pytest.raises(UsageError, match="is the one that is delivered"):
        delivery.run(converted, options=replace(UNPROVEN, replaces=converted.name))
    file = series / "conversion.json"
    conversion = json.loads(file.read_text())
    file.write_text(json.dumps({**conversion, "replaces": {"series_instance_uid": "1.2.3", "reason": ""}}))
    (outcome,) = delivery.run(series, options=replace(UNPROVEN, replaces="1.2.4"))
    assert outcome.failure is not None
    assert "conversion.json says that it replaces 1.2.3" in outcome.failure.message


def test_two_series_do_not_replace_one(delivery: Delivery, converted: Path, corrected: Path) -> None:
    with pytest.raises(UsageError, match="2 were given"):
        delivery.run(converted, corrected, options=replace(UNPROVEN, replaces="1.2.3"))


def test_the_meter_ends_where_it_wanted_to(delivery: Delivery, converted: Path) -> None:
    told: list[tuple[int, int]] = []
    meter = Meter(lambda each: told.append((each.bytes_done, each.bytes_wanted)))
    with Ledger(delivery.ledger_file) as ledger:
        list(deliver(find_series([converted])[0], delivery.destinations(ledger), ledger, UNPROVEN, meter))
    assert meter.bytes_done == meter.bytes_wanted > 0
    assert meter.instances_done == meter.instances_wanted == len(names(converted))
    assert all(done <= wanted for done, wanted in told)


def test_the_ledger_names_no_file_and_no_patient(delivery: Delivery, series: Path) -> None:
    secret = series.parent / "Jane Doe 1970"
    series.rename(secret)
    for path in secret.glob("*.dcm"):
        path.rename(path.with_name(f"Doe {path.name}"))
    (secret / "conversion.json").unlink()
    delivery.run(secret)
    damage(largest(delivery.stores[0]))
    delivery.run(secret, options=VERIFY_ONLY)
    data = delivery.ledger_file.read_bytes()
    assert b"Doe" not in data
    assert b"P1" not in data
