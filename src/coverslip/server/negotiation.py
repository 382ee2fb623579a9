"""Which of the forms that a client accepts an answer takes (RFC 9110 12.5.1, PS3.18 8.7)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

__all__ = [
    "NATIVE",
    "FrameForm",
    "MediaRange",
    "choose_bulk_form",
    "choose_frame_form",
    "choose_media_type",
    "parse_accept",
]

NATIVE = "1.2.840.10008.1.2.1"
OCTETS = "application/octet-stream"
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_RANGE = re.compile(rf"\s*({_WORD}/{_WORD})\s*")
_PARAMETER = re.compile(rf"\s*;\s*({_WORD})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;,\"]*))\s*")
_LONGEST = 4096

_MEDIA_TYPES: dict[str, str] = {
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{each}" for each in (50, 51, 57, 70)), "image/jpeg"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), "image/jls"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"), "image/jp2"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"), "image/jpx"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.20{each}" for each in (1, 2, 3)), "image/jphc"),
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
_ALIASES = {"image/x-jls": "image/jls", "image/x-dicom-rle": "image/dicom-rle", "image/jpeg2000": "image/jp2"}
_MADE: dict[str, str] = {
    "image/jpeg": "1.2.840.10008.1.2.4.50",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    OCTETS: NATIVE,
}
"""The transfer syntax that frames are encoded in when a media type is asked for that they are not stored in."""


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One of the media types that a client accepts."""

    media_type: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_multipart(self) -> bool:
        """Whether it is multipart/related."""
        return self.media_type == "multipart/related"

    @property
    def inner(self) -> str:
        """The type of the parts, or of the whole if there are none."""
        found = (self.parameters.get("type", OCTETS) if self.is_multipart else self.media_type).lower()
        return _ALIASES.get(found, found)

    def covers(self, media_type: str) -> bool:
        """Whether a media type lies in it."""
        if self.media_type in ("*/*", media_type):
            return True
        kind, _, sub = self.media_type.partition("/")
        return sub == "*" and media_type.startswith(f"{kind}/")


@lru_cache(1024)
def parse_accept(text: str) -> tuple[MediaRange, ...]:
    """Return what a client accepts, the most wanted first; what is not wanted or cannot be read is left out.

    No header at all means that anything is.
    """
    if not text.strip():
        return (MediaRange("*/*"),)
    if len(text) > _LONGEST:
        return ()
    found: list[tuple[float, int, MediaRange]] = []
    at = 0
    while at < len(text):
        match = _RANGE.match(text, at)
        if match is None:
            at = _next(text, at)
            continue
        at = match.end()
        parameters: dict[str, str] = {}
        while (pair := _PARAMETER.match(text, at)) is not None:
            quoted = re.sub(r"\\(.)", r"\1", pair[2]) if pair[2] is not None else None
            parameters[pair[1].lower()] = quoted if quoted is not None else pair[3]
            at = pair.end()
        weight = _weight(parameters.pop("q", "1"))
        if at < len(text) and text[at] != ",":
            at = _next(text, at)  # odd characters spoil this range only
            continue
        at += 1
        if weight > 0:
            found.append((-weight, len(found), MediaRange(match[1].lower(), parameters)))
    return tuple(each for _, _, each in sorted(found, key=lambda one: one[:2]))


def _next(text: str, at: int) -> int:
    comma = text.find(",", at)
    return len(text) if comma < 0 else comma + 1


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def choose_media_type(accept: str, offered: Sequence[str]) -> str | None:
    """Return the offered media type that is wanted most, the first for ``*/*``; None if none is."""
    for wanted in parse_accept(accept):
        for each in offered:
            if wanted.covers(each):
                return each
    return None


def choose_bulk_form(accept: str) -> str | None:
    """Return ``multipart`` or ``single`` for bytes, None if neither is accepted."""
    for wanted in parse_accept(accept):
        if wanted.is_multipart and wanted.inner in (OCTETS, "*/*"):
            return "multipart"
        if wanted.media_type in ("*/*", "application/*", OCTETS):
            return "multipart" if wanted.media_type == "*/*" else "single"
    return None


@dataclass(frozen=True, slots=True)
class FrameForm:
    """How frames are answered.

    Parameters
    ----------
    multipart : bool
    media_type : str
        Of a frame.
    transfer_syntax_uid : str
        Of the frames in the answer.
    stored : bool
        Whether that is how they are stored.
    """

    multipart: bool
    media_type: str
    transfer_syntax_uid: str
    stored: bool


@lru_cache(2048)
def choose_frame_form(
    accept: str, transfer_syntax_uid: str, single: bool, can_make: frozenset[str]
) -> FrameForm | None:
    """Return how frames are answered, None if nothing that is accepted can be given.

    Parameters
    ----------
    accept : str
        The header; empty if there is none.
    transfer_syntax_uid : str
        Of the stored frames.
    single : bool
        Whether one frame is asked for, which may come without parts.
    can_make : frozenset of str
        Transfer syntaxes that they can be encoded in.
    """
    stored = NATIVE if transfer_syntax_uid == "1.2.840.10008.1.2" else transfer_syntax_uid
    for wanted in parse_accept(accept):
        multipart = wanted.is_multipart or wanted.media_type == "*/*"
        if not multipart and not single:
            continue
        found = _offer(wanted.inner, wanted.parameters.get("transfer-syntax", ""), stored, can_make.__contains__)
        if found is not None:
            return FrameForm(multipart, *found, stored=found[1] == stored)
    return None


def _offer(media_type: str, syntax: str, stored: str, can_make: Callable[[str], bool]) -> tuple[str, str] | None:
    """Return (media type, transfer syntax) for one accepted type; the syntax may be empty or ``*``."""
    own = _MEDIA_TYPES.get(stored, OCTETS)
    if media_type == "*/*":
        if syntax in ("", "*", stored):
            return own, stored
        return (_MEDIA_TYPES.get(syntax, OCTETS), syntax) if can_make(syntax) else None
    if media_type == "image/*":
        media_type = own if own != OCTETS else "image/jp2"
    if media_type == OCTETS:
        # Bytes of whatever syntax is named; without a name those of Explicit VR Little Endian (PS3.18 8.7.3.5.2).
        target = stored if syntax == "*" else syntax or NATIVE
    elif media_type not in _MADE and media_type != own:
        return None
    elif syntax in ("", "*"):
        target = stored if media_type == own and _may_stay(stored, syntax) else _MADE.get(media_type, stored)
    else:
        target = syntax if _MEDIA_TYPES.get(syntax) == media_type else ""
    if target == stored or (target and can_make(target)):
        return media_type, target
    return None


def _may_stay(stored: str, syntax: str) -> bool:
    """Whether frames of a media type are what it means where no syntax is named."""
    return syntax == "*" or stored not in ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57")
