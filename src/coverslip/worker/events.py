"""What a message says of an object: Pub/Sub push, wrapped or not, and Eventarc's CloudEvents, structured or binary.

References: https://cloud.google.com/pubsub/docs/push, https://cloud.google.com/pubsub/docs/payload-unwrapping,
https://cloud.google.com/storage/docs/pubsub-notifications,
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from coverslip.errors import UsageError

__all__ = ["ObjectEvent", "names_of", "parse_event"]

_CREATED = frozenset(
    {"OBJECT_FINALIZE", "google.cloud.storage.object.v1.finalized", "google.storage.object.finalize", ""}
)
"""Types of a new object or generation; without a type, as in unwrapped messages without metadata, it may be one."""

_PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
_LONGEST_NAME_BYTES = 1024


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """One message about one object.

    Parameters
    ----------
    bucket, name : str
    generation : str
        Empty if it is not told.
    is_new : bool
        Whether an object or generation has come, and none has gone or changed its metadata.
    message_id : str
    delivery_attempt : int
        How often the message was delivered, this time included; 0 if that is not told.
    retry : bool
        Whether a slide that was given up is to be tried again: the attribute ``retry`` is ``failed``.
    """

    bucket: str
    name: str
    generation: str = ""
    is_new: bool = True
    message_id: str = ""
    delivery_attempt: int = 0
    retry: bool = False


def names_of(name: str) -> dict[str, str]:
    """Return what may not be told of an object: its name below any prefix, with its ending, without, as a folder."""
    stem = name.rpartition(".")[0] or name
    tails = {whole.split("/", at)[-1] for whole in (name, stem, f"{stem}/") for at in range(whole.count("/") + 1)}
    return {tail: "slide" for tail in tails if len(tail) > 1}


def parse_event(headers: Mapping[str, str], body: bytes) -> ObjectEvent:
    """Return what a request tells.

    Parameters
    ----------
    headers : mapping
        Names in lower case.
    body : bytes

    Raises
    ------
    UsageError
        If it is no message about an object. Nothing of it is repeated.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/cloudevents+json":
        return _parse_structured(_parse_object(body))
    if kind == "application/cloudevents-batch+json":
        raise UsageError("a batch of CloudEvents: wanted one for each request")
    if "ce-type" in headers:
        attributes = {name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")}
        return _parse_cloud_event(attributes, _parse_object(body))
    if not body.strip():
        return _of_notification(headers, {}, headers.get("x-goog-pubsub-message-id", ""), 0)
    told = _parse_object(body)
    if isinstance(told.get("message"), dict):
        return _parse_wrapped(told)
    return _of_notification(headers, told, headers.get("x-goog-pubsub-message-id", ""), 0)


def _parse_structured(told: Mapping[str, Any]) -> ObjectEvent:
    data = told.get("data")
    if data is None and isinstance(told.get("data_base64"), str):
        data = _parse_object(_decode(told["data_base64"]))
    if not isinstance(data, dict):
        raise UsageError("a CloudEvent without data that are an object of JSON")
    return _parse_cloud_event({name: value for name, value in told.items() if isinstance(value, str)}, data)


def _parse_cloud_event(attributes: Mapping[str, str], data: Mapping[str, Any]) -> ObjectEvent:
    kind, identity = attributes.get("type", ""), attributes.get("id", "")
    if kind == _PUBLISHED:
        return _parse_wrapped(data)
    if not kind:
        raise UsageError("a CloudEvent without a type")
    bucket = _text(data.get("bucket")) or attributes.get("source", "").rpartition("/buckets/")[2]
    name = _text(data.get("name")) or unquote(attributes.get("subject", "").partition("objects/")[2])
    return _checked(ObjectEvent(bucket, name, _text(data.get("generation")), kind in _CREATED, identity))


def _parse_wrapped(told: Mapping[str, Any]) -> ObjectEvent:
    message = told.get("message")
    if not isinstance(message, dict):
        raise UsageError("a Pub/Sub push without a message")
    attributes = message.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise UsageError("a Pub/Sub message whose attributes are no object of JSON")
    data = message.get("data") or ""
    described = _parse_object(_decode(data)) if data and attributes.get("payloadFormat") != "NONE" else {}
    attempt = told.get("deliveryAttempt", 0)
    identity = _text(message.get("messageId")) or _text(message.get("message_id"))
    folded = {str(name).lower(): _text(value) for name, value in attributes.items()}
    return _of_notification(folded, described, identity, attempt if isinstance(attempt, int) else 0)


def _of_notification(
    attributes: Mapping[str, str], described: Mapping[str, Any], identity: str, attempt: int
) -> ObjectEvent:
    """Return what attributes in lower case and the resource of a notification of Cloud Storage tell together."""
    bucket = attributes.get("bucketid") or _text(described.get("bucket"))
    name = _text(described.get("name")) or attributes.get("objectid", "")
    generation = attributes.get("objectgeneration") or _text(described.get("generation"))
    return _checked(
        ObjectEvent(
            bucket,
            name,
            generation,
            attributes.get("eventtype", "") in _CREATED,
            identity,
            attempt,
            attributes.get("retry") == "failed",
        )
    )


def _checked(event: ObjectEvent) -> ObjectEvent:
    if not event.bucket or not event.name or len(event.name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME_BYTES:
        raise UsageError("a message that names no object: wanted a bucket and a name")
    return event


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise UsageError("a body that is no object of JSON")
    return told


def _decode(text: object) -> bytes:
    if not isinstance(text, str):
        raise UsageError("data that are no text in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("data that are no text in base64") from None


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
