"""DICOMweb services: Orthanc, and a strict fake for what Orthanc does not do."""

from __future__ import annotations

import logging
import random
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from tests.contracts.store import StoreContract
from tests.factories.part10 import write_part10
from tests.stores.fakes.dicomweb import StrictDicomWeb
from tests.stores.fakes.http_server import Fault
from tests.stores.fakes.proxy import SpoilingProxy

from coverslip.errors import ConflictError, RejectedError, StoreError, UsageError
from coverslip.stores.base import LocalInstance, PutOutcome, Store
from coverslip.stores.options import (
    BasicFromEnvironment,
    RetryPolicy,
    StoreOptions,
    TokenFromCommand,
    TokenFromEnvironment,
)
from coverslip.stores.registry import open_store

QUICK = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002, seed=1)
OPTIONS = StoreOptions(retry=QUICK, chunk_bytes=64 << 10)


@pytest.fixture
def service() -> Iterator[StrictDicomWeb]:
    with StrictDicomWeb() as service:
        yield service


@pytest.fixture
def store(service: StrictDicomWeb) -> Iterator[Store]:
    with open_store(f"dicomweb+{service.dicomweb_url}", OPTIONS) as store:
        yield store


@pytest.fixture
def instance(tmp_path: Path) -> LocalInstance:
    return write_part10(tmp_path / "local")


@pytest.fixture
def big(tmp_path: Path) -> LocalInstance:
    return write_part10(tmp_path / "big", frames=4, frame_bytes=300_000)


def kept(service: StrictDicomWeb) -> list[bytes]:
    return [path.read_bytes() for path in service.instances.values()]


class TestStrictService(StoreContract):
    @pytest.fixture
    def store(self, service):
        with open_store(f"dicomweb+{service.dicomweb_url}/", OPTIONS) as store:
            yield store


class TestServiceWithOtherHabits(StoreContract):
    @pytest.fixture
    def store(self, service):
        service.answers = "xml"
        service.duplicates = "409 reason"
        service.single_parts = True
        service.drops_padding = True
        with open_store(f"dicomweb+{service.dicomweb_url}", OPTIONS) as store:
            yield store


class TestOrthanc(StoreContract):
    @pytest.fixture
    def store(self, orthanc):
        orthanc.clear()
        with open_store(f"dicomweb+{orthanc.dicomweb_url}", OPTIONS) as store:
            yield store

    def test_its_md5_is_compared(self, store, instance):
        store.put(instance)
        assert store.compare(instance).compared == ("size", "md5", "metadata")

    def test_one_changed_byte_in_an_unsampled_frame_is_found(self, store, orthanc, tmp_path):
        instance = write_part10(tmp_path, frames=9, frame_bytes=20_000)
        port = int(orthanc.rest_url.rpartition(":")[2])
        with SpoilingProxy(port, corrupt_upload_at=[60_000]) as proxy:
            with open_store(f"dicomweb+{proxy.url}/dicom-web", OPTIONS) as spoiled:
                spoiled.put(instance)
            assert proxy.corrupted == 1
        comparison = store.compare(instance, (1, 9))
        assert [line.partition(":")[0] for line in comparison.differences] == ["md5"]
        with pytest.raises(ConflictError, match="md5"):
            store.put(instance)
        assert store.remove(store.find(instance))
        assert store.put(instance).outcome is PutOutcome.STORED
        assert store.compare(instance).equal

    def test_what_it_cannot_read_is_rejected(self, store, instance):
        instance.path.write_bytes(b"garbage" * 100)
        from tests.factories.part10 import JPEG_BASELINE, local_instance

        garbage = local_instance(instance.path, instance.uids, JPEG_BASELINE)
        with pytest.raises(RejectedError, match="400"):
            store.put(garbage)


def test_the_body_is_the_file_in_one_part(service: StrictDicomWeb, store: Store, big: LocalInstance) -> None:
    store.put(big)
    assert kept(service) == [big.path.read_bytes()]


@pytest.mark.parametrize("answers", ["json", "xml", "empty"])
def test_warnings_are_told_in_words(service, store, instance, answers) -> None:
    service.answers = answers
    service.warn_with = 0xB000
    (warning,) = store.put(instance).warnings
    assert ("no instance" if answers == "empty" else "coerced (B000H)") in warning


@pytest.mark.parametrize("answers", ["json", "xml"])
@pytest.mark.parametrize(
    "code, words",
    [
        (0xC122, "transfer syntax is not supported"),
        (0x0122, "SOP class is not supported"),
        (0x0110, "processing failed"),
        (0xA900, "does not match"),
        (0xC123, "cannot be understood"),
        (0x7777, "not known"),
    ],
)
def test_what_the_store_rejects_is_not_sent_again(service, store, instance, answers, code, words) -> None:
    service.answers = answers
    service.fail_with = code
    with pytest.raises(RejectedError, match=words) as caught:
        store.put(instance)
    assert f"{code:04X}H" in str(caught.value)
    assert not caught.value.retryable
    assert service.count("POST") == 1


