"""Entity tags and how long answers may be kept (RFC 9110 13, RFC 9111)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["KEPT", "answer_cached", "matches_etag", "not_modified"]

KEPT = "private, max-age=3600"
_REVALIDATED = "private, no-cache"


def matches_etag(header: str, etag: str) -> bool:
    """Whether an If-None-Match header names a tag."""
    return header.strip() == "*" or f'"{etag}"' in (each.strip().removeprefix("W/") for each in header.split(","))


def not_modified(request: Request, etag: str, *, revalidate: bool = False) -> Response | None:
    """Return the answer that nothing has changed, if the client has this already; it is kept as long as that."""
    told = request.headers.get("if-none-match")
    if told is None or not matches_etag(told, etag):
        return None
    kept = _REVALIDATED if revalidate else KEPT
    return Response(None, 304, {"ETag": f'"{etag}"', "Cache-Control": kept, "Vary": "Accept"})


def answer_cached(body: bytes, media_type: str, etag: str, *, revalidate: bool = False) -> Response:
    """Return an answer that the client may keep."""
    headers = {
        "ETag": f'"{etag}"',
        "Cache-Control": _REVALIDATED if revalidate else KEPT,
        "Vary": "Accept",
        "Content-Type": media_type,
    }
    return Response(body, 200, headers)
