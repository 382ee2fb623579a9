"""The test page and a DICOMweb store behind one origin, as a hospital's reverse proxy has them; on loopback only."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.viewer.dicomweb_server import read_static

_PREFIX = "/dicomweb"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith((f"{_PREFIX}/", f"{self.server.store_path}/")):
            self._pass_on()
            return
        answer = read_static(path, self.server.folders)
        kind, body = answer or ("text/plain", b"not found\n")
        self._answer(HTTPStatus.OK if answer else HTTPStatus.NOT_FOUND, {"Content-Type": kind}, body)

    def _pass_on(self) -> None:
        # The store makes URLs of bulk data from the name of the host that it is asked by.
        headers = {name: self.headers[name] for name in ("Accept", "Host") if name in self.headers}
        target = self.path
        if target.startswith(f"{_PREFIX}/"):
            target = self.server.store_path + target.removeprefix(_PREFIX)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.store_port)) as connection:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            body = response.read()
        self._answer(response.status, {"Content-Type": response.getheader("Content-Type", "")}, body)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, dicomweb_url: str, static: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        parts = urlsplit(dicomweb_url)
        self.store_port, self.store_path = parts.port, parts.path
        self.folders = static


@contextlib.contextmanager
def serve_store(dicomweb_url: str, static: Mapping[str, Path]) -> Iterator[str]:
    """Serve pages of `static` (URL prefix -> folder), and a store of this machine below them; yield the base URL."""
    with _Server(dicomweb_url, static) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
