"""What is told of a failure: its class, a line without names, and whether another attempt may help."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coverslip.errors import (
    CatalogError,
    ConflictError,
    CoverslipError,
    RejectedError,
    StoreError,
)

__all__ = ["Problem", "StageFailedError", "WorkerLost", "leave_out_names"]

_LONGEST = 500
WorkerLost = "WorkerLost"
"""Class of the failure of a slide whose process has ended."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a stage of a slide failed.

    Parameters
    ----------
    error_class, message : str
        One line, without the name of a file or person.
    retryable : bool
    exit_code : int
    """

    error_class: str
    message: str
    retryable: bool = False
    exit_code: int = 1

    @classmethod
    def of(cls, error: BaseException, names: Mapping[str, str]) -> Problem:
        """Return what is told of an error; of one that nobody foresaw only where it was raised.

        Parameters
        ----------
        names : mapping
            What to say in place of names and paths that may identify; see `leave_out_names`.
        """
        if isinstance(error, StageFailedError):
            return error.problem
        if isinstance(error, CoverslipError):
            message = leave_out_names(str(error), names)
            final = isinstance(error, RejectedError | ConflictError)
            retryable = isinstance(error, StoreError | CatalogError) and not final
            return cls(type(error).__name__, " ".join(message.split())[:_LONGEST], retryable, error.exit_code)
        if isinstance(error, MemoryError):
            return cls("MemoryError", "the memory does not suffice", retryable=True)
        place = traceback.extract_tb(error.__traceback__)[-1:]
        where = f" in {Path(place[0].filename).name}, line {place[0].lineno}" if place else ""
        return cls(type(error).__name__, f"unexpected{where}: a fault of coverslip, please report it", retryable=True)


class StageFailedError(CoverslipError):
    """Carries a problem that is already told out of a stage."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.message)


def leave_out_names(message: str, names: Mapping[str, str]) -> str:
    """Return a message with other words in place of names, where these stand as a whole.

    A name may be a word: of ``text.svs`` the name without its ending is "text", and "looks like a text file" is about
    no name. Such a one is one only in quotes.
    """
    for name in sorted(names, key=len, reverse=True):
        whole = re.escape(name)
        if _reads_as_word(name):
            message = re.sub(rf"(?P<quote>['\"]){whole}(?P=quote)", names[name], message)
        else:
            # A path may go on to what lies below it, and a sentence end behind a name.
            message = re.sub(rf"(?<![\w.-]){whole}(?![\w-]|\.\w)", names[name], message)
    return message


def _reads_as_word(name: str) -> bool:
    return not re.search(r"[/\\._]|\d", name) or name.isdecimal()