def test_a_store_out_of_resources_is_tried_again(service, store, instance) -> None:
    service.fail_with = 0xA700
    with pytest.raises(StoreError, match="out of resources") as caught:
        store.put(instance)
    assert caught.value.retryable
    assert service.count("POST") == QUICK.attempts


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 411, 413, 415, 422, 501])
def test_refusals_of_the_request_are_not_tried_again(service, store, instance, status) -> None:
    service.faults.append(Fault("POST", status=status, times=-1, body=b"<p>PatientName Muster is odd</p>"))
    with pytest.raises(StoreError, match=str(status)) as caught:
        store.put(instance)
    assert not caught.value.retryable
    assert "Muster" not in str(caught.value)
    assert service.count("POST") == 1


PASSING = [
    Fault("POST", status=503, times=2),
    Fault("POST", status=429, headers={"Retry-After": "0"}),
    Fault("POST", status=408),
    Fault("POST", status=425),
    Fault("POST", status=500),
    Fault("POST", status=504),
    Fault("POST", drop_request=True, times=2),
    Fault("POST", read_bytes=500_000, drop_request=True),
    Fault("POST", read_bytes=1, status=503),
    Fault("POST", drop_response=True),
    Fault("GET", status=503),
    Fault("GET", drop_request=True),
]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_what_passes_is_tried_again(service, store, big, fault: Fault) -> None:
    fault = replace(fault)
    service.faults.append(fault)
    sent: list[int] = []
    store.put(big, sent.append)
    assert fault.times == 0
    assert sum(sent) == big.size_bytes
    assert kept(service) == [big.path.read_bytes()]


def test_an_instance_whose_answer_was_lost_is_not_sent_again(service, store, big) -> None:
    service.faults.append(Fault("POST", drop_response=True))
    store.put(big)
    assert service.count("POST") == 1


@pytest.mark.parametrize("duplicates", ["409", "409 reason"])
@pytest.mark.parametrize("answers", ["json", "xml", "empty"])
def test_the_same_that_somebody_else_put_meanwhile_is_already_there(service, store, instance, answers, duplicates):
    service.answers, service.duplicates = answers, duplicates
    put_behind_its_back(service, instance)
    assert store.put(instance).outcome is PutOutcome.ALREADY_THERE
    assert service.count("POST") == 2


def put_behind_its_back(service: StrictDicomWeb, other: LocalInstance) -> None:
    def put(request) -> None:
        if request.method == "POST":
            service.before = lambda request: None
            with open_store(f"dicomweb+{service.dicomweb_url}", OPTIONS) as second:
                second.put(other)

    service.before = put


def test_other_content_that_somebody_else_put_meanwhile_is_a_conflict(service, store, instance, tmp_path) -> None:
    other = write_part10(tmp_path / "other", patient="Else^Body")
    put_behind_its_back(service, other)
    with pytest.raises(ConflictError, match="PatientName: another value"):
        store.put(instance)
    assert kept(service) == [other.path.read_bytes()]


@pytest.mark.parametrize("seed", range(5))
def test_resets_at_any_byte_lose_nothing(service, big, seed) -> None:
    source = random.Random(seed)
    resets = [source.randrange(1, 1_200_000) for _ in range(4)]
    with (
        SpoilingProxy(service.port, reset_after=resets) as proxy,
        open_store(f"dicomweb+{proxy.url}/dicom", OPTIONS) as store,
    ):
        store.put(big)
        assert store.compare(big, (1, 2, 3, 4)).equal
    assert kept(service) == [big.path.read_bytes()]


def test_a_byte_of_a_frame_changed_on_the_way_is_found_by_comparing_frames(service, store, big) -> None:
    with (
        SpoilingProxy(service.port, corrupt_upload_at=[700_000]) as proxy,
        open_store(f"dicomweb+{proxy.url}/dicom", OPTIONS) as spoiled,
    ):
        spoiled.put(big)
    comparison = store.compare(big, (1, 2, 3, 4))
    assert [line.partition(":")[0] for line in comparison.differences] == ["frame 3"]


def test_a_byte_changed_on_the_way_back_is_found(service, store, big) -> None:
    store.put(big)
    with (
        SpoilingProxy(service.port, corrupt_download_at=[700_000]) as proxy,
        open_store(f"dicomweb+{proxy.url}/dicom", OPTIONS) as spoiled,
    ):
        assert not spoiled.compare(big, (1, 2, 3, 4)).equal


