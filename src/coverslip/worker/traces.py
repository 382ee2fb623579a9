"""Which trace a request belongs to: W3C's ``traceparent``, or Google's ``X-Cloud-Trace-Context``.

References: https://www.w3.org/TR/trace-context/, https://cloud.google.com/trace/docs/trace-context
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Trace", "read_trace"]


@dataclass(frozen=True, slots=True)
class Trace:
    """Where lines of a log belong.

    Parameters
    ----------
    trace_id, span_id : str
        In hexadecimal, of 32 and 16 digits; empty if none is told.
    is_sampled : bool
    """

    trace_id: str = ""
    span_id: str = ""
    is_sampled: bool = False


def read_trace(headers: Mapping[str, str]) -> Trace:
    """Return the trace that headers, with names in lower case, tell of; what cannot be read is none."""
    match = re.fullmatch(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?",
                         headers.get("traceparent", "").strip())  # fmt: skip
    if match and set(match[1]) != {"0"} and set(match[2]) != {"0"}:
        return Trace(match[1], match[2], bool(int(match[3], 16) & 1))
    google = headers.get("x-cloud-trace-context", "").strip()
    match = re.fullmatch(r"([0-9a-fA-F]{32})(?:/(\d{1,20}))?(?:;o=([01]))?", google, re.ASCII)
    if match and set(match[1]) != {"0"}:
        span = int(match[2] or 0)
        return Trace(match[1].lower(), f"{span:016x}" if 0 < span < 1 << 64 else "", match[3] == "1")
    return Trace()
