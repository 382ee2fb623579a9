"""Run a server until it is told to stop, and log what it does in lines of JSON."""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coverslip.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    import uvicorn

    from coverslip.server.service import Service

__all__ = ["bind", "make_server", "run_server"]

_FIELDS = ("method", "route", "status", "ms", "place")
_GRACE_S = 8
"""So long may answers that are under way go on when the server is told to stop; Cloud Run gives ten seconds."""
_MOST_HEAD_BYTES = 32 << 10


class _JsonLines(logging.Formatter):
    """One JSON object per record, with the names that Google's logs know."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line, without what an exception says."""
        line: dict[str, Any] = {"severity": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
        return json.dumps(line)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises
    ------
    UsageError
        If the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small pieces at once; otherwise clients wait 40 ms for each answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UsageError(f"{host} port {port}: {error.strerror}") from None
    listening.listen(1024)
    return listening


def run_server(service: Service, listening: socket.socket, on_start: Callable[[], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; answers that are under way are finished."""
    _configure_logs()
    make_server(service, on_start).run(sockets=[listening])


def make_server(service: Service, on_start: Callable[[], None] | None = None) -> uvicorn.Server:
    """Return a server that is not started yet.

    Raises
    ------
    MissingDependencyError
        If the extra that it needs is not installed.
    """
    try:
        import uvicorn

        from coverslip.server.app import make_app
    except ImportError as error:
        raise MissingDependencyError(f"a server needs {error.name}: pip install 'coverslip[serve]'") from None
    from coverslip.server.connections import limited_protocol

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if on_start is not None and self.started:
                on_start()

    config = uvicorn.Config(
        make_app(service),
        http=limited_protocol(service.settings.limits),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
    )
    return Server(config)


def _configure_logs() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    for name, level in (("coverslip.server", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
