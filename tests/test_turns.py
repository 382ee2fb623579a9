"""Tests marked `serial` run while no other does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.turns import Turns


def take_in_a_thread(turns: Turns, *, alone: bool) -> tuple[threading.Thread, threading.Event]:
    has_turn = threading.Event()

    def take() -> None:
        turns.take(alone=alone)
        has_turn.set()

    thread = threading.Thread(target=take)
    thread.start()
    return thread, has_turn


def test_turns_are_side_by_side(tmp_path: Path) -> None:
    one, other = Turns(tmp_path), Turns(tmp_path)
    one.take(alone=False)
    other.take(alone=False)


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_who_wants_to_be_alone_is(tmp_path: Path, first: bool, second: bool) -> None:
    one, other = Turns(tmp_path), Turns(tmp_path)
    one.take(alone=first)
    thread, has_turn = take_in_a_thread(other, alone=second)
    assert not has_turn.wait(0.05)
    one.give_back()
    thread.join(30)
    assert has_turn.is_set()


def test_who_waits_to_be_alone_is_overtaken_by_nobody(tmp_path: Path) -> None:
    running, alone, late = (Turns(tmp_path) for _ in range(3))
    running.take(alone=False)
    waiting, is_alone = take_in_a_thread(alone, alone=True)
    assert not is_alone.wait(0.05)
    coming, has_come = take_in_a_thread(late, alone=False)
    assert not has_come.wait(0.05)
    running.give_back()
    waiting.join(30)
    assert not has_come.wait(0.05)
    alone.give_back()
    coming.join(30)
    assert has_come.is_set()
