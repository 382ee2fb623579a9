"""The whole delivery, read top to bottom: prove, send, ask what arrived, retire what is replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from coverslip.errors import CoverslipError, StoreError, UsageError
from coverslip.pipeline.ledger import Ledger, State
from coverslip.stores.base import LocalInstance
from coverslip.stores.options import Naming
from coverslip.upload.deliverables import Deliverable, FoundSeries, describe_series
from coverslip.upload.destination import Destination, Listing
from coverslip.upload.outcome import DestinationOutcome, Failure, InstanceOutcome, SeriesOutcome
from coverslip.upload.proof import ValidateMode, check_bytes, prove_series
from coverslip.upload.tombstones import why_retracted

__all__ = ["DeliveryOptions", "Meter", "deliver"]

_SERIES_AT_ONCE = 2
"""While the large base of one series is on its way, the next one is proven and its instances sent."""


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """How series are delivered.

    Parameters
    ----------
    naming : Naming
    workers : int
        Instances on their way at once.
    validate : ValidateMode
    send, verify : bool
        Whether to send, and whether to ask afterwards what arrived.
    replaces : str
        Series Instance UID of a series that the one delivered takes the place of; empty for none.
    again : bool
        Also deliver what was retracted or replaced.
    """

    naming: Naming = Naming.UUIDS
    workers: int = 4
    validate: ValidateMode = ValidateMode.AUTO
    send: bool = True
    verify: bool = True
    replaces: str = ""
    again: bool = False


class Meter:
    """Counts bytes and instances as they go, for whoever watches; safe to use from several threads.

    Parameters
    ----------
    on_change : callable, optional
        Told the meter after each change.
    """

    def __init__(self, on_change: Callable[[Meter], None] | None = None) -> None:
        self.bytes_wanted = self.bytes_done = 0
        self.instances_wanted = self.instances_done = 0
        self._on_change = on_change
        self._lock = threading.Lock()

    def add(self, *, wanted: int = 0, done: int = 0, instances_wanted: int = 0, instances_done: int = 0) -> None:
        """Count more of each; bytes that must be sent again count negative."""
        with self._lock:
            self.bytes_wanted += wanted
            self.bytes_done += done
            self.instances_wanted += instances_wanted
            self.instances_done += instances_done
            if self._on_change is not None:
                self._on_change(self)


def deliver(
    found: Sequence[FoundSeries],
    destinations: Sequence[Destination],
    ledger: Ledger,
    options: DeliveryOptions,
    meter: Meter | None = None,
) -> Generator[SeriesOutcome]:
    """Deliver series to all destinations, and yield what became of each, in their order.

    Whatever happens to one series, instance or destination does not stop the others. What is interrupted is taken up
    by the next call with the same ledger.

    Raises
    ------
    UsageError
        If a series is to be replaced by several.
    StoreError
        If the ledger cannot be written.
    """
    if options.replaces and len(found) != 1:
        raise UsageError(f"--replace: wanted the one series that takes its place, {len(found)} were given")
    if options.replaces and found[0].series_instance_uid == options.replaces:
        raise UsageError("--replace: the series that is replaced is the one that is delivered")
    with _Run(destinations, ledger, options, meter or Meter()).threads() as run:
        pending: list[Future[SeriesOutcome]] = []
        for series in found:
            pending.append(run.series_threads.submit(run.deliver_series, series))
            if len(pending) > _SERIES_AT_ONCE:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


class _Run:
    """One call of `deliver`."""

    series_threads: ThreadPoolExecutor
    instance_threads: ThreadPoolExecutor

    def __init__(
        self, destinations: Sequence[Destination], ledger: Ledger, options: DeliveryOptions, meter: Meter
    ) -> None:
        self._destinations = destinations
        self._ledger = ledger
        self._options = options
        self._meter = meter
        self._stop = threading.Event()

    @contextmanager
    def threads(self) -> Iterator[_Run]:
        """Run the threads; on an interrupt they stop at the next chunk that they send."""
        self.series_threads = ThreadPoolExecutor(_SERIES_AT_ONCE)
        self.instance_threads = ThreadPoolExecutor(self._options.workers)
        try:
            yield self
        except BaseException:
            self._stop.set()
            raise
        finally:
            for threads in (self.series_threads, self.instance_threads):
                threads.shutdown(cancel_futures=self._stop.is_set())

    def deliver_series(self, found: FoundSeries) -> SeriesOutcome:
        """Deliver one series to all destinations."""
        size = sum(file.size_bytes for file in found.files)
        outcome = SeriesOutcome(
            found.series_instance_uid, found.files[0].uids.study_instance_uid, found.folder, len(found.files), size
        )
        try:
            series = describe_series(found, self._options.naming)
            self._require_allowed(series)
            known = self._all_known(series)
            if known is not None:
                return replace(outcome, proof="verified before", destinations=known)
            check_bytes(series, self.instance_threads)
            if self._options.send:
                outcome = replace(outcome, proof=prove_series(series, self._options.validate, self._ledger))
        except Exception as error:  # noqa: BLE001 - one series must not stop the others
            names = {str(file.path): file.uids.sop_instance_uid for file in found.files}
            return replace(outcome, failure=Failure.of(error, names))
        return replace(outcome, destinations=self._deliver_everywhere(series))

    def _require_allowed(self, series: Deliverable) -> None:
        """Refuse what was taken back, and what does not take the place that it should."""
        tombstone = self._ledger.tombstone(series.series_instance_uid)
        if tombstone is not None and self._options.send and not self._options.again:
            raise StoreError(_retracted(tombstone.reason))
        corrected = (series.conversion.get("replaces") or {}).get("series_instance_uid")
        if self._options.replaces and corrected not in (None, self._options.replaces):
            raise UsageError(
                f"--replace {self._options.replaces}: its conversion.json says that it replaces {corrected}"
            )

    def _all_known(self, series: Deliverable) -> tuple[DestinationOutcome, ...] | None:
        """Return the outcome if every destination has verified everything before and still lists it."""
        if not self._options.send or self._options.replaces:
            return None
        outcomes = []
        for destination in self._destinations:
            if not all(map(destination.is_verified, series.instances)):
                return None
            outcome = self._conclude(destination, series, list(map(destination.known, series.instances)))
            if outcome.state is not State.VERIFIED:
                return None
            outcomes.append(outcome)
        return tuple(outcomes)

    def _deliver_everywhere(self, series: Deliverable) -> tuple[DestinationOutcome, ...]:
        refused = {each.url: self._refusal(each, series) for each in self._destinations}
        open_to_it = [each for each in self._destinations if refused[each.url] is None]
        listed = {each.url: self._listed(each, series) for each in open_to_it}
        # Large ones first, so that the last to end is not one that was begun last.
        order = sorted(series.instances, key=lambda instance: -instance.size_bytes)
        self._meter.add(
            wanted=series.size_bytes * len(open_to_it) if self._options.send else 0,
            instances_wanted=len(series.instances) * len(open_to_it),
        )
        futures = {
            (each.url, instance.uids.sop_instance_uid): self.instance_threads.submit(
                self._deliver_instance, each, series, instance, listed[each.url]
            )
            for instance in order
            for each in open_to_it
        }
        outcomes = []
        for each in self._destinations:
            if failure := refused[each.url]:
                known = tuple(map(each.known, series.instances))
                outcomes.append(DestinationOutcome(each.url, known, refused=True, failure=failure))
                continue
            instances = [futures[each.url, one.uids.sop_instance_uid].result() for one in series.instances]
            outcomes.append(self._replace_old(each, series, self._conclude(each, series, instances)))
        return tuple(outcomes)

    def _refusal(self, destination: Destination, series: Deliverable) -> Failure | None:
        """Return why this store must not be sent the series, if so."""
        if self._options.again or not self._options.send:
            return None
        uid = series.series_instance_uid
        try:
            if (successor := destination.retired_for(uid)) is not None:
                raise StoreError(f"was replaced here by {successor}; --again uploads it nevertheless")
            if (reason := why_retracted(uid, destination.store)) is not None:
                raise StoreError(_retracted(reason))
        except StoreError as error:
            return Failure.of(error)
        return None

    def _listed(self, destination: Destination, series: Deliverable) -> frozenset[str]:
        """Return what the store lists of what was verified before, so that what has vanished since is sent again."""
        if not any(map(destination.is_verified, series.instances)):
            return frozenset()
        try:
            return destination.list_series(series).sop_instance_uids
        except StoreError:
            return frozenset()  # then each is asked for

    def _deliver_instance(
        self, destination: Destination, series: Deliverable, instance: LocalInstance, listed: frozenset[str]
    ) -> InstanceOutcome:
        def on_bytes(size_bytes: int) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._meter.add(done=size_bytes)

        if self._stop.is_set():
            raise KeyboardInterrupt
        if not self._options.send:
            outcome = destination.verify(series, instance)
        elif instance.uids.sop_instance_uid in listed and destination.is_verified(instance):
            on_bytes(instance.size_bytes)
            outcome = destination.known(instance)
        else:
            outcome = destination.send(series, instance, on_bytes)
            if outcome.state is State.UPLOADED and self._options.verify:
                verified = destination.verify(series, instance)
                warnings = (*outcome.warnings, *verified.warnings)
                outcome = replace(verified, bytes_sent=outcome.bytes_sent, warnings=warnings)
        self._meter.add(instances_done=1)
        return outcome

    def _conclude(
        self, destination: Destination, series: Deliverable, instances: Sequence[InstanceOutcome]
    ) -> DestinationOutcome:
        """Compare what the store lists of the series with what should be there."""
        outcome = DestinationOutcome(destination.url, tuple(instances))
        if self._options.send and not self._options.verify:
            return outcome
        try:
            listing: Listing = destination.list_series(series)
        except CoverslipError as error:
            return replace(outcome, failure=Failure.of(error))
        missing = [
            instance.sop_instance_uid
            for instance in instances
            if instance.state is State.VERIFIED and instance.sop_instance_uid not in listing.sop_instance_uids
        ]
        return replace(outcome, missing=tuple(missing), strangers=listing.strangers)

    def _replace_old(
        self, destination: Destination, series: Deliverable, outcome: DestinationOutcome
    ) -> DestinationOutcome:
        """Remove the replaced series, once the new one is proven to be there whole."""
        if not self._options.replaces or outcome.state is not State.VERIFIED:
            return outcome
        try:
            return replace(outcome, retired=destination.retire(self._options.replaces, series.series_instance_uid))
        except CoverslipError as error:
            failure = Failure.of(error)
            message = f"the replaced series could not be removed: {failure.message}"
            return replace(outcome, failure=Failure(failure.error_class, message))


def _retracted(reason: str) -> str:
    return f"was retracted ({reason}); --again uploads it nevertheless"
