"""What stands before all routes: who may ask, limits, security headers, and frames that are in memory already.

A frame of an open instance whose bytes the system has in memory is answered here, without a thread, a router or a
framework: the rest of a request would cost several times what reading it does.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from coverslip.errors import CoverslipError
from coverslip.server import multipart
from coverslip.server.caching import KEPT, matches_etag
from coverslip.server.negotiation import choose_frame_form
from coverslip.server.service import Service

__all__ = ["COOKIE", "Front", "session_of"]

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type Headers = list[tuple[bytes, bytes]]

log = logging.getLogger("coverslip.server.requests")

COOKIE = "coverslip-session"
_OPEN_PATHS = ("/healthz", "/readyz", "/login")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_METHODS = b"GET, HEAD, OPTIONS, POST"
_READING_METHODS = b"GET, HEAD, OPTIONS"
_READING_HEADERS = b"Accept, Authorization, If-None-Match"
_ANSWERED = b"ETag, Content-Type, Warning, Retry-After"
_MOST_HEAD_BYTES = 32 << 10
_UIDS = re.compile(r"(?<=/)[0-9.]{5,64}(?=/|$|_files/|\.dzi$)")
_PAGES_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
    # The hash is that of the one style element that dicom-microscopy-viewer adds to a page.
    "style-src 'self' 'sha256-JxUHoUDhN6FBkSak1coehzJME/jqPm3SsO+5PriuYOg='; img-src 'self' blob: data:; "
    "connect-src 'self'; worker-src 'self' blob:; font-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# What the viewer's decoders run in: a worker has the policy of its own script, and WebAssembly's glue makes functions.
_WORKER_POLICY = "default-src 'none'; script-src 'self' 'unsafe-eval'; connect-src 'self'; frame-ancestors 'none'"
_SLIM_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self' blob: data:; worker-src 'self' blob:; font-src 'self' data:; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]


def session_of(token: str) -> str:
    """Return what the cookie of a browser holds that has shown the token."""
    return hmac.new(token.encode(), b"coverslip session", hashlib.sha256).hexdigest()


class Front:
    """An ASGI application around another one.

    Parameters
    ----------
    app : callable
        The ASGI application with all routes.
    service : Service
    """

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]], service: Service) -> None:
        self._app = app
        self._service = service
        self._access = service.settings.access
        self._limits = service.settings.limits
        self._cookie = session_of(self._access.token) if self._access.token else ""
        self._hosts = {each.lower() for each in self._access.hosts}
        if service.settings.loopback:
            self._hosts |= _LOOPBACK
        resource = b"cross-origin" if self._access.origins else b"same-origin"
        self._common: Headers = [*_HEADERS, (b"cross-origin-resource-policy", resource)]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        extra = self._common
        origin = headers.get(b"origin")
        if origin is not None and self._access.origins:
            extra = extra + self._cross_origin(origin)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal, extra)
            return
        if scope["method"] == "OPTIONS":
            await _answer(send, 204, b"", [(b"allow", _METHODS)], extra)
            return
        if not self._service.settings.log_requests and await self._answer_frame(scope, headers, send, extra):
            return
        await self._pass_on(scope, headers, receive, send, extra)

    def _refusal(self, scope: Message, headers: dict[bytes, bytes]) -> tuple[int, bytes, Headers] | None:
        """Return why a request is not answered, None if it is."""
        if self._hosts and _host(headers.get(b"host", b"")) not in self._hosts:
            # Pages of other sites must not reach this server by a name that they let point to it.
            return _error(400, "this server is not known by that name; --allow-host adds names")
        path = scope["path"]
        malformed = _malformed(scope, headers)
        if malformed is not None:
            return malformed
        path = scope["path"]
        # A preflight carries no credentials, whatever the request after it does.
        if path in _OPEN_PATHS or path.startswith("/static/") or scope["method"] == "OPTIONS":
            return None
        if self._is_allowed(headers):
            return None
        if b"text/html" in headers.get(b"accept", b"") and self._access.token and scope["method"] == "GET":
            return 303, b"", [(b"location", b"/login"), (b"cache-control", b"no-store")]
        return _error(401, "a token is needed", [(b"www-authenticate", b'Bearer realm="coverslip"')])

    def _is_allowed(self, headers: dict[bytes, bytes]) -> bool:
        if self._access.user_header:
            return bool(headers.get(self._access.user_header.lower().encode("latin-1"), b"").strip())
        if not self._access.token:
            return True
        kind, _, shown = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and hmac.compare_digest(shown.strip(), self._access.token.encode()):
            return True
        cookies = headers.get(b"cookie", b"").split(b";")
        names = (each.strip().partition(b"=") for each in cookies)
        return any(
            name == COOKIE.encode() and hmac.compare_digest(value, self._cookie.encode()) for name, _, value in names
        )

    def _cross_origin(self, origin: bytes) -> Headers:
        """Return the headers that let a page of another origin read an answer (the Fetch standard's CORS protocol)."""
        origins = self._access.origins
        named = origin.decode("latin-1") in origins
        if "*" not in origins and not named:
            return [(b"vary", b"Origin")]
        # Pages of any origin may read; only those of named ones may store.
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", _METHODS if named else _READING_METHODS),
            (b"access-control-allow-headers", _READING_HEADERS + (b", Content-Type" if named else b"")),
            (b"access-control-expose-headers", _ANSWERED),
            (b"access-control-max-age", b"600"),
            (b"vary", b"Origin"),
        ]

    async def _answer_frame(self, scope: Message, headers: dict[bytes, bytes], send: Send, extra: Headers) -> bool:
        """Answer a request for one frame that needs no waiting; False if it is none of these."""
        parts = scope["path"].split("/")
        if len(parts) != 10 or parts[8] != "frames" or scope["method"] != "GET" or parts[1] != "dicomweb":
            return False
        opened = self._service.opened.get_opened(parts[7])
        number = parts[9]
        if opened is None or not number.isdigit() or not number.isascii() or len(number) > 9:
            return False
        indexed, index = opened.indexed, int(number) - 1
        if (
            indexed.series_instance_uid != parts[5]
            or indexed.study_instance_uid != parts[3]
            or not 0 <= index < opened.number_of_frames
        ):
            return False
        accept = headers.get(b"accept", b"").decode("latin-1")
        form = choose_frame_form(accept, opened.transfer_syntax_uid, True, opened.encodable_syntaxes)
        if form is None or not form.stored:
            return False
        media, syntax = form.media_type, form.transfer_syntax_uid
        etag = f"{opened.etag}-f{index}-{syntax}-{media}-{form.multipart:d}"
        told: Headers = [(b"etag", f'"{etag}"'.encode()), (b"cache-control", KEPT.encode()), (b"vary", b"Accept")]
        seen = headers.get(b"if-none-match")
        if seen is not None and matches_etag(seen.decode("latin-1"), etag):
            await _answer(send, 304, b"", told, extra)
            return True
        try:
            frame = opened.read_frame_at_once(index)
        except CoverslipError:
            return False
        if frame is None:
            return False
        if form.multipart:
            frame = b"".join((multipart.part_head(media, syntax), frame, multipart.END))
            told.append((b"content-type", multipart.content_type(media, syntax).encode()))
        else:
            told.append((b"content-type", f"{media}; transfer-syntax={syntax}".encode()))
        await _answer(send, 200, frame, told, extra)
        return True

    async def _pass_on(
        self, scope: Message, headers: dict[bytes, bytes], receive: Receive, send: Send, extra: Headers
    ) -> None:
        """Let the application answer, in time, with the headers that every answer has."""
        stores = scope["method"] == "POST" and scope["path"].startswith("/dicomweb/studies")
        most = self._limits.upload_bytes if stores else self._limits.request_bytes
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await _answer(send, *_error(413, f"at most {most} bytes in one request"), extra)
            return
        started = time.perf_counter()
        is_head = scope["method"] == "HEAD"
        status = 0
        taken = 0

        async def take() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"at most {most} bytes in one request")
            return message

        async def give(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                clock.reschedule(None)
                message["headers"] = self._completed(scope["path"], message.get("headers", []), extra)
                await send(message)
                if is_head:
                    await send({"type": "http.response.body", "body": b""})
                    clock.reschedule(asyncio.get_running_loop().time())  # nobody wants what the rest would read
            elif not is_head:
                await send(message)

        try:
            async with asyncio.timeout(None if stores else self._limits.request_s) as clock:
                await self._app({**scope, "method": "GET"} if is_head else scope, take, give)
        except TimeoutError:
            if not status:
                status = 503
                await _answer(send, *_error(status, "it takes too long"), extra)
        if self._service.settings.log_requests or status >= 500:
            log.log(
                logging.ERROR if status >= 500 else logging.INFO,
                "request",
                extra={
                    "method": scope["method"],
                    "route": _UIDS.sub("{uid}", scope["path"]) if status < 400 else _first_part(scope["path"]),
                    "status": status,
                    "ms": round((time.perf_counter() - started) * 1000, 1),
                },
            )

    @staticmethod
    def _completed(path: str, headers: Headers, extra: Headers) -> Headers:
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        have = {name for name, _ in headers}
        added = [each for each in extra if each[0] not in have or each[0] == b"vary"]
        if kind.startswith(b"text/html"):
            policy = _SLIM_POLICY if path.startswith("/slim") else _PAGES_POLICY
            added.append((b"content-security-policy", policy.encode()))
        elif path.startswith("/viewer/"):
            added.append((b"content-security-policy", _WORKER_POLICY.encode()))
        elif not path.startswith("/slim"):
            # Whatever a file holds: shown by itself it must not run anything.
            added.append((b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"))
        return [*headers, *added]


def _malformed(scope: Message, headers: dict[bytes, bytes]) -> tuple[int, bytes, Headers] | None:
    """Return why a request makes no sense to anybody, None if it does."""
    path = scope["path"]
    if len(scope["query_string"]) + sum(map(len, headers.values())) > _MOST_HEAD_BYTES:
        return _error(431, f"expected at most {_MOST_HEAD_BYTES} bytes before the body")
    if b"content-length" in headers and b"transfer-encoding" in headers:
        return _error(400, "expected one length of the body")  # servers in front may see another end of it
    if scope["method"] not in ("GET", "HEAD", "OPTIONS", "POST"):
        return _error(405, "expected GET, HEAD, OPTIONS or POST", [(b"allow", _METHODS)])
    if "\0" in path or "/../" in f"{path}/" or "\\" in path:
        return _error(404, "there is no such thing")
    return None


def _host(header: bytes) -> str:
    text = header.decode("latin-1").lower()
    return re.sub(r":\d*$", "", text)


def _first_part(path: str) -> str:
    """Return as much of a path as says what was asked for, and nothing that somebody has made up."""
    first = path.split("/")[1] if path.count("/") else ""
    return f"/{first}" if re.fullmatch(r"[a-z]{1,12}", first) else "/?"


def _error(status: int, text: str, headers: Headers | None = None) -> tuple[int, bytes, Headers]:
    body = json.dumps({"error": text}).encode()
    return status, body, [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *(headers or [])]


async def _answer(send: Send, status: int, body: bytes, headers: Headers, extra: Headers) -> None:
    length = [] if status in (204, 304) else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length, *extra]})
    await send({"type": "http.response.body", "body": body})
