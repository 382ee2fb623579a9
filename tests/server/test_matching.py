"""Keys of searches against values."""

from __future__ import annotations

import pytest

from coverslip.errors import UsageError
from coverslip.server.matching import make_matcher
from coverslip.server.negotiation import choose_frame_form, parse_accept

NAME = {"Alphabetic": "Müller^Anna Maria"}


@pytest.mark.parametrize(
    ("vr", "text", "value", "matches"),
    [
        ("DA", "20260101-20260131", "20260131", True),
        ("DA", "20260101-20260131", "20260201", False),
        ("DA", "-20260131", "19990101", True),
        ("DA", "20260131", "20260131", True),
        ("TM", "10-11", "115959.5", True),
        ("TM", "1000-1100", "0959", False),
        ("LO", "a*c?e", "abbcde", True),
        ("LO", "a*c?e", "abbcdex", False),
        ("LO", "[ab]*", "[ab]c", True),
        ("LO", "[ab]*", "ac", False),
        ("LO", "*" * 10 + "x", "aax", True),
        ("LO", "ab*ba", "aba", False),
        ("PN", "muller^*", NAME, True),
        ("IS", "7", 7, True),
        ("IS", "7.0", "8", False),
        ("UI", "1.2,1.3", "1.3", True),
        ("UI", r"1.2\1.3", "1.4", False),
    ],
)
def test_a_value_matches_as_the_standard_says(vr: str, text: str, value: object, matches: bool) -> None:
    matcher = make_matcher("Keyword", vr, text)
    assert matcher is not None
    assert matcher((value,)) is matches
    assert matcher(()) is False


def test_fuzzy_names_match_by_beginnings_of_words_without_accents() -> None:
    for text, matches in (("mull", True), ("anna mul", True), ("maria", True), ("nna", False)):
        matcher = make_matcher("PatientName", "PN", text, fuzzy=True)
        assert matcher is not None
        assert matcher((NAME,)) is matches


def test_no_value_matches_everything() -> None:
    assert make_matcher("PatientID", "LO", "") is None
    assert make_matcher("PatientID", "LO", "*") is None


@pytest.mark.parametrize(("vr", "text"), [("DA", "yesterday"), ("DA", "1999"), ("UI", "abc"), ("IS", "seven")])
def test_a_value_of_another_kind_is_refused_without_being_repeated(vr: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_matcher("Keyword", vr, text)
    assert text not in str(caught.value)


@pytest.mark.timeout(5)
def test_many_asterisks_take_no_time() -> None:
    matcher = make_matcher("PatientID", "LO", "*a" * 15 + "b")
    assert matcher is not None
    assert matcher(("a" * 5000,)) is False
    with pytest.raises(UsageError):
        make_matcher("PatientID", "LO", "*a" * 30)


def test_accept_is_read_with_weights_quotes_and_what_is_odd_left_out() -> None:
    text = 'text/html;q=0.5, multipart/related; type="image/jp2, x"; transfer-syntax=1.2, */*;q=0, bad, a/b;q=x'
    found = parse_accept(text)
    assert [each.media_type for each in found] == ["multipart/related", "text/html"]
    assert found[0].inner == "image/jp2, x"
    assert [each.media_type for each in parse_accept("")] == ["*/*"]
    assert parse_accept("a/b," * 3000) == ()


@pytest.mark.parametrize(
    ("accept", "stored", "form"),
    [
        ("*/*", "1.2.840.10008.1.2.4.90", ("image/jp2", "1.2.840.10008.1.2.4.90")),
        ('multipart/related; type="*/*"', "1.2.840.10008.1.2.1", ("application/octet-stream", "1.2.840.10008.1.2.1")),
        ('multipart/related; type="image/*"', "1.2.840.10008.1.2.4.50", ("image/jpeg", "1.2.840.10008.1.2.4.50")),
        ("image/x-jls", "1.2.840.10008.1.2.4.81", ("image/jls", "1.2.840.10008.1.2.4.81")),
        ("image/jp2", "1.2.840.10008.1.2.4.50", None),
        ("image/png, */*;q=0.1", "1.2.840.10008.1.2.4.50", ("image/jpeg", "1.2.840.10008.1.2.4.50")),
    ],
)
def test_frames_take_the_form_that_is_wanted_most(accept: str, stored: str, form: tuple[str, str] | None) -> None:
    found = choose_frame_form(accept, stored, True, frozenset())
    assert (found and (found.media_type, found.transfer_syntax_uid)) == form
