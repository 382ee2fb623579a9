"""Schemas and rows, and what BigQuery refuses of them.

https://cloud.google.com/bigquery/docs/schemas, https://cloud.google.com/bigquery/quotas,
https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-json
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any

from tests.catalog.bigquery.fake.failures import invalid

__all__ = ["check_row", "check_schema", "duckdb_columns", "fields_of_duckdb", "sql_type", "widened"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_RESERVED = ("_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER")
_KEYS = {"name", "type", "mode", "fields", "description"}

# Both spellings, and the type of DuckDB behind it.
TYPES = {
    "STRING": "VARCHAR",
    "INTEGER": "BIGINT",
    "INT64": "BIGINT",
    "FLOAT": "DOUBLE",
    "FLOAT64": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "BOOL": "BOOLEAN",
    "DATE": "DATE",
    "TIME": "TIME",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMPTZ",
    "RECORD": "STRUCT",
    "STRUCT": "STRUCT",
}
_SQL = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
_LEGACY = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}


def check_schema(fields: Any, depth: int = 1, count: list[int] | None = None) -> list[dict]:
    """Return a schema in its plain form, if it is one."""
    count = [0] if count is None else count
    if not isinstance(fields, list) or not fields:
        raise invalid("Empty schema")
    if depth > 15:
        raise invalid("Schema nested deeper than 15 levels")
    seen: set[str] = set()
    found = []
    for field in fields:
        unknown = set(field) - _KEYS
        if unknown:
            raise invalid(f"Unknown name {sorted(unknown)[0]} in a field")
        name, kind = field.get("name"), str(field.get("type")).upper()
        mode = (field.get("mode") or "NULLABLE").upper()
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.upper().startswith(_RESERVED):
            raise invalid(f"Invalid field name {name!r}")
        if name.lower() in seen:
            raise invalid(f"Duplicate field name {name}")
        if kind not in TYPES or mode not in ("NULLABLE", "REQUIRED", "REPEATED"):
            raise invalid(f"Field {name}: invalid type {kind} or mode {mode}")
        seen.add(name.lower())
        count[0] += 1
        plain = {"name": name, "type": _LEGACY.get(kind, kind), "mode": mode}
        if field.get("description"):
            plain["description"] = field["description"]
        if plain["type"] == "RECORD":
            plain["fields"] = check_schema(field.get("fields"), depth + 1, count)
        elif field.get("fields"):
            raise invalid(f"Field {name} is no record and has fields")
        found.append(plain)
    if count[0] > 10_000:
        raise invalid("Too many columns: more than 10000")
    return found


def widened(old: list[dict], new: list[dict], path: str = "") -> None:
    """Refuse a schema that does more to another than to add fields, or to let a required one be missing."""
    theirs = {field["name"].lower(): field for field in new}
    for field in old:
        other = theirs.pop(field["name"].lower(), None)
        if other is None:
            raise invalid(f"Provided Schema does not match Table. Field {path}{field['name']} is missing in new schema")
        if other["type"] != field["type"]:
            raise invalid(f"Field {path}{field['name']} has changed type from {field['type']} to {other['type']}")
        if other["mode"] != field["mode"] and (field["mode"], other["mode"]) != ("REQUIRED", "NULLABLE"):
            raise invalid(f"Field {path}{field['name']} has changed mode from {field['mode']} to {other['mode']}")
        if field["type"] == "RECORD":
            widened(field["fields"], other["fields"], f"{path}{field['name']}.")
    for field in theirs.values():
        if field["mode"] == "REQUIRED":
            raise invalid(f"Cannot add required fields to an existing schema. (field: {path}{field['name']})")


def sql_type(field: dict) -> str:
    """Return the type as it stands in SQL."""
    if field["type"] == "RECORD":
        base = f"STRUCT<{', '.join(f'`{each["name"]}` {sql_type(each)}' for each in field['fields'])}>"
    else:
        base = _SQL.get(field["type"], field["type"])
    return f"ARRAY<{base}>" if field["mode"] == "REPEATED" else base


def duckdb_type(field: dict) -> str:
    if field["type"] == "RECORD":
        base = f"STRUCT({', '.join(f'"{each["name"]}" {duckdb_type(each)}' for each in field['fields'])})"
    else:
        base = TYPES[field["type"]]
    return f"{base}[]" if field["mode"] == "REPEATED" else base


def duckdb_columns(fields: Iterable[dict]) -> str:
    return ", ".join(
        f'"{field["name"]}" {duckdb_type(field)}{" NOT NULL" if field["mode"] == "REQUIRED" else ""}'
        for field in fields
    )


def fields_of_duckdb(columns: Iterable[tuple[str, Any]]) -> list[dict]:
    """Return the schema of a result."""
    return [_field(name, kind) for name, kind in columns]


def _field(name: str, kind: Any, mode: str = "NULLABLE") -> dict:
    if kind.id == "list":
        inner = kind.children[0][1]
        if inner.id == "list":
            raise invalid("Cannot construct array with element type array")
        return _field(name, inner, "REPEATED")
    if kind.id == "struct":
        fields = [_field(each, of) for each, of in kind.children]
        return {"name": name, "type": "RECORD", "mode": mode, "fields": fields}
    told = {
        "varchar": "STRING", "bigint": "INTEGER", "integer": "INTEGER", "hugeint": "INTEGER", "double": "FLOAT",
        "decimal": "FLOAT", "boolean": "BOOLEAN", "date": "DATE", "time": "TIME", "timestamp": "DATETIME",
        "timestamp with time zone": "TIMESTAMP", "\"null\"": "INTEGER", "sqlnull": "INTEGER",
    }  # fmt: skip
    if kind.id not in told:
        raise invalid(f"no type of BigQuery for {kind} ({kind.id}) of {name}")
    return {"name": name, "type": told[kind.id], "mode": mode}


def check_row(row: Any, fields: list[dict], path: str = "") -> dict[str, Any]:
    """Return the values of a line of NDJSON for DuckDB, if they fit without any guess."""
    if not isinstance(row, dict):
        raise invalid(f"{path or 'row'}: no JSON object")
    known = {field["name"].lower(): field for field in fields}
    stray = [name for name in row if name.lower() not in known]
    if stray:
        raise invalid(f"No such field: {path}{stray[0]}.")
    given = {name.lower(): value for name, value in row.items()}
    found = {}
    for field in fields:
        place = f"{path}{field['name']}"
        value = given.get(field["name"].lower())
        if field["mode"] == "REPEATED":
            if field["name"].lower() in given and not isinstance(value, list):
                raise invalid(f"Array specified for non-repeated field, or no array: {place}")
            if any(each is None for each in value or ()):
                raise invalid(f"Only optional fields can be set to NULL. Field: {place}; Value: NULL")
            found[field["name"]] = [_value(each, field, place) for each in value or ()]
        elif value is None:
            if field["mode"] == "REQUIRED":
                raise invalid(f"Missing required field: {place}.")
            found[field["name"]] = None
        else:
            found[field["name"]] = _value(value, field, place)
    return found


def _value(value: Any, field: dict, place: str) -> Any:
    kind = field["type"]
    if kind == "RECORD":
        return check_row(value, field["fields"], f"{place}.")
    fits = {
        "STRING": isinstance(value, str),
        "INTEGER": isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63,
        "FLOAT": (isinstance(value, int | float) and not isinstance(value, bool))
        or value in ("NaN", "Infinity", "-Infinity"),
        "BOOLEAN": isinstance(value, bool),
    }.get(kind, isinstance(value, str))
    if not fits:
        raise invalid(f"Could not convert value {value!r} to {kind}. Field: {place}")
    try:
        if kind == "FLOAT":
            return float(value)
        if kind == "DATE":
            return date.fromisoformat(value)
        if kind == "TIME":
            return time.fromisoformat(value)
        if kind == "DATETIME":
            return datetime.fromisoformat(value)
        if kind == "TIMESTAMP":
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        raise invalid(f"Could not parse {value!r} as {kind}. Field: {place}") from None
    return value


def as_cell(value: Any, field: dict) -> Any:
    """Return a value as rows of answers have it."""
    if field["mode"] == "REPEATED":
        if any(each is None for each in value or ()):
            raise invalid(f"Array cannot have a null element; error in writing field {field['name']}")
        return [{"v": as_cell(each, {**field, "mode": "NULLABLE"})} for each in value or ()]
    if value is None:
        return None
    if field["type"] == "RECORD":
        return {"f": [{"v": as_cell(value[each["name"]], each)} for each in field["fields"]]}
    if field["type"] == "BOOLEAN":
        return "true" if value else "false"
    if field["type"] == "FLOAT":
        number = float(value)
        if not math.isfinite(number):
            return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
        return repr(number)
    if field["type"] == "TIMESTAMP":
        return str(round(value.timestamp() * 1_000_000))
    if field["type"] == "DATETIME":
        return value.isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, date | time) else str(value)
