"""S3, as moto serves it."""

from __future__ import annotations

import hashlib
import logging
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contracts.store import ObjectStoreContract
from tests.factories.part10 import write_part10
from tests.stores.fakes.http_server import FakeServer, Request, Response
from tests.stores.fakes.proxy import SpoilingProxy
from tests.stores.test_dicomweb import every_text

from coverslip.errors import ConflictError, StoreError, UsageError
from coverslip.stores.base import PutOutcome, Store
from coverslip.stores.options import ClientCertificate, RetryPolicy, StoreOptions, TokenFromEnvironment
from coverslip.stores.registry import open_store

QUICK = RetryPolicy(attempts=4, first_wait_s=0.001, longest_wait_s=0.002, seed=1)
MIB = 1 << 20


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    with urllib.request.urlopen(urllib.request.Request(f"{s3}/moto-api/reset", method="POST"), timeout=10):
        pass
    with urllib.request.urlopen(urllib.request.Request(f"{s3}/bucket", method="PUT"), timeout=10):
        pass
    return "s3://bucket"


@pytest.fixture
def store(bucket: str) -> Iterator[Store]:
    with open_store(f"{bucket}/a/b", StoreOptions(retry=QUICK, chunk_bytes=5 * MIB)) as store:
        yield store


@pytest.fixture
def big(tmp_path: Path):
    """An instance of three parts."""
    return write_part10(tmp_path / "big", frames=3, frame_bytes=4 * MIB)


class TestS3(ObjectStoreContract):
    @pytest.fixture
    def store(self, bucket):
        with open_store(f"{bucket}/some/prefix", StoreOptions(retry=QUICK)) as store:
            yield store


class TestS3WithoutPrefix(ObjectStoreContract):
    @pytest.fixture
    def store(self, bucket):
        with open_store(bucket, StoreOptions(retry=QUICK)) as store:
            yield store


def test_an_instance_larger_than_a_part_goes_in_parts_and_its_tag_is_that_of_the_parts(store, big) -> None:
    sent: list[int] = []
    stored = store.put(big, sent.append).stored
    data = big.path.read_bytes()
    parts = [data[start : start + 5 * MIB] for start in range(0, len(data), 5 * MIB)]
    tag = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    assert stored.generation == f'"{tag}-3"'
    assert sum(sent) == big.size_bytes
    comparison = store.compare(big)
    assert comparison.equal
    assert comparison.compared == ("size", "md5 of parts")
    assert store.put(big).outcome is PutOutcome.ALREADY_THERE


def test_parts_of_another_size_are_compared_by_reading_the_object(store, bucket, big) -> None:
    store.put(big)
    with open_store(f"{bucket}/a/b", StoreOptions(retry=QUICK, chunk_bytes=6 * MIB)) as other:
        comparison = other.compare(big)
        assert comparison.equal
        assert comparison.compared == ("size", "md5")
        assert other.put(big).outcome is PutOutcome.ALREADY_THERE


def test_there_are_never_more_parts_than_s3_takes(store) -> None:
    for size_bytes in (1, 48_828_125_000, 5 << 40):
        part_bytes = store._part_bytes(size_bytes)
        assert part_bytes >= 5 * MIB
        assert size_bytes / part_bytes < 10_000


