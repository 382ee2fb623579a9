"""What a store says became of each instance (PS3.18 10.5.3, Annex I.2), in JSON or XML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

__all__ = ["StowAnswer", "is_passing", "parse_stow_answer", "reason_in_words"]

_LARGEST_ANSWER_BYTES = 16 << 20

_REASONS = {
    0x0106: "an attribute has a value that is not allowed",
    0x0110: "processing failed",
    0x0111: "an instance of this SOP Instance UID is there already",
    0x0112: "no such instance",
    0x0117: "the SOP Instance UID is not valid",
    0x0119: "class and instance do not go together",
    0x0120: "an attribute is missing",
    0x0122: "the SOP class is not supported",
    0x0124: "not authorized",
    0xB000: "elements were coerced",
    0xB006: "elements were discarded",
    0xB007: "the data set does not match the SOP class",
    # Of Azure: https://learn.microsoft.com/azure/healthcare-apis/dicom/dicom-services-conformance-statement-v2
    0xB00E: "an instance of these UIDs is there already",
    0xB00F: "an instance of these UIDs is being stored by somebody else",
    0xA900: "the data set does not match the SOP class or the study",
    0xC122: "the transfer syntax is not supported",
}


def reason_in_words(code: int) -> str:
    """Return what a failure or warning reason means (PS3.4 Annex B.2.3, PS3.7 Annex C, PS3.18 Annex I.2)."""
    words = _REASONS.get(code)
    if words is None:
        if 0xA700 <= code <= 0xA7FF:
            words = "out of resources"
        elif 0xA900 <= code <= 0xA9FF:
            words = "the data set does not match the SOP class"
        elif 0xC000 <= code <= 0xCFFF:
            words = "the data set cannot be understood"
        else:
            words = "reason not known"
    return f"{words} ({code:04X}H)"


def is_passing(code: int) -> bool:
    """Whether what is refused for this reason may be taken later."""
    return 0xA700 <= code <= 0xA7FF


@dataclass(frozen=True, slots=True)
class StowAnswer:
    """Reasons by SOP Instance UID.

    Parameters
    ----------
    stored : mapping of str to int or None
        What was stored, with the reason of a warning.
    failed : mapping of str to int or None
        What was not.
    """

    stored: Mapping[str, int | None] = field(default_factory=dict)
    failed: Mapping[str, int | None] = field(default_factory=dict)


def parse_stow_answer(content: bytes) -> StowAnswer | None:
    """Return what an answer says; None if it is empty or something else."""
    content = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not content or len(content) > _LARGEST_ANSWER_BYTES:
        return None
    try:
        if content.startswith(b"<"):
            return _parse_xml(content)
        return _parse_json(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, ET.ParseError):
        return None


def _parse_json(answer: Any) -> StowAnswer | None:
    if isinstance(answer, list):  # some stores put the data set into a list
        answer = answer[0]
    if not ("00081199" in answer or "00081198" in answer):
        return None

    def values(tag: str, reason: str) -> Iterator[tuple[str, int | None]]:
        for item in answer.get(tag, {}).get("Value") or ():
            reasons = item.get(reason, {}).get("Value") or (None,)
            for uid in item.get("00081155", {}).get("Value") or ("",):
                yield str(uid), int(reasons[0]) if reasons[0] is not None else None

    return StowAnswer(dict(values("00081199", "00081196")), dict(values("00081198", "00081197")))


def _parse_xml(content: bytes) -> StowAnswer | None:
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        return None  # nothing that could grow or read files
    root = ET.fromstring(content)  # noqa: S314 - without entities
    found: dict[str, dict[str, int | None]] = {}
    for sequence in root:
        tag = sequence.get("tag", "")
        reason_tag = {"00081199": "00081196", "00081198": "00081197"}.get(tag)
        if reason_tag is None:
            continue
        found[tag] = {}
        for item in sequence:
            texts = {each.get("tag"): (each[0].text or "").strip() for each in item if len(each)}
            reason = texts.get(reason_tag)
            found[tag][texts.get("00081155", "")] = int(reason) if reason else None
    if not found:
        return None
    return StowAnswer(found.get("00081199", {}), found.get("00081198", {}))
