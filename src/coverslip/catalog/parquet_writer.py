"""Write a shard as Parquet, to be merged with others later, or read by anything that reads Parquet."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from coverslip.catalog.merge import NewVersion
from coverslip.catalog.staging import Shard, publish_shard
from coverslip.catalog.writers import IndexOutcome, partial_folder, shard_name
from coverslip.errors import UsageError

__all__ = ["ParquetWriter"]


class ParquetWriter:
    """Puts shards into a folder, each under a name of its own.

    Parameters
    ----------
    place : str
        Path of the folder; made if it is not there.
    """

    all_columns = True

    def __init__(self, place: str) -> None:
        self.folder = Path(place)

    def scratch_folder(self) -> AbstractContextManager[Path]:
        """Give a folder beside the final one, so that renaming is enough."""
        return partial_folder(self.folder)

    def write(
        self, shard: Shard, version: NewVersion, *, name: str | None = None, wait_s: float = 60.0
    ) -> IndexOutcome:
        """Give the shard its final name; a merge will give it a version."""
        if version != NewVersion():
            raise UsageError("a shard has no version: give it to the merge")
        published = publish_shard(shard, self.folder / (name or shard_name(shard)))
        return IndexOutcome(str(published.folder), published.failures)
