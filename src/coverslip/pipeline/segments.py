"""The ledger of shards: append-only segments of JSON lines in a bucket or folder, which any task can read.

``SHARD/SESSION/000001-KEY-STATE.jsonl`` holds what a task wrote down of one slide at one time. A segment appears whole
and is never written again, so tasks need no lock and may run twice. Its name tells which slide it is of: a task lists
all names and reads what concerns its own slides.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from coverslip.errors import StoreError
from coverslip.pipeline.ledger import Kind, Record, Stage, State, Task
from coverslip.stores.base import ObjectStore

__all__ = ["SegmentJournal", "merge_records", "read_records"]

_NAME = re.compile(r"records/[^/]+/[^/]+/\d+-([0-9a-f]{40})-[a-z]+\.jsonl$")
_READERS = 16
_BELOW = "records/"


class SegmentJournal:
    """Keeps records in segments of its own, and reads those of all shards.

    Parameters
    ----------
    store : ObjectStore
        Of the run's state.
    shard : str
        Label of this shard.
    own_only : bool
        Whether no other shard has anything to say of this one's slides, so that their segments need not be listed.
    """

    def __init__(self, store: ObjectStore, shard: str, *, own_only: bool = False) -> None:
        self._store = store
        self._below = f"records/{shard}/" if own_only else _BELOW
        session = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        self._prefix = f"records/{shard}/{session}"
        self._number = 0
        self._waiting: list[Record] = []

    def load(self, keys: Collection[str]) -> Iterable[Record]:
        """Return what all shards have written down of slides."""
        return merge_records(read_records(self._store, keys, self._below))

    def put(self, records: Sequence[Record], *, checkpoint: bool) -> None:
        """Append records; at a checkpoint a segment for each slide."""
        self._waiting += records
        if not checkpoint:
            return
        waiting, self._waiting = self._waiting, []
        by_slide: dict[str, list[Record]] = {}
        for record in waiting:
            by_slide.setdefault(record.task.subject, []).append(record)
        for key, own in by_slide.items():
            self._number += 1
            text = "".join(f"{json.dumps(record_as_json(each))}\n" for each in own)
            self._store.put_bytes(f"{self._prefix}/{self._number:06d}-{key}-{own[-1].state}.jsonl", text.encode())


def read_records(store: ObjectStore, keys: Collection[str] | None = None, below: str = _BELOW) -> Iterator[Record]:
    """Yield all records of slides, of all shards, in order of writing within each.

    Parameters
    ----------
    keys : collection of str, optional
        Of the slides; by default all.
    below : str
        Where the segments are.
    """
    prefix = f"{store.url}/"
    names = []
    for stored in store.iter_objects(below):
        name = stored.location.removeprefix(prefix)
        match = _NAME.search(name)
        if match is not None and (keys is None or match[1] in keys):
            names.append(name)
    with ThreadPoolExecutor(_READERS) as executor:
        for name, data in zip(sorted(names), executor.map(store.read_bytes, sorted(names)), strict=True):
            try:
                yield from (record_from_json(json.loads(line)) for line in (data or b"").splitlines())
            except (ValueError, KeyError, TypeError):
                raise StoreError(f"{name}: no segment of a run's ledger") from None


def merge_records(records: Iterable[Record]) -> list[Record]:
    """Return one record for each stage of each slide, in order.

    Of two attempts by one recipe the one that was done counts, else the later; of one attempt what became of it, also
    if it was put back and so does not count.
    """
    merged: dict[tuple[str, Stage, str], Record] = {}
    for record in records:
        place = record.task.subject, record.task.stage, record.task.store
        known = merged.get(place)
        if known is None:
            merged[place] = record
            continue
        best = max((known, record), key=lambda each: _rank(each, known.task.parent == record.task.parent))
        same = known.started_at == record.started_at
        merged[place] = replace(best, attempt=best.attempt if same else max(known.attempt, record.attempt))
    return [merged[place] for place in sorted(merged)]


def _rank(record: Record, same_recipe: bool) -> tuple[bool, str, str, bool]:
    return (
        same_recipe and record.state is State.DONE,
        record.started_at or "",
        record.finished_at or "",
        record.state is not State.STARTED,
    )


def record_as_json(record: Record) -> dict[str, Any]:
    """Return the record of a slide as plain values, without what is not known."""
    task = record.task
    values = {
        "slide": task.subject,
        "stage": str(task.stage),
        "place": task.store,
        "recipe": task.parent,
        "state": str(record.state),
        "attempt": record.attempt,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "duration_s": record.duration_s,
        "size_bytes": record.size_bytes,
        "digest": record.digest,
        "location": record.location,
        "error_class": record.error_class,
        "error_message": record.error_message,
        "coverslip_version": record.coverslip_version,
    }
    return {name: value for name, value in values.items() if value not in (None, "")}


def record_from_json(values: dict[str, Any]) -> Record:
    """Return the record that a line tells."""
    return Record(
        Task(Kind.SLIDE, values["slide"], Stage(values["stage"]), values.get("place", ""), values.get("recipe", "")),
        State(values["state"]),
        int(values["attempt"]),
        values.get("started_at"),
        values.get("finished_at"),
        values.get("duration_s"),
        values.get("size_bytes"),
        values.get("digest"),
        values.get("location"),
        False,
        values.get("error_class"),
        values.get("error_message"),
        values["coverslip_version"],
    )
