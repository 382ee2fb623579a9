"""A slide's series to all stores, and the proof that they are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip.errors import StoreError
from coverslip.pipeline.failures import Problem, StageFailedError
from coverslip.pipeline.ledger import Stage, State
from coverslip.upload.deliver import DeliveryOptions, deliver
from coverslip.upload.deliverables import FoundSeries, find_series
from coverslip.upload.destination import Destination
from coverslip.upload.outcome import Failure, SeriesOutcome
from coverslip.upload.proof import ValidateMode

if TYPE_CHECKING:
    from coverslip.pipeline.slide_job import Workshop

__all__ = ["send_series", "verify_series"]

_FINAL = frozenset({"RejectedError", "ConflictError", "ValidationFailedError", "UsageError"})


def send_series(shop: Workshop, folders: Sequence[Path]) -> int:
    """Send what the stores do not have yet, and return how many bytes that were.

    Raises
    ------
    StageFailedError
        If a store did not take all of it.
    """
    return _deliver(shop, folders, send=True)


def verify_series(shop: Workshop, folders: Sequence[Path]) -> int:
    """Ask the stores for all that was sent and compare it, and return how many bytes that were.

    Raises
    ------
    StageFailedError
        If a store does not hold all of it.
    """
    return _deliver(shop, folders, send=False)


def _deliver(shop: Workshop, folders: Sequence[Path], *, send: bool) -> int:
    plan = shop.plan
    destinations = [Destination(store, shop.ledger, plan.frames) for store in shop.stores]
    options = DeliveryOptions(
        naming=plan.naming,
        workers=plan.connections,
        validate=ValidateMode.AUTO if Stage.VALIDATE in plan.stages else ValidateMode.OFF,
        send=send,
        verify=not send,
    )
    wanted = (State.UPLOADED, State.VERIFIED) if send else (State.VERIFIED,)
    size_bytes = 0
    for outcome in deliver(_found(folders), destinations, shop.ledger, options):
        if outcome.state not in wanted:
            raise StageFailedError(_problem_of(outcome))
        size_bytes += outcome.bytes_sent if send else outcome.size_bytes
    return size_bytes


def _found(folders: Sequence[Path]) -> list[FoundSeries]:
    found, unreadable = find_series(folders)
    if unreadable:
        raise StoreError(f"{len(unreadable)} files of the series cannot be read")
    return found


def _problem_of(outcome: SeriesOutcome) -> Problem:
    """Return the first thing that went wrong with a series."""
    failure = next(_failures(outcome), None)
    if failure is None:
        missing = sum(len(each.missing) for each in outcome.destinations)
        strangers = sum(len(each.strangers) for each in outcome.destinations)
        failure = Failure(
            "StoreError", f"{missing} instances are missing in the store, {strangers} are there that are not ours"
        )
    return Problem(
        failure.error_class,
        failure.message,
        retryable=failure.error_class not in _FINAL,
        exit_code=StoreError.exit_code,
    )


def _failures(outcome: SeriesOutcome) -> Iterator[Failure]:
    if outcome.failure is not None:
        yield outcome.failure
    for each in outcome.destinations:
        if each.failure is not None:
            yield each.failure
        yield from (instance.failure for instance in each.instances if instance.failure is not None)
