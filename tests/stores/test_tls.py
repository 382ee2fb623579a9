"""Servers are verified, and clients show their certificates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.factories.part10 import write_part10
from tests.stores.fakes.certificates import Certificates, make_certificates
from tests.stores.fakes.dicomweb import StrictDicomWeb
from tests.stores.fakes.gcs import StrictGcs
from tests.stores.test_dicomweb import every_text

from coverslip.errors import StoreError, UsageError
from coverslip.stores.base import LocalInstance
from coverslip.stores.options import ClientCertificate, RetryPolicy, StoreOptions
from coverslip.stores.registry import open_store

OPTIONS = StoreOptions(retry=RetryPolicy(attempts=3, first_wait_s=0.001, seed=1))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def instance(tmp_path: Path) -> LocalInstance:
    return write_part10(tmp_path / "local")


def test_a_server_of_an_unknown_authority_is_refused_at_once(certificates, instance) -> None:
    with (
        StrictDicomWeb(certificates.server_context()) as service,
        open_store(f"dicomweb+{service.dicomweb_url}", OPTIONS) as store,
        pytest.raises(StoreError, match="certificate is not accepted") as caught,
    ):
        store.put(instance)
    assert not caught.value.retryable
    assert service.log == []


def test_a_server_of_the_given_authority_is_trusted(certificates, instance) -> None:
    options = replace(OPTIONS, ca_file=certificates.authority)
    with (
        StrictDicomWeb(certificates.server_context()) as service,
        open_store(f"dicomweb+{service.dicomweb_url}", options) as store,
    ):
        store.put(instance)
        assert store.compare(instance, (1,)).equal


def test_a_server_that_wants_a_client_certificate_gets_it(certificates, instance, monkeypatch) -> None:
    monkeypatch.setenv("KEY_PASSWORD", "s3cret")
    certificate = ClientCertificate(certificates.client, certificates.client_key, "KEY_PASSWORD")
    options = replace(OPTIONS, ca_file=certificates.authority)
    with StrictDicomWeb(certificates.server_context(wants_client=True)) as service:
        url = f"dicomweb+{service.dicomweb_url}"
        with open_store(url, replace(options, client_certificate=certificate)) as store:
            store.put(instance)
        with open_store(url, options) as store, pytest.raises(StoreError):
            store.find(instance)


def test_a_wrong_password_of_a_key_is_told_and_not_shown(certificates, monkeypatch) -> None:
    monkeypatch.setenv("KEY_PASSWORD", "wr0ng-s3cret")
    certificate = ClientCertificate(certificates.client, certificates.client_key, "KEY_PASSWORD")
    with pytest.raises(UsageError, match="no usable client certificate") as caught:
        open_store("dicomweb+https://localhost/x", replace(OPTIONS, client_certificate=certificate))
    assert "s3cret" not in every_text(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_authorities_is_refused(tmp_path, content) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"ca\.pem: no certificates of authorities"):
        open_store("dicomweb+https://localhost/x", replace(OPTIONS, ca_file=path))


def test_buckets_are_verified_too_and_get_the_client_certificate(certificates, instance, monkeypatch) -> None:
    monkeypatch.setenv("KEY_PASSWORD", "s3cret")
    certificate = ClientCertificate(certificates.client, certificates.client_key, "KEY_PASSWORD")
    with StrictGcs(tls=certificates.server_context(wants_client=True)) as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        with open_store("gs://bucket", OPTIONS) as store, pytest.raises(StoreError, match="not accepted") as caught:
            store.put(instance)
        assert not caught.value.retryable
        assert gcs.log == []
        options = replace(OPTIONS, ca_file=certificates.authority)
        with open_store("gs://bucket", options) as store, pytest.raises(StoreError):
            store.put(instance)
        with open_store("gs://bucket", replace(options, client_certificate=certificate)) as store:
            store.put(instance)
            assert store.compare(instance, (1,)).equal
