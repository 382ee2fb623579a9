"""What messages tell, in every form in which they come."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.worker.conftest import FORMS, Message

from coverslip.errors import StoreError, UsageError
from coverslip.pipeline.failures import Problem
from coverslip.worker.events import ObjectEvent, names_of, parse_event
from coverslip.worker.traces import Trace, read_trace

JSON = {"content-type": "application/json"}


def parse(message: Message, form: str) -> ObjectEvent:
    headers, body = message.as_request(form)
    return parse_event({name.lower(): value for name, value in headers.items()}, body)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_tells_the_same(form: str) -> None:
    event = parse(Message("bucket", "fälle/a b.svs", "17", identity="m1"), form)
    assert event == ObjectEvent("bucket", "fälle/a b.svs", "17", True, "m1")


def test_unwrapped_message_without_metadata_is_the_object_alone() -> None:
    body = b'{"kind": "storage#object", "bucket": "b", "name": "n.svs", "generation": "3"}'
    assert parse_event(JSON, body) == ObjectEvent("b", "n.svs", "3")


@pytest.mark.parametrize("form", FORMS)
def test_object_that_is_gone_is_none_that_has_come(form: str) -> None:
    assert not parse(Message("bucket", "a.svs", "17", event="OBJECT_DELETE"), form).is_new


def test_wrapped_message_tells_how_often_it_came_and_whether_to_try_again() -> None:
    event = parse(Message("bucket", "a.svs", attempt=4, attributes={"retry": "failed"}), "wrapped")
    assert (event.delivery_attempt, event.retry) == (4, True)


def test_attributes_suffice_where_there_is_no_payload() -> None:
    attributes = {"bucketId": "b", "objectId": "n.svs", "objectGeneration": "3", "eventType": "OBJECT_FINALIZE",
                  "payloadFormat": "NONE"}  # fmt: skip
    body = json.dumps({"message": {"attributes": attributes, "messageId": "9"}}).encode()
    assert parse_event(JSON, body) == ObjectEvent("b", "n.svs", "3", True, "9")
    headers = {name.lower(): value for name, value in attributes.items()}
    assert parse_event({"x-goog-pubsub-message-id": "9", **headers}, b"") == ObjectEvent("b", "n.svs", "3", True, "9")


def test_eventarc_over_a_topic_of_ones_own_wraps_the_message_in_an_event() -> None:
    data = base64.b64encode(b'{"bucket": "b", "name": "n.svs", "generation": "3"}').decode()
    message = {"message": {"data": data, "messageId": "9", "attributes": {"eventType": "OBJECT_FINALIZE"}}}
    kind = "google.cloud.pubsub.topic.v1.messagePublished"
    binary = {"ce-type": kind, "ce-id": "1", "ce-source": "//pubsub", "content-type": "application/json"}
    structured = {"type": kind, "id": "1", "source": "//pubsub", "specversion": "1.0", "data": message}
    expected = ObjectEvent("b", "n.svs", "3", True, "9")
    assert parse_event(binary, json.dumps(message).encode()) == expected
    assert parse_event({"content-type": "application/cloudevents+json"}, json.dumps(structured).encode()) == expected


def test_data_of_a_structured_event_may_come_in_base64() -> None:
    told = {"type": "google.cloud.storage.object.v1.finalized", "id": "1", "source": "//s", "specversion": "1.0",
            "data_base64": base64.b64encode(b'{"bucket": "b", "name": "n"}').decode()}  # fmt: skip
    event = parse_event({"content-type": "application/cloudevents+json"}, json.dumps(told).encode())
    assert (event.bucket, event.name) == ("b", "n")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b"\xff\xfe"),
        (JSON, b"[" * 100_000),
        (JSON, b'{"bucket": "b"}'),
        (JSON, b'{"bucket": "", "name": "n"}'),
        (JSON, b'{"bucket": ["b"], "name": {"n": 1}}'),
        (JSON, json.dumps({"bucket": "b", "name": "n" * 1025}).encode()),
        (JSON, b'{"message": {"data": "%%%"}}'),
        (JSON, b'{"message": {"data": 5}}'),
        (JSON, b'{"message": {"attributes": []}}'),
        (JSON, b'{"message": {"attributes": ["x"]}}'),
        ({"content-type": "application/cloudevents+json"}, b'{"type": "t", "data": "text"}'),
        ({"content-type": "application/cloudevents+json"}, b'{"data": {"bucket": "b", "name": "n"}}'),
        ({"content-type": "application/cloudevents-batch+json"}, b"[]"),
        ({"ce-type": "google.cloud.pubsub.topic.v1.messagePublished"}, b'{"message": "x"}'),
    ],
)
def test_what_is_no_message_about_an_object_is_refused_without_repeating_it(headers: Any, body: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        parse_event(headers, body)
    assert len(str(caught.value)) < 80


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}, Trace("ab" * 16, "cd" * 8, True)),
        ({"traceparent": f"cc-{'ab' * 16}-{'cd' * 8}-00-what"}, Trace("ab" * 16, "cd" * 8)),
        ({"x-cloud-trace-context": f"{'AB' * 16}/255;o=1"}, Trace("ab" * 16, f"{255:016x}", True)),
        ({"x-cloud-trace-context": "ab" * 16}, Trace("ab" * 16)),
        ({"x-cloud-trace-context": f"{'ab' * 16}/0;o=0"}, Trace("ab" * 16)),
        ({"traceparent": f"00-{'0' * 32}-{'cd' * 8}-01", "x-cloud-trace-context": "ab" * 16}, Trace("ab" * 16)),
        ({"traceparent": "00-x", "x-cloud-trace-context": "../../etc"}, Trace()),
        ({}, Trace()),
    ],
)
def test_trace_is_that_of_the_request(headers: dict[str, str], trace: Trace) -> None:
    assert read_trace(headers) == trace


@pytest.mark.parametrize(
    "told", ["slides/DOE^JOHN/S1.svs", "DOE^JOHN/S1.svs", "S1.svs", "slides/DOE^JOHN/S1/", "DOE^JOHN/S1/", "S1/"]
)
def test_an_error_does_not_tell_the_objects_name_whole_or_below_a_prefix(told: str) -> None:
    problem = Problem.of(StoreError(f"{told}: the store does not answer"), names_of("slides/DOE^JOHN/S1.svs"))
    assert problem.message == "slide: the store does not answer"
