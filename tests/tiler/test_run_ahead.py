"""Work that runs ahead of whoever takes its results."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from coverslip.tiler.run_ahead import RunAhead


def numbers(made: list[int], closed: threading.Event, count: int = 100) -> Generator[int]:
    try:
        for number in range(count):
            made.append(number)
            yield number
    finally:
        closed.set()


def test_results_come_in_order_and_the_work_ends() -> None:
    closed = threading.Event()
    with RunAhead(numbers([], closed), lambda _: 1, 3) as work:
        assert list(work) == list(range(100))
    assert closed.is_set()


def test_work_begins_at_once_and_waits_when_enough_is_ready() -> None:
    made: list[int] = []
    closed, third = threading.Event(), threading.Event()

    def size(number: int) -> int:
        if number == 3:
            third.set()  # offered beside three that wait
        return 1

    with RunAhead(numbers(made, closed), size, 3) as work:
        assert third.wait(10)
        assert made == [0, 1, 2, 3]
        assert next(work) == 0
    assert closed.is_set()
    assert len(made) <= 6


def test_one_result_may_wait_whatever_its_size() -> None:
    with RunAhead(numbers([], threading.Event(), 5), lambda _: 1000, 1) as work:
        assert list(work) == [0, 1, 2, 3, 4]


def test_error_comes_after_the_results_made_before_it() -> None:
    def failing() -> Generator[int]:
        yield 1
        raise ValueError("broken")

    with RunAhead(failing(), lambda _: 1, 10) as work:
        assert next(work) == 1
        with pytest.raises(ValueError, match="broken"):
            next(work)
        with pytest.raises(ValueError, match="broken"):
            next(work)


def test_leaving_early_closes_the_work() -> None:
    closed = threading.Event()
    with RunAhead(numbers([], closed), lambda _: 1, 2):
        pass
    assert closed.is_set()
    assert not any(thread.name == "coverslip-ahead" for thread in threading.enumerate())
