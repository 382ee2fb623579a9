"""Find the rows of a table that belong to a slide.

By the column `file` where the table has one, else by the key that the map names, else by the columns `barcode` and
`container identifier`. Keys are equal or they are not: no prefix of a barcode ever matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from coverslip.errors import UsageError
from coverslip.metadata_maps.evaluate import render_without_row, slide_facts
from coverslip.metadata_maps.language import Choice, MetadataMap, Name, Template, ValueSpec
from coverslip.metadata_maps.tables import Row, Table

__all__ = ["RowFinder", "RowMatch"]

_FILE = "file"
_STEM = ValueSpec("", "", sources=(Template((Name("stem"),)),))
_COLUMNS = ("barcode", "container_identifier")


@dataclass(frozen=True, slots=True)
class RowMatch:
    """The rows of one slide.

    Parameters
    ----------
    rows : tuple of Row
        Several rows are several specimens on the slide; none if there is no row, or if it is not clear which.
    column : str
        By which they were found, or looked for.
    ambiguous : tuple of Row
        Rows that might be meant, where they are of different slides.
    """

    rows: tuple[Row, ...]
    column: str
    ambiguous: tuple[Row, ...] = ()


class RowFinder:
    """Finds the rows of slides in one table.

    Parameters
    ----------
    metadata_map : MetadataMap
    table : Table

    Raises
    ------
    UsageError
        If the table has no column by which a slide could find its row.
    """

    def __init__(self, metadata_map: MetadataMap, table: Table) -> None:
        self._map = metadata_map
        self._table = table
        self._keys = self._usable_keys()
        if not self._keys and not table.has_column(_FILE):
            wanted = ", ".join(repr(key.column) for key in metadata_map.keys) or "'barcode', 'container_identifier'"
            raise UsageError(f"table {table.path.name!r}: has neither a column 'file' nor one of {wanted}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that tell slides apart, the first in use first."""
        return (*([_FILE] if self._table.has_column(_FILE) else []), *(column for column, _ in self._keys))

    def find(self, facts: Mapping[str, str]) -> RowMatch:
        """Find the rows of a slide.

        Parameters
        ----------
        facts : mapping
            From `slide_facts`.
        """
        if self._table.has_column(_FILE):
            return self._find_by_file(facts)
        for column, choice in self._keys:
            wanted = render_without_row(self._map, facts, choice)
            rows = self._table.rows_where((column,), (wanted,)) if wanted else ()
            if rows:
                return RowMatch(tuple(rows), column)
        return RowMatch((), self._keys[0][0])

    def groups(self) -> list[tuple[Row, ...]]:
        """Return the rows of each slide that the table tells of, in its order."""
        grouped: dict[str, list[Row]] = {}
        for row in self._table.rows:
            grouped.setdefault(self._value(row) or f"row {row.number}", []).append(row)
        return [tuple(rows) for rows in grouped.values()]

    def facts_of(self, row: Row) -> dict[str, str]:
        """Return what a row tells of its slide's file; where it only has a key, that stands for the file's name."""
        return slide_facts(self._value(row).replace("\\", "/"))

    def _value(self, row: Row) -> str:
        return next((row[column] for column in self.columns if row[column]), "")

    def _usable_keys(self) -> tuple[tuple[str, Choice], ...]:
        if self._map.keys:
            return tuple((key.column, key.equals) for key in self._map.keys if self._table.has_column(key.column))
        container = self._map.attributes.get("ContainerIdentifier")
        choice = (*(container.choice if container else ()), _STEM)
        return tuple((column, choice) for column in _COLUMNS if self._table.has_column(column))

    def _find_by_file(self, facts: Mapping[str, str]) -> RowMatch:
        """Match by name, its case where that decides; of files of one name, the one whose folders are the slide's."""
        name = facts["file_name"]
        candidates = self._by_name.get(name) or self._by_folded_name.get(name.casefold(), [])
        values = {row[_FILE] for row in candidates}
        if len(values) > 1:
            values = {value for value in values if _is_tail(value, facts["path"])}
        if len(values) == 1:
            return RowMatch(tuple(row for row in candidates if row[_FILE] in values), _FILE)
        return RowMatch((), _FILE, tuple(candidates))

    @cached_property
    def _by_name(self) -> dict[str, list[Row]]:
        return _index((_base_name(row[_FILE]), row) for row in self._table.rows)

    @cached_property
    def _by_folded_name(self) -> dict[str, list[Row]]:
        return _index((_base_name(row[_FILE]).casefold(), row) for row in self._table.rows)


def _index(pairs: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for name, row in pairs:
        found.setdefault(name, []).append(row)
    return found


def _base_name(value: str) -> str:
    return PurePosixPath(value.replace("\\", "/")).name


def _is_tail(value: str, path: str) -> bool:
    """Tell whether the parts of a path are the last ones of another."""
    tail, whole = (PurePosixPath(each.replace("\\", "/")).parts for each in (value, path))
    return whole[-len(tail) :] == tail
