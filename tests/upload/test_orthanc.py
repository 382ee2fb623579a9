"""Series in Orthanc: good instances of a mixed batch, replacement, removal, and what a viewer shows of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from tests.orthanc import Orthanc
from tests.upload.conftest import UNPROVEN, Delivery

from coverslip.pipeline.ledger import Ledger, State
from coverslip.stores.options import StoreOptions
from coverslip.stores.registry import open_store
from coverslip.upload.retract import RetractRequest, retract_series


@pytest.fixture
def to_orthanc(orthanc: Orthanc, delivery: Delivery) -> Iterator[Delivery]:
    """Delivers to Orthanc, which is empty."""
    orthanc.clear()
    with open_store(f"dicomweb+{orthanc.dicomweb_url}", StoreOptions()) as store:
        delivery.stores = [store]
        yield delivery
    orthanc.clear()


def kept_in(orthanc: Orthanc) -> set[str]:
    """Return the SOP Instance UIDs of what Orthanc holds."""
    found = orthanc.ask("/instances?expand")
    return {instance["MainDicomTags"]["SOPInstanceUID"] for instance in found}


def uids(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.dcm")}


def test_the_good_part_of_a_mixed_batch_is_verified_and_the_bad_one_rejected(
    orthanc: Orthanc, to_orthanc: Delivery, foreign: Path
) -> None:
    bad = sorted(foreign.glob("*.dcm"))[1]
    data = bad.read_bytes()
    bad.write_bytes(data[: len(data) // 2])
    for sent_again in (False, True):
        (outcome,) = to_orthanc.run(foreign)
        assert outcome.state == State.REJECTED
        states = {each.sop_instance_uid: each.state for each in outcome.destinations[0].instances}
        assert states.pop(bad.stem) is State.REJECTED
        assert set(states.values()) == {State.VERIFIED}
        assert (outcome.bytes_sent == 0) is sent_again
    assert kept_in(orthanc) == uids(foreign) - {bad.stem}
    bad.write_bytes(data)
    assert to_orthanc.run(foreign)[0].state == State.VERIFIED
    assert kept_in(orthanc) == uids(foreign)


def test_a_series_is_verified_by_the_md5_of_orthanc_and_by_frames(to_orthanc: Delivery, converted: Path) -> None:
    (outcome,) = to_orthanc.run(converted)
    assert outcome.state == State.VERIFIED
    for instance in outcome.destinations[0].instances:
        assert {"md5", "metadata"} <= set(instance.compared)
        assert any(compared.startswith("frames 1") for compared in instance.compared)


def test_a_replaced_and_a_retracted_series_are_gone(
    orthanc: Orthanc, to_orthanc: Delivery, converted: Path, corrected: Path
) -> None:
    to_orthanc.run(converted)
    (outcome,) = to_orthanc.run(corrected, options=replace(UNPROVEN, replaces=converted.name))
    assert (outcome.state, outcome.destinations[0].retired) == (State.VERIFIED, len(uids(converted)))
    assert kept_in(orthanc) == uids(corrected)
    with Ledger(to_orthanc.ledger_file) as ledger:
        request = RetractRequest(corrected.name, "label visible")
        assert retract_series(request, to_orthanc.destinations(ledger), ledger).tombstone.complete
    assert kept_in(orthanc) == set()


def test_a_stranger_in_the_series_is_told(to_orthanc: Delivery, foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    stranger = shutil.move(min(foreign.glob("*.dcm")), tmp_path / "one")
    other = replace(to_orthanc, ledger_file=tmp_path / "other.sqlite")
    assert other.run(Path(stranger))[0].state == State.VERIFIED
    (outcome,) = to_orthanc.run(foreign)
    assert outcome.state == State.FAILED
    assert outcome.destinations[0].strangers == (Path(stranger).stem,)


def test_metadata_that_orthanc_leaves_out_are_a_remark_where_its_md5_is_equal(
    to_orthanc: Delivery, foreign: Path
) -> None:
    path = min(foreign.glob("*.dcm"))
    changed = dcmread(path)
    changed.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [Dataset()]  # an item without elements
    changed.save_as(path)
    (outcome,) = to_orthanc.run(foreign)
    assert outcome.state == State.VERIFIED
    (remarked,) = [each for each in outcome.destinations[0].instances if each.warnings]
    assert remarked.path == path
    assert remarked.warnings[0].startswith("the store tells other metadata: SharedFunctionalGroupsSequence[1]")
