"""One worker for each slide, whatever becomes of workers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coverslip.errors import StoreError
from coverslip.pipeline.failures import Problem
from coverslip.pipeline.ledger import Stage
from coverslip.stores.local import LocalStore
from coverslip.worker.leases import Held, Lease, LeaseBook, Settled, Verdict

PROBLEM = Problem("StoreError", "no answer", retryable=True)


class Clock:
    """A clock that is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> LeaseBook:
    return LeaseBook(LocalStore(tmp_path), 60.0, 3, clock=clock)


def take(book: LeaseBook, work: str = "recipe", **options: bool) -> Lease | Held | Settled:
    return book.take("key", work, "1", 10, **options)


def test_of_many_who_ask_one_gets_the_lease(tmp_path: Path) -> None:
    books = [LeaseBook(LocalStore(tmp_path)) for _ in range(16)]
    with ThreadPoolExecutor(16) as executor:
        taken = list(executor.map(take, books))
    assert sorted(type(each).__name__ for each in taken) == ["Held"] * 15 + ["Lease"]


def test_lease_that_is_not_renewed_ends_and_another_takes_it(book: LeaseBook, clock: Clock) -> None:
    first = take(book)
    assert isinstance(first, Lease)
    clock.now += 50
    assert first.renew()
    clock.now += 50
    assert isinstance(take(book), Held)
    clock.now += 20
    second = take(book)
    assert isinstance(second, Lease)
    assert second.state.attempts == 2
    assert not first.renew()
    assert not first.settle(Verdict.DONE)
    assert second.settle(Verdict.DONE)


def test_what_is_done_stays_done_until_it_would_be_made_otherwise(book: LeaseBook) -> None:
    lease = take(book)
    assert isinstance(lease, Lease)
    lease.settle(Verdict.DONE)
    assert isinstance(take(book), Settled)
    assert isinstance(take(book, "another recipe"), Lease)


def test_attempts_that_were_begun_are_counted_also_where_workers_are_lost(book: LeaseBook, clock: Clock) -> None:
    for attempt in (1, 2, 3):
        lease = take(book)
        assert isinstance(lease, Lease)
        assert lease.state.attempts == attempt
        clock.now += 100
    given_up = take(book)
    assert isinstance(given_up, Settled)
    assert (given_up.state.verdict, given_up.now, given_up.state.error_class) == (Verdict.DEAD, True, "WorkerLost")
    again = take(book)
    assert isinstance(again, Settled)
    assert not again.now


def test_what_is_put_back_does_not_count(book: LeaseBook) -> None:
    for _ in range(10):
        lease = take(book)
        assert isinstance(lease, Lease)
        assert lease.state.attempts == 1
        assert lease.put_back()


def test_slide_that_was_given_up_is_tried_again_when_that_is_asked_for_or_its_bytes_are_others(book: LeaseBook) -> None:
    lease = take(book)
    assert isinstance(lease, Lease)
    lease.settle(Verdict.DEAD, Stage.UPLOAD, PROBLEM)
    settled = take(book)
    assert isinstance(settled, Settled)
    assert (settled.state.stage, settled.state.error_class) == ("upload", "StoreError")
    again = take(book, retry=True)
    assert isinstance(again, Lease)
    assert again.state.attempts == 1


def test_lease_of_an_older_object_keeps_others_away_too(book: LeaseBook) -> None:
    take(book)
    assert isinstance(take(book, "of newer bytes"), Held)


def test_state_that_is_none_is_an_error(book: LeaseBook) -> None:
    for data in (b"{", b"[]", b'{"what": 1}', b'{"work": "x", "verdict": "?"}'):
        book.store.put_bytes("slides/key.json", data)
        with pytest.raises(StoreError, match="no state of a slide"):
            take(book)
