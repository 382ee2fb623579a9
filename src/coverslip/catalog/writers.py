"""Where tables go: a registry by the scheme of ``--to``, whose writers are loaded when they are asked for.

A writer takes a shard that has been read. New ones are a module with a class of the contract `Writer` and a line here.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

from coverslip.catalog.merge import MergeReport, NewVersion
from coverslip.catalog.staging import Failure, Shard
from coverslip.errors import CatalogError, UsageError

__all__ = ["WRITERS", "IndexOutcome", "MergingWriter", "Writer", "merging_writer", "open_writer", "partial_folder"]

WRITERS = {
    "bigquery": "coverslip.catalog.bigquery.writer:BigQueryWriter",
    "duckdb": "coverslip.catalog.duckdb_writer:DuckDBWriter",
    "parquet": "coverslip.catalog.parquet_writer:ParquetWriter",
    "ndjson": "coverslip.catalog.ndjson_writer:NdjsonWriter",
}
"""By the scheme that stands before the first colon of ``--to``; a name without one is a file of DuckDB."""


@dataclass(frozen=True, slots=True)
class IndexOutcome:
    """What a writer did with a shard.

    Parameters
    ----------
    place : str
        What was written.
    failures : tuple of Failure
        Those of the shard and the writer's own.
    warnings : tuple of str
    merge : MergeReport or None
        Of what was merged into a catalog.
    estimates : mapping or None
        Bytes that queries would process, by table, where nothing was to be written.
    """

    place: str
    failures: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()
    merge: MergeReport | None = field(default=None)
    estimates: Mapping[str, int] | None = None


class Writer(Protocol):
    """Takes shards to one place.

    Attributes
    ----------
    all_columns : bool
        Whether parts are to have all pinned columns, or those alone that were met.
    """

    all_columns: bool

    def __init__(self, place: str) -> None: ...

    def scratch_folder(self) -> AbstractContextManager[Path]:
        """Give a folder for the parts of a shard, which is gone at the end if they were not published."""
        ...

    def write(self, shard: Shard, version: NewVersion, *, name: str | None, wait_s: float) -> IndexOutcome:
        """Write a shard, all of it or nothing."""
        ...


class MergingWriter(Writer, Protocol):
    """Takes several shards at once, in one transaction."""

    def merge(self, shards: list[Shard], version: NewVersion, *, wait_s: float) -> IndexOutcome:
        """Merge shards, all of them or none."""
        ...


def merging_writer(to: str, *, dry_run: bool = False) -> MergingWriter:
    """Return the writer of a catalog that shards are merged into.

    Raises
    ------
    UsageError
        If there is none of this scheme, or it is no catalog.
    """
    writer = open_writer(to)
    if dry_run:
        if not hasattr(writer, "dry_run"):
            raise UsageError(f"--to {to}: --dry-run is of BigQuery")
        writer.dry_run = True
    if not hasattr(writer, "merge"):
        raise UsageError(f"--to {to}: shards are merged into a file of DuckDB, or bigquery://project.dataset")
    merging: MergingWriter = writer  # type: ignore[assignment]  # it has what is asked for
    return merging


def open_writer(to: str) -> Writer:
    """Return the writer for a value of ``--to``.

    Raises
    ------
    UsageError
        If there is none of this scheme.
    """
    scheme, colon, place = to.partition(":")
    if not colon:
        scheme, place = "duckdb", to
    if scheme not in WRITERS or not place:
        known = ", ".join(f"{each}:..." for each in sorted(WRITERS))
        raise UsageError(f"--to {to}: expected a file such as catalog.duckdb, or {known}")
    module, _, name = WRITERS[scheme].partition(":")
    writer: Writer = getattr(import_module(module), name)(place)
    return writer


@contextmanager
def partial_folder(parent: Path | None = None) -> Iterator[Path]:
    """Give a folder for what is not finished: beside its final place, or where temporary files go."""
    if parent is not None:
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogError(f"{parent}: cannot be written: {error.strerror}") from None
    folder = Path(tempfile.mkdtemp(prefix=".coverslip-partial-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shard_name(shard: Shard) -> str:
    """Return a name that follows from what was read and where, so that reading it again replaces it."""
    digest = hashlib.md5("\n".join(sorted(shard.roots)).encode(), usedforsecurity=False)
    return digest.hexdigest()
