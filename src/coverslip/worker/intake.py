"""What is done with one message, read top to bottom: is it about a slide, is that still so, may we, do it, say so."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

from coverslip.errors import StoreError, UsageError
from coverslip.metadata_maps.check import is_slide_name
from coverslip.pipeline.engine import RunOutcome, Stop
from coverslip.pipeline.failures import Problem
from coverslip.pipeline.ledger import Stage
from coverslip.pipeline.manifest import Checksums, Slide, list_bucket
from coverslip.stores.base import ObjectStore, StoredInstance
from coverslip.worker.events import ObjectEvent, names_of
from coverslip.worker.leases import Held, Lease, LeaseBook, Settled, Verdict
from coverslip.worker.traces import Trace

__all__ = ["Answer", "Intake", "IntakeLimits", "SlideSourceFolder", "Work"]

DEAD_LETTERS = "dead-letters"
_POLL_S = 0.5
_LONGEST_POLL_S = 5.0


class Outcome(StrEnum):
    """What is answered."""

    DONE = "done"
    SKIPPED = "skipped"
    DEAD = "given up"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a message; all but `Outcome.LATER` acknowledge it.

    Parameters
    ----------
    outcome : Outcome
    reason : str
    key : str
        Of the slide, if it is one.
    severity : str
        Of the line in the log.
    error_class : str
    """

    outcome: Outcome
    reason: str
    key: str = ""
    severity: str = "INFO"
    error_class: str = ""

    @property
    def acknowledges(self) -> bool:
        """Whether the message need not come again."""
        return self.outcome is not Outcome.LATER


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """When a message is answered.

    Parameters
    ----------
    wait_s : float
        How long a message waits for the slide before it, or for another worker that has its slide.
    max_deliveries : int
        A slide that fails is given up when its message was delivered so often; 0 for never.
    """

    wait_s: float = 540.0
    max_deliveries: int = 0


type Work = Callable[[Slide, Stop, Trace], RunOutcome]
"""Takes a slide through all stages; returns when what became of it is written down where it stays."""


class SlideSourceFolder:
    """The bucket that slides arrive in, or a part of it; or a folder, whose name then stands for the bucket's.

    Parameters
    ----------
    store : ObjectStore
    secret : str
        What the project's key makes of itself, for keys of slides.
    """

    def __init__(self, store: ObjectStore, secret: str = "") -> None:
        self.store = store
        self._secret = secret
        parts = urlsplit(store.url)
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        if self._folder is not None:
            self.bucket, self._prefix = self._folder.name, ""
        elif parts.scheme == "gs":
            self.bucket, self._prefix = parts.netloc, parts.path.strip("/")
        else:
            raise UsageError(f"{store.url}: wanted gs://bucket or a folder, where new objects are told of")

    def relative_name(self, event: ObjectEvent) -> str | None:
        """Return the name of the object below the URL of the source; None if it lies elsewhere."""
        if event.bucket != self.bucket:
            return None
        if not self._prefix:
            return event.name
        if not event.name.startswith(f"{self._prefix}/"):
            return None
        return event.name.removeprefix(f"{self._prefix}/")

    def find(self, name: str) -> tuple[Slide, str] | None:
        """Return the slide that is there now, with the generation of its object; None if there is none.

        The slide has the key that a run over the bucket gives it, and the checksums that the bucket tells.
        """
        found = self.store.find_object(name)
        if found is None:
            return None
        beside = self._companions(name)
        # A slide's own folder may hold files that are named like slides.
        (slide,) = list_bucket(self.store.url, chain([found], beside), lambda each: each == name, self._secret)
        location = slide.location if self._folder is None else str(self._folder / name)
        checksums = Checksums(md5=found.md5 or self._local_md5(name), crc32c="" if found.md5 else found.crc32c or "")
        return replace(slide, number=0, location=location, checksums=checksums), found.generation or ""

    def _companions(self, name: str) -> Iterator[StoredInstance]:
        """Yield what may belong to the slide, for its size."""
        stem, _, ending = name.rpartition(".")
        return iter(self.store.iter_objects(f"{stem}/")) if ending.lower() == "mrxs" else iter(())

    def _local_md5(self, name: str) -> str:
        if self._folder is None:
            return ""
        try:
            with open(self._folder / name, "rb") as file:
                return hashlib.file_digest(file, "md5").hexdigest()
        except OSError as error:
            raise StoreError(f"the slide cannot be read: {error.strerror}", retryable=True) from None