def test_a_download_that_is_cut_off_is_tried_again_and_leaves_nothing_half(service, store, big, tmp_path) -> None:
    stored = store.put(big).stored
    path = tmp_path / "down.dcm"

    class Cut(SpoilingProxy):
        """Cuts the way back of its first connections."""

        def _spoil(self, data, direction):
            if direction == "down" and self.passed["down"] > 400_000 and self.resets < 1:
                self.resets += 1
                raise OSError
            return super()._spoil(data, direction)

    with Cut(service.port) as proxy, open_store(f"dicomweb+{proxy.url}/dicom", OPTIONS) as spoiled:
        spoiled.download(replace(stored, location=stored.location.replace(str(service.port), str(proxy.port))), path)
        assert proxy.resets == 1
    assert path.read_bytes() == big.path.read_bytes()
    assert [it.name for it in tmp_path.iterdir() if it.is_file()] == ["down.dcm"]


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_waited_for(service, store, instance, monkeypatch, as_date) -> None:
    waits: list[float] = []
    monkeypatch.setattr(store._http.retrier, "_sleep", waits.append)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    service.faults.append(Fault("POST", status=429, headers={"Retry-After": date if as_date else "37"}))
    store.put(instance)
    assert len(waits) == 1
    assert 36 <= waits[0] <= 41


def test_a_store_that_asks_for_a_long_wait_is_given_up(service, store, instance, monkeypatch) -> None:
    monkeypatch.setattr(store._http.retrier, "_sleep", lambda seconds: pytest.fail("waited"))
    service.faults.append(Fault("POST", status=503, headers={"Retry-After": "3600"}))
    with pytest.raises(StoreError) as caught:
        store.put(instance)
    assert caught.value.retryable
    assert caught.value.retry_after_s == 3600


def test_a_server_that_does_not_answer_in_time_is_tried_again(service, instance) -> None:
    service.faults.append(Fault("POST", delay_s=1.2))
    options = replace(OPTIONS, read_timeout_s=0.8)
    with open_store(f"dicomweb+{service.dicomweb_url}", options) as store:
        store.put(instance)
    assert service.count("POST") >= 1
    assert len(service.instances) == 1


def test_no_server_is_a_retryable_error(instance) -> None:
    with StrictDicomWeb() as service:
        url = f"dicomweb+{service.dicomweb_url}"
    with open_store(url, OPTIONS) as store, pytest.raises(StoreError, match="no connection") as caught:
        store.put(instance)
    assert caught.value.retryable


def token_command(folder: Path) -> TokenFromCommand:
    script = folder / "token.py"
    script.write_text(
        f"p = {str(folder / 'count')!r}\nopen(p, 'a').write('x')\nprint('s3cret-%d' % len(open(p).read()))\n"
    )
    return TokenFromCommand((sys.executable, str(script), "--pin", "s3cret-pin"))


def test_a_token_that_expires_in_mid_run_is_renewed(service, tmp_path) -> None:
    service.tokens = {"Bearer s3cret-1"}
    instances = [write_part10(tmp_path, seed=seed) for seed in range(4)]
    with open_store(f"dicomweb+{service.dicomweb_url}", replace(OPTIONS, credentials=token_command(tmp_path))) as store:
        store.put(instances[0])
        service.tokens = {"Bearer s3cret-2"}
        for instance in instances[1:]:
            store.put(instance)
    assert (tmp_path / "count").read_text() == "xx"
    assert len(service.instances) == 4


def test_a_token_that_expires_between_the_look_and_the_upload_is_renewed(service, instance, tmp_path) -> None:
    service.tokens = {"Bearer s3cret-1"}

    def expire(request) -> None:
        if request.method == "POST":
            service.tokens = {"Bearer s3cret-2"}

    service.before = expire
    options = replace(OPTIONS, credentials=token_command(tmp_path))
    sent: list[int] = []
    with open_store(f"dicomweb+{service.dicomweb_url}", options) as store:
        assert store.put(instance, sent.append).outcome is PutOutcome.STORED
    assert sum(sent) == instance.size_bytes


def every_text(error: BaseException) -> str:
    """Return all that could be printed of an error, also what is suppressed."""
    texts, seen = ["".join(traceback.format_exception(error))], error
    while seen is not None:
        texts += [str(seen), repr(seen)]
        seen = seen.__cause__
    return "".join(texts)


