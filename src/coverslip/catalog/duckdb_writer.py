"""Write to a catalog in DuckDB: merge the shard into it in one transaction."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from coverslip.catalog.database import open_catalog
from coverslip.catalog.merge import NewVersion, merge_shards
from coverslip.catalog.staging import Shard, list_shards
from coverslip.catalog.writers import IndexOutcome, partial_folder

__all__ = ["DuckDBWriter", "merge_folder"]


class DuckDBWriter:
    """Merges shards into one file.

    Parameters
    ----------
    place : str
        Path of the file; made if it is not there.
    """

    all_columns = False

    def __init__(self, place: str) -> None:
        self.path = Path(place)

    def scratch_folder(self) -> AbstractContextManager[Path]:
        """Give a folder where temporary files go."""
        return partial_folder()

    def write(
        self, shard: Shard, version: NewVersion, *, name: str | None = None, wait_s: float = 60.0
    ) -> IndexOutcome:
        """Merge a shard."""
        return self.merge([shard], version, wait_s=wait_s)

    def merge(self, shards: list[Shard], version: NewVersion, *, wait_s: float) -> IndexOutcome:
        """Merge several shards at once."""
        with open_catalog(self.path, wait_s=wait_s) as connection:
            report = merge_shards(connection, shards, version)
        return IndexOutcome(str(self.path), tuple(report.failures), tuple(report.warnings), report)


def merge_folder(folder: Path, catalog: Path, version: NewVersion, *, wait_s: float = 60.0) -> IndexOutcome:
    """Merge all finished shards of a folder into a catalog, in one transaction."""
    return DuckDBWriter(str(catalog)).merge(list_shards(folder), version, wait_s=wait_s)