@pytest.mark.parametrize("large", [False, True])
def test_a_byte_changed_on_the_way_does_not_stay(s3, bucket, tmp_path, large) -> None:
    instance = write_part10(tmp_path / "x", frames=3, frame_bytes=4 * MIB if large else 100_000)
    with SpoilingProxy(int(s3.rpartition(":")[2]), corrupt_upload_at=[200_000]) as proxy:
        options = StoreOptions(retry=QUICK, chunk_bytes=5 * MIB, endpoint_url=proxy.url)
        with open_store(bucket, options) as spoiled:
            assert spoiled.put(instance).outcome is PutOutcome.STORED
        assert proxy.corrupted == 1
    with open_store(bucket, StoreOptions(retry=QUICK)) as store:
        assert store.read_bytes(instance.object_name) == instance.path.read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_resets_at_any_byte_lose_nothing(s3, bucket, big, seed) -> None:
    import random

    source = random.Random(seed)
    resets = [source.randrange(1, 6_000_000) for _ in range(3)]
    with SpoilingProxy(int(s3.rpartition(":")[2]), reset_after=resets) as proxy:
        options = StoreOptions(retry=QUICK, chunk_bytes=5 * MIB, endpoint_url=proxy.url)
        sent: list[int] = []
        with open_store(bucket, options) as spoiled:
            spoiled.put(big, sent.append)
            assert spoiled.compare(big).equal
        assert sum(sent) == big.size_bytes


def test_no_server_is_a_retryable_error(bucket, tmp_path) -> None:
    instance = write_part10(tmp_path)
    options = StoreOptions(retry=replace(QUICK, attempts=2), endpoint_url="http://127.0.0.1:9")
    with open_store(bucket, options) as store, pytest.raises(StoreError) as caught:
        store.put(instance)
    assert caught.value.retryable
    assert "s3cret" not in every_text(caught.value)


def test_a_bucket_that_does_not_exist_is_an_error(bucket, tmp_path) -> None:
    instance = write_part10(tmp_path)
    with open_store("s3://nothing", StoreOptions(retry=QUICK)) as store, pytest.raises(StoreError) as caught:
        store.put(instance)
    assert not caught.value.retryable


def test_small_objects_put_by_two_at_once_are_a_conflict(store, monkeypatch) -> None:
    store.put_bytes("x", b"one")
    there = store.find_object("x")
    store.put_bytes("x", b"two")
    monkeypatch.setattr(store, "find_object", lambda name: there)
    with pytest.raises(ConflictError):
        store.put_bytes("x", b"three")


class WithoutConditions(FakeServer):
    """Speaks as much S3 as a put of a small object takes, and answers 501 to conditions, as some services do."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        super().__init__()

    def answer(self, request: Request) -> Response:
        data = request.read_all()
        if request.method == "PUT":
            if "If-None-Match" in request.headers or "If-Match" in request.headers:
                return Response(501, b"<Error><Code>NotImplemented</Code></Error>")
            self.objects[request.path] = data
        if request.path not in self.objects:
            return Response(404)
        data = self.objects[request.path]
        headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
        if request.method == "PUT":
            return Response(200, b"", headers)
        return Response(200, iter(()), headers | {"Content-Length": str(len(data))})


def test_a_service_that_takes_no_conditions_is_served_without(bucket, tmp_path) -> None:
    instance = write_part10(tmp_path)
    with WithoutConditions() as service:
        with open_store(bucket, StoreOptions(retry=QUICK, endpoint_url=service.url)) as store:
            assert store.put(instance).outcome is PutOutcome.STORED
            store.put_bytes("small", b"one")
        with open_store(bucket, StoreOptions(retry=QUICK, endpoint_url=service.url)) as store:
            store.put_bytes("small", b"two")
        assert service.objects == {
            f"/bucket/{instance.object_name}": instance.path.read_bytes(),
            "/bucket/small": b"two",
        }


@pytest.mark.parametrize("url", ["s3://", "s3://Bucket", "s3:///x", "s3://a b"])
def test_urls_without_a_bucket_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="s3://bucket"):
        open_store(url)


@pytest.mark.parametrize(
    "options",
    [
        StoreOptions(credentials=TokenFromEnvironment("T")),
        StoreOptions(client_certificate=ClientCertificate(Path("x.pem"))),
        StoreOptions(endpoint_url="http://s3.test"),
        StoreOptions(endpoint_url="ftp://s3.test"),
    ],
    ids=str,
)
def test_options_that_s3_cannot_follow_are_refused(options: StoreOptions) -> None:
    with pytest.raises(UsageError):
        open_store("s3://bucket", options)
