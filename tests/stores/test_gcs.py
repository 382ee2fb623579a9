"""Google Cloud Storage: a strict fake of it, and the emulator from PyPI."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest
from tests.contracts.store import ObjectStoreContract
from tests.factories.part10 import write_part10
from tests.stores.fakes.gcs import StrictGcs
from tests.stores.fakes.http_server import Fault
from tests.stores.fakes.proxy import SpoilingProxy

from coverslip.errors import ConflictError, StoreError, UsageError
from coverslip.stores.base import PutOutcome, Store
from coverslip.stores.options import RetryPolicy, StoreOptions, TokenFromCommand, TokenFromEnvironment
from coverslip.stores.registry import open_store

QUICK = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002, seed=1)
OPTIONS = StoreOptions(retry=QUICK, chunk_bytes=256 << 10)
SESSION = "/upload/.*"


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictGcs]:
    with StrictGcs() as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield gcs


@pytest.fixture
def store(gcs: StrictGcs) -> Iterator[Store]:
    with open_store("gs://bucket/a/b", OPTIONS) as store:
        yield store


@pytest.fixture
def big(tmp_path: Path):
    """An instance of five chunks of 256 KiB."""
    return write_part10(tmp_path / "big", frames=4, frame_bytes=300_000)


class TestStrictGcs(ObjectStoreContract):
    @pytest.fixture
    def store(self, gcs):
        with open_store("gs://bucket/some/prefix/", OPTIONS) as store:
            yield store


class TestBucketWithoutPrefix(ObjectStoreContract):
    @pytest.fixture
    def store(self, gcs):
        with open_store("gs://bucket", OPTIONS) as store:
            yield store


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    yield f"http://127.0.0.1:{server._api._httpd.server_address[1]}"
    server.stop()


def test_what_is_sent_is_what_is_there(gcs: StrictGcs, store: Store, big) -> None:
    stored = store.put(big).stored
    data = big.path.read_bytes()
    crc32c = google_crc32c.Checksum(data).digest()
    assert gcs.data(f"a/b/{big.object_name}") == data
    assert stored.crc32c == crc32c.hex()
    assert stored.md5 == big.md5
    assert stored.generation == str(gcs.objects[f"a/b/{big.object_name}"].generation)
    (session,) = gcs.sessions.values()
    assert session.wanted["crc32c"] == base64.b64encode(crc32c).decode()
    assert session.wanted["md5Hash"] == base64.b64encode(bytes.fromhex(big.md5)).decode()
    assert session.wanted["metadata"] == {"md5": big.md5}
    assert gcs.objects[f"a/b/{big.object_name}"].content_type == "application/dicom"
    assert session.match == 0


def test_memory_is_bounded_by_chunks(gcs: StrictGcs, store: Store, big) -> None:
    store.put(big)
    assert len(gcs.session_chunks) == 5
    assert max(gcs.session_chunks) == 256 << 10


def test_what_is_there_is_not_sent_again(gcs: StrictGcs, store: Store, big) -> None:
    store.put(big)
    before = gcs.count("PUT|POST")
    assert store.put(big).outcome is PutOutcome.ALREADY_THERE
    assert gcs.count("PUT|POST") == before


def put_behind_its_back(gcs: StrictGcs, other) -> None:
    """Have somebody else put an object between the look for the name and the upload."""

    def put(request) -> None:
        if request.method == "POST":
            gcs.before = lambda request: None
            with open_store("gs://bucket/a/b", OPTIONS) as second:
                second.put(other)

    gcs.before = put


@pytest.mark.parametrize("skip", [0, 1])
def test_same_content_that_somebody_else_put_meanwhile_is_already_there(gcs, store, big, skip) -> None:
    put_behind_its_back(gcs, big)
    assert store.put(big).outcome is PutOutcome.ALREADY_THERE
    assert len(gcs.objects) == 1


def test_other_content_that_somebody_else_put_meanwhile_is_a_conflict_and_stays(gcs, store, big, tmp_path) -> None:
    other = write_part10(tmp_path / "other", frames=2)
    assert other.object_name == big.object_name
    put_behind_its_back(gcs, other)
    sent: list[int] = []
    with pytest.raises(ConflictError):
        store.put(big, sent.append)
    assert sum(sent) == 0
    assert gcs.data(f"a/b/{big.object_name}") == other.path.read_bytes()


def test_name_taken_before_the_last_chunk_is_noticed(gcs: StrictGcs, store: Store, big, tmp_path: Path) -> None:
    other = write_part10(tmp_path / "other", frames=2)

    def put(request) -> None:
        if request.method == "PUT":
            gcs.before = lambda request: None
            with open_store("gs://bucket/a/b", OPTIONS) as second:
                second.put(other)

    gcs.before = put
    with pytest.raises(ConflictError):
        store.put(big)
    assert gcs.data(f"a/b/{big.object_name}") == other.path.read_bytes()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", status=503, times=2),
        Fault("PUT", status=429, headers={"Retry-After": "0"}, skip=2),
        Fault("PUT", status=500, skip=4, times=3),
        Fault("PUT", status=408),
        Fault("PUT", drop_request=True),
        Fault("PUT", read_bytes=100_000, drop_request=True, skip=1),
        Fault("PUT", drop_response=True, skip=1, times=2),
        Fault("PUT", drop_response=True, skip=4),
        Fault("PUT", status=404, skip=2),
        Fault("PUT", status=410, skip=3),
        Fault("POST", status=503),
        Fault("POST", drop_response=True),
        Fault("POST", drop_request=True),
        Fault("GET", status=503),
        Fault("GET", drop_request=True),
        Fault("PUT", status=200, body=b"<html>", skip=1),
    ],
    ids=str,
)
def test_what_passes_is_tried_again(gcs: StrictGcs, store: Store, big, fault: Fault) -> None:
    gcs.faults.append(fault)
    sent: list[int] = []
    assert store.put(big, sent.append).outcome is PutOutcome.STORED
    assert fault.times == 0
    assert sum(sent) == big.size_bytes
    assert gcs.data(f"a/b/{big.object_name}") == big.path.read_bytes()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_retry_after_is_waited_for(gcs: StrictGcs, store: Store, big, monkeypatch, method: str) -> None:
    waits: list[float] = []
    monkeypatch.setattr(store._retrier, "_sleep", waits.append)
    gcs.faults.append(Fault(method, status=429, headers={"Retry-After": "37"}))
    store.put(big)
    assert len(waits) == 1
    assert 37 <= waits[0] < 38


def test_a_server_that_does_not_answer_in_time_is_tried_again(gcs: StrictGcs, big) -> None:
    gcs.faults.append(Fault("PUT", delay_s=1.2, skip=1))
    options = StoreOptions(retry=QUICK, chunk_bytes=256 << 10, read_timeout_s=0.8)
    with open_store("gs://bucket/a/b", options) as store:
        assert store.put(big).outcome is PutOutcome.STORED
    assert gcs.data(f"a/b/{big.object_name}") == big.path.read_bytes()


def test_after_a_reset_only_what_did_not_arrive_is_sent_again(gcs: StrictGcs, big) -> None:
    with SpoilingProxy(gcs.port, reset_after=[1_000_000] * 3) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        gcs.public_url = proxy.url
        with open_store("gs://bucket/a/b", OPTIONS) as store:
            store.put(big)
        assert proxy.resets == 1
        assert big.size_bytes < proxy.passed["up"] < big.size_bytes + (256 << 10) + 20_000
    assert gcs.data(f"a/b/{big.object_name}") == big.path.read_bytes()


@pytest.mark.parametrize("seed", range(6))
def test_resets_at_any_byte_lose_nothing(gcs: StrictGcs, big, seed: int) -> None:
    import random

    source = random.Random(seed)
    resets = [source.randrange(1, 500_000) for _ in range(4)]
    with SpoilingProxy(gcs.port, reset_after=resets) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        gcs.public_url = proxy.url
        with open_store("gs://bucket/a/b", OPTIONS) as store:
            store.put(big)
            assert store.compare(big).equal
    assert len(gcs.objects) == 1


def test_a_changed_byte_on_the_way_never_becomes_an_object(gcs: StrictGcs, big) -> None:
    with SpoilingProxy(gcs.port, corrupt_upload_at=[500_000]) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        gcs.public_url = proxy.url
        with open_store("gs://bucket/a/b", OPTIONS) as store:
            assert store.put(big).outcome is PutOutcome.STORED
        assert proxy.corrupted == 1
    assert len(gcs.sessions) == 2  # the first was refused by the server
    assert gcs.data(f"a/b/{big.object_name}") == big.path.read_bytes()


def test_what_is_always_changed_on_the_way_is_an_error(gcs: StrictGcs, big) -> None:
    places = range(300_000, 20_000_000, 400_000)
    with SpoilingProxy(gcs.port, corrupt_upload_at=places) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        gcs.public_url = proxy.url
        with open_store("gs://bucket/a/b", OPTIONS) as store, pytest.raises(StoreError, match="checksum"):
            store.put(big)
    assert gcs.objects == {}


def test_a_byte_changed_on_the_way_back_fails_the_download(gcs: StrictGcs, store: Store, big, tmp_path: Path) -> None:
    stored = store.put(big).stored
    with SpoilingProxy(gcs.port, corrupt_download_at=[600_000]) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        with open_store("gs://bucket/a/b", OPTIONS) as spoiled, pytest.raises(StoreError, match="crc32c") as caught:
            spoiled.download(stored, tmp_path / "down.dcm")
    assert caught.value.retryable
    assert not (tmp_path / "down.dcm").exists()


def test_composite_objects_without_md5_are_compared_by_crc32c(gcs: StrictGcs, store: Store, big) -> None:
    store.put(big)
    gcs.objects[f"a/b/{big.object_name}"].is_composite = True
    comparison = store.compare(big)
    assert comparison.equal
    assert "crc32c" in comparison.compared
    assert store.find(big).md5 is None


@pytest.mark.parametrize("status", [400, 403, 409, 413])
def test_what_is_refused_is_not_tried_again(gcs: StrictGcs, store: Store, big, status: int) -> None:
    gcs.faults.append(Fault("POST", status=status, times=-1))
    with pytest.raises(StoreError, match=str(status)) as caught:
        store.put(big)
    assert not caught.value.retryable
    assert gcs.count("POST") == 1


def test_patience_ends(gcs: StrictGcs, store: Store, big) -> None:
    gcs.faults.append(Fault("PUT", status=503, times=-1))
    sent: list[int] = []
    with pytest.raises(StoreError, match="503") as caught:
        store.put(big, sent.append)
    assert caught.value.retryable
    assert gcs.count("PUT") == QUICK.attempts
    assert sum(sent) == 0


def test_a_bucket_that_does_not_exist_is_an_error(gcs: StrictGcs, big) -> None:
    with open_store("gs://other-bucket", OPTIONS) as store:
        with pytest.raises(StoreError, match="404"):
            store.put(big)
        with pytest.raises(StoreError, match="404"):
            list(store.iter_objects())


def test_an_expired_token_is_renewed_in_mid_upload(gcs: StrictGcs, big, tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = tmp_path / "token.py"
    script.write_text(f"p = {str(count)!r}\nopen(p, 'a').write('x')\nprint('token-%d' % len(open(p).read()))\n")
    gcs.tokens = {"Bearer token-1"}

    def expire(request) -> None:
        if request.method == "PUT" and gcs.count("PUT") == 3:
            gcs.tokens = {"Bearer token-2"}

    gcs.before = expire
    credentials = TokenFromCommand((sys.executable, str(script)))
    with open_store(
        "gs://bucket/a/b", StoreOptions(retry=QUICK, chunk_bytes=256 << 10, credentials=credentials)
    ) as store:
        assert store.put(big).outcome is PutOutcome.STORED
    assert count.read_text() == "xx"
    assert gcs.data(f"a/b/{big.object_name}") == big.path.read_bytes()


def test_a_token_that_is_refused_fails_at_once_and_is_not_shown(gcs, big, monkeypatch, caplog) -> None:
    import logging
    import traceback

    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOKEN", "s3cret-t0ken")
    gcs.tokens = {"Bearer another"}
    options = StoreOptions(retry=QUICK, credentials=TokenFromEnvironment("TOKEN"))
    with open_store("gs://bucket/a/b", options) as store, pytest.raises(StoreError, match="401") as caught:
        store.put(big)
    assert not caught.value.retryable
    assert len(gcs.log) == 1
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(options)


def test_session_urls_are_not_shown(gcs: StrictGcs, store: Store, big, caplog) -> None:
    import traceback

    gcs.faults.append(Fault("PUT", drop_request=True, times=-1))
    with pytest.raises(StoreError) as caught:
        store.put(big)
    (key,) = gcs.sessions
    assert key not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["gs://", "gs://B", "gs:///x", "gs://ab/", "gs://a b/c"])
def test_urls_without_a_bucket_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="gs://bucket"):
        open_store(url)


def test_plain_http_to_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.test:80")
    with pytest.raises(UsageError, match="plain HTTP"):
        open_store("gs://bucket")
    open_store("gs://bucket", StoreOptions(allow_plain_http=True)).close()


class TestEmulator(ObjectStoreContract):
    """The emulator ignores preconditions and sums, so it shows the transfer alone."""

    @pytest.fixture
    def store(self, emulator, monkeypatch, request):
        from google.cloud import storage

        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
        name = f"bucket-{abs(hash(request.node.name))}"
        with storage.Client(project="test") as client:
            client.create_bucket(name)
        with open_store(f"gs://{name}/prefix", OPTIONS) as store:
            yield store

    test_small_object_is_swapped_for_the_version_that_is_there_and_no_other = None  # it heeds no preconditions
    test_of_several_who_swap_at_once_one_gets_through = None


def test_a_small_object_that_somebody_else_put_meanwhile_is_not_overwritten(gcs: StrictGcs, store: Store) -> None:
    store.put_bytes("list", b"one")

    def put(request) -> None:
        if request.method == "POST":
            gcs.before = lambda request: None
            with open_store("gs://bucket/a/b", OPTIONS) as second:
                second.put_bytes("list", b"two")

    gcs.before = put
    with pytest.raises(ConflictError, match="somebody else"):
        store.put_bytes("list", b"three")
    assert gcs.data("a/b/list") == b"two"


def test_an_object_that_took_the_place_of_another_is_not_removed_for_it(gcs: StrictGcs, store: Store) -> None:
    store.put_bytes("list", b"one")
    stored = store.find_object("list")
    store.put_bytes("list", b"two")
    with pytest.raises(ConflictError, match="another object"):
        store.remove(stored)
    assert gcs.data("a/b/list") == b"two"


def test_an_object_that_the_server_sums_up_otherwise_is_removed(gcs: StrictGcs, store: Store, big, monkeypatch) -> None:
    finish = StrictGcs._finish

    def finish_wrong(self, session):
        response = finish(self, session)
        response.body = response.body.replace(b'"crc32c": "', b'"crc32c": "AAAAAA==", "was": "')
        return response

    monkeypatch.setattr(StrictGcs, "_finish", finish_wrong)
    with pytest.raises(StoreError, match="other bytes arrived") as caught:
        store.put(big)
    assert caught.value.retryable
    assert gcs.objects == {}
