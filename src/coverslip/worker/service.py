"""The service over HTTP: messages by POST, two pages for whoever watches over it, and an end in order.

A message is acknowledged (200) only when what it asks for is done, or was given up or is not to be done, and that is
written down where it stays; everything else (503) makes it come again. What is no message at all is told so (4xx),
which also makes it come again, until the subscription puts it where its dead letters go.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from coverslip.errors import CoverslipError, StoreError, UsageError
from coverslip.pipeline.failures import Problem
from coverslip.pipeline.log_lines import LogLines
from coverslip.worker.events import ObjectEvent, names_of, parse_event
from coverslip.worker.intake import Answer, Intake
from coverslip.worker.tokens import TokenCheck
from coverslip.worker.traces import Trace, read_trace

__all__ = ["Address", "make_app", "serve"]

_MOST_BYTES = 1 << 20
_BODY_S = 30.0
_MOST_MESSAGES = 64
_MOST_CONNECTIONS = 256
_GRACE_S = 9


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service listens."""

    host: str
    port: int


class _RefusedError(Exception):
    """A request that is answered at once."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


class _Receiver:
    """Answers messages; each waits in a thread of its own."""

    def __init__(self, intake: Intake, log: LogLines, tokens: TokenCheck | None) -> None:
        self._intake = intake
        self._log = log
        self._tokens = tokens
        self._threads = ThreadPoolExecutor(_MOST_MESSAGES, thread_name_prefix="message")
        self._open = 0

    async def receive(self, request: Request) -> Response:
        """Answer one message."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        trace = read_trace(headers)
        try:
            if self._intake.is_stopping:
                raise _RefusedError(503, "stopping")
            if self._open >= _MOST_MESSAGES:
                raise _RefusedError(503, "too many messages at once")
            self._open += 1
            try:
                event = await self._read(request, headers)
                answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._handle, event, trace)
            finally:
                self._open -= 1
        except _RefusedError as refused:
            self._write("WARNING", f"request refused: {refused.reason}", trace, status=refused.status)
            return JSONResponse({"error": refused.reason}, refused.status)
        self._write(
            answer.severity,
            f"message {'acknowledged' if answer.acknowledges else 'to come again'}: {answer.outcome}: {answer.reason}",
            trace,
            slide=answer.key or None,
            outcome=str(answer.outcome),
            error_class=answer.error_class or None,
            message_id=event.message_id or None,
            delivery_attempt=event.delivery_attempt or None,
        )
        told = {"outcome": str(answer.outcome), "reason": answer.reason, "slide": answer.key}
        return JSONResponse(told, 200 if answer.acknowledges else 503)

    async def _read(self, request: Request, headers: Mapping[str, str]) -> ObjectEvent:
        if self._tokens is not None:
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(None, self._tokens.require, headers.get("authorization", ""))
            except UsageError as error:
                raise _RefusedError(401, str(error)) from None
            except StoreError as error:
                raise _RefusedError(503, str(error)) from None
        try:
            async with asyncio.timeout(_BODY_S):
                body = await _body(request)
        except TimeoutError:
            raise _RefusedError(408, "the body does not come") from None
        try:
            return parse_event(headers, body)
        except UsageError as error:
            raise _RefusedError(400, str(error)) from None

    def _handle(self, event: ObjectEvent, trace: Trace) -> Answer:
        from coverslip.worker.intake import Outcome

        try:
            return self._intake.handle(event, trace)
        except Exception as error:  # noqa: BLE001 - told without what it may hold; the message comes again
            problem = Problem.of(error, names_of(event.name))
            severity = "WARNING" if isinstance(error, CoverslipError) else "ERROR"
            text = f"{problem.error_class}: {problem.message}"
            return Answer(Outcome.LATER, text, severity=severity, error_class=problem.error_class)

    def _write(self, severity: str, message: str, trace: Trace, **facts: Any) -> None:
        if trace.is_sampled:
            facts["trace_sampled"] = True
        self._log.write(severity, message, trace_id=trace.trace_id, span_id=trace.span_id, **facts)

    async def tell_alive(self, _request: Request) -> Response:
        """Tell that the process answers."""
        return JSONResponse({"status": "alive"})

    async def tell_ready(self, _request: Request) -> Response:
        """Tell whether messages are taken."""
        if self._intake.is_stopping:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ready", "busy": self._intake.is_busy})

    def close(self) -> None:
        """Let go of threads; those that wait have been told to stop."""
        self._threads.shutdown(wait=True, cancel_futures=True)


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > _MOST_BYTES:
        raise _RefusedError(413, f"a body of more than {_MOST_BYTES} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise _RefusedError(413, f"a body of more than {_MOST_BYTES} bytes")
    return bytes(body)


def make_app(receiver: _Receiver) -> FastAPI:
    """Return the application: messages at ``/``, and ``/live`` and ``/ready``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_route("/", receiver.receive, methods=["POST"])
    app.add_route("/live", receiver.tell_alive, methods=["GET"])
    app.add_route("/ready", receiver.tell_ready, methods=["GET"])
    return app


class _Server(uvicorn.Server):
    """Has the intake put back what is under way as soon as a signal comes."""

    intake: Intake

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; asked twice, at once."""
        self.intake.stop(128 + sig)
        super().handle_exit(sig, frame)


class _LogHandler(logging.Handler):
    """Takes what the server says into the log, without tracebacks, whose texts may come from a request."""

    def __init__(self, log: LogLines) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        kind = record.exc_info[0] if record.exc_info else None
        text = f"fault in the service: {kind.__name__}" if kind else record.getMessage()
        self._log.write("ERROR" if record.levelno >= logging.ERROR else "WARNING", text)


def serve(intake: Intake, log: LogLines, address: Address, tokens: TokenCheck | None) -> int:
    """Serve until a signal comes, and return the exit code that it stands for.

    Raises
    ------
    UsageError
        If nothing can listen there.
    """
    receiver = _Receiver(intake, log, tokens)
    config = uvicorn.Config(
        make_app(receiver),
        host=address.host,
        port=address.port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=64 << 10,
        http="h11",
        ws="none",
        lifespan="off",
    )
    server = _Server(config)
    server.intake = intake
    logger = logging.getLogger("uvicorn")
    logger.handlers, logger.propagate = [_LogHandler(log)], False
    bound = _bind(address)
    log.write("INFO", f"listening on port {bound.getsockname()[1]}", port=bound.getsockname()[1])
    signals: list[int] = []

    # What uvicorn does at its end: it raises the signals that it got, for whoever had handled them before.
    def note(number: int, _frame: object) -> None:
        signals.append(number)
        intake.stop(128 + number)
        server.should_exit = True

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        server.run([bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        bound.close()
        receiver.close()
    log.write("INFO", "stopped: nothing is under way, all leases are given back")
    return 128 + signals[0] if signals else 0


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=_MOST_CONNECTIONS)
    except OSError as error:
        raise UsageError(f"--host {address.host} --port {address.port}: cannot listen: {error.strerror}") from None
