"""Whether an attribute fulfils a key of a search (PS3.4 C.2.2.2, PS3.18 8.3.4)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from coverslip.errors import UsageError
from coverslip.server.indexed_attributes import Values

__all__ = ["Matcher", "make_matcher"]

type Matcher = Callable[[Values], bool]

_DATES = {"DA", "TM", "DT"}
_NUMBERS = {"IS", "DS", "US", "UL", "SS", "SL", "FL", "FD"}
_LONGEST = 1024
_UID = re.compile(r"[0-9.]{1,64}")
_RANGE = re.compile(r"(?P<first>[0-9.:+]*)(?P<dash>-?)(?P<last>[0-9.:+]*)")


def make_matcher(keyword: str, vr: str, text: str, *, fuzzy: bool = False) -> Matcher | None:
    """Return what tells whether values match; None if every value does.

    Parameters
    ----------
    keyword, vr : str
        Of the attribute.
    text : str
        Of the query, decoded.
    fuzzy : bool
        Whether names match by the beginnings of their words.

    Raises
    ------
    UsageError
        If such an attribute cannot have such a value; the message does not repeat it.
    """
    if len(text) > _LONGEST:
        raise UsageError(f"{keyword}: expected at most {_LONGEST} characters")
    if text in ("", "*"):
        return None
    if vr == "UI":
        return _uids(keyword, text)
    if vr in _DATES:
        return _range(keyword, vr, text)
    if vr in _NUMBERS:
        return _number(keyword, text)
    if vr == "PN":
        return _words(text) if fuzzy else _pattern(text, folded=True)
    return _pattern(text, folded=False)


def _uids(keyword: str, text: str) -> Matcher:
    wanted = re.split(r"[,\\]", text)
    if not all(_UID.fullmatch(each) for each in wanted):
        raise UsageError(f"{keyword}: expected UIDs")
    return lambda values: any(value in wanted for value in values)


def _number(keyword: str, text: str) -> Matcher:
    try:
        wanted = float(text)
    except ValueError:
        raise UsageError(f"{keyword}: expected a number") from None
    return lambda values: any(float(value) == wanted for value in values)


def _range(keyword: str, vr: str, text: str) -> Matcher:
    """Match dates and times as text: what is given less precisely means all that begins so."""
    if vr == "DT":
        text = text.replace("+", "")
    found = _RANGE.fullmatch(text)
    if found is None or not (found["first"] or found["last"]):
        raise UsageError(f"{keyword}: expected a date or time, or a range such as 20260101-20260131")
    first, last = (each.replace(":", "") for each in (found["first"], found["last"]))
    if vr == "DA" and any(each and len(each) != 8 for each in (first, last)):
        raise UsageError(f"{keyword}: expected dates such as 20260131")
    if not found["dash"]:
        return lambda values: any(str(value).startswith(first) for value in values)
    return lambda values: any(
        first <= str(value) and (not last or str(value) <= last or str(value).startswith(last)) for value in values
    )


def _pattern(text: str, *, folded: bool) -> Matcher:
    """Match text with wildcards, names in any case."""
    text = fold(text) if folded else text
    # Runs of asterisks mean one; a pattern of many would take long to be told apart.
    parts = [re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", text)]
    if len(parts) > 17:
        raise UsageError("expected at most 16 asterisks in a value")
    fits = _fits(tuple(parts))
    return lambda values: any(fits(each) for value in values for each in _texts(value, folded=folded))


def _fits(parts: tuple[str, ...]) -> Callable[[str], bool]:
    """Return what matches parts one after the other, each at the first place where it fits: never by trying back."""
    first, last = re.compile(parts[0], re.DOTALL), re.compile(parts[-1] + r"\Z", re.DOTALL)
    middle = [re.compile(part, re.DOTALL) for part in parts[1:-1]]
    if len(parts) == 1:
        return lambda text: first.fullmatch(text) is not None

    def fits(text: str) -> bool:
        found = first.match(text)
        if found is None:
            return False
        at = found.end()
        for part in middle:
            found = part.search(text, at)
            if found is None:
                return False
            at = found.end()
        return any(last.match(text, start) for start in range(at, len(text) + 1))

    return fits


def _words(text: str) -> Matcher:
    """Match every word with the beginning of a word of the name."""
    wanted = [word.strip("*?") for word in re.split(r"[\s^=,]+", fold(text))]

    def fits(values: Values) -> bool:
        for value in values:
            words = [word for each in _texts(value, folded=True) for word in re.split(r"[\s^=]+", each)]
            if all(any(word.startswith(part) for word in words) for part in wanted if part):
                return True
        return False

    return fits


def _texts(value: Any, *, folded: bool) -> list[str]:
    texts = list(value.values()) if isinstance(value, dict) else [str(value)]
    return [fold(each) for each in texts] if folded else texts


@lru_cache(4096)
def fold(text: str) -> str:
    """Return a text without case and accents."""
    apart = unicodedata.normalize("NFKD", text)
    return "".join(each for each in apart if not unicodedata.combining(each)).casefold()