@pytest.mark.parametrize("kind", ["token", "basic", "command"])
@pytest.mark.parametrize("status", [401, 403])
def test_secrets_show_in_no_error_and_no_log(service, instance, monkeypatch, caplog, tmp_path, kind, status) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("S", "user:s3cret" if kind == "basic" else "s3cret")
    credentials = {
        "token": TokenFromEnvironment("S"),
        "basic": BasicFromEnvironment("S"),
        "command": token_command(tmp_path),
    }[kind]
    options = replace(OPTIONS, credentials=credentials)
    if status == 401:
        service.tokens = {"Bearer right"}
    else:
        service.faults.append(Fault(status=403, times=-1, body=b"not for Bearer s3cret"))
    with open_store(f"dicomweb+{service.dicomweb_url}", options) as store:
        with pytest.raises(StoreError, match=str(status)) as caught:
            store.put(instance)
        shown = every_text(caught.value) + caplog.text + repr(options) + repr(store) + str(vars(caught.value))
    assert not caught.value.retryable
    assert "s3cret" not in shown
    assert "dXNlcjpzM2NyZXQ" not in shown  # user:s3cret in base64
    assert service.count("POST") == 0


def test_credentials_reach_the_service(service, instance, monkeypatch) -> None:
    monkeypatch.setenv("S", "user:s3cret")
    service.tokens = {"Basic dXNlcjpzM2NyZXQ="}
    options = replace(OPTIONS, credentials=BasicFromEnvironment("S"))
    with open_store(f"dicomweb+{service.dicomweb_url}", options) as store:
        store.put(instance)


@pytest.mark.parametrize(
    "script, error",
    [
        ("import sys; print('s3cret'); sys.exit(3)", StoreError),
        ("print('s3cret\\ns3cret')", UsageError),
        ("", UsageError),
    ],
)
def test_a_token_command_that_fails_shows_nothing_it_prints(service, instance, script, error) -> None:
    options = replace(OPTIONS, credentials=TokenFromCommand((sys.executable, "-c", script)))
    with open_store(f"dicomweb+{service.dicomweb_url}", options) as store, pytest.raises(error) as caught:
        store.put(instance)
    assert "s3cret" not in every_text(caught.value)


def test_credentials_go_to_no_other_host(service, store, instance, monkeypatch) -> None:
    store.put(instance)
    service.bulk_host = "http://elsewhere.test"
    with pytest.raises(StoreError, match="another host"):
        store.read_header(store.find(instance))


@pytest.mark.parametrize(
    "url", ["dicomweb+http://pacs.test/x", "dicomweb+http://203.0.113.7", "dicomweb+http://localhost.test"]
)
def test_plain_http_to_another_machine_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="plain HTTP"):
        open_store(url)
    open_store(url, StoreOptions(allow_plain_http=True)).close()


@pytest.mark.parametrize("url", ["dicomweb+https://", "dicomweb+http:///x", "dicomweb+https://host:port/x"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        open_store(url)


def test_a_store_that_removes_nothing_says_so(service, store, instance) -> None:
    service.removes = False
    stored = store.put(instance).stored
    with pytest.raises(RejectedError, match="removes nothing"):
        store.remove(stored)


def test_a_store_that_ignores_the_offset_is_noticed(service, store, instance, tmp_path) -> None:
    for seed in range(3):
        store.put(write_part10(tmp_path, seed=seed))
    page = [{"00080018": {"Value": ["1.2"]}, "0020000D": {"Value": ["1"]}, "0020000E": {"Value": ["2"]}}]
    import json

    service.faults.append(Fault("GET", status=200, body=json.dumps(page).encode(), times=-1))
    with pytest.raises(StoreError, match="same page"):
        list(store.iter_instances())


@pytest.mark.parametrize("body", [b"<html>", b"{", b"[1]", b'"x"'])
def test_answers_that_are_no_dicom_json_are_errors(service, store, instance, body) -> None:
    store.put(instance)
    service.faults.append(Fault("GET", path="/dicom/.*metadata", status=200, body=body, times=-1))
    with pytest.raises(StoreError):
        store.compare(instance)


def test_jitter_is_repeatable_and_never_above_the_limit() -> None:
    from coverslip.stores.retrying import Retrier

    def waits(seed: int) -> list[float]:
        waited: list[float] = []
        retrier = Retrier(RetryPolicy(attempts=8, first_wait_s=1, longest_wait_s=10, seed=seed), waited.append)
        with pytest.raises(StoreError):
            retrier.run(fail)
        return waited

    def fail() -> None:
        raise StoreError("passes", retryable=True)

    assert waits(1) == waits(1) != waits(2)
    limits = [1, 2, 4, 8, 10, 10, 10]
    for seed in range(20):
        assert all(0 <= wait <= limit for wait, limit in zip(waits(seed), limits, strict=True))
    assert max(waits(seed)[6] for seed in range(20)) > 5
