"""One store and what the ledger knows of it: send, prove, look for strangers, take away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coverslip.errors import ConflictError, CoverslipError, RejectedError, StoreError
from coverslip.pipeline.ledger import Kind, Ledger, Record, Stage, State, Task
from coverslip.stores.base import (
    Comparison,
    LocalInstance,
    ObjectStore,
    OnBytes,
    PutOutcome,
    PutResult,
    Store,
    StoredInstance,
)
from coverslip.upload.deliverables import Deliverable, fingerprint
from coverslip.upload.outcome import Failure, InstanceOutcome

__all__ = ["Destination", "Listing"]


_DIGESTS = ("md5", "crc32c")
_OF_BYTES = (*_DIGESTS, "size", "frame", "frames")
"""First words of what comparisons tell of bytes, besides metadata."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a store lists of a series.

    Parameters
    ----------
    sop_instance_uids : frozenset of str
        Of what is ours.
    strangers : tuple of str
        SOP Instance UIDs or locations of what is not, in order.
    """

    sop_instance_uids: frozenset[str]
    strangers: tuple[str, ...]


class Destination:
    """A store that series are delivered to; safe to use from several threads.

    Parameters
    ----------
    store : Store
    ledger : Ledger
    most_frames : int or None
        How many frames of an instance are read back and compared, evenly spread; None for all.
    """

    def __init__(self, store: Store, ledger: Ledger, most_frames: int | None) -> None:
        self.store = store
        self.url = store.url
        self._ledger = ledger
        self._most_frames = most_frames

    def is_verified(self, instance: LocalInstance) -> bool:
        """Whether the ledger knows these bytes as verified here, under the name they would be given."""
        sent, verified = self._record(instance, Stage.UPLOAD), self._record(instance, Stage.VERIFY)
        if verified is None or verified.state is not State.VERIFIED:
            return False
        if isinstance(self.store, ObjectStore):
            return verified.location == self._location(instance.object_name)
        return sent is None or sent.state is State.UPLOADED

    def known(self, instance: LocalInstance) -> InstanceOutcome:
        """Return what the ledger knows, without asking the store."""
        if self.is_verified(instance):
            record = self._record(instance, Stage.VERIFY)
            location = (record.location if record else None) or ""
            return InstanceOutcome(instance.uids.sop_instance_uid, instance.path, State.VERIFIED, location)
        record = self._record(instance, Stage.UPLOAD)
        state = State.UPLOADED if record is not None and record.state is State.UPLOADED else State.PENDING
        return InstanceOutcome(instance.uids.sop_instance_uid, instance.path, state)

    def send(self, series: Deliverable, instance: LocalInstance, on_bytes: OnBytes) -> InstanceOutcome:
        """Put an instance, unless the store has acknowledged it in an earlier run and still holds what was sent."""
        uid = instance.uids.sop_instance_uid
        task, record = self._task(instance, Stage.UPLOAD), self._record(instance, Stage.UPLOAD)
        # What is there although nothing was before we first tried comes from us: cut off, or damaged on its way.
        before = record is not None and record.ours
        started, sent = False, 0

        def count(size_bytes: int) -> None:
            nonlocal sent
            sent += size_bytes
            on_bytes(size_bytes)

        try:
            if record is not None and record.state is State.UPLOADED and self._still_there(instance, record):
                on_bytes(instance.size_bytes)
                return InstanceOutcome(uid, instance.path, State.UPLOADED, record.location or "")
            ours = before or self.store.find(instance) is None
            self._ledger.start(task, digest=instance.md5, size_bytes=instance.size_bytes, ours=ours)
            started = True
            result = self._put(instance, count, may_replace=before)
            _require_unchanged(series, instance)
        except Exception as error:  # noqa: BLE001 - one instance must not stop the others
            failure = _failure_of(error, instance)
            # Also a conflict is a refusal: other bytes under this UID are there, and stay.
            state = State.REJECTED if isinstance(error, RejectedError | ConflictError) else State.FAILED
            if not started:
                self._ledger.start(task, digest=instance.md5, size_bytes=instance.size_bytes, ours=before)
            self._ledger.finish(task, state, error=(failure.error_class, failure.message))
            return InstanceOutcome(uid, instance.path, state, failure=failure)
        self._ledger.finish(task, State.UPLOADED, location=result.stored.location)
        on_bytes(instance.size_bytes - sent)
        new = result.outcome is PutOutcome.STORED
        return InstanceOutcome(
            uid,
            instance.path,
            State.UPLOADED,
            result.stored.location,
            instance.size_bytes if new else 0,
            warnings=result.warnings,
        )

    def verify(self, series: Deliverable, instance: LocalInstance) -> InstanceOutcome:
        """Ask the store for an instance and compare it with the local file."""
        task = self._task(instance, Stage.VERIFY)
        uid = instance.uids.sop_instance_uid
        self._ledger.start(task, digest=instance.md5, size_bytes=instance.size_bytes)
        try:
            stored = self.store.find(instance)
            if stored is None:
                raise StoreError(f"instance {uid} is not in {self.url}")
            comparison = self._compare(instance)
            _require_unchanged(series, instance)
            grave, remarks = _judge(comparison)
            if grave:
                raise StoreError(f"differs in the store: {'; '.join(grave)}")
        except Exception as error:  # noqa: BLE001 - one instance must not stop the others
            failure = _failure_of(error, instance)
            self._ledger.finish(task, State.FAILED, error=(failure.error_class, failure.message))
            return InstanceOutcome(uid, instance.path, State.FAILED, failure=failure)
        self._ledger.finish(task, State.VERIFIED, location=stored.location)
        return InstanceOutcome(
            uid, instance.path, State.VERIFIED, stored.location, compared=comparison.compared, warnings=remarks
        )

    def list_series(self, series: Deliverable) -> Listing:
        """Ask the store what it holds of a series.

        Raises
        ------
        StoreError
            If it does not answer.
        """
        ours = {instance.uids.sop_instance_uid: instance.object_name for instance in series.instances}
        expected = {**ours, **series.siblings}
        # Instances of the same series that other runs have delivered are not strangers.
        records = self._ledger.records_of(series.series_instance_uid, Stage.UPLOAD, self.url)
        also = {record.task.subject: record.location for record in records}
        if isinstance(self.store, ObjectStore):
            prefixes = sorted({name.rpartition("/")[0] for name in expected.values()})
            found = {stored.location for prefix in prefixes for stored in self.store.iter_objects(f"{prefix}/")}
            held = {uid for uid, name in ours.items() if self._location(name) in found}
            known = {self._location(name) for name in expected.values()} | {place for place in also.values() if place}
        else:
            stored = self.store.iter_instances(series.study_instance_uid, series.series_instance_uid)
            found = {each.uids.sop_instance_uid if each.uids else each.location for each in stored}
            held = ours.keys() & found
            known = expected.keys() | also.keys()
        return Listing(frozenset(held), tuple(sorted(found - known)))

    def iter_stored(self, series_instance_uid: str, *, thorough: bool) -> Iterator[StoredInstance]:
        """Yield what the store holds of a series, each once.

        Parameters
        ----------
        thorough : bool
            Also look where the ledger knows of nothing; in a bucket whose names are not made of UIDs that reads the
            header of every instance.
        """
        records = self._ledger.records_of(series_instance_uid, Stage.UPLOAD, self.url)
        seen = set()
        if isinstance(self.store, ObjectStore):
            places = {record.location.removeprefix(f"{self.url}/") for record in records if record.location}
            for prefix in sorted({place.rpartition("/")[0] for place in places if "/" in place}):
                for stored in self.store.iter_objects(f"{prefix}/"):
                    seen.add(stored.location)
                    yield stored
            thorough = thorough or not places
        if thorough or not isinstance(self.store, ObjectStore):
            for stored in self.store.iter_instances("", series_instance_uid):
                if stored.location not in seen:
                    yield stored

    def remove(self, series_instance_uid: str, found: Sequence[StoredInstance], *, thorough: bool = True) -> int:
        """Remove what was found of a series, and return how many instances were there.

        Raises
        ------
        StoreError
            If something of it is left.
        """
        removed = sum(self.store.remove(stored) for stored in found)
        left = sum(1 for _ in self.iter_stored(series_instance_uid, thorough=thorough)) if found else 0
        if left:
            raise StoreError(f"{left} instances of {series_instance_uid} are still in {self.url} after their removal")
        return removed

    def retired_for(self, series_instance_uid: str) -> str | None:
        """Return the UID of the series that has taken the place of this one here, or None."""
        record = self._ledger.record(Task(Kind.SERIES, series_instance_uid, Stage.RETIRE, self.url))
        return None if record is None else record.location or "another series"

    def retire(self, old: str, new: str) -> int:
        """Remove the series that another one replaces; from now on it is not uploaded here again."""
        task = Task(Kind.SERIES, old, Stage.RETIRE, self.url)
        self._ledger.start(task)
        self._ledger.finish(task, State.STARTED, location=new)
        try:
            removed = self.remove(old, list(self.iter_stored(old, thorough=False)), thorough=False)
        except CoverslipError as error:
            failure = Failure.of(error)
            self._ledger.finish(task, State.FAILED, location=new, error=(failure.error_class, failure.message))
            raise
        self._ledger.forget_instances(old, self.url)
        self._ledger.finish(task, State.DONE, location=new)
        return removed

    def _put(self, instance: LocalInstance, on_bytes: OnBytes, *, may_replace: bool) -> PutResult:
        try:
            return self.store.put(instance, on_bytes)
        except ConflictError:
            stored = self.store.find(instance)
            if not may_replace or stored is None:
                raise
            self.store.remove(stored)
        return self.store.put(instance, on_bytes)

    def _compare(self, instance: LocalInstance) -> Comparison:
        from coverslip.stores.part10 import Part10File, sample_frame_numbers

        file = Part10File(instance.path)
        header, frames = file.header, file.number_of_frames
        sides = int(header.get("Rows", 0)), int(header.get("Columns", 0))
        if sides[0] * sides[1] * int(header.get("BitsAllocated", 8)) % 8:
            frames = 0  # of single bits that run on from frame to frame (PS3.5 8.1.1): there is none to ask for alone
        count = frames if self._most_frames is None else self._most_frames
        return self.store.compare(instance, sample_frame_numbers(frames, count))

    def _still_there(self, instance: LocalInstance, record: Record) -> bool:
        """Whether what was acknowledged before is there; what did not pass its proof and is ours is removed."""
        stored = self.store.find(instance)
        if stored is None:
            return False
        verify = self._record(instance, Stage.VERIFY)
        if verify is not None and verify.state is State.FAILED and record.ours:
            if not _judge(self._compare(instance))[0]:
                return True
            self.store.remove(stored)
            return False
        return True

    def _task(self, instance: LocalInstance, stage: Stage) -> Task:
        uids = instance.uids
        return Task(Kind.INSTANCE, uids.sop_instance_uid, stage, self.url, uids.series_instance_uid)

    def _record(self, instance: LocalInstance, stage: Stage) -> Record | None:
        """Return what the ledger knows of these very bytes."""
        record = self._ledger.record(self._task(instance, stage))
        return record if record is not None and record.digest == instance.md5 else None

    def _location(self, name: str) -> str:
        return f"{self.url}/{name}"


def _judge(comparison: Comparison) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the differences that disprove an instance, and remarks.

    Where a digest of all bytes is equal the instance is there as it is here; that a store tells some metadata in
    another way, for example without empty items, is a remark.
    """
    if not comparison.compared:
        return ("nothing could be compared",), ()
    grave = [each for each in comparison.differences if each.split(":")[0].split(" ")[0] in _OF_BYTES]
    if grave or not any(each.startswith(_DIGESTS) for each in comparison.compared):
        return comparison.differences, ()
    return (), tuple(f"the store tells other metadata: {each}" for each in comparison.differences)


def _require_unchanged(series: Deliverable, instance: LocalInstance) -> None:
    if fingerprint(instance.path) != series.fingerprints[instance.uids.sop_instance_uid]:
        raise StoreError("the file was changed meanwhile, expected a file at rest")


def _failure_of(error: Exception, instance: LocalInstance) -> Failure:
    """Return what is told of an error; names of files may name persons, UIDs do not."""
    uid = instance.uids.sop_instance_uid
    failure = Failure.of(error, {str(instance.path): uid, instance.path.name: uid})
    return Failure(failure.error_class, failure.message.removeprefix("instance ").removeprefix(f"{uid}: "))
