"""The Google Healthcare API: a strict fake of its paths, tokens and operations."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contracts.store import StoreContract
from tests.factories.part10 import NATIVE, write_part10
from tests.stores.fakes.gcs import StrictGcs
from tests.stores.fakes.healthcare import STORE, StrictHealthcare
from tests.stores.fakes.http_server import FakeServer, Fault, Request, Response, as_json
from tests.stores.test_dicomweb import every_text

from coverslip.errors import ConflictError, RejectedError, StoreError, UsageError
from coverslip.stores.base import LocalInstance, PutOutcome, Store
from coverslip.stores.options import (
    ApplicationDefault,
    RetryPolicy,
    ServiceAccountFile,
    StoreOptions,
    TokenFromEnvironment,
)
from coverslip.stores.registry import open_store

QUICK = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002, seed=1)
URL = "healthcare://p/l/d/s"


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictGcs]:
    with StrictGcs("stage") as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield gcs


@pytest.fixture
def service(gcs: StrictGcs, monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictHealthcare]:
    monkeypatch.setenv("TOKEN", "right")
    with StrictHealthcare(gcs) as service:
        yield service


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coverslip.stores.operations._FIRST_WAIT_S", 0.001)


@pytest.fixture
def options(service: StrictHealthcare) -> StoreOptions:
    return StoreOptions(retry=QUICK, endpoint_url=service.url, credentials=TokenFromEnvironment("TOKEN"))


@pytest.fixture
def store(options: StoreOptions) -> Iterator[Store]:
    with open_store(URL, options) as store:
        yield store


@pytest.fixture
def importing(options: StoreOptions) -> Iterator[Store]:
    with open_store(URL, replace(options, staging_url="gs://stage/for import")) as store:
        yield store


@pytest.fixture
def instance(tmp_path: Path) -> LocalInstance:
    return write_part10(tmp_path / "local", frame_bytes=200_000)


class TestByStow(StoreContract):
    @pytest.fixture
    def store(self, options):
        with open_store(URL, options) as store:
            yield store


class TestByImport(StoreContract):
    @pytest.fixture
    def store(self, options):
        with open_store(URL, replace(options, staging_url="gs://stage")) as store:
            yield store


def test_locations_are_named_by_project_location_dataset_and_store(store, service, instance) -> None:
    uids = instance.uids
    place = f"studies/{uids.study_instance_uid}/series/{uids.series_instance_uid}/instances/{uids.sop_instance_uid}"
    assert store.put(instance).stored.location == f"{URL}/{place}"
    assert service.count("POST", re.escape(f"{STORE}/dicomWeb/studies")) == 1


@pytest.mark.parametrize(
    "url", ["healthcare://p/l/d", "healthcare://p/l/d/s/x", "healthcare://", "healthcare://p/../d/s"]
)
def test_urls_of_another_form_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="project/location/dataset/store"):
        open_store(url)


def test_staging_wants_a_bucket(options: StoreOptions) -> None:
    with pytest.raises(UsageError, match="gs://"):
        open_store(URL, replace(options, staging_url="s3://bucket"))


def test_an_endpoint_without_tls_is_refused() -> None:
    with pytest.raises(UsageError, match="plain HTTP"):
        open_store(URL, StoreOptions(endpoint_url="http://healthcare.test"))


PASSING = [
    Fault("POST", status=429, headers={"Retry-After": "0"}, times=2),
    Fault("POST", status=503),
    Fault("POST", read_bytes=100_000, drop_request=True),
    Fault("POST", drop_response=True),
    Fault("GET", status=503, times=2),
]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_what_passes_is_tried_again(service, store, instance, fault) -> None:
    fault = replace(fault)
    service.faults.append(fault)
    store.put(instance)
    assert fault.times == 0
    assert len(service.instances) == 1


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_what_passes_is_tried_again_when_importing(service, gcs, importing, instance, fault) -> None:
    fault = replace(fault)
    service.faults.append(fault)
    assert importing.put(instance).outcome is PutOutcome.STORED
    assert fault.times == 0
    assert len(service.instances) == 1
    assert gcs.objects == {}


def test_a_slow_service_is_tried_again(service, options, instance) -> None:
    service.faults.append(Fault("POST", delay_s=1.2))
    with open_store(URL, replace(options, read_timeout_s=0.8)) as store:
        store.put(instance)
    assert len(service.instances) == 1


def test_a_wrong_token_is_refused_at_once_and_not_shown(service, options, instance, monkeypatch, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOKEN", "s3cret")
    with open_store(URL, options) as store, pytest.raises(StoreError, match="401") as caught:
        store.put(instance)
    assert "s3cret" not in every_text(caught.value) + caplog.text
    assert len(service.log) == 1


def test_a_token_without_the_right_is_told(service, store, instance) -> None:
    service.forbidden = {"Bearer right"}
    with pytest.raises(StoreError, match=r"do not allow this \(403") as caught:
        store.put(instance)
    assert not caught.value.retryable
    assert len(service.log) == 1


def test_a_failed_instance_has_its_reason(service, store, instance) -> None:
    service.fail_with = 0xC122
    with pytest.raises(RejectedError, match="transfer syntax"):
        store.put(instance)


def test_an_import_reads_the_staged_object_and_leaves_none(service, gcs, importing, instance) -> None:
    sent: list[int] = []
    assert importing.put(instance, sent.append).outcome is PutOutcome.STORED
    assert sum(sent) == instance.size_bytes
    assert [path.read_bytes() for path in service.instances.values()] == [instance.path.read_bytes()]
    assert gcs.objects == {}
    assert service.count("GET", "/v1/projects/p/locations/l/datasets/d/operations/1") == 3


@pytest.mark.parametrize("code", [14, 8, 3, 7, 0])
def test_an_import_that_fails_late_is_told_and_leaves_nothing_staged(service, gcs, importing, instance, code) -> None:
    service.imports, service.import_error, service.polls = False, code, 5
    with pytest.raises(StoreError, match="0 done, 1 failed") as caught:
        importing.put(instance)
    assert caught.value.retryable == (code in (8, 14))
    assert "Muster" not in every_text(caught.value)
    assert gcs.objects == {}


def test_an_import_that_fails_after_it_has_stored_the_instance_is_stored_with_a_warning(service, importing, instance):
    service.import_error = 13
    result = importing.put(instance)
    assert result.outcome is PutOutcome.STORED
    assert "error INTERNAL" in result.warnings[0]


def test_what_somebody_else_stored_while_an_import_ran_is_a_conflict(
    service, gcs, importing, store, instance, tmp_path
):
    other = write_part10(tmp_path / "other", patient="Else^Body")

    def put(request) -> None:
        if request.path.endswith(":import"):
            service.before = lambda request: None
            store.put(other)

    service.before = put
    with pytest.raises(ConflictError):
        importing.put(instance)
    assert gcs.objects == {}


def test_an_import_that_finds_its_object_taken_by_another_run_is_already_there(
    service, gcs, importing, store, instance
) -> None:
    def finish(request) -> None:
        if request.path.endswith(":import"):
            service.before = lambda request: None
            store.put(instance)
            gcs.objects.clear()

    service.before = finish
    assert importing.put(instance).outcome is PutOutcome.ALREADY_THERE


def test_an_operation_that_never_ends_is_given_up(service, options, gcs, instance) -> None:
    service.polls = -1
    slow = replace(options, staging_url="gs://stage", operation_timeout_s=0.01)
    with open_store(URL, slow) as store, pytest.raises(StoreError, match="not done") as caught:
        store.put(instance)
    assert caught.value.retryable


def test_a_series_is_removed_in_one_operation(service, store, tmp_path) -> None:
    for series in (1, 2):
        for seed in (1, 2):
            store.put(write_part10(tmp_path, seed=seed, series=series))
    assert store.remove_series("2.25.10", "2.25.201") is True
    assert {it.uids.series_instance_uid for it in store.iter_instances()} == {"2.25.202"}
    assert store.remove_series("2.25.10", "2.25.201") is False


def test_native_pixel_data_over_2_gib_is_refused_before_it_is_sent(service, store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("coverslip.stores.healthcare._LARGEST_NATIVE_BYTES", 3000)
    native = write_part10(tmp_path / "native", transfer_syntax_uid=NATIVE)  # 3840 bytes of pixels
    with pytest.raises(RejectedError, match=r"3840 bytes of native pixel data.*compressed transfer syntax"):
        store.put(native)
    assert service.log == []
    store.put(write_part10(tmp_path / "compressed", seed=2))


class TokenServer(FakeServer):
    """Gives each caller another token."""

    given = 0

    def answer(self, request: Request) -> Response:
        assert b"assertion=" in request.read_all()
        self.given += 1
        return as_json(200, {"access_token": f"s3cret-{self.given}", "expires_in": 3600, "token_type": "Bearer"})


@pytest.fixture
def token_server() -> Iterator[TokenServer]:
    with TokenServer() as server:
        yield server


@pytest.fixture
def service_account(tmp_path: Path, token_server: TokenServer) -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    path = tmp_path / "account.json"
    account = {"type": "service_account", "client_email": "a@b.test", "private_key": pem, "private_key_id": "k"}
    path.write_text(json.dumps(account | {"token_uri": f"{token_server.url}/token", "project_id": "p"}))
    return path


@pytest.mark.parametrize("is_default", [False, True])
def test_a_service_account_gets_tokens_and_new_ones_when_they_expire(
    service, options, token_server, service_account, instance, tmp_path, monkeypatch, is_default
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    credentials = ApplicationDefault() if is_default else ServiceAccountFile(service_account)
    service.tokens = {"Bearer s3cret-1"}
    with open_store(URL, replace(options, credentials=credentials)) as store:
        store.put(instance)
        service.tokens = {"Bearer s3cret-2"}
        store.put(write_part10(tmp_path, seed=2))
    assert token_server.given == 2
    assert len(service.instances) == 2


def test_a_token_server_that_refuses_is_told_without_its_answer(
    service, options, token_server, service_account, instance
) -> None:
    token_server.faults.append(Fault("POST", status=400, body=b'{"error": "invalid_grant s3cret"}', times=-1))
    with (
        open_store(URL, replace(options, credentials=ServiceAccountFile(service_account))) as store,
        pytest.raises(StoreError, match="cannot be refreshed") as caught,
    ):
        store.put(instance)
    assert "s3cret" not in every_text(caught.value)
    assert "PRIVATE" not in every_text(caught.value)


@pytest.mark.parametrize("content", ["", "{}", '{"type": "service_account", "private_key": "s3cret"}'])
def test_a_file_that_is_no_key_is_refused_and_not_shown(options, instance, tmp_path, content) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    with (
        open_store(URL, replace(options, credentials=ServiceAccountFile(path))) as store,
        pytest.raises(UsageError, match=r"key\.json: not the key file") as caught,
    ):
        store.put(instance)
    assert "s3cret" not in every_text(caught.value)


def test_no_default_credentials_is_an_error_of_use(options, instance, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with (
        open_store(URL, replace(options, credentials=ApplicationDefault())) as store,
        pytest.raises(UsageError, match="gcloud auth application-default login"),
    ):
        store.put(instance)
