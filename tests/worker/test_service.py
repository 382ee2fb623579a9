"""What a worker answers at its edges: to who may not send, to what is no message, and when slides fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt
from tests.factories.damage import truncate_half
from tests.pipeline.conftest import coverslip, write_slide
from tests.stores.fakes.gcs import StrictGcs
from tests.stores.fakes.http_server import FakeServer, Fault, Request, Response, as_json
from tests.worker.conftest import TRACEPARENT, Place, Service

from coverslip.errors import StoreError, UsageError
from coverslip.worker.tokens import TokenCheck, TokenRules

ACCOUNT = "push@project.iam.gserviceaccount.com"
AUDIENCE = "https://worker.example.org"


class Issuer(FakeServer):
    """Signs tokens, and gives the keys to check them by."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.signer = crypt.RSASigner.from_string(pem, "key-1")
        self.keys = {"key-1": public.decode()}
        self.asked = 0
        super().__init__()

    def answer(self, request: Request) -> Response:
        self.asked += 1
        return as_json(200, self.keys)

    def token(self, **claims: Any) -> str:
        now = int(time.time())
        told = {"iss": self.url, "aud": AUDIENCE, "email": ACCOUNT, "email_verified": True, "iat": now,
                "exp": now + 600}  # fmt: skip
        return jwt.encode(self.signer, {**told, **claims}).decode()


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def check(issuer: Issuer) -> TokenCheck:
    return TokenCheck(TokenRules(AUDIENCE, ACCOUNT, (issuer.url,), f"{issuer.url}/certs"))


def test_token_of_the_sender_is_taken_and_keys_are_asked_for_once(issuer: Issuer, check: TokenCheck) -> None:
    asked = issuer.asked
    for _ in range(3):
        check.require(f"Bearer {issuer.token()}")
    assert issuer.asked == asked + 1


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.example.org"},
        {"iss": "https://accounts.google.com"},
        {"email": "else@project.iam.gserviceaccount.com"},
        {"email_verified": False},
        {"exp": -60, "iat": -600},  # seconds from now
        {"iat": 600, "exp": 900},
    ],
)
def test_other_tokens_are_refused(issuer: Issuer, check: TokenCheck, claims: dict[str, Any]) -> None:
    now = int(time.time())
    claims = {name: value + now if name in ("iat", "exp") else value for name, value in claims.items()}
    with pytest.raises(UsageError):
        check.require(f"Bearer {issuer.token(**claims)}")


def test_forged_and_broken_tokens_are_refused_and_not_repeated(issuer: Issuer, check: TokenCheck) -> None:
    good = issuer.token()
    head, body, mark = good.split(".")
    with Issuer() as other:
        other.signer._key_id = "key-1"
        forged = other.token(iss=issuer.url)
    unsigned = f"{head}.{body}."
    for text in ("", "Basic x", "Bearer ", "Bearer x", f"Bearer {forged}", f"Bearer {unsigned}",
                 f"Bearer {head}.{body}.{mark[:-8]}AAAAAAAA"):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            check.require(text)
        assert "ey" not in str(caught.value)


def test_keys_that_cannot_be_had_are_an_error_that_may_pass(issuer: Issuer) -> None:
    check = TokenCheck(TokenRules(AUDIENCE, certificates_url="http://127.0.0.1:9/certs"))
    with pytest.raises(StoreError) as caught:
        check.require(f"Bearer {issuer.token()}")
    assert caught.value.retryable


@pytest.fixture(scope="module")
def gcs() -> Iterator[StrictGcs]:
    with StrictGcs() as gcs:
        yield gcs


@pytest.fixture(scope="module")
def guarded(
    issuer: Issuer, gcs: StrictGcs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Place, Service]]:
    """A worker that takes only what the issuer's account sends."""
    place = Place(tmp_path_factory.mktemp("guarded"))
    place.slides.mkdir()
    with place.worker("one", "--push-audience", AUDIENCE, "--push-account", ACCOUNT, "--push-issuer", issuer.url,
                      "--push-certificates", f"{issuer.url}/certs", "--attempts", 2, "--to", "gs://bucket/dicom",
                      "--credentials", "none", STORAGE_EMULATOR_HOST=gcs.url) as service:  # fmt: skip
        yield place, service


