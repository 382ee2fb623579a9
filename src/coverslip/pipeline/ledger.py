"""The ledger: what became of every slide, series and instance at every stage, in one SQLite file.

A stage writes down that it starts before it does anything, and how it ended when that is so. Whatever is killed in
between stands in the ledger as started, and is done again: every stage may be repeated without harm. The ledger holds
UIDs, digests, sizes, times and locations without secrets, and no other text of a slide, file or person.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from coverslip import __version__
from coverslip.errors import StoreError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Kind", "Ledger", "Record", "Stage", "State", "Task", "Tombstone", "default_ledger"]

_APPLICATION_ID = 0x636F7673
"""``covs`` in ASCII; by it a ledger is told from any other SQLite file."""

_BUSY_S = 60.0

# Each entry brings the schema from the version that is its index to the next. Never change one that was released.
_MIGRATIONS: Sequence[Sequence[str]] = (
    (
        """
        CREATE TABLE record (
            kind TEXT NOT NULL CHECK (kind IN ('slide', 'series', 'instance')),
            subject TEXT NOT NULL,
            stage TEXT NOT NULL,
            store TEXT NOT NULL,
            parent TEXT NOT NULL,
            state TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            started_at TEXT,
            finished_at TEXT,
            duration_s REAL,
            size_bytes INTEGER,
            digest TEXT,
            location TEXT,
            ours INTEGER NOT NULL DEFAULT 0,
            error_class TEXT,
            error_message TEXT,
            coverslip_version TEXT NOT NULL,
            PRIMARY KEY (kind, subject, stage, store)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX record_of_parent ON record (parent, stage, store)",
        """
        CREATE TABLE tombstone (
            series_instance_uid TEXT PRIMARY KEY,
            complete INTEGER NOT NULL,
            reason TEXT NOT NULL,
            retracted_at TEXT NOT NULL,
            instances INTEGER NOT NULL,
            coverslip_version TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
    ),
)


class Kind(StrEnum):
    """What a record is about; the subject is the SHA-256 of a slide, or the UID of a series or instance."""

    SLIDE = "slide"
    SERIES = "series"
    INSTANCE = "instance"


class Stage(StrEnum):
    """What is done with a subject."""

    CONVERT = "convert"
    VALIDATE = "validate"
    UPLOAD = "upload"
    VERIFY = "verify"
    INDEX = "index"
    RETIRE = "retire"


class State(StrEnum):
    """How far a stage has come.

    ``uploaded`` means that the store has acknowledged an instance, ``verified`` that it was asked and holds what is
    here, ``rejected`` that it refuses it; ``done`` ends every other stage.
    """

    PENDING = "pending"
    STARTED = "started"
    DONE = "done"
    UPLOADED = "uploaded"
    VERIFIED = "verified"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Task:
    """One stage of one subject.

    Parameters
    ----------
    kind : Kind
    subject : str
        SHA-256 of the slide, or UID of the series or instance.
    stage : Stage
    store : str
        URL without secrets, of stages that have to do with a store.
    parent : str
        UID of the series of an instance, SHA-256 of the slide of a series, as far as it is known.
    """

    kind: Kind
    subject: str
    stage: Stage
    store: str = ""
    parent: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What the ledger says of a task.

    Parameters
    ----------
    task : Task
    state : State
    attempt : int
        Starts so far.
    started_at, finished_at : str or None
        Of the last attempt: UTC, ISO 8601.
    duration_s : float or None
    size_bytes : int or None
    digest : str or None
        Of the bytes that the stage was about, in hexadecimal. A state counts for these bytes and no others.
    location : str or None
        Where a store keeps it; of a retired series the UID of the series that took its place.
    ours : bool
        Whether nothing was stored before the first attempt, so that what is there now comes from us.
    error_class, error_message : str or None
    coverslip_version : str
    """

    task: Task
    state: State
    attempt: int
    started_at: str | None
    finished_at: str | None
    duration_s: float | None
    size_bytes: int | None
    digest: str | None
    location: str | None
    ours: bool
    error_class: str | None
    error_message: str | None
    coverslip_version: str


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What remains of a series that was retracted.

    Parameters
    ----------
    series_instance_uid : str
    complete : bool
        False while it is being removed.
    reason : str
    retracted_at : str
        UTC, ISO 8601.
    instances : int
        The most instances that any one store held.
    """

    series_instance_uid: str
    complete: bool
    reason: str
    retracted_at: str
    instances: int


def default_ledger() -> Path:
    """Return the ledger of this user: one for all folders and stores, so that what was retracted stays known."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "coverslip" / "ledger.sqlite"


class Ledger:
    """An open ledger; safe to use from several threads, and by several processes on one machine.

    Every change is one transaction that is on disk when the call returns (``synchronous=FULL``): an upload makes few,
    each beside many bytes sent, and a tombstone must survive a loss of power. The write-ahead log lets a reader look
    while a run goes on; it needs a local file system.

    Parameters
    ----------
    path : Path
        Made with its folder if it is not there.

    Raises
    ------
    StoreError
        If it cannot be written, is no ledger, or was made by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._clock: dict[Task, float] = {}
        with self._errors():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"ledger {path} cannot be made: {error.strerror}") from error
            # autocommit: transactions are begun and ended here and nowhere else.
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._errors():
            self._connection.close()

    def start(self, task: Task, *, digest: str | None = None, size_bytes: int | None = None, ours: bool = False) -> int:
        """Write down that a task starts, and return the number of the attempt.

        What was known of other bytes is forgotten, and so is the proof, when an instance is sent again.
        """
        with self._transaction() as connection:
            if task.stage is Stage.UPLOAD:
                connection.execute(
                    "DELETE FROM record WHERE kind = ? AND subject = ? AND stage = ? AND store = ?",
                    (task.kind, task.subject, Stage.VERIFY, task.store),
                )
            row = connection.execute(
                """
                INSERT INTO record (kind, subject, stage, store, parent, state, attempt, started_at, size_bytes, digest,
                    ours, coverslip_version)
                VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET parent = excluded.parent, state = excluded.state, attempt = attempt + 1,
                    started_at = excluded.started_at, finished_at = NULL, duration_s = NULL,
                    size_bytes = excluded.size_bytes, digest = excluded.digest, location = NULL, ours = excluded.ours,
                    error_class = NULL, error_message = NULL, coverslip_version = excluded.coverslip_version
                RETURNING attempt
                """,
                (*_key(task), task.parent, State.STARTED, _now(), size_bytes, digest, ours, __version__),
            ).fetchone()
        self._clock[task] = time.monotonic()
        return int(row[0])

    def finish(
        self, task: Task, state: State, *, location: str | None = None, error: tuple[str, str] | None = None
    ) -> None:
        """Write down how a task that was started ended; `error` is (class, message)."""
        started = self._clock.pop(task, None)
        duration = None if started is None else round(time.monotonic() - started, 4)
        with self._transaction() as connection:
            connection.execute(
                """
                UPDATE record SET state = ?, finished_at = ?, duration_s = ?, location = coalesce(?, location),
                    error_class = ?, error_message = ?
                WHERE kind = ? AND subject = ? AND stage = ? AND store = ?
                """,
                (state, _now(), duration, location, *(error or (None, None)), *_key(task)),
            )

    def record(self, task: Task) -> Record | None:
        """Return what is known of a task."""
        found = self._query("kind = ? AND subject = ? AND stage = ? AND store = ?", _key(task))
        return found[0] if found else None

    def records_of(self, parent: str, stage: Stage, store: str) -> list[Record]:
        """Return what is known of all parts of a series or slide at a stage, in order of their subjects."""
        return self._query("parent = ? AND stage = ? AND store = ? ORDER BY subject", (parent, stage, store))

    def iter_records(self) -> Iterator[Record]:
        """Yield everything, in order of kind, subject, stage and store."""
        yield from self._query("TRUE ORDER BY kind, subject, stage, store", ())

    def forget_series(self, series_instance_uid: str) -> int:
        """Remove every record of a series and its instances, and return how many there were."""
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM record WHERE (kind = 'series' AND subject = ?) OR (kind = 'instance' AND parent = ?)",
                (series_instance_uid, series_instance_uid),
            ).rowcount

    def forget_instances(self, series_instance_uid: str, store: str) -> None:
        """Remove the records of what a store held of a series."""
        with self._transaction() as connection:
            connection.execute(
                "DELETE FROM record WHERE kind = 'instance' AND parent = ? AND store = ?", (series_instance_uid, store)
            )

    def tombstone(self, series_instance_uid: str) -> Tombstone | None:
        """Return what remains of a retracted series, or None if it was not."""
        with self._lock, self._errors():
            row = self._connection.execute(
                "SELECT series_instance_uid, complete, reason, retracted_at, instances FROM tombstone"
                " WHERE series_instance_uid = ?",
                (series_instance_uid,),
            ).fetchone()
        return Tombstone(row[0], bool(row[1]), *row[2:]) if row else None

    def bury(self, series_instance_uid: str, reason: str, instances: int, *, complete: bool) -> Tombstone:
        """Write a tombstone; of one that is there the reason and the time are kept, and the larger count."""
        with self._transaction() as connection:
            connection.execute(
                """
                INSERT INTO tombstone VALUES (?, ?, ?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET complete = excluded.complete, instances = max(instances, excluded.instances)
                """,
                (series_instance_uid, complete, reason, _now(), instances, __version__),
            )
        found = self.tombstone(series_instance_uid)
        assert found is not None
        return found

    def _open(self) -> None:
        connection = self._connection
        connection.execute("BEGIN")  # one view of the file, though another run may be making it
        application, version, tables = (connection.execute(query).fetchone()[0] for query in _HEADER)
        connection.execute("COMMIT")
        if application != _APPLICATION_ID and (application or version or tables):
            raise StoreError(f"{self.path} is no ledger of coverslip")
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"ledger {self.path} has schema {version}, this version of coverslip knows {len(_MIGRATIONS)}:"
                " a newer one made it"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten
        if version < len(_MIGRATIONS):
            self._migrate()

    def _migrate(self) -> None:
        """Bring the schema up to date; it is read again under the lock, for another run may have done so."""
        with self._transaction() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            for statements in _MIGRATIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")

    def _query(self, where: str, values: Sequence[str]) -> list[Record]:
        with self._lock, self._errors():
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM record WHERE {where}",  # noqa: S608 - constants of this module
                values,
            ).fetchall()
        return [_as_record(row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"ledger {self.path} cannot be used: {error}") from error


_COLUMNS = (
    "kind, subject, stage, store, parent, state, attempt, started_at, finished_at, duration_s, size_bytes, digest,"
    " location, ours, error_class, error_message, coverslip_version"
)
_HEADER = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")


def _key(task: Task) -> tuple[str, str, str, str]:
    return task.kind, task.subject, task.stage, task.store


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _as_record(row: tuple[Any, ...]) -> Record:
    kind, subject, stage, store, parent, state, attempt, started, finished, duration, size, digest, *rest = row
    location, ours, error_class, error_message, version = rest
    return Record(
        Task(Kind(kind), subject, Stage(stage), store, parent),
        State(state),
        attempt,
        started,
        finished,
        duration,
        size,
        digest,
        location,
        bool(ours),
        error_class,
        error_message,
        version,
    )
