"""Trying again what may pass, with exponential backoff and full jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from coverslip.errors import StoreError
from coverslip.stores.options import RetryPolicy

__all__ = ["Retrier", "parse_retry_after"]


class Retrier:
    """Runs attempts by a policy; safe to use from several threads.

    Parameters
    ----------
    policy : RetryPolicy
    sleep : callable
        Waits for a number of seconds.
    """

    def __init__(self, policy: RetryPolicy, sleep: Callable[[float], None] = time.sleep) -> None:
        self._policy = policy
        self._sleep = sleep
        self._random = random.Random(policy.seed)  # noqa: S311 - spreads load, keeps no secret

    def run[T](self, attempt: Callable[[], T]) -> T:
        """Return what the first attempt without a retryable `StoreError` returns.

        Raises
        ------
        StoreError
            That of the last attempt, or the first that does not become better by waiting.
        """
        for failures in range(1, self._policy.attempts):
            try:
                return attempt()
            except StoreError as error:
                wait_s = self._wait_s(error, failures)
                if wait_s is None:
                    raise
            self._sleep(wait_s)
        return attempt()

    def _wait_s(self, error: StoreError, failures: int) -> float | None:
        """Return how long to wait after a failure; None to give up."""
        policy = self._policy
        if not error.retryable or (error.retry_after_s or 0) > policy.longest_retry_after_s:
            return None
        limit_s = min(policy.longest_wait_s, policy.first_wait_s * 2 ** (failures - 1))
        return (error.retry_after_s or 0) + self._random.uniform(0, limit_s)


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, as a number or as a date; None if it says neither."""
    if not value:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
