"""The tables of a catalog in BigQuery: those of DuckDB, with a key of each row, partitions and clusters.

A table of the schema ``history`` is called ``history_NAME``. Every row has `row_key`, a text that names it, by which a
merge finds it; rows of series have `series_bucket`, the first byte of the MD5 of the SeriesInstanceUID, by which
tables are partitioned: a merge reads and writes the partitions of its own series, and is billed for these. Headers are
only ever added to; which of them are current follows from `history_instances`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coverslip.catalog.bigquery.client import TableShape
from coverslip.catalog.schema import Field, quote
from coverslip.catalog.search_table import SLIDE_COLUMNS, SLIDE_TABLE, words
from coverslip.catalog.tables import DERIVED_TABLES, DICOM_METADATA, STORED_TABLES

__all__ = ["BUCKET", "FORMAT", "ROW_KEY", "STATE_TABLE", "TABLES", "BigQueryTable", "bucket_of", "fields_of", "shapes"]

FORMAT = 1
"""Raised when tables change in a way that an older coverslip cannot read."""

STATE_TABLE = "catalog_state"
ROW_KEY = Field("row_key", "STRING", "REQUIRED", (), "Names the row.")
BUCKET = Field("series_bucket", "INTEGER", "REQUIRED", (), "First byte of the MD5 of the SeriesInstanceUID.")

STATE_FIELDS = (
    Field("format", "INTEGER", "REQUIRED"),
    Field("generation", "INTEGER", "REQUIRED", (), "Grows with every change: of two writers the second starts anew."),
    Field("views", "STRING", "NULLABLE", (), "Digests of the queries of views as JSON."),
)

_SERIES = "SeriesInstanceUID"
_OF_PATIENTS = ("collection_id", "PatientID")

_DUCKDB = {"VARCHAR": "STRING", "BIGINT": "INTEGER", "DOUBLE": "FLOAT", "BOOLEAN": "BOOLEAN"}


@dataclass(frozen=True, slots=True)
class BigQueryTable:
    """A table of both.

    Parameters
    ----------
    name : str
        In BigQuery.
    local : str
        In DuckDB.
    fields : tuple of Field
        What both have; empty for headers, whose columns are those of the catalog.
    key : tuple of str
        Columns that name a row.
    has_series : bool
    cluster : tuple of str
    description : str
    null_lists : bool
        Whether an empty list means that nothing is told: BigQuery does not keep them apart.
    computed : mapping
        Columns that only BigQuery has, and their SQL in DuckDB.
    """

    name: str
    local: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    has_series: bool
    cluster: tuple[str, ...]
    description: str
    null_lists: bool = False
    computed: tuple[tuple[Field, str], ...] = ()

    def stored_fields(self, headers: Iterable[Field] = ()) -> tuple[Field, ...]:
        """Return all columns in BigQuery."""
        own = self.fields or (*headers, Field("revised_version", "INTEGER"))
        extra = tuple(field for field, _ in self.computed)
        return (ROW_KEY, *((BUCKET,) if self.has_series else ()), *own, *extra)

    @property
    def key_sql(self) -> str:
        """The row's key in DuckDB: a JSON array of texts."""
        return f"CAST(to_json([{', '.join(f'CAST({quote(each)} AS VARCHAR)' for each in self.key)}]) AS VARCHAR)"

    @property
    def bucket_sql(self) -> str:
        """The row's partition in DuckDB."""
        return f"CAST('0x' || substr(md5({quote(_SERIES)}), 1, 2) AS BIGINT)" if self.has_series else "NULL"


def bucket_of(series_instance_uid: str) -> int:
    """Return the partition of a series."""
    return hashlib.md5(series_instance_uid.encode(), usedforsecurity=False).digest()[0]


def _slide_fields() -> tuple[Field, ...]:
    return tuple(_field(name, kind) for name, kind in SLIDE_COLUMNS.items())


def _field(name: str, kind: str) -> Field:
    base = kind.removesuffix("[]")
    mode = "REPEATED" if kind.endswith("[]") else "NULLABLE"
    if base.startswith("STRUCT("):
        inner = (each.strip().rpartition(" ") for each in base.removeprefix("STRUCT(").removesuffix(")").split(","))
        return Field(name, "RECORD", mode, tuple(_field(part, of) for part, _, of in inner))
    return Field(name, _DUCKDB[re.sub(r"\W", "", base)], mode)


def _tables() -> Iterable[BigQueryTable]:
    yield BigQueryTable(
        f"history_{DICOM_METADATA}", f"history.{DICOM_METADATA}", (), ("SOPInstanceUID", "revised_version"), True,
        (_SERIES, "SOPInstanceUID"), "A row per instance and version: its header. See the view dicom_metadata.",
        null_lists=True,
    )  # fmt: skip
    for table in (*STORED_TABLES, *DERIVED_TABLES):
        names = {field.name for field in table.fields}
        has_series = _SERIES in names
        words_of = Field("cancer_type_words"), words("cancer_types")
        yield BigQueryTable(
            f"history_{table.name}",
            f"history.{table.name}",
            table.all_fields,
            (*table.key, *(("revised_version",) if table.versioned else ())),
            has_series,
            tuple(dict.fromkeys((_SERIES, *table.key))) if has_series else tuple(n for n in _OF_PATIENTS if n in names),
            table.description,
            null_lists=not table.versioned,
            computed=(words_of,) if table.name == "collection_facts" else (),
        )
    yield BigQueryTable(
        f"history_{SLIDE_TABLE}", f"history.{SLIDE_TABLE}", _slide_fields(), (_SERIES, "series_revised_version"), True,
        (_SERIES,), "A row per slide and version, as searches read it. See the view search_slide.",
    )  # fmt: skip
    version = Field("version", "INTEGER")
    for name, fields, key, description in (
        (
            "versions",
            (version, Field("label"), Field("version_date", "DATE")),
            ("version",),
            "Versions of the catalog.",
        ),
        ("tombstones", (Field(_SERIES), Field("reason"), version), (_SERIES,), "Series that were retracted."),
        (
            "schema_changes",
            (version, Field("table_name"), Field("path"), Field("type"), Field("mode")),
            ("table_name", "path"),
            "Columns that were added after tables were made.",
        ),
    ):
        yield BigQueryTable(name, name, fields, key, False, (), description)
    yield BigQueryTable(
        "history_catalog_schema", "history.catalog_schema", (Field("table_name"), Field("fields")), ("table_name",),
        False, (), "Columns of tables as JSON.",
    )  # fmt: skip


TABLES = {table.local: table for table in _tables()}
"""By the name of the table in DuckDB."""


def fields_of(table: BigQueryTable, headers: Sequence[Field]) -> tuple[Field, ...]:
    """Return the columns that a table has in DuckDB and BigQuery."""
    return table.fields or (*headers, Field("revised_version", "INTEGER"))


def shapes(headers: Sequence[Field]) -> Iterable[TableShape]:
    """Yield how all tables are made; that which says that there is a catalog comes last."""
    for table in TABLES.values():
        yield TableShape(
            table.name,
            table.stored_fields(headers),
            table.description,
            BUCKET.name if table.has_series else None,
            table.cluster[:4],
        )
    yield TableShape(STATE_TABLE, STATE_FIELDS, "What coverslip knows of its catalog.")
