"""Failures of Google's libraries, told as ours: the only place that knows their classes.

Messages of theirs are not repeated: they may hold session URLs, which are secrets, and answers of servers.
"""

from __future__ import annotations

import http.client
from typing import Any

import google.api_core.exceptions
import google.auth.exceptions
import requests
import urllib3.exceptions
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from coverslip.errors import StoreError
from coverslip.stores.google_credentials import auth_failure
from coverslip.stores.retrying import parse_retry_after
from coverslip.stores.transport import status_failure

__all__ = ["FAILURES", "status_of", "store_failure"]

FAILURES: tuple[type[Exception], ...] = (
    google.api_core.exceptions.GoogleAPICallError,
    google.auth.exceptions.GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
)
"""What the libraries raise because of the store or the way to it."""


def status_of(error: Exception) -> int | None:
    """Return the status of HTTP that an error tells of; None if it tells of none."""
    if isinstance(error, google.api_core.exceptions.GoogleAPICallError):
        return int(error.code) if error.code is not None else None
    if isinstance(error, InvalidResponse):
        return int(error.response.status_code)
    return None


def store_failure(what: str, error: Exception) -> StoreError:
    """Return the error to raise in place of one of `FAILURES`."""
    status = status_of(error)
    if status is not None:
        response: Any = getattr(error, "response", None)
        retry_after = response.headers.get("Retry-After") if response is not None else None
        return status_failure(what, status, parse_retry_after(retry_after))
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return auth_failure(error)
    if isinstance(error, requests.exceptions.SSLError):
        return StoreError(f"{what}: the server's certificate or TLS is not accepted")
    if isinstance(error, requests.Timeout | TimeoutError):
        return StoreError(f"{what}: no answer in time", retryable=True)
    return StoreError(f"{what}: the connection failed", retryable=True)
