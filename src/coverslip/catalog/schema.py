"""One typed tree of fields, from which the schemas of BigQuery, Parquet and DuckDB all derive.

Types and modes are BigQuery's, because its export of DICOM is what the tables follow (`export_rules`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "BASELINE_FILE",
    "Addition",
    "Field",
    "arrow_schema",
    "as_bigquery",
    "baseline_fields",
    "create_table",
    "duckdb_type",
    "fields_from_bigquery",
    "merge_fields",
    "quote",
]

BASELINE_FILE = "baseline_schema.json"

_DUCKDB_TYPES = {
    "STRING": "VARCHAR",
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "TIMESTAMPTZ",
    "DATETIME": "TIMESTAMP",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One column, or one field of a record.

    Parameters
    ----------
    name : str
    type : str
        STRING, INTEGER, FLOAT, BOOLEAN, DATE, TIME, TIMESTAMP, DATETIME or RECORD.
    mode : str
        NULLABLE or REPEATED.
    fields : tuple of Field
        Of a record.
    description : str
        One sentence, for the schema of BigQuery and docs/tables.md; may be empty.
    """

    name: str
    type: str = "STRING"
    mode: str = "NULLABLE"
    fields: tuple[Field, ...] = ()
    description: str = ""

    @property
    def repeated(self) -> bool:
        """Whether the value is a list."""
        return self.mode == "REPEATED"


@dataclass(frozen=True, slots=True, order=True)
class Addition:
    """A field that a table got after it was made: its dotted path, type and mode."""

    path: str
    type: str
    mode: str


def quote(name: str) -> str:
    """Return a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def duckdb_type(field: Field) -> str:
    """Return the type of DuckDB."""
    if field.type == "RECORD":
        inner = ", ".join(f"{quote(each.name)} {duckdb_type(each)}" for each in field.fields)
        base = f"STRUCT({inner})"
    else:
        base = _DUCKDB_TYPES[field.type]
    return f"{base}[]" if field.repeated else base


def create_table(name: str, fields: Iterable[Field], *, constraints: str = "") -> str:
    """Return the statement that makes a table in DuckDB if it is not there."""
    columns = ", ".join(f"{quote(field.name)} {duckdb_type(field)}" for field in fields)
    return f"CREATE TABLE IF NOT EXISTS {name} ({columns}{constraints})"


def as_bigquery(fields: Iterable[Field]) -> list[dict[str, Any]]:
    """Return the schema as BigQuery takes it in JSON."""
    found = []
    for field in fields:
        entry: dict[str, Any] = {"name": field.name, "type": field.type, "mode": field.mode}
        if field.description:
            entry["description"] = field.description
        if field.fields:
            entry["fields"] = as_bigquery(field.fields)
        found.append(entry)
    return found


def fields_from_bigquery(entries: Iterable[Mapping[str, Any]]) -> tuple[Field, ...]:
    """Return the fields that a schema of BigQuery tells in JSON."""
    return tuple(
        Field(
            entry["name"],
            entry["type"],
            entry.get("mode", "NULLABLE"),
            fields_from_bigquery(entry.get("fields", ())),
            entry.get("description", ""),
        )
        for entry in entries
    )


def arrow_schema(fields: Iterable[Field]) -> pa.Schema:
    """Return the schema of Arrow, and so of Parquet."""
    import pyarrow as pa

    return pa.schema([_arrow_field(field) for field in fields])


def _arrow_field(field: Field) -> pa.Field:
    import pyarrow as pa

    base: pa.DataType
    if field.type == "RECORD":
        base = pa.struct([_arrow_field(each) for each in field.fields])
    else:
        base = {
            "STRING": pa.string(),
            "INTEGER": pa.int64(),
            "FLOAT": pa.float64(),
            "BOOLEAN": pa.bool_(),
            "DATE": pa.date32(),
            "TIME": pa.time64("us"),
            "TIMESTAMP": pa.timestamp("us", tz="UTC"),
            "DATETIME": pa.timestamp("us"),
        }[field.type]
    return pa.field(field.name, pa.list_(base) if field.repeated else base)


def merge_fields(
    old: Sequence[Field], new: Iterable[Field], prefix: str = ""
) -> tuple[tuple[Field, ...], list[Addition]]:
    """Return the old fields with what only the new ones have added behind them, and what that is.

    Fields are only ever added, at any depth; those that are there keep type, mode and place. Additions to one record
    come in alphabetical order, so that the order in which files were read is without effect.

    Raises
    ------
    ValueError
        If both have a field of one name with another type or mode; the rules of export give one of each.
    """
    new = tuple(new)
    theirs = {field.name: field for field in new}
    merged: list[Field] = []
    additions: list[Addition] = []
    for field in old:
        other = theirs.get(field.name)
        if other is None or other is field:
            merged.append(field)
            continue
        if (other.type, other.mode) != (field.type, field.mode):
            raise ValueError(f"{prefix}{field.name}: {other.type} {other.mode}, expected {field.type} {field.mode}")
        inner, more = merge_fields(field.fields, other.fields, f"{prefix}{field.name}.")
        additions += more
        merged.append(replace(field, fields=inner) if more else field)
    names = {field.name for field in old}
    for field in sorted((field for field in new if field.name not in names), key=lambda field: field.name):
        merged.append(field)
        additions += _all_additions(field, prefix)
    return tuple(merged), additions


def _all_additions(field: Field, prefix: str) -> Iterator[Addition]:
    yield Addition(f"{prefix}{field.name}", field.type, field.mode)
    for inner in field.fields:
        yield from _all_additions(inner, f"{prefix}{field.name}.")


@cache
def baseline_fields() -> tuple[Field, ...]:
    """Return the columns that `dicom_metadata` always has, whatever was read.

    They are pinned in a file of the package that ``make baseline`` writes: the attributes of the VL Whole Slide
    Microscopy Image IOD, and all that IDC's queries read.
    """
    text = (resources.files(__package__) / BASELINE_FILE).read_text(encoding="utf-8")
    return fields_from_bigquery(json.loads(text))
