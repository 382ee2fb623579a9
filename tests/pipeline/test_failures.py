"""What is told of a failure: no name of a file, and the words of the message as they are."""

from __future__ import annotations

import pytest

from coverslip.errors import CorruptSourceError, StoreError
from coverslip.pipeline.failures import Problem, leave_out_names


def names(*each: str) -> dict[str, str]:
    return dict.fromkeys(each, "slide")


@pytest.mark.parametrize(
    ("message", "of", "told"),
    [
        ("looks like a text file, not a slide", ("text.svs", "text"), "looks like a text file, not a slide"),
        ("the slide was changed", ("/data/the.svs", "the.svs", "the"), "the slide was changed"),
        ("byte offset 1024: truncated", ("1024.svs", "1024"), "byte offset 1024: truncated"),
        ("text.svs: cannot be read", ("text.svs", "text"), "slide: cannot be read"),
        ("no row for 'text' in the table", ("text.svs", "text"), "no row for slide in the table"),
        ("/a/b c/S-1.svs: is gone.", ("/a/b c/S-1.svs", "S-1.svs", "S-1"), "slide: is gone."),
        ("found S-1.svs.", ("S-1.svs",), "found slide."),
        ("S-12 and S-1 differ", ("S-1.svs", "S-1"), "S-12 and slide differ"),
        ("/a/S-1/Data.dat: cannot be read", ("/a/S-1", "S-1"), "slide/Data.dat: cannot be read"),
    ],
)
def test_names_are_left_out_as_a_whole_and_words_stay(message: str, of: tuple[str, ...], told: str) -> None:
    assert leave_out_names(message, names(*of)) == told


def test_problem_of_an_error_is_one_line_without_names() -> None:
    problem = Problem.of(CorruptSourceError("S-1.svs\n is cut off"), names("S-1.svs"))
    assert (problem.error_class, problem.message) == ("CorruptSourceError", "slide is cut off")
    assert not problem.retryable


def test_only_what_another_attempt_may_help_is_tried_again() -> None:
    assert Problem.of(StoreError("no answer"), {}).retryable
    assert "a fault of coverslip" in Problem.of(KeyError("secret"), {}).message
    assert "secret" not in Problem.of(KeyError("secret"), {}).message
