"""Who works on a slide, how often it was tried and what became of it: one small object for each, changed by swaps.

``slides/KEY.json`` is read with its version and written in place of that version only, so of several workers one gets a
lease. Whoever is killed stops renewing it; after its end another may take it. Clocks of machines decide about nothing
else: should two work on one slide because theirs differ, both make the same bytes.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from coverslip.errors import ConflictError, StoreError
from coverslip.pipeline.failures import Problem, WorkerLost
from coverslip.pipeline.ledger import Stage
from coverslip.stores.base import ObjectStore

__all__ = ["FOLDER", "Held", "Lease", "LeaseBook", "Settled", "SlideState", "Verdict"]

FOLDER = "slides"
_CLOCKS_DIFFER_S = 5.0
_TRIES = 20


class Verdict(StrEnum):
    """What became of a slide."""

    OPEN = ""
    DONE = "done"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class SlideState:
    """What is known of a slide that has arrived.

    Parameters
    ----------
    work : str
        Recipe by which it is or was made; by another, as of other bytes, nothing counts that is told here.
    generation : str
        Of the object.
    size_bytes : int or None
    attempts : int
        Begun and not put back.
    verdict : Verdict
    owner : str
        Of the lease; empty if nobody has it.
    until : float
        End of the lease, in seconds since 1970.
    stage, error_class, error_message : str
        Of the last failure.
    """

    work: str
    generation: str = ""
    size_bytes: int | None = None
    attempts: int = 0
    verdict: Verdict = Verdict.OPEN
    owner: str = ""
    until: float = 0.0
    stage: str = ""
    error_class: str = ""
    error_message: str = ""

    def as_bytes(self) -> bytes:
        """Return the object."""
        told = {name: value for name, value in asdict(self).items() if value not in ("", None)}
        # Two states are never the same bytes, so that a swap whose answer was lost knows its own.
        return (json.dumps({**told, "mark": secrets.token_hex(8)}) + "\n").encode()

    @classmethod
    def read(cls, data: bytes, name: str) -> SlideState:
        """Return what an object tells.

        Raises
        ------
        StoreError
            If it is none of coverslip.
        """
        try:
            told: dict[str, Any] = json.loads(data)
            told.pop("mark", None)
            return cls(**{**told, "verdict": Verdict(told.get("verdict", ""))})
        except (ValueError, TypeError, AttributeError):
            raise StoreError(f"{name}: no state of a slide") from None


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing is to be done: the slide is done or was given up."""

    state: SlideState
    now: bool = False
    """Whether it was given up just now, because whoever worked on it was lost every time."""


@dataclass(frozen=True, slots=True)
class Held:
    """Another worker has the lease."""

    left_s: float


@dataclass(slots=True)
class Lease:
    """The right to work on a slide.

    Parameters
    ----------
    key : str
    state : SlideState
        As it was written last.
    version : str
        Of that in the store.
    """

    key: str
    state: SlideState
    version: str
    book: LeaseBook = field(repr=False)

    def renew(self) -> bool:
        """Have the lease go on; False if another has taken it."""
        return self._write(replace(self.state, until=self.book.clock() + self.book.lease_s))

    def settle(self, verdict: Verdict, stage: Stage | None = None, problem: Problem | None = None) -> bool:
        """Give the lease back with what became of the slide; `Verdict.OPEN`: it failed and may be tried again."""
        return self._write(
            replace(
                self.state,
                verdict=verdict,
                owner="",
                until=0.0,
                stage=str(stage or ""),
                error_class=problem.error_class if problem else "",
                error_message=problem.message if problem else "",
            )
        )

    def put_back(self) -> bool:
        """Give the lease back as if this attempt had not been."""
        return self._write(replace(self.state, owner="", until=0.0, attempts=max(0, self.state.attempts - 1)))

    def _write(self, state: SlideState) -> bool:
        try:
            self.version = self.book.store.swap_bytes(name_of(self.key), state.as_bytes(), self.version)
        except ConflictError:
            return False
        self.state = state
        return True


@dataclass(frozen=True, slots=True)
class LeaseBook:
    """The leases of all workers that share a store.

    Parameters
    ----------
    store : ObjectStore
    lease_s : float
        How long a lease lasts that is not renewed.
    attempts : int
        After so many that were begun a slide is given up.
    owner : str
        Of this worker's leases.
    clock : callable
        Seconds since 1970.
    """

    store: ObjectStore
    lease_s: float = 120.0
    attempts: int = 5
    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    clock: Callable[[], float] = time.time

    def take(
        self, key: str, work: str, generation: str, size_bytes: int | None, *, retry: bool = False
    ) -> Lease | Held | Settled:
        """Return the lease of a slide, or why there is none.

        Parameters
        ----------
        key, work, generation, size_bytes
            See `SlideState`.
        retry : bool
            Whether a slide that was given up is tried again, from the first attempt.

        Raises
        ------
        StoreError
        """
        for _ in range(_TRIES):
            found = self.store.read_versioned(name_of(key))
            known = SlideState.read(found.data, name_of(key)) if found else None
            same = known is not None and known.work == work
            attempts = 0
            if known is not None:
                if same and (known.verdict is Verdict.DONE or (known.verdict is Verdict.DEAD and not retry)):
                    return Settled(known)
                left_s = known.until + _CLOCKS_DIFFER_S - self.clock()
                if known.owner and left_s > 0:
                    return Held(left_s)
                attempts = known.attempts if same and known.verdict is Verdict.OPEN else 0
            state = SlideState(work, generation, size_bytes, attempts + 1, owner=self.owner)
            state = replace(state, until=self.clock() + self.lease_s)
            if attempts >= self.attempts:
                assert known is not None
                lost = "whoever worked on it was lost every time"
                state = replace(
                    known,
                    verdict=Verdict.DEAD,
                    owner="",
                    until=0.0,
                    error_class=known.error_class or WorkerLost,
                    error_message=known.error_message or lost,
                )
            try:
                version = self.store.swap_bytes(name_of(key), state.as_bytes(), found.version if found else None)
            except ConflictError:
                continue  # somebody else was quicker: look again
            return Lease(key, state, version, self) if state.owner else Settled(state, now=True)
        raise StoreError(f"{name_of(key)}: changes all the time", retryable=True)


def name_of(key: str) -> str:
    """Return the name of the object of a slide."""
    return f"{FOLDER}/{key}.json"