class Intake:
    """Takes messages from several threads, and works on one slide at a time.

    Parameters
    ----------
    source : SlideSourceFolder
    leases : LeaseBook
    recipe_of : callable
        Returns what changes with everything that shapes the output of a slide; raises what `work` would fail with.
    work : callable
        See `Work`.
    limits : IntakeLimits
    """

    def __init__(
        self,
        source: SlideSourceFolder,
        leases: LeaseBook,
        recipe_of: Callable[[Slide], str],
        work: Work,
        limits: IntakeLimits,
    ) -> None:
        self._source = source
        self._leases = leases
        self._recipe_of = recipe_of
        self._work = work
        self._limits = limits
        self._turn = threading.Condition()
        self._stops: set[Stop] = set()
        self._stopped = threading.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether no more slides are begun."""
        return self._stopped.is_set()

    @property
    def is_busy(self) -> bool:
        """Whether a slide is worked on."""
        return bool(self._stops)

    def stop(self, exit_code: int) -> None:
        """Begin nothing more, and put back what is under way; may be called from a signal handler."""
        self._stopped.set()  # first: a slide that is begun meanwhile looks for it
        for stop in tuple(self._stops):
            stop.exit_code = exit_code

    def handle(self, event: ObjectEvent, trace: Trace) -> Answer:
        """Return what is to be answered to a message, when that is so and will stay so.

        Raises
        ------
        CoverslipError
            If that cannot be told now: the message must come again.
        """
        if not event.is_new:
            return Answer(Outcome.SKIPPED, "not about a new object")
        name = self._source.relative_name(event)
        if name is None:
            return Answer(Outcome.SKIPPED, "of another bucket or folder")
        if not is_slide_name(name) or any(part.startswith(".") for part in name.split("/")):
            return Answer(Outcome.SKIPPED, "not a slide, by the ending of its name")
        if any(part in ("", "..") for part in name.split("/")) or not name.isprintable() or "\\" in name:
            return Answer(Outcome.SKIPPED, "a name that cannot be fetched", severity="WARNING")
        deadline = time.monotonic() + self._limits.wait_s
        wait_s = _POLL_S
        while True:
            answer = self._try(event, name, trace, deadline)
            if not isinstance(answer, Held):
                return answer
            left_s = min(wait_s, answer.left_s + 0.1, deadline - time.monotonic())
            if left_s <= 0 or self._stopped.wait(left_s):
                reason = "stopping" if self.is_stopping else "another worker has the slide"
                return Answer(Outcome.LATER, reason, severity="DEBUG")
            wait_s = min(_LONGEST_POLL_S, wait_s * 2)

    def _try(self, event: ObjectEvent, name: str, trace: Trace, deadline: float) -> Answer | Held:
        """Work on a slide if it is there, is to be worked on and nobody else does."""
        found = self._source.find(name)
        if found is None:
            return Answer(Outcome.SKIPPED, "gone meanwhile")
        slide, generation = found
        if _is_older(event.generation, generation):
            return Answer(Outcome.SKIPPED, "there is a newer object of this name", slide.key)
        with self._one_at_a_time(deadline) as is_turn:
            if not is_turn:
                reason = "stopping" if self.is_stopping else "busy with another slide"
                return Answer(Outcome.LATER, reason, slide.key, severity="DEBUG")
            work = self._recipe_of(slide)
            lease = self._leases.take(slide.key, work, generation, slide.size_bytes, retry=event.retry)
            match lease:
                case Held():
                    return lease
                case Settled():
                    return self._settled(slide, lease)
                case Lease():
                    return self._work_on(event, name, slide, lease, trace)

    def _settled(self, slide: Slide, settled: Settled) -> Answer:
        if settled.state.verdict is Verdict.DONE:
            return Answer(Outcome.DONE, "was done before", slide.key)
        if settled.now:
            self._bury(slide, settled.state.generation, settled.state.attempts, settled.state.stage,
                       settled.state.error_class, settled.state.error_message)  # fmt: skip
        when = f"after {settled.state.attempts} attempts" if settled.now else "before"
        severity = "ERROR" if settled.now else "WARNING"
        return Answer(Outcome.DEAD, f"given up {when}", slide.key, severity, settled.state.error_class)

    @contextlib.contextmanager
    def _one_at_a_time(self, deadline: float) -> Iterator[bool]:
        """Wait until this process works on no slide; gives whether that came to be in time."""
        with self._turn:
            stop = Stop()
            while self._stops and not self.is_stopping:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                self._turn.wait(min(left_s, _POLL_S))
            is_turn = not self._stops and not self.is_stopping
            if is_turn:
                self._stops.add(stop)
        try:
            yield is_turn
        finally:
            with self._turn:
                self._stops.discard(stop)
                self._turn.notify()

    def _work_on(self, event: ObjectEvent, name: str, slide: Slide, lease: Lease, trace: Trace) -> Answer:
        (stop,) = self._stops
        if self.is_stopping:
            stop.exit_code = stop.exit_code or 143
        try:
            with _renewed(lease, stop):
                outcome = self._work(slide, stop, trace)
        except Exception as error:
            with contextlib.suppress(StoreError):
                lease.settle(Verdict.OPEN, None, Problem.of(error, names_of(event.name)))
            raise
        if outcome.done:
            if not lease.settle(Verdict.DONE):
                raise StoreError("the lease was lost", retryable=True)
            return Answer(Outcome.DONE, "done now", slide.key)
        if not outcome.failures:
            lease.put_back()
            return Answer(Outcome.LATER, "put back: stopping", slide.key, "NOTICE")
        ((_, stage, problem),) = outcome.failures.values()
        now = self._source.find(name)
        if now is None or now[1] != lease.state.generation:
            lease.put_back()
            return Answer(Outcome.SKIPPED, "replaced or removed while it was worked on", slide.key)
        return self._failed(event, slide, lease, stage, problem)

    def _failed(self, event: ObjectEvent, slide: Slide, lease: Lease, stage: Stage, problem: Problem) -> Answer:
        """Have a slide tried again, or give it up: where another attempt helps nothing, or there were enough."""
        attempts = lease.state.attempts
        # Files of a slide that has several may still be on their way.
        may_help = problem.retryable or bool(slide.companions)
        often = 0 < self._limits.max_deliveries <= event.delivery_attempt
        text = f"{stage} failed: {problem.error_class}: {problem.message}"
        if may_help and not often and attempts < self._leases.attempts:
            lease.settle(Verdict.OPEN, stage, problem)
            return Answer(Outcome.LATER, f"{text} (attempt {attempts})", slide.key, "WARNING", problem.error_class)
        self._bury(slide, lease.state.generation, attempts, stage, problem.error_class, problem.message)
        if not lease.settle(Verdict.DEAD, stage, problem):
            raise StoreError("the lease was lost", retryable=True)
        return Answer(Outcome.DEAD, f"{text}; given up", slide.key, "ERROR", problem.error_class)

    def _bury(
        self, slide: Slide, generation: str, attempts: int, stage: str, error_class: str, error_message: str
    ) -> None:
        """Write a dead letter, which names the object by the generation that it has in its bucket."""
        told = {
            "slide": slide.key,
            "generation": generation,
            "attempts": attempts,
            "stage": str(stage),
            "error_class": error_class,
            "error_message": error_message,
        }
        with contextlib.suppress(StoreError):  # what counts is written with the lease
            self._leases.store.put_bytes(f"{DEAD_LETTERS}/{slide.key}.json", (json.dumps(told) + "\n").encode())


@contextlib.contextmanager
def _renewed(lease: Lease, stop: Stop) -> Iterator[None]:
    """Renew a lease as long as it is used; work is stopped if another has taken it."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(lease.book.lease_s / 3):
            try:
                if not lease.renew():
                    stop.exit_code = stop.exit_code or 1
                    return
            except StoreError:
                continue  # a store that does not answer now may do so before the lease ends

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_older(told: str, there: str) -> bool:
    """Whether a message is about a generation that another has replaced."""
    if told.isdecimal() and there.isdecimal():
        return int(told) < int(there)
    return bool(told) and told != there
