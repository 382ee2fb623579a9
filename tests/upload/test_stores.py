"""Every kind of store: delivered, proven, found again, replaced, taken back."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.stores.fakes.dicomweb import StrictDicomWeb
from tests.stores.fakes.gcs import StrictGcs
from tests.stores.fakes.healthcare import StrictHealthcare
from tests.stores.fakes.http_server import FakeServer
from tests.upload.conftest import UNPROVEN, Delivery

from coverslip.pipeline.ledger import Ledger, State
from coverslip.stores.base import ObjectStore, Store
from coverslip.stores.options import RetryPolicy, StoreOptions, TokenFromEnvironment
from coverslip.stores.registry import open_store
from coverslip.upload.outcome import SeriesOutcome
from coverslip.upload.retract import RetractRequest, retract_series

OPTIONS = StoreOptions(retry=RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002))

type Enter = Callable[[ExitStack, pytest.MonkeyPatch, Path], Store]


def folder(stack: ExitStack, _patch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    return stack.enter_context(open_store(str(tmp_path / "archive"), OPTIONS))


def gcs(stack: ExitStack, patch: pytest.MonkeyPatch, _tmp_path: Path) -> Store:
    server = stack.enter_context(StrictGcs())
    patch.setenv("STORAGE_EMULATOR_HOST", server.url)
    return stack.enter_context(open_store("gs://bucket/a", OPTIONS))


def s3(stack: ExitStack, patch: pytest.MonkeyPatch, _tmp_path: Path) -> Store:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    stack.callback(server.stop)
    host, port = server.get_host_and_port()
    with urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT"), timeout=10):
        pass
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        patch.setenv(name, value)
    return stack.enter_context(open_store("s3://bucket/a", OPTIONS))


def dicomweb(stack: ExitStack, _patch: pytest.MonkeyPatch, _tmp_path: Path) -> Store:
    server = stack.enter_context(StrictDicomWeb())
    return stack.enter_context(open_store(f"dicomweb+{server.dicomweb_url}", OPTIONS))


def healthcare(stack: ExitStack, patch: pytest.MonkeyPatch, _tmp_path: Path, staging_url: str = "") -> Store:
    staging = stack.enter_context(StrictGcs("stage"))
    patch.setenv("STORAGE_EMULATOR_HOST", staging.url)
    patch.setenv("TOKEN", "right")
    patch.setattr("coverslip.stores.operations._FIRST_WAIT_S", 0.001)
    server: FakeServer = stack.enter_context(StrictHealthcare(staging))
    options = replace(
        OPTIONS, endpoint_url=server.url, credentials=TokenFromEnvironment("TOKEN"), staging_url=staging_url
    )
    return stack.enter_context(open_store("healthcare://p/l/d/s", options))


def healthcare_by_import(stack: ExitStack, patch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    return healthcare(stack, patch, tmp_path, "gs://stage/x")


@pytest.fixture(params=[folder, gcs, s3, dicomweb, healthcare, healthcare_by_import], ids=lambda each: each.__name__)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    with ExitStack() as stack:
        yield request.param(stack, monkeypatch, tmp_path)


def stored_uids(store: Store) -> set[str]:
    """Return the SOP Instance UIDs of all instances that a store holds."""
    return {
        stored.uids.sop_instance_uid if stored.uids else str(store.read_header(stored).SOPInstanceUID)
        for stored in store.iter_instances()
    }


def uids(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.dcm")}


def assert_nothing_sent(outcome: SeriesOutcome) -> None:
    assert (outcome.state, outcome.bytes_sent) == (State.VERIFIED, 0)


def test_a_series_is_delivered_proven_replaced_and_taken_back(
    store: Store, delivery: Delivery, converted: Path, corrected: Path
) -> None:
    delivery.stores = [store]
    (first,) = delivery.run(converted)
    assert (first.state, first.bytes_sent) == (State.VERIFIED, first.size_bytes)
    assert stored_uids(store) == uids(converted)
    assert_nothing_sent(*delivery.run(converted))
    assert_nothing_sent(*delivery.run(converted, options=replace(UNPROVEN, send=False)))
    other = replace(delivery, ledger_file=delivery.ledger_file.with_name("other.sqlite"))
    assert_nothing_sent(*other.run(converted))
    (new,) = delivery.run(corrected, options=replace(UNPROVEN, replaces=converted.name))
    assert (new.state, new.destinations[0].retired) == (State.VERIFIED, len(uids(converted)))
    assert stored_uids(store) == uids(corrected)
    with Ledger(delivery.ledger_file) as ledger:
        request = RetractRequest(corrected.name, "label visible")
        outcome = retract_series(request, delivery.destinations(ledger), ledger)
    assert outcome.tombstone.complete
    assert outcome.stores[0].instances == len(uids(corrected))
    assert stored_uids(store) == set()
    assert delivery.run(corrected)[0].state == "refused"
    if isinstance(store, ObjectStore):
        assert other.run(corrected)[0].state == "refused"
