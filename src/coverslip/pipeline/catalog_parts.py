"""Rows for the catalog: written per slide while its headers are here, merged for many slides at once.

A slide's part names the places where the stores keep its instances, so the catalog stays true when the local files are
gone. Merging takes one writer and one transaction, which is too much to ask for after every slide.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coverslip.errors import CatalogError, CoverslipError
from coverslip.pipeline.failures import Problem
from coverslip.stores.base import ObjectStore

if TYPE_CHECKING:
    from coverslip.catalog.reading import PartReader
    from coverslip.catalog.staging import Shard
    from coverslip.pipeline.manifest import Slide
    from coverslip.pipeline.slide_job import Workshop
    from coverslip.stores.base import Store
    from coverslip.upload.deliverables import Deliverable

__all__ = ["MergeEnded", "collect_parts", "merge_parts", "part_is_whole", "require_known_catalog", "write_slide_part"]

_SHARD_FILE = "shard.json"
_FOLDER = "catalog-parts"
_WAIT_S = 60.0
_SLIDES_IN_PART = 256


def require_known_catalog(catalog: str) -> None:
    """Refuse a catalog that runs cannot write to.

    Raises
    ------
    UsageError
    """
    from coverslip.catalog.writers import open_writer

    open_writer(catalog)


def part_is_whole(parts: Path, key: str) -> bool:
    """Whether the rows of a slide lie ready to be merged."""
    return (parts / key / _SHARD_FILE).is_file()


def write_slide_part(shop: Workshop, slide: Slide, folders: Sequence[Path]) -> None:
    """Read the headers of a slide's series, and publish its rows under its key.

    Raises
    ------
    CatalogError
        If a header cannot be read or the part not be written.
    """
    from coverslip.catalog.reading import PartReader, ReadingOptions
    from coverslip.catalog.staging import Shard, publish_shard
    from coverslip.catalog.writers import open_writer
    from coverslip.upload.deliverables import describe_series, find_series

    found, unreadable = find_series(folders)
    if unreadable:
        raise CatalogError(f"{len(unreadable)} files of the series cannot be read")
    parts = shop.plan.parts_folder
    work = parts / f".{slide.key}"
    shutil.rmtree(work, ignore_errors=True)
    with _told_failures():
        work.mkdir(parents=True)
    # Tasks do not know yet what their parts will be merged into.
    all_columns = shop.plan.open_state is not None or open_writer(shop.plan.catalog).all_columns
    reader = PartReader(0, ReadingOptions(all_columns=all_columns))
    series = [describe_series(each, shop.plan.naming) for each in found]
    for each in series:
        _read_series(shop, reader, each)
    with _told_failures():
        part = reader.write(work)
        roots = tuple(sorted({_parent(place) for each in series for place in _places(shop, each).values()}))
        publish_shard(Shard(work, (part.number,), roots, False, part.failures), parts / slide.key)


def _read_series(shop: Workshop, reader: PartReader, series: Deliverable) -> None:
    from coverslip.catalog.conversion_record import read_record
    from coverslip.catalog.found_files import FileSource

    try:
        record = read_record((series.folder / "conversion.json").read_bytes())
    except (OSError, ValueError):
        record = None
    places = _places(shop, series)
    for instance in series.instances:
        place = places[instance.uids.sop_instance_uid]
        with FileSource(str(instance.path)) as source:
            header = reader.reader.read(source, whole=True)
        reader.add(
            header,
            location=place,
            folder=_parent(place),
            size_bytes=instance.size_bytes,
            md5=instance.md5,
            record=record,
        )


def _places(shop: Workshop, series: Deliverable) -> dict[str, str]:
    """Return where each instance is found from now on, by SOP Instance UID."""
    from coverslip.upload.destination import Destination

    places = {each.uids.sop_instance_uid: os.path.realpath(each.path) for each in series.instances}
    if shop.plan.delivers:
        destination = Destination(shop.stores[0], shop.ledger, None)
        for each in series.instances:
            stored = destination.known(each).location
            if stored:
                places[each.uids.sop_instance_uid] = unquote(urlsplit(stored).path) if _is_file(stored) else stored
    return places


def _is_file(location: str) -> bool:
    return location.startswith("file://")


def _parent(location: str) -> str:
    return location.rpartition("/")[0]


@contextlib.contextmanager
def _told_failures() -> Iterator[None]:
    try:
        yield
    except CoverslipError:
        raise
    except OSError as error:
        raise CatalogError(f"rows for the catalog cannot be written: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class MergeEnded:
    """What became of parts that were to be merged.

    Parameters
    ----------
    merged : tuple of str
        Keys of the slides that are in the catalog now.
    refused : mapping
        Keys of those that are not, and why.
    problem : Problem or None
        Why nothing was merged.
    """

    merged: tuple[str, ...] = ()
    refused: dict[str, Problem] | None = None
    problem: Problem | None = None
    seconds: float = 0.0


def merge_parts(
    parts: Path,
    keys: Collection[str],
    catalog: str,
    open_state: Callable[[], AbstractContextManager[list[Store]]] | None = None,
) -> MergeEnded:
    """Merge the parts of slides into the catalog: all of them or none; afterwards they are gone.

    A merge that is killed is made again by the next run: merging twice changes nothing.

    Parameters
    ----------
    open_state : callable, optional
        Opens the store of a run's state: parts are put there instead, until `collect_parts` fetches those of all tasks.
    """
    if open_state is not None:
        return _publish_parts(parts, keys, open_state)
    from coverslip.catalog.merge import NewVersion
    from coverslip.catalog.staging import list_shards
    from coverslip.catalog.writers import open_writer

    start = time.perf_counter()
    try:
        shards = {shard.folder.name: shard for shard in list_shards(parts) if shard.folder.name in keys}
        writer = open_writer(catalog)
        with writer.scratch_folder() as folder:
            name = hashlib.sha256("".join(shards).encode()).hexdigest()[:32]
            outcome = writer.write(_join(list(shards.values()), folder), NewVersion(), name=name, wait_s=_WAIT_S)
    except Exception as error:  # noqa: BLE001 - told to whoever asked for it
        return MergeEnded(problem=Problem.of(error, {str(parts): "work"}))
    refused: dict[str, Problem] = {}
    failures = [failure for failure in outcome.failures if failure.exit_code]
    for key, shard in shards.items():
        own = {failure.location for failure in shard.failures}
        for failure in failures:
            if failure.location not in own and _parent(failure.location) in shard.roots:
                refused[key] = Problem("CatalogError", failure.reason, exit_code=CatalogError.exit_code)
    for key in shards:
        shutil.rmtree(parts / key, ignore_errors=True)
    return MergeEnded(
        tuple(key for key in shards if key not in refused), refused, None, round(time.perf_counter() - start, 4)
    )


def _join(shards: Sequence[Shard], folder: Path) -> Shard:
    """Write the rows of many small shards into a few large parts: merging takes its time for each part."""
    import pyarrow as pa
    from pyarrow import parquet

    from coverslip.catalog.staging import Shard

    joined = Shard(folder, (), tuple(sorted({root for shard in shards for root in shard.roots})), False, ())
    for number, start in enumerate(range(0, len(shards), _SLIDES_IN_PART)):
        group = shards[start : start + _SLIDES_IN_PART]
        for table in ("dicom_metadata", "instances", "series"):
            files = [shard.part_file(table, part) for shard in group for part in shard.parts]
            rows = pa.concat_tables(map(parquet.read_table, files), promote_options="permissive")
            if table == "instances":
                place = rows.column_names.index("row_index")
                rows = rows.set_column(place, rows.schema.field(place), [pa.array(range(len(rows)), pa.int64())])
            parquet.write_table(rows, joined.part_file(table, number), compression="zstd", write_statistics=False)
        joined = replace(joined, parts=(*joined.parts, number))
    return replace(joined, failures=tuple(failure for shard in shards for failure in shard.failures))


def _publish_parts(
    parts: Path, keys: Collection[str], open_state: Callable[[], AbstractContextManager[list[Store]]]
) -> MergeEnded:
    """Put parts into the state of a run; the file that makes a part whole goes last."""
    start = time.perf_counter()
    try:
        with open_state() as (state,):
            assert isinstance(state, ObjectStore)
            for key in sorted(keys):
                files = sorted((parts / key).iterdir(), key=lambda file: (file.name == _SHARD_FILE, file.name))
                for file in files:
                    state.put_bytes(f"{_FOLDER}/{key}/{file.name}", file.read_bytes())
                shutil.rmtree(parts / key, ignore_errors=True)
    except Exception as error:  # noqa: BLE001 - told to whoever asked for it
        return MergeEnded(problem=Problem.of(error, {str(parts): "work"}))
    return MergeEnded(tuple(sorted(keys)), seconds=round(time.perf_counter() - start, 4))


def collect_parts(state: ObjectStore, folder: Path) -> list[str]:
    """Fetch the parts that tasks have put into the state of a run, and return the keys of their slides."""
    prefix = f"{state.url}/"
    names = [stored.location.removeprefix(prefix) for stored in state.iter_objects(f"{_FOLDER}/")]
    whole = sorted(name.split("/")[1] for name in names if name.endswith(f"/{_SHARD_FILE}"))
    wanted = [name for name in names if name.split("/")[1] in whole]
    with ThreadPoolExecutor(16) as executor:
        for name, data in zip(wanted, executor.map(state.read_bytes, wanted), strict=True):
            path = folder / name.partition("/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data or b"")
    return whole
