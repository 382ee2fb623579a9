"""Errors as answers: one map from classes to statuses, and their place in the OpenAPI description."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from coverslip.errors import (
    CoverslipError,
    MissingDependencyError,
    StoreError,
    UnsupportedSourceError,
    UsageError,
)

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["FAILURES", "FAILURES_OF_FORMS", "answer_error", "status_of"]

log = logging.getLogger("coverslip.server")

_SCHEMA = {
    "application/json": {
        "schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    }
}
FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": _SCHEMA}
    for status, text in {
        400: "A parameter is wrong, or more is asked for than one request may have.",
        401: "No token, or a wrong one.",
        404: "There is no such thing.",
        500: "What is stored cannot be read or decoded.",
        502: "The store behind this server does not answer.",
        503: "Too much is being done at the same time; try again.",
    }.items()
}
FAILURES_OF_FORMS: dict[int | str, dict[str, Any]] = {
    406: {"description": "It cannot be given in a form that is accepted.", "content": _SCHEMA}
}


def status_of(error: Exception) -> int:
    """Return the HTTP status that an error ends in."""
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, StoreError):
        return 503 if error.retryable else 502
    if isinstance(error, UnsupportedSourceError):
        return 406
    if isinstance(error, MissingDependencyError):
        return 501
    return 500


async def answer_error(_request: Request, error: Exception) -> Response:
    """Return an error as JSON with one line; one that nobody foresaw without its text, which may come from a file."""
    status = status_of(error)
    if isinstance(error, HTTPException):
        return JSONResponse({"error": str(error.detail)}, status, error.headers)
    if isinstance(error, StoreError):
        # Its text may name places that are nobody's business.
        log.warning("%s", type(error).__name__, extra={"place": _place(error)})
        return JSONResponse({"error": "what is stored cannot be read"}, status)
    if isinstance(error, CoverslipError):
        return JSONResponse({"error": str(error)}, status)
    log.error("unexpected %s", type(error).__name__, extra={"place": _place(error)})
    return JSONResponse({"error": "an unexpected error"}, 500)


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
