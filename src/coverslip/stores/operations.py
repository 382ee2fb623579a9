"""Long-running operations of Google's APIs: asked for until they are done.

https://cloud.google.com/healthcare-api/docs/how-tos/long-running-operations
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coverslip.errors import StoreError
from coverslip.stores.http_client import HttpClient

__all__ = ["FinishedOperation", "wait_for_operation"]

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 15.0
# google.rpc.Code: resource exhausted, aborted, internal, unavailable, deadline exceeded.
_PASSING_CODES = {4: "DEADLINE_EXCEEDED", 8: "RESOURCE_EXHAUSTED", 10: "ABORTED", 13: "INTERNAL", 14: "UNAVAILABLE"}


@dataclass(frozen=True, slots=True)
class FinishedOperation:
    """How an operation ended.

    Parameters
    ----------
    successes, failures : int
        How many objects it told of.
    error_code : int
        Of google.rpc.Code; zero for none.
    """

    successes: int
    failures: int
    error_code: int

    @property
    def is_good(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.error_code or self.failures)

    @property
    def may_pass(self) -> bool:
        """Whether starting it again may help."""
        return self.error_code in _PASSING_CODES

    def __str__(self) -> str:
        code = f", error {_PASSING_CODES.get(self.error_code, self.error_code)}" if self.error_code else ""
        return f"{self.successes} done, {self.failures} failed{code}"


def wait_for_operation(
    http: HttpClient,
    api_url: str,
    started: bytes,
    what: str,
    timeout_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> FinishedOperation:
    """Return how an operation ended.

    Parameters
    ----------
    api_url : str
        What the names of operations are below, such as ``https://healthcare.googleapis.com/v1``.
    started : bytes
        The answer that told of the operation.
    timeout_s : float
        Raise, and leave the operation to itself, when it takes longer.

    Raises
    ------
    StoreError
    """
    operation = _parse(started, what)
    name = str(operation.get("name", ""))
    if not re.fullmatch(r"[A-Za-z0-9._~:/-]+", name) or ".." in name:
        raise StoreError(f"{what}: the store's answer names no operation")
    wait_s, waited_s = _FIRST_WAIT_S, 0.0
    while not operation.get("done"):
        if waited_s >= timeout_s:
            raise StoreError(f"{what}: the operation is not done after {waited_s:.0f} s", retryable=True)
        sleep(wait_s)
        waited_s += wait_s
        wait_s = min(_LONGEST_WAIT_S, wait_s * 1.5)
        answer = http.ask("GET", f"{api_url}/{name}", what, headers={"Accept": "application/json"})
        operation = _parse(answer.content, what)
    counter = operation.get("metadata", {}).get("counter", {})
    try:
        return FinishedOperation(
            int(counter.get("success", 0)),
            int(counter.get("failure", 0)),
            int(operation.get("error", {}).get("code", 0)),
        )
    except (ValueError, TypeError, AttributeError):
        raise StoreError(f"{what}: an operation whose outcome cannot be read") from None


def _parse(content: bytes, what: str) -> Mapping[str, Any]:
    try:
        operation = json.loads(content or b"{}")
    except ValueError:
        operation = None
    if not isinstance(operation, dict):
        raise StoreError(f"{what}: the store's answer is no operation", retryable=True)
    return operation
