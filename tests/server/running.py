"""A server in this process, on loopback."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coverslip.server.opening import open_service
from coverslip.server.run import bind, make_server
from coverslip.server.service import Service
from coverslip.server.settings import ServerSettings
from coverslip.stores.options import StoreOptions
from coverslip.stores.registry import open_store

__all__ = ["Answer", "Running", "serving"]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def parts(self) -> list[tuple[str, bytes]]:
        """Content-Type and content of each part."""
        kind = self.headers["content-type"]
        boundary = kind.partition("boundary=")[2].strip('"').encode()
        found = []
        for piece in self.body.split(b"--" + boundary)[1:-1]:
            head, _, content = piece.partition(b"\r\n\r\n")
            found.append((head.decode().strip().partition(": ")[2], content.removesuffix(b"\r\n")))
        return found


@dataclass
class Running:
    """A server that runs."""

    url: str
    service: Service
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self, path: str, accept: str = "", method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Answer:
        place = urlsplit(self.url)
        connection = HTTPConnection(place.hostname, place.port, timeout=30)
        try:
            told = {**self.headers, **({"Accept": accept} if accept else {})}
            told |= {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, told)
            response: HTTPResponse = connection.getresponse()
            content = response.read()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
        finally:
            connection.close()


@contextlib.contextmanager
def serving(what: Path | str, settings: ServerSettings | None = None) -> Iterator[Running]:
    """Serve a folder, catalog or store; everything is real but that the process is this one."""
    with contextlib.ExitStack() as stack:
        options = StoreOptions()
        opened = open_service(
            str(what), settings or ServerSettings(), lambda url: stack.enter_context(open_store(url, options))
        )
        service, problems = stack.enter_context(opened)
        assert not problems, "; ".join(problems)
        listening = stack.enter_context(bind("127.0.0.1", 0))
        started = threading.Event()
        server = make_server(service, started.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            assert started.wait(30)
            yield Running(f"http://127.0.0.1:{listening.getsockname()[1]}", service)
        finally:
            server.should_exit = True
            thread.join(30)
