"""An HTTP server on loopback whose requests can be made to fail in a planned way."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["Dropped", "FakeServer", "Fault", "Request", "Response", "as_json"]

PIECE_BYTES = 1 << 20


@dataclass
class Fault:
    """What happens to the next requests that match, in place of an answer or on the way to it.

    Parameters
    ----------
    method, path : str
        Patterns that the whole method and the beginning of the path must match.
    times : int
        How many requests are met; -1 for all.
    skip : int
        How many requests that match go well before.
    status, headers, body
        Answer without doing anything; 0 for none.
    read_bytes : int or None
        Read so many bytes of the body, then do as told by the rest.
    drop_request : bool
        Reset the connection, before anything is done.
    drop_response : bool
        Do everything, then reset the connection in place of the answer.
    delay_s : float
        Wait before the answer.
    """

    method: str = ".*"
    path: str = "/"
    times: int = 1
    skip: int = 0
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    read_bytes: int | None = None
    drop_request: bool = False
    drop_response: bool = False
    delay_s: float = 0.0


class Dropped(Exception):  # noqa: N818
    """The client or the plan has ended the connection."""


@dataclass
class Response:
    """An answer; the body is bytes or yields them."""

    status: int
    body: bytes | Iterator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


def as_json(status: int, value: Any, content_type: str = "application/json") -> Response:
    return Response(status, json.dumps(value).encode(), {"Content-Type": content_type})


class Request:
    """A request as a fake sees it; the body is read by pieces."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        self.method = handler.command
        self.raw_path = parts.path
        self.path = unquote(parts.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.headers = handler.headers
        self._file = handler.rfile
        self._left = int(self.headers.get("Content-Length") or 0)
        self._is_chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        self._chunk_left = 0

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes of the body, none at its end."""
        if self._is_chunked:
            return self._read_chunked(size)
        size = min(size, self._left)
        data = self._file.read(size) if size else b""
        if len(data) < size:
            self._left = 0
            if data:
                return data  # the connection ended; what came is given, the next read tells
            raise Dropped
        self._left -= len(data)
        return data

    def _read_chunked(self, size: int) -> bytes:
        if not self._chunk_left:
            line = self._file.readline()
            if not line:
                raise Dropped
            self._chunk_left = int(line, 16)
            if not self._chunk_left:
                self._file.readline()
                self._is_chunked = False
                self._left = 0
                return b""
        data = self._file.read(min(size, self._chunk_left))
        self._chunk_left -= len(data)
        if not self._chunk_left:
            self._file.readline()
        return data

    @property
    def bytes_left(self) -> int:
        return self._left

    def iter_pieces(self) -> Iterator[bytes]:
        while piece := self.read(PIECE_BYTES):
            yield piece

    def read_all(self) -> bytes:
        return b"".join(self.iter_pieces())


class FakeServer:
    """Serves `answer` on a port of its own until it is closed; with `tokens`, only to those who have one.

    Attributes
    ----------
    faults : list of Fault
        Planned; the first that matches is used.
    log : list of (method, path)
        All requests.
    tokens : set of str or None
        Whole values of the header Authorization that are accepted; None to accept everybody.
    forbidden : set of str
        Accepted values that are answered with 403.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str]] = []
        self.tokens: set[str] | None = None
        self.forbidden: set[str] = set()
        self.lock = threading.RLock()
        self.before: Callable[[Request], None] = lambda request: None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16

            def handle(self) -> None:
                with contextlib.suppress(Dropped, ConnectionError):
                    super().handle()

            def parse_request(self) -> bool:
                if not super().parse_request():
                    return False
                fake._handle(self)
                return False  # answered: the base class looks for no method of its own

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                # A client may leave, or refuse the certificate, at any moment.
                if not isinstance(sys.exception(), ConnectionError | ssl.SSLError | Dropped):
                    fake.errors.append(traceback.format_exc())

        self.errors: list[str] = []
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def answer(self, request: Request) -> Response:
        raise NotImplementedError

    def count(self, method: str, path: str = "/") -> int:
        """Return how many requests have come of a method to paths that begin so."""
        return sum(1 for each, place in self.log if re.fullmatch(method, each) and re.match(path, place))

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        request = Request(handler)
        with self.lock:
            self.log.append((request.method, request.path))
            fault = self._next_fault(request)
        if fault and fault.read_bytes is not None:
            left = fault.read_bytes
            while left and (piece := request.read(min(left, PIECE_BYTES))):
                left -= len(piece)
        if fault and fault.drop_request:
            self._reset(handler)
        if fault and fault.delay_s:
            time.sleep(fault.delay_s)
        if fault and fault.status:
            response = Response(fault.status, fault.body, dict(fault.headers))
        else:
            response = self._authorized(request)
        if fault and fault.drop_response:
            self._reset(handler)
        self._send(handler, request, response)

    def _next_fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if not re.fullmatch(fault.method, request.method) or not re.match(fault.path, request.path):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.times:
                fault.times -= 1
                return fault
        return None

    def _authorized(self, request: Request) -> Response:
        self.before(request)
        given = request.headers.get("Authorization", "")
        if self.tokens is not None and given not in self.tokens:
            # Services have been seen to repeat what they were given.
            return as_json(401, {"error": {"code": 401, "message": f"bad credentials: {given}"}})
        if given in self.forbidden:
            return as_json(403, {"error": {"code": 403, "message": f"not for {given}"}})
        return self.answer(request)

    @staticmethod
    def _reset(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()
        raise Dropped

    def _send(self, handler: BaseHTTPRequestHandler, request: Request, response: Response) -> None:
        body = response.body
        handler.send_response(response.status)
        for name, value in response.headers.items():
            handler.send_header(name, value)
        if isinstance(body, bytes):
            handler.send_header("Content-Length", str(len(body)))
            body = iter((body,) if body else ())
        elif "Content-Length" not in response.headers:
            handler.close_connection = True
        if request.bytes_left or request._is_chunked:
            # Unread: keeping the connection would take the rest of the body for a request.
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        for piece in body:
            handler.wfile.write(piece)
        handler.wfile.flush()
        if handler.close_connection and request.bytes_left:
            with contextlib.suppress(OSError, Dropped):
                handler.connection.shutdown(socket.SHUT_WR)
                handler.connection.settimeout(2)
                for _ in request.iter_pieces():  # so that the answer is not lost in a reset
                    pass

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert self.errors == [], self.errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
