"""The columns of `dicom_metadata` as a reader knows them: by tag, level by level, growing when a file has more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any

from coverslip.catalog.export_rules import MAX_DEPTH, OTHER_ELEMENTS, PARSERS, field_of
from coverslip.catalog.schema import Field, baseline_fields

__all__ = ["Column", "ColumnTree", "Kind", "Level"]

_PADDED = frozenset({"ST", "LT", "UT"})
"""Of these only trailing spaces are padding; they and UR hold one value, whatever is in it."""


class Kind(IntEnum):
    """What is done with an element."""

    VALUE = 0
    SEQUENCE = 1
    REPEATING_GROUP = 2
    PRIVATE = 3
    IGNORED = 4
    BINARY = 5
    UNKNOWN = 6
    TOO_DEEP = 7


class Column:
    """How the elements of one tag become a column of one level; immutable but for what lies below it."""

    __slots__ = ("inner", "kind", "name", "parse", "path", "plain_text", "repeated", "single_text", "type", "vr")

    def __init__(self, kind: Kind, name: str, path: str, vr: str, field: Field | None = None) -> None:
        self.kind = kind
        self.name = name
        self.path = path
        self.vr = vr
        self.inner: Level | None = None
        value = field
        if field is not None and kind is Kind.REPEATING_GROUP:
            value = field.fields[1]
        self.type = value.type if value else "STRING"
        self.repeated = value.repeated if value else False
        self.parse: Callable[[str], Any] = PARSERS[self.type]
        self.single_text = vr in _PADDED or vr == "UR"
        self.plain_text = self.type == "STRING" and not self.repeated and kind is Kind.VALUE


class Level:
    """The columns of one nesting level: of the data set, or of the items of one sequence."""

    __slots__ = ("_added", "_by_name", "_fields", "_has_others", "by_tag", "depth", "path", "tree")

    def __init__(self, tree: ColumnTree, fields: Iterable[Field], depth: int, path: str) -> None:
        self.tree = tree
        self.depth = depth
        self.path = path
        self.by_tag: dict[int, Column] = {}
        self._fields = tuple(fields)
        self._by_name = {field.name: field for field in self._fields}
        self._added: dict[str, Field] = {}
        self._has_others = False

    def column(self, tag: int, vr: str) -> Column:
        """Return the column of a tag that is met for the first time.

        Parameters
        ----------
        tag : int
        vr : str
            As the file has it, which matters for private elements only.
        """
        column = self._private(tag, vr) if tag >> 16 & 1 else self._public(tag)
        self.by_tag[tag] = column
        return column

    def _public(self, tag: int) -> Column:
        from pydicom.datadict import dictionary_VR

        field = field_of(tag)
        path = f"{self.path}{field.name if field else f'Tag_{tag:08X}'}"
        if tag & 0xFFFF == 0:
            return Column(Kind.IGNORED, "", path, "UL")  # group length
        if field is None:
            return self._without_column(tag)
        vr = dictionary_VR(tag)
        if vr == "SQ":
            return self._sequence(field.name, path)
        self._add(field)
        kind = Kind.REPEATING_GROUP if [each.name for each in field.fields] == ["Id", "Value"] else Kind.VALUE
        return Column(kind, field.name, path, vr.split(" or ")[0], field)

    def _without_column(self, tag: int) -> Column:
        from pydicom.datadict import dictionary_keyword, dictionary_VR

        try:
            vr, name = dictionary_VR(tag), dictionary_keyword(tag)
        except KeyError:
            return Column(Kind.UNKNOWN, "", f"{self.path}Tag_{tag:08X}", "UN")
        return Column(Kind.BINARY, name, f"{self.path}{name}", vr.split(" or ")[0])

    def _private(self, tag: int, vr: str) -> Column:
        name = f"Tag_{tag:08X}"
        if vr == "SQ":
            return self._sequence(name, f"{self.path}{name}")
        return Column(Kind.PRIVATE, name, f"{self.path}{name}", vr)

    def _sequence(self, name: str, path: str) -> Column:
        if self.depth >= MAX_DEPTH:
            return Column(Kind.TOO_DEEP, name, path, "SQ")
        known = self._by_name.get(name)
        column = Column(Kind.SEQUENCE, name, path, "SQ")
        column.inner = Level(self.tree, known.fields if known else (), self.depth + 1, f"{path}.")
        if known is None:
            self._added[name] = Field(name, "RECORD", "REPEATED")
        self.tree.watch(self, name, column.inner)
        return column

    def add_other_elements(self) -> None:
        """Make sure that private elements have their column here."""
        if not self._has_others:
            self._has_others = True
            self._add(OTHER_ELEMENTS)

    def _add(self, field: Field) -> None:
        if field.name not in self._by_name and field.name not in self._added:
            self._added[field.name] = field
            self.tree.revision += 1

    def fields(self, *, met: bool = False) -> tuple[Field, ...]:
        """Return the columns that were there, in their order, and those that were added, in that of the alphabet.

        Parameters
        ----------
        met : bool
            Only those of elements that were met.
        """
        inner = self.tree.inner(self)
        names = {column.name for column in self.by_tag.values()} | ({"OtherElements"} if self._has_others else set())
        found = []
        for field in (*self._fields, *(self._added[name] for name in sorted(self._added))):
            if met and field.name not in names:
                continue
            level = inner.get(field.name)
            if level is None:
                found.append(field)
                continue
            fields = level.fields(met=met)
            # A record without fields has no column: neither Parquet nor BigQuery can hold one.
            if fields:
                found.append(Field(field.name, field.type, field.mode, fields, field.description))
        return tuple(field for field in found if field.fields or field.type != "RECORD")


class ColumnTree:
    """All columns, starting with the pinned ones.

    Attributes
    ----------
    root : Level
    revision : int
        Grows with every column that is added.
    """

    def __init__(self, fields: Iterable[Field] | None = None) -> None:
        self.revision = 0
        self._inner: dict[int, dict[str, Level]] = {}
        self.root = Level(self, baseline_fields() if fields is None else fields, 1, "")

    def watch(self, level: Level, name: str, inner: Level) -> None:
        """Note the level below a sequence."""
        self._inner.setdefault(id(level), {})[name] = inner

    def inner(self, level: Level) -> dict[str, Level]:
        """Return the levels below those sequences of a level that were met."""
        return self._inner.get(id(level), {})

    def fields(self, *, met: bool = False) -> tuple[Field, ...]:
        """Return the columns as they are now, all or those of elements that were met."""
        return self.root.fields(met=met)