def signed(issuer: Issuer, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {issuer.token(**claims)}"}


def test_who_may_not_send_is_told_so(guarded: tuple[Place, Service], issuer: Issuer) -> None:
    place, service = guarded
    message = place.message("none.svs")
    assert service.send(message).status == 401
    assert service.send(message, headers=signed(issuer, aud="x")).status == 401
    assert service.send(message, headers=signed(issuer)).told["reason"] == "gone meanwhile"
    assert service.request("GET", "/live").status == 200  # who watches over it has no token


def test_what_is_no_message_is_told_so_and_not_repeated(guarded: tuple[Place, Service], issuer: Issuer) -> None:
    _, service = guarded
    own = signed(issuer)
    assert service.request("POST", "/", b'{"secret"', own).status == 400
    assert service.request("POST", "/", b"x" * ((1 << 20) + 1), own).status == 413
    assert service.request("POST", "/elsewhere", b"{}", own).status == 404
    assert service.request("GET", "/").status == 405
    assert service.request("GET", "/docs").status == 404
    assert service.request("GET", "/ready").told == {"status": "ready", "busy": False}
    assert not any("secret" in json.dumps(line) for line in service.lines)


def test_slide_that_is_damaged_is_given_up_at_once_and_told_of(guarded: tuple[Place, Service], issuer: Issuer) -> None:
    place, service = guarded
    truncate_half(write_slide(place.slides / "Muster-damaged.svs", 1))
    message = place.message("Muster-damaged.svs")
    headers = signed(issuer) | {"traceparent": TRACEPARENT}
    first = service.send(message, headers=headers)
    assert (first.status, first.told["outcome"]) == (200, "given up")
    again = service.send(message, "binary", headers=signed(issuer))
    assert (again.status, again.told["reason"]) == (200, "given up before")
    assert len(service.said("convert begun")) == 1
    (letter,) = (json.loads(path.read_bytes()) for path in (place.state / "dead-letters").glob("*.json"))
    assert (letter["error_class"], letter["stage"], letter["slide"]) == (
        "CorruptSourceError",
        "convert",
        first.told["slide"],
    )
    assert letter["generation"] == message.generation
    told = next(line for line in service.lines if line.get("outcome") == "given up")
    assert told["severity"] == "ERROR"
    own = [line for line in service.lines if line.get("logging.googleapis.com/trace") == TRACEPARENT.split("-")[1]]
    assert {"slide begun", "convert begun"} <= {line["message"] for line in own}
    assert {line["logging.googleapis.com/spanId"] for line in own} == {TRACEPARENT.split("-")[2]}
    assert not any("Muster" in json.dumps(line) for line in service.lines)
    status = coverslip("status", place.state, "--json").told
    assert status["failures_by_class"] == {"CorruptSourceError": 1}
    retry = service.send(place.message("Muster-damaged.svs", attributes={"retry": "failed"}), headers=signed(issuer))
    assert retry.told["outcome"] == "given up"
    assert len(service.said("convert begun")) == 2


def test_store_that_fails_has_messages_come_again_until_there_were_enough(
    guarded: tuple[Place, Service], gcs: StrictGcs, issuer: Issuer
) -> None:
    place, service = guarded
    write_slide(place.slides / "other.svs", 2)
    gcs.faults.append(Fault(status=403, times=-1))
    first = service.send(place.message("other.svs"), headers=signed(issuer))
    assert (first.status, first.told["outcome"]) == (503, "later")
    assert "attempt 1" in first.told["reason"]
    second = service.send(place.message("other.svs"), headers=signed(issuer))
    assert (second.status, second.told["outcome"]) == (200, "given up")
    gcs.faults.clear()
    third = service.send(place.message("other.svs", attributes={"retry": "failed"}), headers=signed(issuer))
    assert (third.status, third.told["reason"]) == (200, "done now")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--push-account", "x"], "--push-audience"),
        (["--push-audience", "x", "--push-issuer", "y"], "wanted both or none"),
        (["--push-audience", "x", "--push-issuer", "y", "--push-certificates", "http://example.org/c"], "plain HTTP"),
        (["--stages", "convert"], "wanted with upload"),
        (["--slides", "s3://bucket"], "wanted gs://bucket or a folder"),
        (["--stages", "index"], "--catalog"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str], text: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from coverslip.cli import cli

    base = ["worker", "--slides", str(tmp_path), "--to", str(tmp_path / "to"), "--state", str(tmp_path / "state"),
            "--work", str(tmp_path / "work")]  # fmt: skip
    result = CliRunner().invoke(cli, base + arguments)
    assert isinstance(result.exception, UsageError)
    assert text in str(result.exception)


def test_messages_of_a_bucket_are_left_to_the_worker_that_is_for_their_folder() -> None:
    from coverslip.stores.options import Anonymous, StoreOptions
    from coverslip.stores.registry import open_store
    from coverslip.worker.events import ObjectEvent
    from coverslip.worker.intake import SlideSourceFolder

    with open_store("gs://bucket/a/b", StoreOptions(credentials=Anonymous())) as store:
        source = SlideSourceFolder(store)  # type: ignore[arg-type]
        assert source.relative_name(ObjectEvent("bucket", "a/b/c.svs")) == "c.svs"
        assert source.relative_name(ObjectEvent("bucket", "a/bc.svs")) is None
        assert source.relative_name(ObjectEvent("bucke", "a/b/c.svs")) is None
