"""Index paths: read headers into a shard, and hand it to what was asked for."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from coverslip.catalog.found_files import find_files
from coverslip.catalog.merge import NewVersion
from coverslip.catalog.reading import Digest, ReadingOptions, read_files
from coverslip.catalog.staging import Failure, Part, Shard
from coverslip.catalog.writers import IndexOutcome, merging_writer, open_writer
from coverslip.errors import UsageError

if TYPE_CHECKING:
    from coverslip.stores.base import Store

__all__ = ["IndexReport", "IndexRequest", "index_paths"]

_PART = 2000
"""Most instances in one part; bounds what is in memory."""

_FEW = 400
"""So few files are read sooner by one process than another has started."""


@dataclass(frozen=True, slots=True)
class IndexRequest:
    """What is to be indexed, and how.

    Parameters
    ----------
    paths : tuple of str
        Files and folders.
    to : str
        Where the tables go: a file of DuckDB, or `scheme:place` of a registered writer.
    version : NewVersion
    prune : bool
        Retire what the catalog has below a path and is not there any more.
    shard : str or None
        Name of the shard that ``parquet:`` writes; by default it follows from what was read.
    digest : Digest
    stores : tuple of Store
        Also to be read; they stay open.
    facts : mapping or None
        Of the collection that all of it belongs to.
    workers : int
    wait_s : float
        How long to wait for another writer of the catalog.
    dry_run : bool
        Only ask what writing would cost, where that is told.
    """

    paths: tuple[str, ...]
    to: str
    version: NewVersion = NewVersion()
    prune: bool = False
    shard: str | None = None
    digest: Digest = Digest.READ
    stores: tuple[Store, ...] = ()
    facts: Mapping[str, Any] | None = None
    workers: int = 1
    wait_s: float = 60.0
    dry_run: bool = False


@dataclass(slots=True)
class IndexReport:
    """What came of it.

    Parameters
    ----------
    read : int
        Instances whose headers were read.
    failures : tuple of Failure
    outcome : IndexOutcome or None
        None if nothing was written.
    """

    read: int = 0
    failures: tuple[Failure, ...] = ()
    outcome: IndexOutcome | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """That of the worst failure."""
        return max((failure.exit_code for failure in self.failures), default=0)


def index_paths(request: IndexRequest, on_progress: Callable[[int, int], None] | None = None) -> IndexReport:
    """Index what a request names.

    Parameters
    ----------
    on_progress : callable, optional
        Told how many files have been read, of how many.

    Raises
    ------
    CoverslipError
        If nothing could be done: a path is not there, or the tables cannot be written. What goes wrong with single
        files is told in the report.
    """
    writer = merging_writer(request.to, dry_run=True) if request.dry_run else open_writer(request.to)
    local = [_as_path(path) for path in request.paths]
    files = list(dict.fromkeys(found.path for path in local for found in find_files(path)))
    options = ReadingOptions(request.digest, request.facts, writer.all_columns)
    report = IndexReport()
    with writer.scratch_folder() as folder:
        parts = list(_read_parts(files, folder, options, request.workers, on_progress or (lambda *_: None)))
        roots = tuple(os.path.realpath(path) for path in local)
        if request.stores:
            parts += _read_stores(request, len(parts), folder, on_progress or (lambda *_: None))
            roots += tuple(store.url for store in request.stores)
        report.read = sum(part.instances for part in parts)
        failures = tuple(failure for part in parts for failure in part.failures)
        shard = Shard(folder, tuple(part.number for part in parts), roots, request.prune, failures)
        report.outcome = writer.write(shard, request.version, name=request.shard, wait_s=request.wait_s)
    report.failures = report.outcome.failures
    report.warnings = list(report.outcome.warnings)
    return report


def _as_path(path: str) -> Path:
    if not path.lower().startswith("file://"):
        return Path(path)
    parts = urlsplit(path)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{path}: expected file:/// and a path")
    return Path(unquote(parts.path))


def _read_stores(
    request: IndexRequest, first: int, folder: Path, on_progress: Callable[[int, int], None]
) -> Iterator[Part]:
    from coverslip.catalog.store_reading import read_stores

    options = ReadingOptions(Digest.KNOWN, request.facts)
    yield from read_stores(request.stores, first, folder, options, on_progress)


def _read_parts(
    files: Sequence[str],
    folder: Path,
    options: ReadingOptions,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> Iterator[Part]:
    """Read files part by part, several at a time, each process as many parts as the others."""
    workers = workers if len(files) > _FEW else 1
    parts = workers * math.ceil(len(files) / (workers * _PART))
    size = math.ceil(len(files) / parts) if files else 1
    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    done = 0
    with _executor(workers) as submit:
        pending = [submit(chunk, number, folder, options) for number, chunk in enumerate(chunks)]
        for chunk, result in zip(chunks, pending, strict=True):
            part = result()
            done += len(chunk)
            on_progress(done, len(files))
            yield part


@contextmanager
def _executor(workers: int) -> Iterator[Callable[..., Callable[[], Part]]]:
    if workers <= 1:
        yield lambda *arguments: lambda: read_files(*arguments)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["coverslip.catalog.reading", "pyarrow.parquet", "pydicom.datadict"])
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield lambda *arguments: pool.submit(read_files, *arguments).result
