"""Workers as processes of their own, and messages to them as Pub/Sub and Eventarc send them."""

from __future__ import annotations

import base64
import http.client
import json
import queue
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from tests.pipeline.conftest import start, write_slide

from coverslip.stores.local import LocalStore

FORMS = ("wrapped", "unwrapped", "structured", "binary")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass(frozen=True)
class Message:
    """What a bucket tells of an object."""

    bucket: str
    name: str
    generation: str = ""
    event: str = "OBJECT_FINALIZE"
    identity: str = "1"
    attempt: int = 0
    attributes: dict[str, str] = field(default_factory=dict)

    def resource(self) -> dict[str, str]:
        told = {"kind": "storage#object", "bucket": self.bucket, "name": self.name, "generation": self.generation}
        return {name: value for name, value in told.items() if value}

    def as_request(self, form: str) -> tuple[dict[str, str], bytes]:
        """Return headers and body."""
        resource = json.dumps(self.resource()).encode()
        attributes = {
            "bucketId": self.bucket,
            "objectId": self.name,
            "objectGeneration": self.generation,
            "eventType": self.event,
            "payloadFormat": "JSON_API_V1",
            **self.attributes,
        }
        types = {"OBJECT_FINALIZE": "finalized", "OBJECT_DELETE": "deleted"}
        kind = f"google.cloud.storage.object.v1.{types[self.event]}"
        source = f"//storage.googleapis.com/projects/_/buckets/{self.bucket}"
        if form == "wrapped":
            message = {
                "data": base64.b64encode(resource).decode(),
                "messageId": self.identity,
                "attributes": attributes,
            }
            told: dict[str, Any] = {"message": message, "subscription": "projects/p/subscriptions/s"}
            if self.attempt:
                told["deliveryAttempt"] = self.attempt
            return {"Content-Type": "application/json"}, json.dumps(told).encode()
        if form == "unwrapped":
            headers = {name: value for name, value in attributes.items() if value and name != "objectId"}
            return {"Content-Type": "application/json", "x-goog-pubsub-message-id": self.identity, **headers}, resource
        if form == "structured":
            told = {"specversion": "1.0", "id": self.identity, "type": kind, "source": source,
                    "subject": f"objects/{self.name}", "datacontenttype": "application/json",
                    "data": self.resource()}  # fmt: skip
            return {"Content-Type": "application/cloudevents+json; charset=utf-8"}, json.dumps(told).encode()
        headers = {"ce-specversion": "1.0", "ce-id": self.identity, "ce-type": kind, "ce-source": source,
                   "Content-Type": "application/json"}  # fmt: skip
        return headers, resource


@dataclass(frozen=True)
class Answered:
    """What a worker answered."""

    status: int
    told: dict[str, Any]


class Service:
    """A worker that runs."""

    def __init__(self, *arguments: object, **variables: str) -> None:
        self.process: subprocess.Popen[str] = start(
            "worker", "--port", 0, "--log-format", "json", "--validate", "off", "--set", "PatientID=P1", "--workers", 1,
            *arguments, **variables,
        )  # fmt: skip
        self.lines: list[dict[str, Any]] = []
        self.strays: list[str] = []
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        try:
            self.port = self.wait_for("listening on port")["port"]
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            try:
                line = json.loads(text)
            except ValueError:
                self.strays.append(text)
                continue
            self.lines.append(line)
            self._queue.put(line)
        self._queue.put(None)

    def wait_for(self, message: str) -> dict[str, Any]:
        """Return the next line that has a text in its message."""
        while (line := self._queue.get(timeout=60)) is not None:
            if message in line["message"]:
                return line
        pytest.fail(f"ended without {message!r}: {self.strays} {self.lines}")

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if message in line["message"]]

    def send(
        self, message: Message, form: str = "wrapped", timeout: float = 120, headers: dict[str, str] | None = None
    ) -> Answered:
        own, body = message.as_request(form)
        return self.request("POST", "/", body, {**own, **(headers or {})}, timeout)

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, timeout: float = 120
    ) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        try:
            return Answered(response.status, json.loads(content))
        except ValueError:
            return Answered(response.status, {"text": content.decode()})

    def end(self) -> int:
        """Stop it as Cloud Run does, and return its exit code."""
        self.process.terminate()
        code = self.process.wait(timeout=20)
        self._thread.join(20)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=20)
        self._thread.join(20)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Place:
    """A folder that slides arrive in, and where workers put things."""

    root: Path

    @property
    def slides(self) -> Path:
        return self.root / "arriving"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def state(self) -> Path:
        return self.root / "state"

    def worker(self, name: str = "one", *arguments: object, **variables: str) -> Service:
        work = self.root / f"work-{name}"
        return Service("--slides", self.slides, "--to", self.store, "--state", self.state, "--work", work, *arguments,
                       **variables)  # fmt: skip

    def message(self, name: str, **changes: Any) -> Message:
        """Return the message about a file that is there now."""
        stored = LocalStore(self.slides).find_object(name)
        generation = (stored.generation or "") if stored else "gone"
        return Message(self.slides.name, name, **({"generation": generation} | changes))

    def states(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_bytes()) for path in sorted((self.state / "slides").glob("*.json"))]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.slides.mkdir()
    return place


@pytest.fixture
def one_slide(place: Place) -> Place:
    write_slide(place.slides / "slide.svs", 1)
    return place
